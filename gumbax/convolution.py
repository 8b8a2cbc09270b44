"""Convolutions whose gradients stay fast on CPU inside switch, cond and scan.

XLA on CPU prepares convolutions for its fast path in the entry computation alone;
inside control flow, where a single-path operation lives, the gradients of a stock
convolution fall to a naive loop, 20 to 75 times slower. Forward convolutions in the
canonical layout do not. So the reverse rule here is written with those, and depthwise
convolutions, slow everywhere on CPU, are sums of shifted products. GPU and TPU keep
the stock convolution.

Shapes: x [N, H, W, C], kernel [kh, kw, C / groups, O], result [N, H', W', O].
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gumbax import _checks

_LAYOUT = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class _Window:
    """Static facts of a convolution."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    depthwise: bool


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
    else goes to the stock function.

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
        README, "Convolutions inside control flow".
    """
    # Checks every argument, and gives the stock error where one does not fit.
    stock = functools.partial(
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
    jax.eval_shape(stock, lhs, rhs)
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
        and min(lhs.shape) > 0
    )
    if not handled:
        return stock(lhs, rhs)
    strides = (int(window_strides[0]), int(window_strides[1]))
    dilation = tuple(rhs_dilation or (1, 1))
    spans = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
    if isinstance(padding, str):
        pairs = lax.padtype_to_pads(lhs.shape[1:3], spans, strides, padding)
    else:
        pairs = padding
    (top, bottom), (left, right) = pairs
    window = _Window(
        strides=strides,
        padding=((int(top), int(bottom)), (int(left), int(right))),
        dilation=(int(dilation[0]), int(dilation[1])),
        depthwise=depthwise,
    )
    return _convolve(window, lhs, rhs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: _Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _forward(window, x, kernel)


def _convolve_fwd(window, x, kernel):
    return _forward(window, x, kernel), (x, kernel)


def _convolve_bwd(window, residuals, cotangent):
    return lax.platform_dependent(
        *residuals,
        cotangent,
        cpu=functools.partial(_pull_back, window),
        default=lambda x, kernel, g: jax.vjp(
            functools.partial(_stock, window), x, kernel
        )[1](g),
    )


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _forward(window: _Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    shifts = functools.partial(_sum_of_shifts, window)
    stock = functools.partial(_stock, window)
    cpu = shifts if window.depthwise else stock
    return lax.platform_dependent(x, kernel, cpu=cpu, default=stock)


def _stock(window: _Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=x.shape[-1] if window.depthwise else 1,
    )


def _pull_back(
    window: _Window, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    pointwise = kernel.shape[:2] == window.strides == (1, 1)
    if pointwise and not window.depthwise and x.shape[:3] == g.shape[:3]:
        return (
            jnp.einsum("nhwo,io->nhwi", g, kernel[0, 0]),
            jnp.einsum("nhwi,nhwo->io", x, g)[None, None],
        )
    # The gradient of the input is a convolution of the spread-out cotangent with the
    # turned kernel, without stride or padding.
    unit = dataclasses.replace(window, strides=(1, 1), padding=((0, 0), (0, 0)))
    spread = _spread(window, x, kernel, g)
    turned = jnp.flip(kernel, (0, 1))
    if window.depthwise:
        return (
            _sum_of_shifts(unit, spread, turned),
            _depthwise_kernel_gradient(window, x, kernel, g),
        )
    return (
        _stock(unit, spread, turned.transpose(0, 1, 3, 2)),
        _kernel_gradient(window, x, kernel, g),
    )


def _spatial(window: _Window, x: jax.Array, kernel: jax.Array, g: jax.Array):
    """Of each spatial axis: input, output, kernel size, dilation, stride, padding."""
    return zip(
        x.shape[1:3],
        g.shape[1:3],
        kernel.shape[:2],
        window.dilation,
        window.strides,
        window.padding,
        strict=True,
    )


def _pad(x: jax.Array, edges: Sequence[tuple[int, int, int]]) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _spread(
    window: _Window, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """Cotangents at the places of the inputs, with the margin that a kernel needs."""
    edges = []
    for size, out, k, d, s, (low, _) in _spatial(window, x, kernel, g):
        before = (k - 1) * d - low
        length = (out - 1) * s + 1
        edges.append((before, size + (k - 1) * d - length - before, s - 1))
    return _pad(g, edges)


def _kernel_gradient(
    window: _Window, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """Forward convolution of inputs with cotangents, the batch as the channels."""
    edges = []
    for size, out, k, d, s, (low, _) in _spatial(window, x, kernel, g):
        edges.append((low, (k - 1) * d + (out - 1) * s + 1 - size - low))
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        window.dilation,
        edges,
        rhs_dilation=window.strides,
        dimension_numbers=_LAYOUT,
    )
    return gradient.transpose(1, 2, 0, 3)


def _depthwise_kernel_gradient(
    window: _Window, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """Sum over the batch, image by image, of inputs times cotangents.

    The sums stay in the cache; one reduction for each kernel position over the whole
    batch is four times slower on CPU.
    """

    def add(sums: list[jax.Array], image: tuple[jax.Array, jax.Array]):
        x_one, g_one = (array[None] for array in image)
        shifts = _shifts(window, x_one, kernel, g.shape[1:3])
        pairs = zip(sums, shifts, strict=True)
        return [total + shifted[0] * g_one[0] for total, (_, shifted) in pairs], None

    taps = kernel.shape[0] * kernel.shape[1]
    sums, _ = lax.scan(add, [jnp.zeros(g.shape[1:], g.dtype)] * taps, (x, g))
    return jnp.stack([jnp.sum(total, (0, 1)) for total in sums]).reshape(kernel.shape)


def _sum_of_shifts(window: _Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    out = jax.eval_shape(functools.partial(_stock, window), x, kernel)
    terms = [
        shifted * kernel[tap][0]
        for tap, shifted in _shifts(window, x, kernel, out.shape[1:3])
    ]
    return functools.reduce(jnp.add, terms)


def _shifts(
    window: _Window, x: jax.Array, kernel: jax.Array, out: tuple[int, ...]
) -> Iterator[tuple[tuple[int, int], jax.Array]]:
    """Each kernel position and the inputs that it meets."""
    padded = _pad(x, [(low, high, 0) for low, high in window.padding])
    (dy, dx), (sy, sx), (height, width) = window.dilation, window.strides, out
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            rows = slice(a * dy, a * dy + (height - 1) * sy + 1, sy)
            columns = slice(b * dx, b * dx + (width - 1) * sx + 1, sx)
            yield (a, b), padded[:, rows, columns]
