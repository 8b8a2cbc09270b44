"""Both Flax modules, and a step of a supernet, with the batch on explicit mesh axes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gumbax
import gumbax.linen
import gumbax.nnx
from gumbax.search.network.supernet import Supernet, dense_operation, path_operation
from gumbax.search.spaces.darts_space import DartsSpace
from tests.helpers import sweep
from tests.search.conftest import filled

pytestmark = pytest.mark.eight_devices
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(8, 8, 8, 3)).astype(np.float32)
HARD, SOFT = {"hard": True}, {"hard": False}


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)


def gradient(loss):
    """Value and first derivative of a loss of (tree, x), and a second one."""

    def slope(tree, x):
        leaves = jax.tree.leaves(jax.grad(loss)(tree, x))
        return sum(jnp.sum(leaf**2) for leaf in leaves)

    return lambda tree, x: (jax.value_and_grad(loss)(tree, x), jax.grad(slope)(tree, x))


def assert_as_on_one_device(mesh, loss, tree, x, *, spec=("data",)):
    expected = jax.jit(gradient(loss))(tree, x)
    with jax.set_mesh(mesh):
        everywhere = NamedSharding(mesh, PartitionSpec())
        divided = NamedSharding(mesh, PartitionSpec(*spec))
        found = jax.jit(gradient(loss))(
            jax.device_put(tree, everywhere), jax.device_put(x, divided)
        )
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected[1]))
    chex.assert_trees_all_close(
        jax.device_get(found), jax.device_get(expected), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("options", sweep([HARD], [SOFT]), ids=["hard", "soft"])
def test_nnx(mesh, options):
    rngs = nnx.Rngs(0)
    branches = [nnx.Linear(6, 6, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)]
    graphdef, state = nnx.split(gumbax.nnx.MixedOp(branches))

    def loss(state, x):
        op = nnx.merge(graphdef, state)
        return jnp.sum(op(x, rngs=KEY, temperature=0.7, **options) ** 2)

    assert_as_on_one_device(mesh, loss, state, X)


@pytest.mark.parametrize("options", sweep([HARD], [SOFT]), ids=["hard", "soft"])
def test_linen(mesh, options):
    op = gumbax.linen.MixedOp([nn.Dense(6), nn.LayerNorm()])
    variables = op.init(KEY, X)

    def loss(variables, x):
        return jnp.sum(op.apply(variables, x, key=KEY, **options) ** 2)

    assert_as_on_one_device(mesh, loss, variables, X)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("operation", "hard"), [(path_operation, True), (dense_operation, False)]
)
def test_step_of_a_supernet(mesh, operation, hard):
    primitives = ("max_pool_3x3", "skip_connect", "dil_conv_3x3")
    space = DartsSpace(channels=4, num_cells=3, num_nodes=2, primitives=primitives)
    net = filled(lambda: Supernet(space, (8, 8, 3), 10, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(net)

    def loss(state, x):
        net = nnx.merge(graphdef, state)
        choices = gumbax.draw_choices(KEY, net.logits(), hard=hard)
        return jnp.sum(net(x, choices.weights, operation, key=KEY) ** 2) / 10

    def first(state, x):
        return jax.value_and_grad(loss)(state, x)

    expected = jax.jit(first)(state, IMAGES)
    with jax.set_mesh(mesh):
        everywhere = NamedSharding(mesh, PartitionSpec())
        divided = NamedSharding(mesh, PartitionSpec("data"))
        placed = jax.device_put(state, everywhere), jax.device_put(IMAGES, divided)
        found = jax.jit(first)(*placed)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (found[1], expected[1])), strict=True):
        scale = np.abs(b).max() + 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale)
