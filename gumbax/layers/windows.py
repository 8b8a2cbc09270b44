"""Sliding windows over images as shifted slices, which are fast on CPU everywhere.

Shapes: x [N, H, W, C], result of a window [N, H', W', C].
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Window:
    """Static facts of a sliding window, for the two spatial axes."""

    size: Pair
    strides: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair = (1, 1)

    @classmethod
    def make(
        cls,
        image: Sequence[int],
        size: Sequence[int],
        strides: Sequence[int],
        padding: str | Sequence[Pair],
        dilation: Sequence[int] | None = None,
    ) -> "Window":
        """From the arguments of a convolution over images [..., H, W] of this size."""
        dilation = tuple(dilation or (1, 1))
        spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
        pairs: Any = padding
        if isinstance(padding, str):
            pairs = lax.padtype_to_pads(image, spans, strides, padding)
        (top, bottom), (left, right) = pairs
        return cls(
            size=_pair(size),
            strides=_pair(strides),
            padding=((int(top), int(bottom)), (int(left), int(right))),
            dilation=_pair(dilation),
        )

    def output(self, image: Sequence[int]) -> Pair:
        """Spatial size of the result for images of this size."""
        sizes = [
            max(0, (n + low + high - (k - 1) * d - 1) // s + 1)
            for n, k, d, s, (low, high) in zip(image, *self.axes(), strict=True)
        ]
        return _pair(sizes)

    def axes(self) -> tuple[Pair, Pair, Pair, tuple[Pair, Pair]]:
        """Size, dilation, stride and padding, each for the two axes."""
        return self.size, self.dilation, self.strides, self.padding

    def transposed(self) -> "Window":
        """The window that slides over a spread-out cotangent, for the input's."""
        return dataclasses.replace(self, strides=(1, 1), padding=((0, 0), (0, 0)))


def _pair(values: Sequence[int]) -> Pair:
    first, second = values
    return int(first), int(second)


def _span(count: int, stride: int) -> int:
    """Elements from the first to the last of so many, a stride apart."""
    return max(0, (count - 1) * stride + 1)


def wide(a: jax.Array) -> jax.Array:
    """At least float32, for sums."""
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def pad(
    x: jax.Array, edges: Sequence[tuple[int, int, int]], value: ArrayLike
) -> jax.Array:
    """Pads the spatial axes by (low, high, between) elements of that value."""
    value = jnp.asarray(value, x.dtype)
    return lax.pad(x, value, [(0, 0, 0), *edges, (0, 0, 0)])


def shifts(
    window: Window, x: jax.Array, *, fill: ArrayLike = 0
) -> Iterator[tuple[Pair, jax.Array]]:
    """Each position in the window and the inputs that it meets, `fill` outside."""
    height, width = window.output(x.shape[1:3])
    padded = pad(x, [(low, high, 0) for low, high in window.padding], fill)
    (dy, dx), (sy, sx) = window.dilation, window.strides
    for a in range(window.size[0]):
        for b in range(window.size[1]):
            rows = slice(a * dy, a * dy + _span(height, sy), sy)
            columns = slice(b * dx, b * dx + _span(width, sx), sx)
            yield (a, b), padded[:, rows, columns]


def spread(
    window: Window, image: Sequence[int], g: jax.Array, *, fill: ArrayLike = 0
) -> jax.Array:
    """Cotangents at the places of the inputs, with the margin that a window needs.

    The input's cotangent is the turned window slid over this without stride or padding.
    """
    edges = []
    sizes = zip(image, g.shape[1:3], *window.axes(), strict=True)
    for size, out, k, d, s, (low, _) in sizes:
        before = (k - 1) * d - low
        after = size + (k - 1) * d - _span(out, s) - before
        edges.append((before, after, s - 1))
    return pad(g, edges, fill)
