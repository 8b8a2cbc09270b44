"""Convolutions whose gradients stay fast on CPU inside switch, cond and scan.

XLA on CPU prepares convolutions for its fast path in the entry computation alone;
inside control flow, where a single-path operation lives, the gradients of a stock
convolution fall to a naive loop, 20 to 75 times slower. Forward convolutions in the
canonical layout do not. So the reverse rule here is written with those, and depthwise
convolutions, slow everywhere on CPU, are sums of shifted products. GPU and TPU keep
the stock convolution.

Shapes: x [N, H, W, C], kernel [kh, kw, C / groups, O], result [N, H', W', O].
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gumbax._common import meshes, sizes
from gumbax.layers import windows
from gumbax.layers.windows import Window

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Sums of the depthwise kernel gradient that are held at a time: 64 KiB each.
_CACHED_ELEMENTS = 16384


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with a reverse rule that is fast on CPU.

    It takes the place of the stock function, so that an ordinary Flax layer can use it:
    `nnx.Conv(..., conv_general_dilated=gumbax.convolution.conv_general_dilated)`. Two
    spatial axes in the NHWC / HWIO layout, dense or depthwise with one kernel for each
    channel, are handled here, with any stride, padding and kernel dilation; everything
    else goes to the stock function. So do the gradients inside `jax.shard_map`.

    Args:
        lhs: input, [N, H, W, C].
        rhs: kernel, [kh, kw, C / feature_group_count, O].
        window_strides: stride of each spatial axis.
        padding: "SAME", "VALID", or (low, high) for each spatial axis.
        lhs_dilation: input dilation; anything but 1 goes to the stock function.
        rhs_dilation: kernel dilation of each spatial axis.
        dimension_numbers: as in the stock function.
        feature_group_count: 1, or C for a depthwise convolution.
        precision: as in the stock function.
        **options: passed to the stock function, which is used if one is not None.

    Returns:
        Array, [N, H', W', O].

    Raises:
        TypeError: `lhs` and `rhs` differ in dtype (from the stock function).
        ValueError: the shapes do not fit (from the stock function).

    Example:
        >>> x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 4))
        >>> layout = ("NHWC", "HWIO", "NHWC")
        >>> conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, layout).shape
        (1, 5, 5, 4)

    References:
        tests/benchmarks/README.md, "Convolutions inside control flow".
    """
    # It checks every argument, and gives the stock error where one does not fit.
    stock: Any = functools.partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
        **options,
    )
    jax.eval_shape(stock, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (lhs, rhs)))
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    canonical = lhs.ndim == 4 and numbers == lax.conv_dimension_numbers(
        lhs.shape, rhs.shape, _LAYOUT
    )
    depthwise = feature_group_count == lhs.shape[-1] == rhs.shape[-1] > 1
    handled = (
        canonical
        and (feature_group_count == 1 or depthwise)
        and all(d == 1 for d in lhs_dilation or ())
        and precision is None
        and all(value is None for value in options.values())
        and sizes.is_known(*lhs.shape[1:], *rhs.shape)
        and 0 not in lhs.shape
    )
    if not handled:
        return stock(lhs, rhs)
    window = Window.make(
        lhs.shape[1:3], rhs.shape[:2], window_strides, padding, rhs_dilation
    )
    if min(window.output(lhs.shape[1:3])) == 0:
        return stock(lhs, rhs)
    # Divided as the images are, and as the channels that the kernel makes.
    images, channels = meshes.spec(lhs)[:1], meshes.spec(rhs)[3:]
    return meshes.automatic(
        functools.partial(_convolve, window, depthwise),
        meshes.joined((*images, None, None, None), (None, None, None, *channels)),
        lhs,
        rhs,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve(window, depthwise, x, kernel):
    return _forward(window, depthwise, x, kernel)


def _convolve_fwd(window, depthwise, x, kernel):
    return _forward(window, depthwise, x, kernel), (x, kernel)


def _convolve_bwd(window, depthwise, residuals, cotangent):
    def stock(x, kernel, g):
        return jax.vjp(functools.partial(_stock, window, depthwise), x, kernel)[1](g)

    operands: Any = (*residuals, cotangent)
    if meshes.varying(operands):
        return stock(*operands)
    return lax.platform_dependent(
        *operands,
        cpu=functools.partial(_pull_back, window, depthwise),
        default=stock,
    )


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _forward(
    window: Window, depthwise: bool, x: jax.Array, kernel: jax.Array
) -> jax.Array:
    stock = functools.partial(_stock, window, depthwise)
    cpu = functools.partial(_sum_of_shifts, window) if depthwise else stock
    return lax.platform_dependent(x, kernel, cpu=cpu, default=stock)


def _stock(
    window: Window, depthwise: bool, x: jax.Array, kernel: jax.Array
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=x.shape[-1] if depthwise else 1,
    )


def _pull_back(
    window: Window, depthwise: bool, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    pointwise = window.size == window.strides == (1, 1)
    if pointwise and not depthwise and x.shape[:3] == g.shape[:3]:
        return (
            jnp.einsum("nhwo,io->nhwi", g, kernel[0, 0]),
            jnp.einsum("nhwi,nhwo->io", x, g)[None, None],
        )
    spread = windows.spread(window, x.shape[1:3], g)
    turned = jnp.flip(kernel, (0, 1))
    transposed = window.transposed()
    if depthwise:
        return (
            _sum_of_shifts(transposed, spread, turned),
            _depthwise_kernel_gradient(window, x, g),
        )
    return (
        _stock(transposed, False, spread, turned.transpose(0, 1, 3, 2)),
        _kernel_gradient(window, x, g),
    )


def _kernel_gradient(window: Window, x: jax.Array, g: jax.Array) -> jax.Array:
    """Forward convolution of inputs with cotangents, images as the channels.

    Eight images at a time, so that the patches that the library lays out stay in the
    cache: twice as fast as the whole batch at once.
    """
    edges = []
    along = zip(x.shape[1:3], g.shape[1:3], *window.axes(), strict=True)
    for size, out, k, d, s, (low, _) in along:
        edges.append((low, (k - 1) * d + (out - 1) * s + 1 - size - low))
    groups = _groups(x.shape[0], 8)

    def add(total: jax.Array, group: tuple[jax.Array, jax.Array]):
        images, cotangents = group
        gradient = lax.conv_general_dilated(
            windows.wide(images),
            windows.wide(cotangents),
            window.dilation,
            edges,
            rhs_dilation=window.strides,
            dimension_numbers=_LAYOUT,
        )
        return total + gradient, None

    def split(a: jax.Array, order: tuple[int, ...]) -> jax.Array:
        return a.reshape(groups, -1, *a.shape[1:]).transpose(order)

    shape = (x.shape[-1], *window.size, g.shape[-1])
    operands = split(x, (0, 4, 2, 3, 1)), split(g, (0, 2, 3, 1, 4))
    gradient, _ = lax.scan(add, jnp.zeros(shape, windows.wide(x).dtype), operands)
    return gradient.transpose(1, 2, 0, 3).astype(x.dtype)


def _groups(num_images: int, fitting: int) -> int:
    """Number of equal groups of at most `fitting` images; one of a symbolic number."""
    if not sizes.is_known(num_images):
        return 1
    counts = range(1, max(1, min(fitting, num_images)) + 1)
    return num_images // max(d for d in counts if num_images % d == 0)


def _sum_of_shifts(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    factors = windows.wide(kernel)
    terms = [
        windows.wide(shifted) * factors[a : a + 1, b : b + 1]
        for (a, b), shifted in windows.shifts(window, x)
    ]
    return functools.reduce(jnp.add, terms).astype(x.dtype)


def _depthwise_kernel_gradient(window: Window, x: jax.Array, g: jax.Array) -> jax.Array:
    """Sum over the batch, a few images at a time, of inputs times cotangents.

    The sums stay in the cache; one reduction for each kernel position over the whole
    batch is four times slower on CPU.
    """
    count = _groups(x.shape[0], _CACHED_ELEMENTS // math.prod(g.shape[1:]))

    def add(sums: list[jax.Array], group: tuple[jax.Array, ...]):
        x_part, g_part = map(windows.wide, group)
        pairs = zip(sums, windows.shifts(window, x_part), strict=True)
        return [total + shifted * g_part for total, (_, shifted) in pairs], None

    groups = [a.reshape(count, -1, *a.shape[1:]) for a in (x, g)]
    zeros = jnp.zeros_like(windows.wide(groups[1][0]))
    sums, _ = lax.scan(add, [zeros] * math.prod(window.size), tuple(groups))
    summed = jnp.stack([jnp.sum(total, (0, 1, 2)) for total in sums])
    return summed.reshape(*window.size, 1, x.shape[-1]).astype(x.dtype)
