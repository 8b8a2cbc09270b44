"""What can be chosen: sets of edges with architecture logits, and the network around.

A space is a record that knows its choices, its size, and how to build its network. The
network is written once: built with all candidates of each edge it is the supernet, with
the kept ones alone the derived network (`gumbax.search.spaces.edges`).
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from gumbax._common import checks
from gumbax.search.spaces.edges import MakeEdges
from gumbax.search.spaces.layers import Layers

# (channels, stride=..., layers=..., rngs=...) -> module
Primitive = Callable[..., nnx.Module]


@dataclass(frozen=True)
class Choice:
    """One set of architecture logits [E, K]: E edges that choose among K primitives.

    Attributes:
        edges: (source, target) of each edge, by target, then by source.
        primitives: names of the operations on an edge.
        num_inputs: nodes 0 to num_inputs - 1 are the inputs of the cell.
        outputs: the nodes that make its output.

    Example:
        >>> choice = Choice(edges=((0, 1), (0, 2), (1, 2)), primitives=("none", "conv"))
        >>> choice.shape
        (3, 2)
    """

    edges: tuple[tuple[int, int], ...]
    primitives: tuple[str, ...]
    num_inputs: int = 1
    outputs: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Of the logits, [E, K]."""
        return len(self.edges), len(self.primitives)

    def to_json(self) -> dict[str, Any]:
        """The attributes, for files."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Choice":
        """Undoes `to_json`.

        Raises:
            KeyError: an attribute is missing.
            TypeError: one is not a list, or a number no number.
            ValueError: an edge is not a pair.
        """
        return cls(
            tuple((int(i), int(j)) for i, j in found["edges"]),
            tuple(map(str, found["primitives"])),
            int(found["num_inputs"]),
            tuple(map(int, found["outputs"])),
        )


class Space(abc.ABC):
    """What every space has.

    Attributes:
        name: saved with every genotype.
        norm: normalisation of the network, "batch" or "group".
        inputs_per_node: how many edges a derived node keeps; None for all.
    """

    name: str
    norm: str = "batch"
    inputs_per_node: int | None = None
    # Whether nothing can flow where an edge is left out (a class attribute).
    every_edge = False

    @property
    @abc.abstractmethod
    def choices(self) -> Mapping[str, Choice]:
        """The sets of logits, by name."""

    @abc.abstractmethod
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
        """The network, a module of (x, context) -> class scores [batch, classes].

        Args:
            make_edges: makes the module of a group of edges of equal shape.
            input_shape: of one example, [H, W, C] or [D].
            num_classes: outputs.
            layers: how layers are made.
            rngs: for the initial weights.
            auxiliary: with an auxiliary head, where the space has one: the network
                then returns a pair of class scores in training.
        """

    @property
    def num_architectures(self) -> int:
        """The number of genotypes that can be derived."""
        total = 1
        for choice in self.choices.values():
            num_edges, num_primitives = choice.shape
            if self.inputs_per_node is None:
                total *= num_primitives**num_edges
                continue
            usable = num_primitives - ("none" in choice.primitives)
            for node in sorted({target for _, target in choice.edges}):
                num_inputs = sum(target == node for _, target in choice.edges)
                kept = min(num_inputs, self.inputs_per_node)
                total *= math.comb(num_inputs, kept) * usable**kept
        return total


def check_primitives(space: str, names: Any, known: Mapping[str, Primitive]) -> None:
    """Raises ValueError unless these are names of known primitives."""
    unknown = [name for name in names if name not in known]
    if len(set(names)) < len(names):
        raise ValueError(
            checks.message(
                space, "primitives", "be different", tuple(names), "Name each once."
            )
        )
    if unknown or not names:
        raise ValueError(
            checks.message(
                space,
                "primitives",
                "be names of known primitives",
                f"{unknown or 'none'}",
                f"Known: {', '.join(known)}. A mapping from names to your own "
                "(channels, *, stride, layers, rngs) -> module is as good.",
            )
        )


def check_ranges(space: str, ranges: Mapping[str, tuple[object, bool, str]]) -> None:
    """Raises ValueError for the first field: (value, fits, must) that does not fit."""
    for field, (value, fits, must) in ranges.items():
        if not fits:
            raise ValueError(
                checks.message(space, field, must, value, "Change that field.")
            )
