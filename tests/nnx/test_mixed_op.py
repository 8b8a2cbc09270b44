import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gumbax
from gumbax.nnx import ArchParam, MixedOp, pure_branches


@pytest.fixture
def op():
    rngs = nnx.Rngs(0)
    branches = [nnx.Linear(4, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)]
    op = MixedOp([*branches, nnx.Linear(4, 4, rngs=rngs)])
    op.arch_logits[...] = jnp.array([0.3, -0.2, 0.5])
    return op


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (6, 4))


def outputs(op, x):
    return jnp.stack([branch(x) for branch in op.branches])


def test_without_noise_and_soft_it_is_the_weighted_sum_of_darts(op, x):
    weights = jax.nn.softmax(op.arch_logits[...])
    expected = jnp.tensordot(weights, outputs(op, x), 1)
    found = op(x, hard=False, deterministic=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_deterministic_runs_the_most_probable_module(op, x):
    np.testing.assert_allclose(
        op(x, deterministic=True), op.branches[2](x), rtol=1e-5, atol=1e-6
    )
    assert op.derive() is op.branches[2]


def test_draw_is_one_of_the_modules_by_the_law_of_the_logits(op, x):
    key = jax.random.key(3)
    index = int(gumbax.gumbel_max(key, op.arch_logits[...]))
    np.testing.assert_allclose(
        op(x, rngs=key), op.branches[index](x), rtol=1e-5, atol=1e-6
    )


def test_gradient_of_the_logits_is_the_straight_through_one(op, x):
    key, temperature = jax.random.key(3), 0.6

    def loss(op):
        return jnp.sum(op(x, temperature=temperature, rngs=key) ** 2)

    gradient = nnx.grad(loss, argnums=nnx.DiffState(0, ArchParam))(op)
    logits = op.arch_logits[...]
    q = jax.nn.softmax((logits + gumbax.gumbel.sample(key, (3,))) / temperature)
    all_outputs = outputs(op, x)
    chosen = all_outputs[int(gumbax.gumbel_max(key, logits))]
    credits = jnp.sum(2 * chosen[None] * all_outputs, axis=(1, 2))
    expected = q * (credits - q @ credits) / temperature
    np.testing.assert_allclose(gradient["arch_logits"][...], expected, rtol=1e-4)


def test_optimisers_see_their_own_variables_alone(op, x):
    weights = nnx.Optimizer(op, optax.sgd(0.05), wrt=nnx.Param)
    arch = nnx.Optimizer(op, optax.sgd(0.05), wrt=ArchParam)

    def loss(op, key):
        return jnp.mean((op(x, rngs=key) - 1.0) ** 2)

    @nnx.jit
    def step_weights(op, weights, key):
        weights.update(op, nnx.grad(loss)(op, key))

    @nnx.jit
    def step_arch(op, arch, key):
        of_arch = nnx.grad(loss, argnums=nnx.DiffState(0, ArchParam))
        arch.update(op, of_arch(op, key))

    def state():
        return [jnp.copy(v) for v in jax.tree.leaves(nnx.state(op, nnx.Param))]

    before, logits = state(), jnp.copy(op.arch_logits[...])
    step_arch(op, arch, jax.random.key(0))
    chex.assert_trees_all_equal(state(), before)
    assert (op.arch_logits[...] != logits).all()
    logits = jnp.copy(op.arch_logits[...])
    first = float(loss(op, jax.random.key(0)))
    for i in range(30):
        step_weights(op, weights, jax.random.key(i))
    np.testing.assert_array_equal(op.arch_logits[...], logits)
    assert float(loss(op, jax.random.key(0))) < 0.7 * first


def test_split_and_merge_keep_the_operation(op, x):
    graphdef, arch, rest = nnx.split(op, ArchParam, ...)
    assert len(jax.tree.leaves(arch)) == 1
    merged = nnx.merge(graphdef, arch, rest)
    key = jax.random.key(0)
    np.testing.assert_array_equal(merged(x, rngs=key), op(x, rngs=key))


def test_annealing_traces_once(op, x):
    @nnx.jit
    @chex.assert_max_traces(n=1)
    def run(op, temperature):
        return op(x, temperature=temperature, rngs=jax.random.key(0))

    for temperature in (2.0, 1.0, 0.5):
        run(op, temperature)


def test_key_stream_and_rngs_are_accepted(op, x):
    op(x, rngs=jax.random.key(0))
    rngs = nnx.Rngs(arch=0)
    draws = [op(x, rngs=rngs) for _ in range(12)]
    assert len({float(y.sum()) for y in draws}) > 1  # the stream moves on
    op(x, rngs=rngs["arch"])
    op(x, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("rngs", "got"),
    [
        (None, "got None"),
        (nnx.Rngs(params=0, dropout=1), r"streams \['dropout', 'params'\]"),
        (3, "got 3"),
    ],
)
def test_missing_key_is_an_error(op, x, rngs, got):
    with pytest.raises(TypeError, match=got):
        op(x, rngs=rngs)


def test_pure_branches_refuses_a_module_that_changes_its_variables(x):
    (branch,), (own,) = pure_branches([nnx.BatchNorm(4, rngs=nnx.Rngs(0))])
    with pytest.raises(ValueError, match="got BatchNorm, whose call changes mean, var"):
        branch(own, x)


def test_weights_of_a_shared_choice_replace_the_draw(op, x):
    choices = gumbax.draw_choices(
        jax.random.key(0), {"cell": op.arch_logits[...]}, hard=True
    )
    index = int(choices["cell"].argmax())
    expected = op.branches[index](x)
    for _ in range(2):
        found = op(x, weights=choices["cell"])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_any_sampler_and_logit_gradient(x):
    rngs = nnx.Rngs(0)

    def uniform(key, logits, *, temperature, hard, gumbels):
        del key, temperature, hard, gumbels
        return jnp.full_like(logits, 1 / len(logits))

    layers = [nnx.Linear(4, 4, rngs=rngs) for _ in range(3)]
    mean = MixedOp(layers, sampler=uniform)(x, hard=False, deterministic=True)
    np.testing.assert_allclose(mean, sum(f(x) for f in layers) / 3, rtol=1e-5)
    op = MixedOp(layers, logit_gradient=gumbax.subset(1))

    def loss(op, key):
        return jnp.sum(op(x, rngs=key) ** 2)

    of_arch = nnx.grad(loss, argnums=nnx.DiffState(0, ArchParam))
    gradients = [of_arch(op, jax.random.key(i))["arch_logits"][...] for i in range(3)]
    assert all(np.isfinite(g).all() and g.any() for g in gradients)
    message = r"give a key for Subset\(num_others=1\), got None.*the credits are drawn"
    with pytest.raises(TypeError, match=message) as error:
        op(x, deterministic=True)
    assert "deterministic=True" not in str(error.value)


@dataclasses.dataclass(frozen=True)
class Scaled(gumbax.logit_gradients.LogitGradient):
    """A logit gradient with an array."""

    scale: jax.Array

    def credits(self, path):
        return self.scale * path.all_credits()


jax.tree_util.register_dataclass(Scaled, data_fields=["scale"], meta_fields=[])


def test_logit_gradient_may_hold_arrays(x):
    rngs = nnx.Rngs(0)
    layers = [nnx.Linear(4, 4, rngs=rngs) for _ in range(3)]

    def loss(op):
        return jnp.sum(op(x, deterministic=True) ** 2)

    of_arch = nnx.jit(nnx.grad(loss, argnums=nnx.DiffState(0, ArchParam)))
    twice, once = (
        of_arch(MixedOp(layers, logit_gradient=record))["arch_logits"][...]
        for record in (Scaled(jnp.float32(2)), gumbax.exact)
    )
    assert np.abs(once).max() > 1e-2
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


# State


@pytest.fixture
def normalising():
    rngs = nnx.Rngs(0)
    return MixedOp(
        [
            nnx.BatchNorm(4, momentum=0.5, rngs=rngs),
            nnx.Linear(4, 4, rngs=rngs),
            nnx.BatchNorm(4, momentum=0.5, rngs=rngs),
        ]
    )


def statistics(module):
    return [jnp.copy(v) for v in jax.tree.leaves(nnx.state(module, nnx.BatchStat))]


@pytest.mark.parametrize("jitted", [False, True])
def test_statistics_of_the_chosen_module_alone_are_updated(normalising, x, jitted):
    alone = nnx.clone(normalising.branches[2])
    before = statistics(normalising.branches[0])

    def run(op, weights):
        return op(x, weights=weights)

    found = (nnx.jit(run) if jitted else run)(normalising, jnp.eye(3)[2])
    np.testing.assert_allclose(found, alone(x), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(statistics(normalising.branches[0]), before)
    chex.assert_trees_all_close(
        statistics(normalising.branches[2]), statistics(alone), rtol=1e-5
    )


def test_weighted_sum_updates_the_statistics_of_all(normalising, x):
    expected = []
    for branch in (normalising.branches[0], normalising.branches[2]):
        alone = nnx.clone(branch)
        alone(x)
        expected.append(statistics(alone))
    normalising(x, hard=False, deterministic=True)
    found = [statistics(normalising.branches[i]) for i in (0, 2)]
    chex.assert_trees_all_close(found, expected, rtol=1e-5)


def test_training_step_updates_statistics_once_and_has_a_gradient(normalising, x):
    """The passes of the backward rule leave no trace in the statistics."""
    alone = nnx.clone(normalising.branches[0])
    alone(x)

    def loss(op):
        return jnp.sum(op(x, weights=jnp.eye(3)[0]) ** 3)

    gradient = nnx.jit(nnx.grad(loss))(normalising)
    assert gradient["branches"][0]["scale"][...].any()
    assert not gradient["branches"][2]["scale"][...].any()
    chex.assert_trees_all_close(
        statistics(normalising.branches[0]), statistics(alone), rtol=1e-5
    )


def test_dropout_moves_its_own_counter_on(x):
    op = MixedOp([nnx.Dropout(0.5, rngs=nnx.Rngs(i)) for i in range(2)])
    first, second, other = (op(x, weights=jnp.eye(2)[i]) for i in (0, 0, 1))
    assert (first == 0).any()
    assert (first != second).any()
    again = nnx.Dropout(0.5, rngs=nnx.Rngs(1))(x)
    np.testing.assert_array_equal(other, again)


def test_changed_variable_must_have_one_owner(x):
    shared = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    op = MixedOp([shared, shared])
    message = "got mean of branch 1, which is part of branch 0 too"
    with pytest.raises(ValueError, match=message):
        op(x, deterministic=True)


class Parts(nnx.Module):
    """Modules in a dictionary and in lists."""

    def __init__(self, norm):
        linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.parts = nnx.data({"linear": [linear], "norm": norm})

    def __call__(self, x):
        return self.parts["norm"](self.parts["linear"][0](x))


def test_modules_in_a_dictionary(x):
    norms = [nnx.BatchNorm(4, rngs=nnx.Rngs(i)) for i in range(2)]
    op = MixedOp([Parts(norm) for norm in norms])
    alone = nnx.clone(op.branches[1])
    y = op(x, weights=jnp.eye(2)[1])
    np.testing.assert_allclose(y, alone(x), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(
        statistics(op.branches[1]), statistics(alone), rtol=1e-5
    )
    shared = MixedOp([Parts(norms[0]), Parts(norms[0])])
    with pytest.raises(ValueError, match=r"got parts.norm.mean of branch 1"):
        shared(x, deterministic=True)


# Transformations and saving


class Cell(nnx.Module):
    def __init__(self, *, rngs):
        self.op = MixedOp([nnx.Linear(4, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)])

    def __call__(self, x, key):
        return x + self.op(x, rngs=key)


@pytest.mark.exhaustive
def test_scan_over_stacked_cells_equals_a_loop(x):
    make = nnx.vmap(lambda key: Cell(rngs=nnx.Rngs(key)))
    cells = make(jax.random.split(jax.random.key(0), 5))
    keys = jax.random.split(jax.random.key(2), 5)
    assert cells.op.arch_logits[...].shape == (5, 2)

    def scanned(cells):
        run = nnx.scan(
            nnx.remat(lambda y, own: own[0](y, own[1])),
            in_axes=(nnx.Carry, 0),
            out_axes=nnx.Carry,
        )
        return jnp.sum(run(x, (cells, keys)) ** 2)

    def loop(cells):
        graphdef, state = nnx.split(cells)
        y = x
        for i in range(5):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], state)
            y = nnx.merge(graphdef, own)(y, keys[i])
        return jnp.sum(y**2)

    for argnums in (0, nnx.DiffState(0, ArchParam)):
        found, expected = (
            nnx.jit(nnx.grad(f, argnums=argnums))(cells) for f in (scanned, loop)
        )
        found, expected = (jax.tree.leaves(g) for g in (found, expected))
        assert any(np.abs(g).max() > 1e-3 for g in expected)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_orbax_round_trip(op, x, tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    op.arch_logits[...] = jnp.array([1.0, 2.0, 3.0])
    saved = nnx.to_pure_dict(nnx.state(op))
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
        checkpointer.wait_until_finished()
        target = jax.tree.map(jnp.zeros_like, saved)
        restored = checkpointer.restore(tmp_path / "state", target)
    graphdef, state = nnx.split(op)
    nnx.replace_by_pure_dict(state, restored)
    again = nnx.merge(graphdef, state)
    key = jax.random.key(0)
    np.testing.assert_array_equal(again(x, rngs=key), op(x, rngs=key))


def test_derive_refuses_stacked_cells():
    cells = nnx.vmap(lambda key: Cell(rngs=nnx.Rngs(key)))(
        jax.random.split(jax.random.key(0), 5)
    )
    message = r"`MixedOp.derive`: `logits` must be those of one.*got shape \(5, 2\)"
    with pytest.raises(ValueError, match=message):
        cells.op.derive()


def test_modules_that_disagree_are_named_with_both_shapes(x):
    rngs = nnx.Rngs(0)
    op = MixedOp([nnx.LayerNorm(4, rngs=rngs), nnx.Linear(4, 5, rngs=rngs)])
    message = r"float32\[6,4\] from branch 0 \(LayerNorm\) and float32\[6,5\]"
    with pytest.raises(ValueError, match=message):
        op(x, deterministic=True)


def test_empty_operation_is_refused():
    with pytest.raises(ValueError, match="at least one branch"):
        MixedOp([])


def sets(model, way, still):
    if way == "attributes":
        model.set_attributes(deterministic=still)
    elif still:
        model.eval()
    else:
        model.train()


@pytest.mark.parametrize("way", ["mode", "attributes"])
def test_a_model_in_evaluation_draws_nothing(op, x, way):
    model = nnx.Sequential(op, nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    keys = map(jax.random.key, range(100))
    logits = op.arch_logits[...]
    key = next(key for key in keys if gumbax.gumbel_max(key, logits) == 0)
    drawn = op(x, rngs=key)
    sets(model, way, True)
    likely = op(x, deterministic=True)
    assert not jnp.array_equal(drawn, likely)
    np.testing.assert_array_equal(model(x), likely)
    np.testing.assert_array_equal(nnx.jit(lambda m, x: m(x))(model, x), likely)
    np.testing.assert_array_equal(op(x, rngs=key), likely)
    # The argument of a call wins.
    np.testing.assert_array_equal(op(x, rngs=key, deterministic=False), drawn)
    sets(model, way, False)
    np.testing.assert_array_equal(op(x, rngs=key), drawn)
    np.testing.assert_array_equal(op(x, rngs=key, deterministic=True), likely)
    with pytest.raises(TypeError, match="`rngs` must give a key for the draw"):
        op(x)


@pytest.mark.skipif(not hasattr(nnx, "view"), reason="Flax before 0.12 has no views")
def test_a_view_in_evaluation_draws_nothing(op, x):
    model = nnx.Sequential(op, nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    still = nnx.view(model, deterministic=True)
    np.testing.assert_array_equal(still(x), op(x, deterministic=True))
    with pytest.raises(TypeError, match="`rngs` must give a key for the draw"):
        model(x)


def test_evaluation_reaches_a_nested_operation(op, x):
    outer = MixedOp([op, nnx.Linear(4, 4, rngs=nnx.Rngs(4))])
    outer.arch_logits[...] = jnp.array([1.0, 0.0])
    outer.eval()
    expected = op.branches[2](x)
    np.testing.assert_allclose(outer(x), expected, rtol=1e-5, atol=1e-6)
    # The inner one alone in evaluation.
    outer.train()
    op.eval()
    outer.arch_logits[...] = jnp.array([100.0, 0.0])
    found = outer(x, rngs=jax.random.key(3))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_in_evaluation_no_credit_is_drawn(op, x):
    subset = MixedOp(list(op.branches), logit_gradient=gumbax.subset(1))
    subset.arch_logits[...] = op.arch_logits[...]
    for model in (subset, op):
        model.eval()
    gradients = [
        nnx.grad(lambda m: jnp.sum(m(x) ** 2), argnums=nnx.DiffState(0, ArchParam))(m)
        for m in (subset, op)
    ]
    found, expected = jax.tree.leaves(gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
