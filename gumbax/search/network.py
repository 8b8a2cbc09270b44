"""The network around the cells, with all candidates (supernet) or with one (derived).

Both are made of the same skeleton, which runs the same operations in the same order, so
that a derived network with inherited weights gives the supernet's own output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax.mixed_op import Branch, PyTree
from gumbax.nnx import ArchParam, pure_branches
from gumbax.search.genotype import Genotype
from gumbax.search.primitives import PRIMITIVES, Conv, Normalisation
from gumbax.search.space import CellSpace

# (weights, branches, params, x) -> output: `gumbax.mixed_op` or `gumbax.single_path`.
Operation = Callable[
    [jax.Array, Sequence[Branch], Sequence[PyTree], jax.Array], jax.Array
]


def cell_output(
    space: CellSpace,
    x: jax.Array,
    edge_output: Callable[[int, jax.Array], jax.Array | None],
) -> jax.Array:
    """Sums the edges into the nodes, in order; None stands for no connection."""
    nodes = [x]
    for target in range(1, space.num_nodes):
        total = None
        for edge, (source, end) in enumerate(space.edges):
            if end == target:
                y = edge_output(edge, nodes[source])
                if y is not None:
                    total = y if total is None else total + y
        nodes.append(jnp.zeros_like(x) if total is None else total)
    return nodes[-1]


class Skeleton(nnx.Module):
    """Stem, two stages of cells with a reduction between them, and the head."""

    def __init__(
        self,
        space: CellSpace,
        image_channels: int,
        make_cell: Callable[[int], Any],
        *,
        rngs: nnx.Rngs,
    ):
        c = space.channels
        self.stem = Conv(image_channels, c, (3, 3), rngs=rngs)
        self.stem_norm = Normalisation(c, rngs=rngs)
        cells = range(space.cells_per_stage)
        self.first = nnx.List([make_cell(c) for _ in cells])
        self.reduction = Conv(c, 2 * c, (3, 3), strides=(2, 2), rngs=rngs)
        self.reduction_norm = Normalisation(2 * c, rngs=rngs)
        self.second = nnx.List([make_cell(2 * c) for _ in cells])
        self.norm = Normalisation(2 * c, rngs=rngs)
        self.head = nnx.Linear(2 * c, space.num_classes, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        apply_cell: Callable[[Any, jax.Array], jax.Array],
    ) -> jax.Array:
        x = self.stem_norm(self.stem(images))
        for cell in self.first:
            x = apply_cell(cell, x)
        x = self.reduction_norm(self.reduction(nnx.relu(x)))
        for cell in self.second:
            x = apply_cell(cell, x)
        x = nnx.relu(self.norm(x))
        return self.head(jnp.mean(x, axis=(1, 2)))


class SupernetCell(nnx.Module):
    """All candidates of every edge."""

    def __init__(self, space: CellSpace, channels: int, *, rngs: nnx.Rngs):
        self.edges = nnx.List(
            [
                nnx.List([PRIMITIVES[p](channels, rngs=rngs) for p in space.primitives])
                for _ in space.edges
            ]
        )

    def __call__(
        self, space: CellSpace, weights: jax.Array, operation: Operation, x: jax.Array
    ) -> jax.Array:
        def edge_output(edge: int, x: jax.Array) -> jax.Array:
            branches, params = pure_branches(self.edges[edge])
            return operation(weights[edge], branches, params, x)

        return cell_output(space, x, edge_output)


class Supernet(nnx.Module):
    """The network that holds every architecture of a space.

    Attributes:
        arch_logits: `ArchParam`, [edges, primitives], shared by all cells.

    Args:
        space: the space.
        image_channels: channels of the input images.
        rngs: for the initial weights.

    Example:
        >>> from gumbax.search.space import SMALL_IMAGES as space
        >>> net = Supernet(space, 1, rngs=nnx.Rngs(0))
        >>> weights = jax.nn.softmax(net.arch_logits[...])
        >>> net(jnp.ones((2, 8, 8, 1)), weights, gumbax.mixed_op).shape
        (2, 10)
    """

    def __init__(self, space: CellSpace, image_channels: int, *, rngs: nnx.Rngs):
        self.space = space
        self.skeleton = Skeleton(
            space,
            image_channels,
            lambda channels: SupernetCell(space, channels, rngs=rngs),
            rngs=rngs,
        )
        shape = (space.num_edges, len(space.primitives))
        self.arch_logits = ArchParam(jnp.zeros(shape))

    def __call__(
        self, images: jax.Array, weights: jax.Array, operation: Operation
    ) -> jax.Array:
        """Class scores [batch, classes] of images [batch, height, width, channels].

        Args:
            images: the images.
            weights: [edges, primitives], one row for each edge, used in every cell.
            operation: how an edge uses its row: `gumbax.mixed_op` for any weights,
                `gumbax.single_path` for one-hot rows.

        Returns:
            Unnormalised class scores.
        """
        return self.skeleton(
            images, lambda cell, x: cell(self.space, weights, operation, x)
        )


class DerivedCell(nnx.Module):
    """The one module of every edge; None for no connection."""

    def __init__(
        self, space: CellSpace, genotype: Genotype, channels: int, *, rngs: nnx.Rngs
    ):
        self.edges = nnx.List(
            [
                None if name == "none" else PRIMITIVES[name](channels, rngs=rngs)
                for name in genotype.operations
            ]
        )

    def __call__(self, space: CellSpace, x: jax.Array) -> jax.Array:
        def edge_output(edge: int, x: jax.Array) -> jax.Array | None:
            module: Any = self.edges[edge]
            return None if module is None else module(x)

        return cell_output(space, x, edge_output)


class DerivedNetwork(nnx.Module):
    """One architecture of a space, an ordinary module: images -> class scores.

    Args:
        space: the space.
        genotype: the chosen primitive of each edge.
        image_channels: channels of the input images.
        rngs: for the initial weights.

    Raises:
        ValueError: the genotype is of another space.

    Example:
        >>> from gumbax.search.space import SMALL_IMAGES as space
        >>> genotype = Genotype.random(jax.random.key(0), space)
        >>> net = DerivedNetwork(space, genotype, 1, rngs=nnx.Rngs(0))
        >>> net(jnp.ones((2, 8, 8, 1))).shape
        (2, 10)
    """

    def __init__(
        self,
        space: CellSpace,
        genotype: Genotype,
        image_channels: int,
        *,
        rngs: nnx.Rngs,
    ):
        genotype.check(space)
        self.space = space
        self.skeleton = Skeleton(
            space,
            image_channels,
            lambda channels: DerivedCell(space, genotype, channels, rngs=rngs),
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Class scores [batch, classes] of images [batch, height, width, channels]."""
        return self.skeleton(images, lambda cell, x: cell(self.space, x))


def derive(supernet: Supernet, genotype: Genotype | None = None) -> DerivedNetwork:
    """Keeps one primitive of each edge, with the weights it has in the supernet.

    The modules are copied. Its output is the supernet's own for these choices: exactly
    under `jax.disable_jit()`, to rounding when compiled.

    Args:
        supernet: the trained supernet.
        genotype: the primitives to keep; the most probable ones if None.

    Returns:
        An ordinary NNX module.

    Raises:
        ValueError: the genotype is of another space.

    Example:
        >>> from gumbax.search.space import SMALL_IMAGES as space
        >>> net = derive(Supernet(space, 1, rngs=nnx.Rngs(0)))
        >>> net(jnp.ones((2, 8, 8, 1))).shape
        (2, 10)

    References:
        Liu, Simonyan, Yang, 2019, Sec. 2.4; argmax for each edge as in NAS-Bench-201.
    """
    space = supernet.space
    if genotype is None:
        genotype = Genotype.most_probable(supernet.arch_logits[...], space)
    source = nnx.clone(supernet.skeleton)
    image_channels = source.stem.in_features
    network = DerivedNetwork(space, genotype, image_channels, rngs=nnx.Rngs(0))
    skeleton = network.skeleton
    for name in ("stem", "stem_norm", "reduction", "reduction_norm", "norm", "head"):
        setattr(skeleton, name, getattr(source, name))
    chosen = genotype.indices(space)
    for stage in ("first", "second"):
        cells = zip(getattr(skeleton, stage), getattr(source, stage), strict=True)
        for cell, all_cell in cells:
            cell.edges = nnx.List(
                [
                    None if name == "none" else all_cell.edges[edge][index]
                    for edge, (name, index) in enumerate(
                        zip(genotype.operations, chosen, strict=True)
                    )
                ]
            )
    return network
