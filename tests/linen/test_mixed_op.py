import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import gumbax
import gumbax.nnx
from gumbax.linen import ARCH, MixedOp
from tests.helpers import sweep

KEY = jax.random.key(0)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (6, 4))


@pytest.fixture
def op():
    return MixedOp([nn.Dense(4), nn.LayerNorm(), nn.Dense(4)])


@pytest.fixture
def variables(op, x):
    made = op.init(KEY, x)
    return {**made, ARCH: {"logits": jnp.array([0.3, -0.2, 0.5])}}


def outputs(op, variables, x):
    return jnp.stack(
        [
            branch.apply({"params": variables["params"][f"branches_{i}"]}, x)
            for i, branch in enumerate(op.branches)
        ]
    )


def same_in_nnx(variables):
    """The NNX module on the same parameters."""
    rngs = nnx.Rngs(0)
    branches = [nnx.Linear(4, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)]
    op = gumbax.nnx.MixedOp([*branches, nnx.Linear(4, 4, rngs=rngs)])
    op.arch_logits[...] = variables[ARCH]["logits"]
    for i, branch in enumerate(op.branches):
        for name, value in variables["params"][f"branches_{i}"].items():
            getattr(branch, name)[...] = value
    return op


def test_variables_have_their_places(op, x):
    made = op.init(KEY, x)
    assert set(made) == {"params", ARCH}
    np.testing.assert_array_equal(made[ARCH]["logits"], np.zeros(3))
    assert set(made["params"]) == {"branches_0", "branches_1", "branches_2"}


@pytest.mark.parametrize(
    ("deterministic", "hard"),
    sweep([(False, True), (False, False)], [(True, True), (True, False)]),
)
def test_equals_the_nnx_module_in_value_and_gradients(
    op, variables, x, hard, deterministic
):
    options = {"hard": hard, "deterministic": deterministic, "temperature": 0.6}
    draw = {} if deterministic else {"key": KEY}

    def loss(variables):
        return jnp.sum(op.apply(variables, x, **options, **draw) ** 2)

    def loss_nnx(op):
        rngs = None if deterministic else KEY
        return jnp.sum(op(x, rngs=rngs, **options) ** 2)

    in_nnx = same_in_nnx(variables)
    value, gradients = jax.value_and_grad(loss)(variables)
    value_nnx, of_arch = nnx.value_and_grad(
        loss_nnx, argnums=nnx.DiffState(0, gumbax.nnx.ArchParam)
    )(in_nnx)
    of_weights = nnx.grad(loss_nnx)(in_nnx)
    np.testing.assert_allclose(value, value_nnx, rtol=1e-6)
    np.testing.assert_allclose(
        gradients[ARCH]["logits"], of_arch["arch_logits"][...], rtol=1e-5, atol=1e-5
    )
    for i in (0, 2):
        np.testing.assert_allclose(
            gradients["params"][f"branches_{i}"]["kernel"],
            of_weights["branches"][i]["kernel"][...],
            rtol=1e-5,
            atol=1e-5,
        )


def test_modes_and_derive(op, variables, x):
    every = outputs(op, variables, x)
    soft = op.apply(variables, x, hard=False, deterministic=True)
    weights = jax.nn.softmax(variables[ARCH]["logits"])
    np.testing.assert_allclose(soft, jnp.tensordot(weights, every, 1), 1e-5, 1e-6)
    most = op.apply(variables, x, deterministic=True)
    np.testing.assert_allclose(most, every[2], rtol=1e-5, atol=1e-6)
    module, own = op.derive(variables)
    np.testing.assert_allclose(module.apply(own, x), every[2], rtol=1e-5, atol=1e-6)
    index = int(gumbax.gumbel_max(KEY, variables[ARCH]["logits"]))
    drawn = op.apply(variables, x, key=KEY)
    np.testing.assert_allclose(drawn, every[index], rtol=1e-5, atol=1e-6)


def test_stream_gives_the_key_and_weights_replace_the_draw(op, variables, x):
    draws = [
        float(op.apply(variables, x, rngs={ARCH: jax.random.key(i)}).sum())
        for i in range(12)
    ]
    assert len(set(draws)) > 1
    given = op.apply(variables, x, weights=jnp.eye(3)[1])
    every = outputs(op, variables, x)
    np.testing.assert_allclose(given, every[1], rtol=1e-5, atol=1e-6)


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, key):
        op = MixedOp([nn.Dense(4), nn.LayerNorm()], logit_gradient=gumbax.sampled)
        return x + op(x, key=key), None


@pytest.mark.exhaustive
def test_scan_over_stacked_cells_and_remat(x):
    keys = jax.random.split(KEY, 5)
    cells = nn.scan(
        nn.remat(Cell),
        variable_axes={"params": 0, ARCH: 0},
        split_rngs={"params": True},
        length=5,
    )()
    variables = cells.init(KEY, x, keys)
    assert variables[ARCH]["MixedOp_0"]["logits"].shape == (5, 2)

    def loss(variables):
        return jnp.sum(cells.apply(variables, x, keys)[0] ** 2)

    def unrolled(variables):
        y = x
        for i, key in enumerate(keys):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
            y, _ = Cell().apply(own, y, key)
        return jnp.sum(y**2)

    found = jax.jit(jax.value_and_grad(loss))(variables)
    expected = jax.value_and_grad(unrolled)(variables)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    assert any(g.any() for g in jax.tree.leaves(found[1][ARCH]))


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False, momentum=0.5)(x)


def test_batch_statistics_of_the_chosen_module_alone_are_updated(x):
    op = MixedOp([Norm(), nn.Dense(4), Norm()])
    variables = op.init(KEY, x)

    @jax.jit
    def run(variables, weights):
        return op.apply(variables, x, weights=weights, mutable=["batch_stats"])

    y, changed = run(variables, jnp.eye(3)[2])
    before = variables["batch_stats"]
    own = {c: variables[c]["branches_2"] for c in ("params", "batch_stats")}
    expected, after = Norm().apply(own, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(
        changed["batch_stats"]["branches_0"], before["branches_0"]
    )
    chex.assert_trees_all_close(
        changed["batch_stats"]["branches_2"], after["batch_stats"], rtol=1e-5
    )


def test_dropout_has_its_stream(x):
    op = MixedOp([nn.Dropout(0.5, deterministic=False), nn.LayerNorm()])
    variables = op.init({"params": KEY, "dropout": KEY}, x)

    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return op.apply(variables, x, weights=jnp.eye(2)[0], rngs=rngs)

    assert (run(0) == 0).any()
    np.testing.assert_array_equal(run(0), run(0))
    assert (run(0) != run(1)).any()


def test_equal_operations_share_a_trace(x):
    traced = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            traced.append(1)
            return nn.Dense(4)(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, weights):
            for _ in range(6):
                x = MixedOp([Counted(), nn.LayerNorm()])(x, weights=weights)
            return x

    net = Net()
    variables = net.init(KEY, x, jnp.eye(2)[0])
    traced.clear()
    jax.jit(net.apply)(variables, x, jnp.eye(2)[0])
    assert len(traced) <= 2


def test_optimisers_see_their_own_collection_alone(op, variables, x):
    optimizer = optax.adam(1e-2)

    def loss(arch, params, key):
        made = {"params": params, ARCH: arch}
        return jnp.mean((op.apply(made, x, key=key) - 1) ** 2)

    arch, params = variables[ARCH], variables["params"]
    gradient = jax.grad(loss)(arch, params, KEY)
    updates, _ = optimizer.update(gradient, optimizer.init(arch))
    assert jax.tree.structure(updates) == jax.tree.structure(arch)
    assert (optax.apply_updates(arch, updates)["logits"] != arch["logits"]).all()


def test_errors(op, variables, x):
    with pytest.raises(TypeError, match=r"`MixedOp`: `key` must come with the call"):
        op.apply(variables, x)
    with pytest.raises(TypeError, match="`key` must be one PRNG key, got 3"):
        op.apply(variables, x, key=3)
    drawing = MixedOp(op.branches, logit_gradient=gumbax.subset(1))
    message = r"for Subset\(num_others=1\), got None.*the credits are drawn"
    with pytest.raises(TypeError, match=message) as error:
        drawing.apply(variables, x, deterministic=True)
    assert "deterministic=True" not in str(error.value)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), variables)
    message = r"`MixedOp.derive`: `logits` must be those of one.*got shape \(5, 3\)"
    with pytest.raises(ValueError, match=message):
        op.derive(stacked)
    with pytest.raises(ValueError, match="hold at least one branch"):
        MixedOp([]).init(KEY, x)
    other = MixedOp([nn.LayerNorm(), nn.Dense(5)])
    made = other.init(KEY, x)
    message = r"float32\[6,4\] from branch 0 \(LayerNorm\) and float32\[6,5\]"
    with pytest.raises(ValueError, match=message):
        other.apply(made, x, deterministic=True)
