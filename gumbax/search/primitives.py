"""The operations that an edge of a cell chooses from, by name.

Each keeps the shape of its input, [batch, height, width, channels], and depends on no
other example of the batch: normalisation is over groups of channels of one image, so a
network gives the same answer in search, after derivation and for a single image.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax import convolution, pooling

CHANNELS_IN_GROUP = 4

Conv = functools.partial(
    nnx.Conv,
    use_bias=False,
    conv_general_dilated=convolution.conv_general_dilated,
)


class Normalisation(nnx.GroupNorm):
    """Group normalisation with 4 channels in a group."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        super().__init__(
            channels, num_groups=None, group_size=CHANNELS_IN_GROUP, rngs=rngs
        )


class Zero(nnx.Module):
    """`none`: no connection."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x)


class Identity(nnx.Module):
    """`skip_connect`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class AvgPool(nnx.Module):
    """Mean of 3x3 neighbours, the margin not counted."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return pooling.avg_pool(x, (3, 3), padding="SAME")


class MaxPool(nnx.Module):
    """Maximum of 3x3 neighbours."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return pooling.max_pool(x, (3, 3), padding="SAME")


class ReluConvNorm(nnx.Module):
    """ReLU, convolution, normalisation."""

    def __init__(self, kernel_size: int, channels: int, *, rngs: nnx.Rngs):
        size = (kernel_size, kernel_size)
        self.conv = Conv(channels, channels, size, rngs=rngs)
        self.norm = Normalisation(channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(nnx.relu(x)))


class SepConv(nnx.Module):
    """ReLU, depthwise and pointwise convolution, normalisation; twice, as in DARTS."""

    def __init__(self, kernel_size: int, channels: int, *, rngs: nnx.Rngs):
        size = (kernel_size, kernel_size)
        depthwise, pointwise, norm = [], [], []
        for _ in range(2):
            depthwise.append(
                Conv(channels, channels, size, feature_group_count=channels, rngs=rngs)
            )
            pointwise.append(Conv(channels, channels, (1, 1), rngs=rngs))
            norm.append(Normalisation(channels, rngs=rngs))
        self.depthwise = nnx.List(depthwise)
        self.pointwise = nnx.List(pointwise)
        self.norm = nnx.List(norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        layers = zip(self.depthwise, self.pointwise, self.norm, strict=True)
        for depthwise, pointwise, norm in layers:
            x = norm(pointwise(depthwise(nnx.relu(x))))
        return x


# name -> (channels, rngs=...) -> module
PRIMITIVES: Mapping[str, Callable[..., nnx.Module]] = {
    "none": lambda channels, rngs: Zero(),
    "skip_connect": lambda channels, rngs: Identity(),
    "avg_pool_3x3": lambda channels, rngs: AvgPool(),
    "max_pool_3x3": lambda channels, rngs: MaxPool(),
    "conv_1x1": functools.partial(ReluConvNorm, 1),
    "conv_3x3": functools.partial(ReluConvNorm, 3),
    "sep_conv_3x3": functools.partial(SepConv, 3),
}
