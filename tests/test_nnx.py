import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gumbax
from gumbax.nnx import ArchParam, MixedOp


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


def test_module_that_changes_its_variables_is_refused_by_name(x):
    rngs = nnx.Rngs(0)
    op = MixedOp([nnx.LayerNorm(4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)])
    with pytest.raises(ValueError, match="got BatchNorm, whose call changes mean, var"):
        op(x, deterministic=True)


def test_modules_that_disagree_are_named_with_both_shapes(x):
    rngs = nnx.Rngs(0)
    op = MixedOp([nnx.LayerNorm(4, rngs=rngs), nnx.Linear(4, 5, rngs=rngs)])
    message = r"float32\[6,4\] from branch 0 \(LayerNorm\) and float32\[6,5\]"
    with pytest.raises(ValueError, match=message):
        op(x, deterministic=True)


def test_empty_operation_is_refused():
    with pytest.raises(ValueError, match="at least one module"):
        MixedOp([])
