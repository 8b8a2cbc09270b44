"""Convolutions along sequences, which are images of one row here."""

import functools
from collections.abc import Mapping

import jax
from flax import nnx

from gumbax._common import checks
from gumbax.search.spaces.chain_space import ChainSpace, skip
from gumbax.search.spaces.layers import CHANNELS_IN_GROUP, Layers
from gumbax.search.spaces.primitives import ReluConvNorm
from gumbax.search.spaces.space import Primitive


class SequenceStem(nnx.Module):
    """[N, L, C] to one row of pixels [N, 1, L, c], each by itself, and norm.

    What a network sees beside a position is the choice of its layers, but for the
    statistics of the normalisation.
    """

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, layers: Layers, rngs: nnx.Rngs
    ):
        self.conv = layers.conv(c_in, c_out, 1, stride=stride, rngs=rngs)
        self.norm = layers.normalisation(c_out, affine=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x[:, None]))


# Name -> primitive of `sequence_space`: width, and where it is not 1 the dilation.
SEQUENCE_PRIMITIVES: Mapping[str, Primitive] = {
    "skip_connect": skip,
    "conv_1": functools.partial(ReluConvNorm, (1, 1)),
    "conv_3": functools.partial(ReluConvNorm, (1, 3)),
    "conv_5": functools.partial(ReluConvNorm, (1, 5)),
    "dil_2_conv_3": functools.partial(ReluConvNorm, (1, 3), dilation=2),
    "dil_4_conv_3": functools.partial(ReluConvNorm, (1, 3), dilation=4),
    "dil_8_conv_3": functools.partial(ReluConvNorm, (1, 3), dilation=8),
}


def sequence_space(num_layers: int = 6, channels: int = 16) -> ChainSpace:
    """Width and dilation of convolutions along a sequence: seven choices a layer.

    The question of every network of dilated convolutions (WaveNet, TCN): where to look
    closely, and where far.

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
        van den Oord et al., 2016 (WaveNet). https://arxiv.org/abs/1609.03499
        Bai, Kolter, Koltun, 2018 (TCN). https://arxiv.org/abs/1803.01271
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
