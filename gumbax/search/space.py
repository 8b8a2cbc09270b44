"""What can be chosen: a cell of nodes and edges, and the network around it."""

import itertools
from dataclasses import dataclass

from gumbax import _checks
from gumbax.search.primitives import CHANNELS_IN_GROUP, PRIMITIVES


@dataclass(frozen=True)
class CellSpace:
    """A cell in which every node is the sum of one primitive of each node before it.

    Node 0 is the cell's input and the last node its output, the topology of
    NAS-Bench-201. The network is a stem, `cells_per_stage` cells, a stride-2
    convolution that doubles the channels, as many cells again, and a linear head on the
    mean of the image. All cells are alike: one choice for each edge.

    Attributes:
        name: the space's name, saved with every genotype.
        num_nodes: nodes of the cell, >= 2.
        primitives: names of the operations on an edge, keys of `PRIMITIVES`.
        channels: channels of the first stage, a multiple of 4.
        cells_per_stage: cells in each of the two stages.
        num_classes: outputs of the head.

    Raises:
        ValueError: a field is out of its range, or a primitive is not known.

    Example:
        >>> space = CellSpace(name="small", primitives=("none", "conv_3x3"))
        >>> space.num_edges, space.num_architectures
        (6, 64)

    References:
        Dong, Yang, 2020 (NAS-Bench-201). https://arxiv.org/abs/2001.00326
    """

    name: str
    primitives: tuple[str, ...]
    num_nodes: int = 4
    channels: int = 16
    cells_per_stage: int = 1
    num_classes: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.primitives if name not in PRIMITIVES]
        if unknown or not self.primitives:
            raise ValueError(
                _checks.message(
                    "CellSpace",
                    "primitives",
                    "be names of known primitives",
                    f"{unknown or 'none'}",
                    f"Known: {', '.join(PRIMITIVES)}.",
                )
            )
        ranges = {
            "num_nodes": (self.num_nodes >= 2, "be at least 2"),
            "channels": (
                self.channels > 0 and self.channels % CHANNELS_IN_GROUP == 0,
                f"be a multiple of {CHANNELS_IN_GROUP}",
            ),
            "cells_per_stage": (self.cells_per_stage >= 1, "be at least 1"),
            "num_classes": (self.num_classes >= 2, "be at least 2"),
        }
        for field, (fits, must) in ranges.items():
            if not fits:
                raise ValueError(
                    _checks.message(
                        "CellSpace", field, must, getattr(self, field), "Change it."
                    )
                )

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(from, to) of every edge, by target and then by source."""
        pairs = itertools.combinations(range(self.num_nodes), 2)
        return tuple(sorted(pairs, key=lambda edge: (edge[1], edge[0])))

    @property
    def num_edges(self) -> int:
        return len(self.edges)

    @property
    def num_architectures(self) -> int:
        return len(self.primitives) ** self.num_edges


SMALL_IMAGES = CellSpace(name="small_images", primitives=tuple(PRIMITIVES))
