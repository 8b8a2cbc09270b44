"""What the NNX face keeps of the variables of its branches, and how it derives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gumbax
from gumbax.nnx import ArchParam, MixedOp, pure_branches

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 8))
FIRST, SECOND = jnp.eye(2)

pytestmark = pytest.mark.filterwarnings(
    # In Flax 0.12 too they keep what they are told.
    "ignore:\\s*Using 'Module.sow..' outside of:DeprecationWarning",
    "ignore:\\s*Using 'Module.perturb..' outside of:DeprecationWarning",
)


def linear(seed=0):
    return nnx.Linear(8, 8, rngs=nnx.Rngs(seed))


class With(nnx.Module):
    """A linear layer, a variable, and what the call does with it."""

    def __init__(self, value=None, change=None):
        self.dense = linear()
        if value is not None:
            self.seen = nnx.Variable(value)
        self.change = change

    def __call__(self, x):
        if self.change is not None:
            self.change(self, x)
        return self.dense(x)


# Variables


@pytest.mark.parametrize(
    "held", [(jnp.zeros(2), jnp.ones(3)), {"n": jnp.zeros(2)}, {"n": None}]
)
@pytest.mark.parametrize("hard", [True, False])
def test_variable_may_hold_a_tree(held, hard):
    op = MixedOp([With(held), linear(1)])

    def loss(op):
        return jnp.sum(op(X, hard=hard, rngs=KEY) ** 2)

    gradient = nnx.state(nnx.grad(loss)(op), nnx.Param)
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient))


class Counted(nnx.Module):
    def __init__(self):
        self.counts = nnx.Variable({"calls": jnp.int32(0), "mean": (jnp.zeros(8),)})

    def __call__(self, x):
        state = nnx.state(self)
        calls, mean = jax.tree.leaves(state)
        new = [calls + 1, mean + x.mean(axis=0)]
        nnx.update(self, jax.tree.unflatten(jax.tree.structure(state), new))
        return x


@pytest.mark.parametrize("hard", [True, False])
def test_tree_in_a_variable_is_kept_where_the_branch_runs(hard):
    op = MixedOp([Counted(), Counted()])
    for _ in range(2):
        op(X, hard=hard, weights=SECOND)
    first, second = (jax.tree.leaves(nnx.state(branch)) for branch in op.branches)
    np.testing.assert_array_equal(second[0], 2)
    np.testing.assert_allclose(second[1], 2 * X.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(first[0], 0 if hard else 2)


def test_made_variable_is_kept_and_zeros_stand_where_it_was_not():
    def make(self, x):
        self.last = nnx.Variable(x.mean())

    op = MixedOp([With(change=make), With(change=make)])
    op(X, weights=SECOND)
    (first,), (second,) = (jax.tree.leaves(branch.last) for branch in op.branches)
    np.testing.assert_allclose(second, X.mean(), rtol=1e-5)
    np.testing.assert_array_equal(first, 0)
    op(2 * X, weights=FIRST)
    (first,), (second,) = (jax.tree.leaves(branch.last) for branch in op.branches)
    np.testing.assert_allclose(second, X.mean(), rtol=1e-5)
    np.testing.assert_allclose(first, 2 * X.mean(), rtol=1e-5)


def test_perturbation_has_the_gradient_of_the_value():
    class Perturbed(nnx.Module):
        def __call__(self, x):
            return self.perturb("before", x) ** 2

    op = MixedOp([Perturbed(), Perturbed()])
    op(X, weights=SECOND)

    def loss(op):
        return jnp.sum(op(X, weights=SECOND))

    of_perturbation = nnx.DiffState(0, nnx.Perturbation)
    gradient = nnx.grad(loss, argnums=of_perturbation)(op)
    first, second = jax.tree.leaves(gradient)
    np.testing.assert_array_equal(first, np.zeros_like(X))
    np.testing.assert_allclose(second, 2 * X, rtol=1e-5)


def delete(self, x):
    del x
    if hasattr(self, "seen"):
        del self.seen


def resize(self, x):
    self.seen = nnx.Variable(x)


def make_module(self, x):
    del x
    self.late = linear()


def test_deleted_and_resized_variables_are_kept_where_all_branches_run():
    op = MixedOp([With(jnp.ones(3), delete), With(jnp.ones(3), resize)])
    op(X, hard=False, weights=FIRST)
    assert not hasattr(op.branches[0], "seen")
    np.testing.assert_array_equal(jax.tree.leaves(op.branches[1].seen)[0], X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete, r"keep the variables.*branch 1 \(With\), which deletes seen"),
        (resize, r"branch 1 \(With\), which changes the shape or dtype of seen"),
        (make_module, "make their modules before the call, got late.* call of With"),
    ],
)
def test_what_depends_on_the_choice_is_an_error(change, message):
    op = MixedOp([linear(), With(jnp.ones(3), change)])
    with pytest.raises(ValueError, match=message):
        op(X, weights=SECOND)


def test_variable_that_holds_a_string_is_an_error_by_name():
    op = MixedOp([linear(), With("text")])
    with pytest.raises(TypeError, match=r"got str in seen of branch 1 \(With\)"):
        op(X, weights=FIRST)


def test_sown_variable_must_have_one_owner():
    class Sows(nnx.Module):
        def __call__(self, x):
            self.sow(nnx.Intermediate, "h", x)
            return x

    shared = Sows()
    with pytest.raises(ValueError, match=r"got h.0 of branch 1, which is part of"):
        MixedOp([shared, shared])(X, weights=FIRST)


@pytest.mark.skipif(not hasattr(nnx, "capture"), reason="Flax before 0.12.2")
def test_captured_values_are_those_of_the_branches():
    class Sows(nnx.Module):
        def __call__(self, x):
            self.sow(nnx.Intermediate, "h", 2 * x)
            return x

    op = MixedOp([Sows(), Sows()])
    _, found = nnx.capture(op, nnx.Intermediate)(X, weights=SECOND)
    first, second = jax.tree.leaves(found)
    np.testing.assert_array_equal(first, np.zeros_like(X))
    np.testing.assert_array_equal(second, 2 * X)
    assert not jax.tree.leaves(nnx.state(op, nnx.Intermediate))


# Attributes


class Block(nnx.Module):
    traced = 0

    def __init__(self, setting):
        self.setting = setting
        self.linear = linear()

    def __call__(self, x):
        Block.traced += 1
        return len(self.setting) * self.linear(x)


@pytest.mark.parametrize(
    "setting", [(1, 2), [1, {2}], {"rate": 0.1, "act": [nnx.relu]}, ["a", jnp.float32]]
)
def test_attributes_without_a_hash(setting):
    block = Block(setting)
    op = MixedOp([block, linear()])
    found = op(X, deterministic=True)
    np.testing.assert_allclose(found, block(X), rtol=1e-5, atol=1e-6)


def test_attributes_without_a_hash_are_compared_by_value():
    setting = [1, {"act": nnx.relu}]
    op = MixedOp([Block(setting), Block([1])])
    once = op(X, weights=FIRST)
    number = Block.traced
    op(X, weights=FIRST)
    assert Block.traced == number
    setting.append(3)
    np.testing.assert_allclose(op(X, weights=FIRST), 1.5 * once, rtol=1e-5)


@dataclasses.dataclass
class Config:
    """Mutable, so it has no hash."""

    sign: float = 1.0


def test_setting_that_is_changed_is_seen():
    class Signed(nnx.Module):
        def __init__(self, config):
            self.config = config

        def __call__(self, x):
            return x * self.config.sign

    config = Config()
    op = MixedOp([Signed(config), Signed(Config(5.0))])
    for sign in (1.0, -1.0):
        config.sign = sign
        y = op(jnp.ones(2), weights=jnp.array([1.0, 0.0]))
        np.testing.assert_array_equal(y, [sign, sign])


@dataclasses.dataclass(frozen=True, slots=True)
class Scaled:
    """A function without a dictionary of attributes."""

    factor: float

    def __call__(self, x):
        return self.factor * x


def test_functions_with_slots():
    op = MixedOp([Scaled(2.0), Scaled(3.0)])
    y = op(jnp.ones(2), weights=jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(y, [3.0, 3.0])


def test_nested_operation_without_noise_needs_no_key():
    op = MixedOp([MixedOp([jnp.sin, jnp.cos]), jnp.tanh])
    x = jnp.ones(2)
    y = op(x, deterministic=True, hard=False, rngs=nnx.Rngs(dropout=0))
    expected = ((jnp.sin(x) + jnp.cos(x)) / 2 + jnp.tanh(x)) / 2
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_functions_and_pure_branches():
    op = MixedOp([nnx.relu, linear()])
    again = nnx.merge(*nnx.split(op))
    np.testing.assert_array_equal(again(X, weights=FIRST), nnx.relu(X))
    assert op.derive(index=0) is nnx.relu
    branches, params = pure_branches([nnx.relu, linear()])
    np.testing.assert_array_equal(branches[0](params[0], X), nnx.relu(X))


# Random streams and nested operations


def test_random_streams_reach_the_branches():
    op = MixedOp([nnx.Dropout(0.5), nnx.Dropout(0.5)])
    rngs = nnx.Rngs(dropout=0)

    def run(**own):
        return op(X, weights=FIRST, branch_kwargs=own)

    draws = [run(rngs=rngs, deterministic=False) for _ in range(2)]
    assert all((draw == 0).any() for draw in draws)
    assert (draws[0] != draws[1]).any()
    np.testing.assert_array_equal(run(deterministic=True), X)


def test_module_as_an_argument_is_an_error():
    op = MixedOp([lambda x, layer: layer(x), lambda x, layer: x])
    with pytest.raises(TypeError, match=r"`args` must hold arrays.*a module, Linear"):
        op(X, linear(), weights=FIRST)


@pytest.mark.exhaustive
def test_nested_operation_has_the_options_and_a_key_of_its_own():
    functions = [lambda x: x, lambda x: 2 * x]
    op = MixedOp([MixedOp(functions), MixedOp(functions)])
    np.testing.assert_allclose(op(X, hard=False, deterministic=True), 1.5 * X, 1e-5)

    def factors(**options):
        return {round(float((op(X, **options) / X).mean()), 3) for _ in range(12)}

    rngs = nnx.Rngs(arch=0)
    assert factors(rngs=rngs) == {1.0, 2.0}
    assert factors(rngs=rngs, weights=FIRST) == {1.0, 2.0}
    assert factors(deterministic=True) == {1.0}
    assert len(factors(rngs=KEY)) == 1
    np.testing.assert_allclose(
        op(X, rngs=KEY, temperature=1e6, hard=False), 1.5 * X, 1e-4
    )

    def loss(op):
        return jnp.sum(op(X, rngs=KEY) ** 2)

    gradient = nnx.grad(loss, argnums=nnx.DiffState(0, ArchParam))(op)
    inner = [own["arch_logits"][...] for own in gradient["branches"].values()]
    assert sum(bool(np.any(own)) for own in inner) == 1


# Transformations


class Cell(nnx.Module):
    def __init__(self, key):
        rngs = nnx.Rngs(key)
        self.op = MixedOp([nnx.BatchNorm(8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])

    def __call__(self, x, weights):
        return x + self.op(x, weights=weights)


def test_statistics_in_scan_and_remat_equal_a_loop():
    keys = jax.random.split(KEY, 3)
    weights = jnp.stack([FIRST, SECOND, FIRST])
    cells = nnx.vmap(Cell)(keys)
    loop = [Cell(key) for key in keys]
    run = nnx.scan(
        nnx.remat(lambda y, own: own[0](y, own[1])),
        in_axes=(nnx.Carry, 0),
        out_axes=nnx.Carry,
    )
    found, expected = nnx.jit(run)(X, (cells, weights)), X
    for cell, own in zip(loop, weights, strict=True):
        expected = cell(expected, own)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    means = [cell.op.branches[0].mean[...] for cell in loop]
    np.testing.assert_allclose(cells.op.branches[0].mean[...], means, 1e-4, 1e-6)
    assert np.any(means[0])
    assert not np.any(means[1])


def test_vmap_over_keys():
    op = MixedOp([lambda x: x, lambda x: 2 * x])
    keys = jax.random.split(KEY, 6)
    run = nnx.vmap(lambda op, key: op(X, rngs=key), in_axes=(None, 0))
    expected = [op(X, rngs=key) for key in keys]
    np.testing.assert_array_equal(run(op, keys), expected)


# Derivation


def test_derive_does_not_answer_from_logits_that_were_never_used():
    op = MixedOp([linear(), nnx.LayerNorm(8, rngs=nnx.Rngs(0))])
    weights = gumbax.draw_choices(KEY, {"a": jnp.array([0.0, 5.0])}, hard=True)["a"]
    nnx.jit(lambda op: op(X, weights=weights))(op)
    with pytest.raises(ValueError, match=r"`logits` must make one.*2 times 0.0"):
        op.derive()
    assert op.derive(weights=weights) is op.branches[1]
    assert op.derive(index=np.int64(1)) is op.branches[1]


def test_logits_are_optional():
    op = MixedOp([nnx.relu, nnx.tanh], own_logits=False)
    assert not jax.tree.leaves(nnx.state(op))
    np.testing.assert_array_equal(op(X, weights=FIRST), nnx.relu(X))
    with pytest.raises(ValueError, match="`weights` must be given to a module"):
        op(X, rngs=KEY)
    with pytest.raises(ValueError, match="`weights` must be given for a module"):
        op.derive()
    assert op.derive(weights=jnp.array([0.2, 0.8])) is nnx.tanh


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"index": 2}, ValueError, "`index` must be less than 2.*got 2"),
        ({"index": -1}, ValueError, "`index` must be at least 0, got -1"),
        ({"index": 0.5}, TypeError, "`index` must be an integer, got 0.5"),
        ({"weights": FIRST, "index": 0}, ValueError, "`index` must be left out"),
        ({"weights": jnp.ones(3)}, ValueError, "got 3 values for 2 branches"),
        ({"weights": jnp.ones(2)}, ValueError, "`weights` must make.*2 times 1.0"),
        ({"weights": jnp.eye(2)}, ValueError, r"got shape \(2, 2\), several"),
        ({"weights": jnp.array([0, jnp.nan])}, ValueError, "one branch.*got NaN"),
    ],
)
def test_bad_choice(choice, error, message):
    with pytest.raises(error, match=message):
        MixedOp([nnx.relu, nnx.tanh]).derive(**choice)


def test_only_branch_is_the_most_probable_one():
    assert MixedOp([nnx.relu]).derive() is nnx.relu
