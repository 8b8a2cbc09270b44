import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gumbax import pooling
from tests.helpers import sweep

pytestmark = pytest.mark.device
PADDINGS = ("SAME", "VALID", ((1, 1), (0, 2)))
FEW = [((3, 3), (2, 1), padding) for padding in PADDINGS]
FEW += [((3, 3), (1, 1), "SAME"), ((2, 3), (3, 3), "SAME")]
MORE = itertools.product([(3, 3), (2, 3)], [(1, 1), (2, 1), (3, 3)], PADDINGS)
WINDOWS = sweep(FEW, [window for window in MORE if window not in FEW])


def stock(name):
    if name == "max_pool":
        return nnx.max_pool
    return lambda *a, **k: nnx.avg_pool(*a, **k, count_include_pad=False)


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(("size", "strides", "padding"), WINDOWS)
def test_value_and_gradient_equal_the_stock_operation(name, size, strides, padding):
    # Rounded, so that many maxima tie: the first one gets the gradient.
    x = jnp.round(2 * jax.random.normal(jax.random.key(0), (2, 7, 8, 3)))
    assert len(np.unique(x)) < 20
    options = {"strides": strides, "padding": padding}
    ours, pull_back = jax.vjp(lambda x: getattr(pooling, name)(x, size, **options), x)
    expected, stock_pull_back = jax.vjp(lambda x: stock(name)(x, size, **options), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    rng = np.random.default_rng(1)
    cotangent = jnp.asarray(rng.normal(size=ours.shape), ours.dtype)
    np.testing.assert_allclose(
        pull_back(cotangent)[0], stock_pull_back(cotangent)[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_second_derivatives(name, x64):
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 2), jnp.float64)

    def hessian(pool):
        def loss(x):
            return jnp.sum(pool(x, (2, 2), padding="SAME") ** 3)

        return jax.jacrev(jax.grad(loss))(x)

    ours = hessian(getattr(pooling, name))
    np.testing.assert_allclose(ours, hessian(stock(name)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for_every_platform(name, platform):
    pool = getattr(pooling, name)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(pool(x, (3, 3)) ** 2)))
    exported = jax.export.export(gradient, platforms=[platform])(jnp.ones((2, 8, 8, 4)))
    assert ("reduce_window" in exported.mlir_module()) == (platform != "cpu")


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("size", [(7, 9), (7, 3), (9, 9)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_window_larger_than_the_image(name, size, strides):
    x = jnp.ones((2, 5, 6, 4))
    y, pull_back = jax.vjp(
        lambda x: getattr(pooling, name)(x, size, strides=strides), x
    )
    assert y.shape == nnx.max_pool(x, size, strides).shape
    assert y.size == 0
    np.testing.assert_array_equal(pull_back(y)[0], np.zeros_like(x))


@pytest.mark.eight_devices
@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.avg_pool])
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Manual])
def test_batch_divided_over_devices(pool, axis_type):
    """On an explicit mesh axis, and by `jax.shard_map`."""
    x = jax.random.normal(jax.random.key(0), (8, 6, 6, 4))
    gradient = jax.grad(lambda x: jnp.sum(pool(x, (3, 3), padding="SAME") ** 2))
    explicit = axis_type == AxisType.Explicit
    kind = axis_type if explicit else AxisType.Auto
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    spec = PartitionSpec("batch")
    if explicit:
        found = jax.jit(gradient)(jax.device_put(x, NamedSharding(mesh, spec)))
    else:
        divided = jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec)
        found = jax.jit(divided)(x)
    np.testing.assert_allclose(found, gradient(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.avg_pool])
def test_bad_arguments(pool):
    with pytest.raises(TypeError, match="`x` must be floating"):
        pool(jnp.ones((1, 4, 4, 1), int), (2, 2))
    with pytest.raises(ValueError, match=r"`x` must have the axes \[N, H, W, C\]"):
        pool(jnp.ones((4, 4, 1)), (2, 2))
