"""Convolutions and pooling along sequences, which are images of one row here."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from gumbax._common import checks
from gumbax.search.spaces.chain_space import ChainSpace, skip
from gumbax.search.spaces.layers import CHANNELS_IN_GROUP, Layers
from gumbax.search.spaces.primitives import NormedPool, ReluConvNorm
from gumbax.search.spaces.space import Primitive


class SequenceStem(nnx.Module):
    """[N, L, C] to one row of pixels [N, 1, L, c]: a convolution of width 5, norm."""

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, layers: Layers, rngs: nnx.Rngs
    ):
        self.conv = layers.conv(c_in, c_out, (1, 5), stride=stride, rngs=rngs)
        self.norm = layers.normalisation(c_out, affine=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x[:, None]))


def _pool(kind: str, c_in: int, c_out: int, **options: Any) -> nnx.Module:
    """Pooling of width 3; it keeps the number of channels."""
    if c_in != c_out:
        raise ValueError(f"pooling keeps {c_in} channels, not {c_out}")
    return NormedPool(kind, c_in, size=(1, 3), **options)


# Name -> primitive of `sequence_space`.
SEQUENCE_PRIMITIVES: Mapping[str, Primitive] = {
    "skip_connect": skip,
    "conv_1": functools.partial(ReluConvNorm, (1, 1)),
    "conv_3": functools.partial(ReluConvNorm, (1, 3)),
    "conv_5": functools.partial(ReluConvNorm, (1, 5)),
    "dil_conv_3": functools.partial(ReluConvNorm, (1, 3), dilation=2),
    "max_pool_3": functools.partial(_pool, "max"),
    "avg_pool_3": functools.partial(_pool, "avg"),
}


def sequence_space(num_layers: int = 6, channels: int = 16) -> ChainSpace:
    """Convolutions and pooling along a sequence, one choice of seven for each layer.

    Args:
        num_layers: how many layers choose.
        channels: after the stem and after each layer.

    Returns:
        The space, for inputs [N, length, channels].

    Raises:
        ValueError: a number is not positive, or the channels are no multiple of 4.

    Example:
        >>> sequence_space().num_architectures
        117649

    References:
        gumbax/search/README.md.
    """
    if channels % CHANNELS_IN_GROUP:
        must = f"be a multiple of {CHANNELS_IN_GROUP}"
        cure = "That is a group of the normalisation."
        raise ValueError(
            checks.message("sequence_space", "channels", must, channels, cure)
        )
    return ChainSpace(
        name="sequences",
        primitives=SEQUENCE_PRIMITIVES,
        widths=(channels,) * (num_layers + 1),
        stem=SequenceStem,
        norm="group",
    )
