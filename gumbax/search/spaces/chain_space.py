"""Macro search: a chain of layers, one choice for each."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common.versions import nnx_list
from gumbax.search.spaces.edges import PLAIN, Context, MakeEdges
from gumbax.search.spaces.layers import (
    Identity,
    Layers,
    Linear,
)
from gumbax.search.spaces.space import Choice, Primitive, Space, check_ranges

CHOICE = "layers"


@dataclass(frozen=True)
class ChainSpace(Space):
    """Layers in a row; each is one of your modules.

    Attributes:
        name: saved with every genotype.
        primitives: name -> (c_in, c_out, *, stride, layers, rngs) -> module.
        widths: channels (or features) after each layer; the first is that of the stem.
        strides: of each layer; images alone. 1 for all if left out.
        stem: (c_in, c_out, *, stride, layers, rngs) -> module in front of the chain.
        norm: "batch" or "group".

    Raises:
        ValueError: there is no primitive or layer, another number of strides, a width
            or stride that is not positive, or an unknown norm.

    Example:
        >>> def dense(activation, c_in, c_out, *, stride, layers, rngs):
        ...     return nnx.Sequential(nnx.Linear(c_in, c_out, rngs=rngs), activation)
        >>> mine = ChainSpace(
        ...     name="mine",
        ...     primitives={
        ...         "relu": functools.partial(dense, nnx.relu),
        ...         "tanh": functools.partial(dense, nnx.tanh),
        ...     },
        ...     widths=(32, 32, 16),
        ...     stem=functools.partial(dense, nnx.relu),
        ... )
        >>> mine.choices["layers"].shape, mine.num_architectures
        ((2, 2), 4)

    References:
        Cai, Zhu, Han, 2019 (ProxylessNAS). https://arxiv.org/abs/1812.00332
    """

    name: str
    primitives: Mapping[str, Primitive] = field(repr=False, hash=False)
    widths: tuple[int, ...]
    stem: Primitive = field(repr=False)
    strides: tuple[int, ...] = ()
    norm: str = "batch"
    every_edge = True

    def __post_init__(self) -> None:
        count = len(self.widths) - 1
        wide = count >= 1 and min(self.widths) >= 1
        fits = len(self.strides) == count and min(self.strides, default=0) >= 1
        check_ranges(
            "ChainSpace",
            {
                "primitives": (
                    self.primitives,
                    bool(self.primitives),
                    "hold a primitive",
                ),
                "widths": (
                    self.widths,
                    wide,
                    "be positive, for the stem and a layer or more",
                ),
                "strides": (
                    self.strides,
                    not self.strides or fits,
                    f"be positive, one for each of {count} layers",
                ),
                "norm": (self.norm, self.norm in ("batch", "group"), "be a known one"),
            },
        )

    @property
    def choices(self) -> Mapping[str, Choice]:
        count = len(self.widths) - 1
        edges = tuple((i, i + 1) for i in range(count))
        return {CHOICE: Choice(edges, tuple(self.primitives), outputs=(count,))}

    def build(
        self,
        make_edges: MakeEdges,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        layers: Layers,
        rngs: nnx.Rngs,
        auxiliary: bool = False,
    ) -> nnx.Module:
        del auxiliary  # the space has none
        return ChainNetwork(self, make_edges, input_shape, num_classes, layers, rngs)


class ChainNetwork(nnx.Module):
    """Stem, layers in a row, and a linear head, on the mean of an image."""

    def __init__(
        self,
        space: ChainSpace,
        make_edges: MakeEdges,
        input_shape: tuple[int, ...],
        num_classes: int,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        first = space.widths[0]
        options = {"layers": layers, "rngs": rngs}
        self.stem = space.stem(input_shape[-1], first, stride=1, **options)
        strides = space.strides or (1,) * (len(space.widths) - 1)
        chain, c_in = [], first
        for i, (c_out, stride) in enumerate(
            zip(space.widths[1:], strides, strict=True)
        ):
            make = functools.partial(_make, space, (c_in, c_out), stride, layers)
            chain.append(make_edges(CHOICE, [i], [(0, 1)], make, rngs))
            c_in = c_out
        self.chain = nnx_list(chain)
        self.head = Linear(c_in, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array, context: Context = PLAIN) -> jax.Array:
        x = self.stem(x)
        for layer in self.chain:
            x = layer.only(x, context)
        if x.ndim > 2:
            x = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        return self.head(x)


def _make(
    space: ChainSpace,
    widths: tuple[int, int],
    stride: int,
    layers: Layers,
    name: str,
    rngs: nnx.Rngs,
) -> nnx.Module:
    return space.primitives[name](*widths, stride=stride, layers=layers, rngs=rngs)


# Tabular data.


def dense(
    activation: Callable[[jax.Array], jax.Array],
    expansion: int,
    c_in: int,
    c_out: int,
    *,
    stride: int = 1,
    layers: Layers,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Layer normalisation and one dense layer, or two with a wider one between."""
    del stride, layers
    norm = nnx.LayerNorm(c_in, rngs=rngs)
    if expansion == 1:
        return nnx.Sequential(norm, Linear(c_in, c_out, rngs=rngs), activation)
    wide = expansion * c_out
    return nnx.Sequential(
        norm,
        Linear(c_in, wide, rngs=rngs),
        activation,
        Linear(wide, c_out, rngs=rngs),
    )


def skip(c_in: int, c_out: int, *, stride: int, layers: Layers, rngs: nnx.Rngs):
    """Nothing where the shapes agree, else a projection."""
    if stride == 1 and c_in == c_out:
        return Identity()
    return Projection(c_in, c_out, stride=stride, rngs=rngs)


class Projection(nnx.Module):
    """Every stride-th pixel, a dense layer over the channels."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        self.linear = Linear(c_in, c_out, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
        return self.linear(x)


# Those of JAX are wrapped in objects that `pickle` does not find by their names.


def _same(x: jax.Array) -> jax.Array:
    return x


def _relu(x: jax.Array) -> jax.Array:
    return nnx.relu(x)


def _tanh(x: jax.Array) -> jax.Array:
    return nnx.tanh(x)


def _gelu(x: jax.Array) -> jax.Array:
    return nnx.gelu(x)


# Name -> primitive of `mlp_space`.
MLP_PRIMITIVES: Mapping[str, Primitive] = {
    "skip_connect": skip,
    "relu": functools.partial(dense, _relu, 1),
    "tanh": functools.partial(dense, _tanh, 1),
    "gelu_wide_4": functools.partial(dense, _gelu, 4),
}


# Made once: equal spaces have equal functions, and share what is compiled.
_LINEAR = functools.partial(dense, _same, 1)


def mlp_space(widths: Sequence[int] = (64, 64, 64, 64)) -> ChainSpace:
    """Multi-layer perceptrons for tabular data: activation and width of each layer.

    Args:
        widths: features after the stem and after each layer.

    Returns:
        The space.

    Raises:
        ValueError: fewer than two widths, or one that is not positive.

    Example:
        >>> mlp_space().num_architectures
        64

    References:
        gumbax/search/README.md.
    """
    return ChainSpace(
        name="mlp",
        primitives=MLP_PRIMITIVES,
        widths=tuple(widths),
        stem=_LINEAR,
    )


# Images.


class MBConv(nnx.Module):
    """Inverted residual: 1x1 to wider, depthwise, 1x1 back; the input added if it fits.

    References:
        Sandler et al., 2018 (MobileNetV2). https://arxiv.org/abs/1801.04381
    """

    def __init__(
        self,
        size: int,
        expansion: int,
        c_in: int,
        c_out: int,
        *,
        stride: int,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        c = expansion * c_in
        self.residual = stride == 1 and c_in == c_out
        self.convs = nnx_list(
            [
                layers.conv(c_in, c, 1, rngs=rngs),
                layers.conv(c, c, size, stride=stride, groups=c, rngs=rngs),
                layers.conv(c, c_out, 1, rngs=rngs),
            ]
        )
        self.norms = nnx_list(
            [layers.normalisation(n, rngs=rngs) for n in (c, c, c_out)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if i < 2:
                y = nnx.relu6(y)
        return x + y if self.residual else y


class ConvNorm(nnx.Module):
    """3x3 convolution and normalisation: a stem."""

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, layers: Layers, rngs: nnx.Rngs
    ):
        self.conv = layers.conv(c_in, c_out, 3, stride=stride, rngs=rngs)
        self.norm = layers.normalisation(c_out, affine=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


# Name -> primitive of `macro_space`.
MACRO_PRIMITIVES: Mapping[str, Primitive] = {
    "skip_connect": skip,
    "mbconv3_3x3": functools.partial(MBConv, 3, 3),
    "mbconv6_5x5": functools.partial(MBConv, 5, 6),
}


def macro_space(
    widths: Sequence[int] = (16, 16, 32, 32, 32, 64, 64, 64),
    strides: Sequence[int] = (1, 2, 1, 1, 2, 1, 1),
) -> ChainSpace:
    """Networks of inverted residual blocks, one choice of three for each layer.

    Args:
        widths: channels after the stem and after each layer.
        strides: of each layer.

    Returns:
        The space.

    Raises:
        ValueError: the numbers of widths and strides do not fit.

    Example:
        >>> macro_space().num_architectures
        2187

    References:
        The candidates of NAS-Bench-Macro: Su et al., 2021. https://arxiv.org/abs/2103.11922
    """
    return ChainSpace(
        name="macro",
        primitives=MACRO_PRIMITIVES,
        widths=tuple(widths),
        strides=tuple(strides),
        stem=ConvNorm,
    )
