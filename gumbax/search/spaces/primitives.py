"""The operations that an edge chooses from, by name.

Each is a module made by (channels, *, stride, layers, rngs); a user's own primitive is
a function of the same signature. Shapes: [N, H, W, C] -> [N, H / s, W / s, C] for
stride s.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common.versions import nnx_list
from gumbax.search.spaces.layers import Identity, Layers, Size
from gumbax.search.spaces.space import Primitive


class Zero(nnx.Module):
    """`none`: no connection."""

    def __init__(self, stride: int = 1):
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x[:, :: self.stride, :: self.stride])


class FactorizedReduce(nnx.Module):
    """ReLU; two strided 1x1 convolutions, the second from the next pixel; norm."""

    def __init__(self, c_in: int, c_out: int, *, layers: Layers, rngs: nnx.Rngs):
        self.first = layers.conv(c_in, c_out // 2, 1, stride=2, rngs=rngs)
        self.second = layers.conv(c_in, c_out - c_out // 2, 1, stride=2, rngs=rngs)
        self.norm = layers.normalisation(c_out, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(x)
        # The last row and column have no next pixel: zeros there, as after padding.
        shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
        halves = [self.first(x), self.second(shifted)]
        return self.norm(jnp.concatenate(halves, axis=-1))


class NormedPool(nnx.Module):
    """3x3 pooling, the margin not counted, and normalisation where asked for."""

    def __init__(
        self,
        kind: str,
        channels: int,
        *,
        stride: int,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        make = layers.max_pool if kind == "max" else layers.avg_pool
        self.pool = make(3, stride=stride, pad=1)
        normed = layers.pool_norm
        self.norm = layers.normalisation(channels, rngs=rngs) if normed else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(x)
        return x if self.norm is None else self.norm(x)


class ReluConvNorm(nnx.Module):
    """ReLU, convolution, normalisation."""

    def __init__(
        self,
        size: Size,
        c_in: int,
        c_out: int | None = None,
        *,
        stride: int = 1,
        dilation: int = 1,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        c_out = c_in if c_out is None else c_out
        self.conv = layers.conv(
            c_in, c_out, size, stride=stride, dilation=dilation, rngs=rngs
        )
        self.norm = layers.normalisation(c_out, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(nnx.relu(x)))


class SepConv(nnx.Module):
    """ReLU, depthwise and pointwise convolution, normalisation; `times` in a row.

    Twice it is DARTS's separable convolution, once with dilation 2 its dilated one.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        times: int = 2,
        dilation: int = 1,
        stride: int,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        depthwise, pointwise, norm = [], [], []
        for i in range(times):
            depthwise.append(
                layers.conv(
                    channels,
                    channels,
                    size,
                    stride=stride if i == 0 else 1,
                    dilation=dilation,
                    groups=channels,
                    rngs=rngs,
                )
            )
            pointwise.append(layers.conv(channels, channels, 1, rngs=rngs))
            norm.append(layers.normalisation(channels, rngs=rngs))
        self.depthwise = nnx_list(depthwise)
        self.pointwise = nnx_list(pointwise)
        self.norm = nnx_list(norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        parts = zip(self.depthwise, self.pointwise, self.norm, strict=True)
        for depthwise, pointwise, norm in parts:
            x = norm(pointwise(depthwise(nnx.relu(x))))
        return x


def _none(channels: int, *, stride: int, layers: Layers, rngs: nnx.Rngs):
    del channels, layers, rngs
    return Zero(stride)


def _skip(channels: int, *, stride: int, layers: Layers, rngs: nnx.Rngs):
    if stride == 1:
        return Identity()
    return FactorizedReduce(channels, channels, layers=layers, rngs=rngs)


def _pool(kind: str, channels: int, *, stride: int, layers: Layers, rngs: nnx.Rngs):
    return NormedPool(kind, channels, stride=stride, layers=layers, rngs=rngs)


# Name -> primitive of cells.
PRIMITIVES: Mapping[str, Primitive] = {
    "none": _none,
    "skip_connect": _skip,
    "avg_pool_3x3": functools.partial(_pool, "avg"),
    "max_pool_3x3": functools.partial(_pool, "max"),
    "nor_conv_1x1": functools.partial(ReluConvNorm, 1),
    "nor_conv_3x3": functools.partial(ReluConvNorm, 3),
    "sep_conv_3x3": functools.partial(SepConv, 3),
    "sep_conv_5x5": functools.partial(SepConv, 5),
    "dil_conv_3x3": functools.partial(SepConv, 3, times=1, dilation=2),
    "dil_conv_5x5": functools.partial(SepConv, 5, times=1, dilation=2),
}
