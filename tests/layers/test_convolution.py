import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gumbax.layers.convolution import conv_general_dilated
from tests.helpers import sweep

pytestmark = pytest.mark.device
LAYOUT = ("NHWC", "HWIO", "NHWC")
# Kernel size, strides, padding, dilation.
WINDOWS = sweep(
    [
        ((1, 1), (1, 1), "SAME", (1, 1)),
        ((1, 1), (2, 3), "VALID", (1, 1)),
        ((5, 2), (2, 3), ((1, 0), (3, 2)), (2, 1)),
    ],
    # What these have, the others have with other things.
    [
        ((1, 1), (1, 1), ((1, 0), (3, 2)), (1, 1)),
        ((3, 3), (1, 1), "SAME", (1, 1)),
        ((3, 3), (2, 3), "SAME", (1, 1)),
        ((3, 3), (2, 3), "VALID", (2, 1)),
        ((5, 2), (1, 1), ((1, 0), (3, 2)), (1, 1)),
        ((5, 2), (1, 1), "SAME", (2, 1)),
    ],
)


def both(x, kernel, **options):
    """Value, cotangents and second derivative, ours and of the stock convolution."""

    def derivatives(convolve, x, kernel):
        def run(x, kernel):
            return convolve(x, kernel, dimension_numbers=LAYOUT, **options)

        def gradient(x, kernel):
            return jax.grad(lambda *a: jnp.sum(run(*a) ** 3), (0, 1))(x, kernel)

        dots = lambda *a: sum(jnp.sum(g**2) for g in gradient(*a))  # noqa: E731
        return run(x, kernel), gradient(x, kernel), jax.grad(dots, (0, 1))(x, kernel)

    functions = conv_general_dilated, lax.conv_general_dilated
    run = jax.jit(lambda *a: tuple(derivatives(f, *a) for f in functions))
    return run(x, kernel)


@pytest.mark.parametrize("groups", [1, 4], ids=["dense", "depthwise"])
@pytest.mark.parametrize(("size", "strides", "padding", "dilation"), WINDOWS)
def test_equals_the_stock_convolution(size, strides, padding, dilation, groups, x64):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (3, 11, 12, 4), jnp.float64)
    outputs = 4 if groups == 4 else 6
    kernel = jax.random.normal(keys[1], (*size, 4 // groups, outputs), jnp.float64)
    ours, stock = both(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(stock), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((2, 9, 9, 4), (3, 3, 2, 6), {"feature_group_count": 2}),
        ((2, 9, 9, 4), (3, 3, 1, 8), {"feature_group_count": 4}),
        (
            (2, 9, 9, 4),
            (3, 3, 4, 6),
            {"lhs_dilation": (2, 2), "padding": ((1, 1), (1, 1))},
        ),
        ((0, 9, 9, 4), (3, 3, 4, 6), {}),
    ],
    ids=["grouped", "depth multiplier", "input dilation", "empty batch"],
)
def test_everything_else_goes_to_the_stock_function(shape, kernel, options):
    x, kernel = jnp.ones(shape), jnp.ones(kernel)
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    ours, stock = both(x, kernel, **options)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(stock), strict=True):
        np.testing.assert_allclose(a, b)


def test_works_as_the_convolution_of_a_flax_layer_in_any_rank():
    for size, shape in (((3, 3), (2, 6, 6, 4)), ((3,), (2, 6, 4))):
        layers = [
            nnx.Conv(4, 8, size, rngs=nnx.Rngs(0), conv_general_dilated=function)
            for function in (conv_general_dilated, lax.conv_general_dilated)
        ]
        x = jax.random.normal(jax.random.key(0), shape)
        np.testing.assert_allclose(layers[0](x), layers[1](x), rtol=1e-5, atol=1e-6)


def test_mismatched_channels_give_the_stock_error():
    with pytest.raises((TypeError, ValueError), match="conv_general_dilated"):
        both(
            jnp.ones((1, 5, 5, 3)),
            jnp.ones((3, 3, 4, 4)),
            window_strides=(1, 1),
            padding="SAME",
        )


def gradient(x, kernel):
    def loss(x, kernel):
        y = conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=8
        )
        return jnp.sum(y**2)

    return jax.grad(loss, (0, 1))(x, kernel)


def test_lowers_for_every_platform_and_keeps_the_stock_convolution_off_cpu():
    x, kernel = jnp.ones((2, 8, 8, 8)), jnp.ones((3, 3, 1, 8))
    for platform, stock in (("cpu", False), ("cuda", True), ("tpu", True)):
        exported = jax.export.export(jax.jit(gradient), platforms=[platform])
        text = exported(x, kernel).mlir_module()
        assert ("stablehlo.convolution" in text) == stock


@pytest.mark.parametrize("groups", [1, 4], ids=["dense", "depthwise"])
@pytest.mark.parametrize(
    ("size", "strides", "padding"),
    [
        ((7, 9), (1, 1), "VALID"),
        ((7, 3), (2, 2), "VALID"),
        ((9, 9), (3, 3), ((1, 0), (0, 0))),
    ],
)
def test_kernel_larger_than_the_image(size, strides, padding, groups):
    x, kernel = jnp.ones((2, 5, 6, 4)), jnp.ones((*size, 4 // groups, 4))
    ours, stock = both(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        feature_group_count=groups,
    )
    assert stock[0].size == 0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(stock), strict=True):
        np.testing.assert_array_equal(a, b)


DEPTHS = pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])


@functools.cache
def bound(groups):
    """Value and both cotangents, ours and of the stock convolution, compiled."""

    def derivatives(convolve):
        def run(x, kernel, g):
            y, pull_back = jax.vjp(
                lambda x, kernel: convolve(
                    x,
                    kernel,
                    (1, 1),
                    "SAME",
                    dimension_numbers=LAYOUT,
                    feature_group_count=groups,
                ),
                x,
                kernel,
            )
            return y, *pull_back(g)

        return jax.jit(run)

    return derivatives(conv_general_dilated), derivatives(lax.conv_general_dilated)


def operands(groups, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = (64, 8, 8, 8), (3, 3, 8 // groups, 8), (64, 8, 8, 8)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


@DEPTHS
def test_sums_are_in_float32(groups):
    """No further from the float32 result than the rounding of the result itself."""
    given = operands(groups, jnp.bfloat16)
    exact = bound(groups)[1](*(a.astype(jnp.float32) for a in given))
    for found, expected in zip(bound(groups)[0](*given), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        error = np.abs(found.astype(jnp.float32) - expected)
        np.testing.assert_array_less(error, 2**-8 * np.abs(expected) + 1e-4)


@pytest.mark.eight_devices
@DEPTHS
def test_batch_on_an_explicit_mesh_axis(groups):
    given = operands(groups)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Explicit,))
    specs = PartitionSpec("batch"), PartitionSpec(), PartitionSpec("batch")
    placed = [
        jax.device_put(a, NamedSharding(mesh, spec))
        for a, spec in zip(given, specs, strict=True)
    ]
    ours, stock = bound(groups)
    for a, b in zip(ours(*placed), stock(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.eight_devices
@DEPTHS
def test_batch_divided_by_shard_map(groups):
    given = operands(groups)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec("batch"), PartitionSpec(), PartitionSpec("batch")
    ours, stock = bound(groups)
    out = PartitionSpec("batch"), PartitionSpec("batch"), PartitionSpec()
    divided = jax.jit(jax.shard_map(ours, mesh=mesh, in_specs=specs, out_specs=out))
    for a, b in zip(divided(*given), stock(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
