"""How the layers of a search network are made."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common import keys
from gumbax._noise.threefry import random_words
from gumbax.layers import convolution, pooling

CHANNELS_IN_GROUP = 4
_STREAM = 16  # of the initial weights
# Of a window: a number for a square one, or (height, width).
Size = int | tuple[int, int]


def fan_in_uniform(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    """Initial kernels, uniform in +-1 / sqrt(fan in): the default of PyTorch.

    With the random words of gumbax it compiles in a tenth of the time of Flax's
    initialisers: a supernet has kernels of some fifty shapes.

    Args:
        key: scalar key. Consumed.
        shape: [..., in, out].
        dtype: of the kernel.

    Returns:
        Array of that shape.

    Example:
        >>> kernel = fan_in_uniform(jax.random.key(0), (3, 3, 4, 8), jnp.float32)
        >>> kernel.shape, bool(abs(kernel).max() <= 1 / 6)
        ((3, 3, 4, 8), True)

    References:
        `torch.nn.Conv2d.reset_parameters`.
    """
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    values = bound * _uniform(key, math.prod(shape))
    return values.reshape(tuple(shape)).astype(dtype)


@functools.partial(jax.jit, static_argnums=1)
def _uniform(key: jax.Array, size: int) -> jax.Array:
    """Uniform in [-1, 1)."""
    word, _ = random_words(keys.consumed(key), (size,), axis=0, stream=_STREAM)
    return (word >> 8).astype(jnp.float32) * 2.0**-23 - 1.0


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


Linear = functools.partial(nnx.Linear, kernel_init=fan_in_uniform)


@dataclass(frozen=True)
class Layers:
    """Makes convolutions, normalisations and poolings of one kind.

    Batch normalisation is `nnx.BatchNorm` with the numbers of PyTorch. A search uses
    the statistics of the batch, always, and tracks none: those of operations that are
    drawn now and then would be stale. After derivation they are measured
    (`gumbax.search.network.recalibrate`). Group normalisation needs none of this.

    Attributes:
        norm: "batch" or "group" (4 channels in a group).
        affine: normalisation has a scale and a bias; in a search of the published
            spaces it has none.
        pool_norm: DARTS normalises the output of pooling in its search alone.
        stock: Flax's own convolution and pooling instead of ours, which are faster on
            CPU and equal to rounding.

    Example:
        >>> conv = Layers().conv(3, 8, 3, stride=2, rngs=nnx.Rngs(0))
        >>> conv(jax.numpy.ones((1, 8, 8, 3))).shape
        (1, 4, 4, 8)

    References:
        Dong, Yang, 2020 (NAS-Bench-201), Sec. 2. https://arxiv.org/abs/2001.00326
    """

    norm: str = "batch"
    affine: bool = False
    pool_norm: bool = True
    stock: bool = False

    def conv(
        self,
        c_in: int,
        c_out: int,
        size: Size,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: int | None = None,
        rngs: nnx.Rngs,
    ) -> nnx.Conv:
        """Convolution without bias; padding as PyTorch's size // 2 (times dilation)."""
        size = _pair(size)
        options: dict[str, Any] = {}
        if not self.stock:
            options["conv_general_dilated"] = convolution.conv_general_dilated
        pads = (
            [dilation * (one // 2) for one in size]
            if padding is None
            else [padding, padding]
        )
        return nnx.Conv(
            c_in,
            c_out,
            size,
            strides=(stride, stride),
            padding=tuple((pad, pad) for pad in pads),
            kernel_dilation=(dilation, dilation),
            feature_group_count=groups,
            use_bias=False,
            kernel_init=fan_in_uniform,
            rngs=rngs,
            **options,
        )

    def normalisation(
        self, channels: int, *, rngs: nnx.Rngs, affine: bool | None = None
    ) -> nnx.Module:
        """Normalisation of [..., channels]."""
        affine = self.affine if affine is None else affine
        if self.norm == "group":
            return nnx.GroupNorm(
                channels, num_groups=None, group_size=CHANNELS_IN_GROUP, rngs=rngs
            )
        return nnx.BatchNorm(
            channels,
            momentum=0.9,
            epsilon=1e-5,
            use_bias=affine,
            use_scale=affine,
            rngs=rngs,
        )

    def avg_pool(self, size: Size, *, stride: int = 1, pad: Size = 0) -> "Pool":
        """Mean over windows, the margin not counted."""
        return Pool("avg", self.stock, size, stride, pad)

    def max_pool(self, size: Size, *, stride: int = 1, pad: Size = 0) -> "Pool":
        """Maximum over windows."""
        return Pool("max", self.stock, size, stride, pad)


class Identity(nnx.Module):
    """x as it is: `skip_connect` with stride 1."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class Pool(nnx.Module):
    """Mean or maximum over windows."""

    def __init__(self, kind: str, stock: bool, size: Size, stride: int, pad: Size):
        self.kind = kind
        self.stock = stock
        self.size = _pair(size)
        self.strides = (stride, stride)
        self.padding = tuple((one, one) for one in _pair(pad))

    def __call__(self, x: jax.Array) -> jax.Array:
        options: dict[str, Any] = {"strides": self.strides, "padding": self.padding}
        if self.kind == "max":
            pool = nnx.max_pool if self.stock else pooling.max_pool
        else:
            pool = nnx.avg_pool if self.stock else pooling.avg_pool
            if self.stock:
                options["count_include_pad"] = False
        return pool(x, self.size, **options)
