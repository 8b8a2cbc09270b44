"""Pooling that is fast on CPU, in and out of control flow.

XLA on CPU computes windowed maxima and sums, and above all the gradient of a maximum,
element by element. Here they are passes over shifted slices; GPU and TPU keep the stock
operations.

Shapes: x [N, H, W, C], result [N, H', W', C].
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gumbax._common import checks, sizes
from gumbax.layers import windows
from gumbax.layers.windows import Pair, Window


def max_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[Pair] = "VALID",
) -> jax.Array:
    """Maximum over a sliding window; of equal inputs the first gets the gradient.

    Args:
        x: images, [N, H, W, C].
        window_shape: height and width of the window.
        strides: of the window.
        padding: "SAME", "VALID", or (low, high) for each spatial axis; the margin never
            wins.

    Returns:
        Array, [N, H', W', C], of the dtype of x.

    Raises:
        TypeError: x is not floating.
        ValueError: x has not four axes.

    Example:
        >>> max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), (2, 2)).item()
        3.0

    References:
        tests/benchmarks/README.md, "Convolutions inside control flow".
    """
    x, window = _checked("max_pool", x, window_shape, strides, padding)
    return _max(window, x)


def avg_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[Pair] = "VALID",
) -> jax.Array:
    """Mean over the part of a sliding window that lies in the image.

    Args:
        x: images, [N, H, W, C].
        window_shape: height and width of the window.
        strides: of the window.
        padding: "SAME", "VALID", or (low, high) for each spatial axis; the margin is
            not counted.

    Returns:
        Array, [N, H', W', C], of the dtype of x.

    Raises:
        TypeError: x is not floating.
        ValueError: x has not four axes.

    Example:
        >>> avg_pool(jnp.ones((1, 3, 3, 1)), (3, 3), padding="SAME").min().item()
        1.0

    References:
        tests/benchmarks/README.md, "Convolutions inside control flow".
    """
    x, window = _checked("avg_pool", x, window_shape, strides, padding)
    sums = _sum(window, windows.wide(x))
    return (sums / _counts(window, x.shape[1:3]).astype(sums.dtype)).astype(x.dtype)


def _checked(function, x, window_shape, strides, padding) -> tuple[jax.Array, Window]:
    must = "be floating"
    x = checks.array(function, "x", x, must, "Pass an array [N, H, W, C].")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        got, cure = checks.shown(x), checks.conversion(x)
        raise TypeError(checks.message(function, "x", must, got, cure))
    if x.ndim != 4:
        raise ValueError(
            checks.message(
                function,
                "x",
                "have the axes [N, H, W, C]",
                f"shape {x.shape}",
                "Add a batch axis to a single image.",
            )
        )
    if not sizes.is_known(*x.shape[1:3]):
        raise ValueError(
            checks.message(
                function,
                "x",
                "have images of a fixed size",
                f"shape {x.shape}",
                "Let the number of images alone be a symbol.",
            )
        )
    cure = "Give height and width, as in (3, 3)."
    for argument, pair in (("window_shape", window_shape), ("strides", strides)):
        must = "be a pair of integers above 0"
        found = checks.sequence(function, argument, pair, must, cure)
        fits = all(isinstance(length, int | np.integer) for length in found)
        if not (fits and len(found) == 2 and min(found) > 0):
            got = checks.shown(pair)
            raise ValueError(checks.message(function, argument, must, got, cure))
    try:
        return x, Window.make(x.shape[1:3], window_shape, strides, padding)
    except (TypeError, ValueError, RuntimeError):
        must = 'be "SAME", "VALID", or a pair (low, high) for height and for width'
        got, cure = checks.shown(padding), 'Without a margin pass `padding="VALID"`.'
        raise ValueError(checks.message(function, "padding", must, got, cure)) from None


def _counts(window: Window, image: Sequence[int]) -> np.ndarray:
    """How many inputs each place of the window meets, [1, H', W', 1]."""
    along = []
    axes = zip(image, window.output(image), *window.axes(), strict=True)
    for size, out, k, _, s, (low, _) in axes:
        inputs = np.arange(out)[:, None] * s - low + np.arange(k)
        along.append(((inputs >= 0) & (inputs < size)).sum(axis=1))
    return np.multiply.outer(along[0], along[1])[None, ..., None]


def _stock(window: Window, initial, operation, x: jax.Array) -> jax.Array:
    size, strides = ((1, *pair, 1) for pair in (window.size, window.strides))
    padding = ((0, 0), *window.padding, (0, 0))
    return lax.reduce_window(x, initial, operation, size, strides, padding)


def _by_platform(cpu, stock, *operands):
    return lax.platform_dependent(*operands, cpu=cpu, default=stock)


def _sum_value(window, x):
    return _by_platform(
        functools.partial(_sum_of_shifts, window),
        functools.partial(_stock, window, 0.0, lax.add),
        x,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(window, x):
    return _sum_value(window, x)


def _sum_fwd(window, x):
    # The rule is linear: only the size of the image is needed, carried by a slice.
    return _sum_value(window, x), x[:, :, :, :0]


def _sum_bwd(window, empty, g):
    image = empty.shape[1:3]

    def shifted(g):
        return _sum_of_shifts(window.transposed(), windows.spread(window, image, g))

    def stock(g):
        # Of the empty slice, because its type says how it lies on devices.
        channels = (0, g.shape[-1], 0)
        zeros = lax.pad(empty, jnp.zeros((), g.dtype), [(0, 0, 0)] * 3 + [channels])
        sums = functools.partial(_stock, window, 0.0, lax.add)
        return jax.vjp(sums, zeros)[1](g)[0]

    return (_by_platform(shifted, stock, g),)


_sum.defvjp(_sum_fwd, _sum_bwd)


def _sum_of_shifts(window: Window, x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.add, [s for _, s in windows.shifts(window, x)])


def _max_value(window, x):
    return _by_platform(
        lambda x: functools.reduce(
            jnp.maximum, [s for _, s in windows.shifts(window, x, fill=-jnp.inf)]
        ),
        functools.partial(_stock, window, -jnp.inf, lax.max),
        x,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max(window, x):
    return _max_value(window, x)


def _max_fwd(window, x):
    return _max_value(window, x), x


def _max_bwd(window, x, g):
    def shifted(x, g):
        winner = _winner(window, x)
        winner = windows.spread(window, x.shape[1:3], winner, fill=-1)
        spread = windows.spread(window, x.shape[1:3], g)
        places = windows.shifts(window.transposed(), winner)
        cotangents = windows.shifts(window.transposed(), spread)
        # The turned window meets the positions in reverse order.
        last = window.size[0] * window.size[1] - 1
        terms = [
            jnp.where(place == last - i, windows.wide(cotangent), 0)
            for i, ((_, place), (_, cotangent)) in enumerate(
                zip(places, cotangents, strict=True)
            )
        ]
        return functools.reduce(jnp.add, terms).astype(x.dtype)

    def stock(x, g):
        maxima = functools.partial(_stock, window, -jnp.inf, lax.max)
        pull_back = jax.vjp(maxima, windows.wide(x))[1]
        return pull_back(windows.wide(g))[0].astype(x.dtype)

    return (_by_platform(shifted, stock, x, g),)


_max.defvjp(_max_fwd, _max_bwd)


def _winner(window: Window, x: jax.Array) -> jax.Array:
    """Position in the window of the first maximum."""
    (_, best), *others = windows.shifts(window, x, fill=-jnp.inf)
    winner = jnp.zeros(best.shape, jnp.int32)
    for i, (_, shifted) in enumerate(others, start=1):
        better = shifted > best
        best = jnp.where(better, shifted, best)
        winner = jnp.where(better, i, winner)
    return winner
