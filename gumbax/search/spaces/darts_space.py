"""The DARTS space: normal and reduction cells with two inputs and four nodes."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common import checks
from gumbax._common.versions import nnx_list
from gumbax.search.spaces.edges import PLAIN, Context, MakeEdges
from gumbax.search.spaces.layers import Layers, Linear
from gumbax.search.spaces.primitives import PRIMITIVES, FactorizedReduce, ReluConvNorm
from gumbax.search.spaces.space import (
    Choice,
    Primitive,
    Space,
    check_primitives,
    check_ranges,
)

# The operations of the published space.
DARTS_PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
STEM_MULTIPLIER = 3
NUM_INPUTS = 2


@dataclass(frozen=True)
class DartsSpace(Space):
    """Normal and reduction cells; each node keeps its two strongest inputs.

    A cell sees the two cells before it. Its nodes are sums over edges from the inputs
    and from all nodes before; its output is their concatenation. Cells at a third and
    at two thirds of the depth halve the image and double the channels.

    Attributes:
        name: saved with every genotype.
        channels: 16 in the published search, 36 in its evaluation.
        num_cells: 8 in the published search, 20 in its evaluation.
        primitives: names of the operations on an edge.
        num_nodes: nodes of a cell beside its inputs.
        inputs_per_node: edges that a derived node keeps, 2; None keeps all, as SNAS.
        known: name -> primitive; your own beside the built-in ones.

    Raises:
        ValueError: a field is out of its range, or a primitive is not known.

    Example:
        >>> space = DartsSpace()
        >>> {name: choice.shape for name, choice in space.choices.items()}
        {'normal': (14, 8), 'reduce': (14, 8)}

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Sec. 3.1. https://arxiv.org/abs/1806.09055
    """

    name: str = "darts"
    channels: int = 16
    num_cells: int = 8
    primitives: tuple[str, ...] = DARTS_PRIMITIVES
    num_nodes: int = 4
    inputs_per_node: int | None = 2
    known: Mapping[str, Primitive] = field(
        default_factory=lambda: PRIMITIVES, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_primitives("DartsSpace", self.primitives, self.known)
        check_ranges(
            "DartsSpace",
            {
                "channels": (
                    self.channels,
                    self.channels >= 2 and self.channels % 2 == 0,
                    "be positive and even",
                ),
                "num_cells": (self.num_cells, self.num_cells >= 3, "be at least 3"),
                "num_nodes": (self.num_nodes, self.num_nodes >= 1, "be at least 1"),
                "inputs_per_node": (
                    self.inputs_per_node,
                    self.inputs_per_node in (None, 2),
                    "be 2, or None to keep every edge",
                ),
            },
        )

    @property
    def choices(self) -> Mapping[str, Choice]:
        nodes = range(NUM_INPUTS, NUM_INPUTS + self.num_nodes)
        edges = tuple((j, i) for i in nodes for j in range(i))
        choice = Choice(edges, self.primitives, NUM_INPUTS, tuple(nodes))
        return {"normal": choice, "reduce": choice}

    @property
    def reductions(self) -> tuple[int, ...]:
        """Numbers of the reduction cells."""
        return self.num_cells // 3, 2 * self.num_cells // 3

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
        return DartsNetwork(
            self, make_edges, input_shape, num_classes, layers, rngs, auxiliary
        )


class DartsCell(nnx.Module):
    """Nodes from two inputs; outer edges leave the inputs of a reduction cell."""

    def __init__(
        self,
        space: DartsSpace,
        make_edges: MakeEdges,
        channels: Sequence[int],
        *,
        reduction: bool,
        after_reduction: bool,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        before, last, c = channels
        self.first: nnx.Module
        if after_reduction:
            self.first = FactorizedReduce(before, c, layers=layers, rngs=rngs)
        else:
            self.first = ReluConvNorm(1, before, c, layers=layers, rngs=rngs)
        self.second = ReluConvNorm(1, last, c, layers=layers, rngs=rngs)
        self.num_nodes = space.num_nodes

        def make(name: str, rngs: nnx.Rngs, stride: int = 1) -> nnx.Module:
            return space.known[name](c, stride=stride, layers=layers, rngs=rngs)

        name = "reduce" if reduction else "normal"
        edges = space.choices[name].edges
        outer = [i for i, (j, _) in enumerate(edges) if reduction and j < NUM_INPUTS]
        inner = [i for i in range(len(edges)) if i not in outer]
        halving = functools.partial(make, stride=2)
        pairs = [edges[i] for i in outer]
        self.outer = (
            make_edges(name, outer, pairs, halving, rngs) if reduction else None
        )
        self.inner = make_edges(name, inner, [edges[i] for i in inner], make, rngs)

    def __call__(self, s0: jax.Array, s1: jax.Array, context: Context) -> jax.Array:
        inputs = [self.first(s0), self.second(s1)]
        if self.outer is None:
            like = inputs[0]
            nodes = [*inputs, *[jnp.zeros_like(like)] * self.num_nodes]
        else:
            like = jnp.zeros_like(inputs[0][:, ::2, ::2])
            nodes = [like] * (NUM_INPUTS + self.num_nodes)
            nodes = self.outer(nodes, context, inputs=inputs)
        nodes = self.inner(nodes, context)
        return jnp.concatenate(nodes[NUM_INPUTS:], axis=-1)


class AuxiliaryHead(nnx.Module):
    """Class scores from two thirds of the depth, for training alone.

    As published for an image of side 8 there, which is pooled to side 2. Smaller ones
    are pooled to that too, with a smaller stride or window.
    """

    def __init__(
        self, side: int, c_in: int, num_classes: int, *, layers: Layers, rngs: nnx.Rngs
    ):
        window = min(5, side - 1)
        self.pool = layers.avg_pool(window, stride=min(3, side - window))
        self.convs = nnx_list(
            [
                layers.conv(c_in, 128, 1, rngs=rngs),
                layers.conv(128, 768, 2, padding=0, rngs=rngs),
            ]
        )
        self.norms = nnx_list(
            [layers.normalisation(c, affine=True, rngs=rngs) for c in (128, 768)]
        )
        self.head = Linear(768, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(nnx.relu(x))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return self.head(jnp.mean(x, axis=(1, 2)))


class DartsNetwork(nnx.Module):
    """Stem, cells, and a linear head on the mean of the image."""

    def __init__(
        self,
        space: DartsSpace,
        make_edges: MakeEdges,
        input_shape: tuple[int, ...],
        num_classes: int,
        layers: Layers,
        rngs: nnx.Rngs,
        auxiliary: bool,
    ):
        c = space.channels
        wide = STEM_MULTIPLIER * c
        self.stem = layers.conv(input_shape[-1], wide, 3, rngs=rngs)
        self.stem_norm = layers.normalisation(wide, affine=True, rngs=rngs)
        self.auxiliary_at = space.reductions[-1]
        before = last = wide
        reduced, cells = False, []
        for i in range(space.num_cells):
            reduction = i in space.reductions
            c *= 2 if reduction else 1
            cells.append(
                DartsCell(
                    space,
                    make_edges,
                    (before, last, c),
                    reduction=reduction,
                    after_reduction=reduced,
                    layers=layers,
                    rngs=rngs,
                )
            )
            before, last, reduced = last, space.num_nodes * c, reduction
            if i == self.auxiliary_at:
                wide = last
        # Two reduction cells halve the image, rounding up.
        side = (min(input_shape[:-1]) + 3) // 4
        if auxiliary and side < 2:
            raise ValueError(
                checks.message(
                    "DartsSpace.build",
                    "auxiliary",
                    "be False for images of less than 5 pixels",
                    f"images of shape {tuple(input_shape)}",
                    "Train without the auxiliary head.",
                )
            )
        self.auxiliary = (
            AuxiliaryHead(side, wide, num_classes, layers=layers, rngs=rngs)
            if auxiliary
            else None
        )
        self.cells = nnx_list(cells)
        self.head = Linear(last, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, context: Context = PLAIN):
        s0 = s1 = self.stem_norm(self.stem(images))
        extra = None
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, context)
            if i == self.auxiliary_at and self.auxiliary and context.training:
                extra = self.auxiliary(s1)
        scores = self.head(jnp.mean(s1, axis=(1, 2)))
        return scores if extra is None else (scores, extra)
