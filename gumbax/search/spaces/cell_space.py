"""Spaces of one cell whose nodes are sums over all nodes before: NAS-Bench-201's."""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common.versions import nnx_list
from gumbax.search.spaces.edges import PLAIN, Context, MakeEdges
from gumbax.search.spaces.layers import CHANNELS_IN_GROUP, Layers, Linear
from gumbax.search.spaces.primitives import PRIMITIVES, ReluConvNorm
from gumbax.search.spaces.space import (
    Choice,
    Primitive,
    Space,
    check_primitives,
    check_ranges,
)


@dataclass(frozen=True)
class CellSpace(Space):
    """A cell in which every node is the sum of one primitive of each node before it.

    Node 0 is the cell's input and the last node its output. The network is a 3x3
    convolution, then stages of `cells_per_stage` cells, the channels doubled and the
    image halved between them by a residual block, and a linear head on the mean of the
    image. All cells are alike: one set of logits.

    Attributes:
        name: saved with every genotype.
        primitives: names of the operations on an edge.
        num_nodes: nodes of the cell, >= 2.
        channels: of the first stage.
        cells_per_stage: cells in each stage.
        num_stages: stages.
        norm: "batch" or "group".
        known: name -> primitive; your own beside the built-in ones.

    Raises:
        ValueError: a field is out of its range, or a primitive is not known.

    Example:
        >>> space = CellSpace(name="small", primitives=("none", "nor_conv_3x3"))
        >>> space.choices["cell"].shape, space.num_architectures
        ((6, 2), 64)

    References:
        Dong, Yang, 2020 (NAS-Bench-201). https://arxiv.org/abs/2001.00326
    """

    name: str
    primitives: tuple[str, ...]
    num_nodes: int = 4
    channels: int = 16
    cells_per_stage: int = 1
    num_stages: int = 3
    norm: str = "batch"
    known: Mapping[str, Primitive] = field(
        default_factory=lambda: PRIMITIVES, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_primitives("CellSpace", self.primitives, self.known)
        grouped = self.channels % CHANNELS_IN_GROUP == 0
        must = f"be a positive multiple of {CHANNELS_IN_GROUP}"
        check_ranges(
            "CellSpace",
            {
                "num_nodes": (self.num_nodes, self.num_nodes >= 2, "be at least 2"),
                "channels": (self.channels, self.channels > 0 and grouped, must),
                "cells_per_stage": (
                    self.cells_per_stage,
                    self.cells_per_stage >= 1,
                    "be at least 1",
                ),
                "num_stages": (self.num_stages, self.num_stages >= 1, "be at least 1"),
                "norm": (self.norm, self.norm in ("batch", "group"), "be a known one"),
            },
        )

    @property
    def choices(self) -> Mapping[str, Choice]:
        pairs = itertools.combinations(range(self.num_nodes), 2)
        edges = tuple(sorted(pairs, key=lambda edge: (edge[1], edge[0])))
        last = self.num_nodes - 1
        return {"cell": Choice(edges, self.primitives, outputs=(last,))}

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
        return CellNetwork(self, make_edges, input_shape, num_classes, layers, rngs)


class ResidualBlock(nnx.Module):
    """[ReLU, 3x3 stride 2, norm, ReLU, 3x3, norm] + [2x2 mean, 1x1 convolution]."""

    def __init__(self, c_in: int, c_out: int, *, layers: Layers, rngs: nnx.Rngs):
        self.first = ReluConvNorm(3, c_in, c_out, stride=2, layers=layers, rngs=rngs)
        self.second = ReluConvNorm(3, c_out, layers=layers, rngs=rngs)
        self.pool = layers.avg_pool(2, stride=2)
        self.shortcut = layers.conv(c_in, c_out, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.second(self.first(x))
        _, height, width, _ = x.shape
        # Images of odd size: the first branch rounds up, so pool over one more pixel.
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return y + self.shortcut(self.pool(x))


class CellNetwork(nnx.Module):
    """Stem, stages of cells with a residual block between them, and the head."""

    def __init__(
        self,
        space: CellSpace,
        make_edges: MakeEdges,
        input_shape: tuple[int, ...],
        num_classes: int,
        layers: Layers,
        rngs: nnx.Rngs,
    ):
        (choice,) = space.choices.values()
        c = space.channels
        # As published: here pooling is not normalised, in the search either.
        layers = dataclasses.replace(layers, pool_norm=False)
        self.num_nodes = space.num_nodes
        self.stem = layers.conv(input_shape[-1], c, 3, rngs=rngs)
        self.stem_norm = layers.normalisation(c, affine=True, rngs=rngs)
        cells, reductions = [], []
        for stage in range(space.num_stages):
            if stage:
                # As published: scale and bias outside the cells, in the search too.
                affine = dataclasses.replace(layers, affine=True)
                reductions.append(ResidualBlock(c, 2 * c, layers=affine, rngs=rngs))
                c *= 2

            def make(name: str, rngs: nnx.Rngs, c: int = c) -> nnx.Module:
                return space.known[name](c, stride=1, layers=layers, rngs=rngs)

            rows = range(len(choice.edges))
            cells.append(
                nnx_list(
                    [
                        make_edges("cell", rows, choice.edges, make, rngs)
                        for _ in range(space.cells_per_stage)
                    ]
                )
            )
        self.reductions = nnx_list(reductions)
        self.cells = nnx_list(cells)
        self.norm = layers.normalisation(c, affine=True, rngs=rngs)
        self.head = Linear(c, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, context: Context = PLAIN) -> jax.Array:
        x = self.stem_norm(self.stem(images))
        for stage, cells in enumerate(self.cells):
            if stage:
                x = self.reductions[stage - 1](x)
            for cell in cells:
                empty = [jnp.zeros_like(x)] * (self.num_nodes - 1)
                x = cell([x, *empty], context)[-1]
        x = nnx.relu(self.norm(x))
        return self.head(jnp.mean(x, axis=(1, 2)))
