"""An architecture: the edges of each cell that are kept, and their primitives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import checks
from gumbax.search.genotype import enumeration, texts
from gumbax.search.spaces.space import Choice, Space

# What a text must be, and what to do.
_JSON = (
    'be JSON with the fields "space" and "cells"',
    "Use the genotype.json that a search wrote.",
)
_DARTS = (
    "be the record of a DARTS cell, every node with two inputs",
    "It reads Genotype(normal=[...], normal_concat=..., reduce=[...], ...).",
)
_NASBENCH201 = (
    "be an architecture string of NAS-Bench-201",
    "For example |none~0|+|none~0|none~1|+|none~0|none~1|none~2|.",
)


class Edge(NamedTuple):
    """A primitive that takes one node to another.

    Attributes:
        primitive: its name.
        source: number of the node it reads.
        target: number of the node it adds to.
    """

    primitive: str
    source: int
    target: int


@dataclass(frozen=True)
class Genotype:
    """The kept edges of every cell. Hashable; equal if the listed order is equal too.

    An edge that is not listed does not exist. `none` may be listed, as in NAS-Bench-201
    where every edge is. The text is the natural one of the architecture: that of DARTS,
    that of NAS-Bench-201, else `name: primitive(source->target), ...`.

    Attributes:
        space: name of the space that it belongs to.
        cells: name of a choice -> its kept edges. Plain tuples become `Edge`.

    Example:
        >>> genotype = Genotype("mine", {"layers": (("conv", 0, 1), ("pool", 1, 2))})
        >>> print(genotype)
        layers: conv(0->1), pool(1->2)
        >>> genotype.cells["layers"][1].primitive
        'pool'
    """

    space: str
    cells: Mapping[str, tuple[Edge, ...]]

    def __post_init__(self) -> None:
        cells = {name: tuple(Edge(*e) for e in self.cells[name]) for name in self.cells}
        object.__setattr__(self, "cells", cells)

    @classmethod
    def _of(cls, space: str, cells: texts.Cells) -> "Genotype":
        return cls(space, cells)  # type: ignore[arg-type]  # made `Edge` above

    def __hash__(self) -> int:
        return hash((self.space, frozenset(self.cells.items())))

    def __str__(self) -> str:
        return (
            texts.write_darts(self.cells)
            or texts.write_nasbench201(self.cells)
            or texts.write_plain(self.cells)
        )

    def check(self, space: Space) -> None:
        """Makes sure that this is an architecture of a space.

        Args:
            space: a search space.

        Raises:
            ValueError: the name of the space or of a choice, a primitive or an edge is
                not of the space, or an edge is listed twice.
        """
        fault = self._fault(space)
        if fault:
            known = {name: choice.primitives for name, choice in space.choices.items()}
            lists = [f"{name}: {', '.join(known[name])}" for name in known]
            raise ValueError(
                checks.message(
                    "Genotype",
                    "cells",
                    f"be an architecture of the space {space.name!r}",
                    fault,
                    f"Its primitives: {'; '.join(lists)}.",
                )
            )

    def _fault(self, space: Space) -> str | None:
        if self.space != space.name:
            return f"one of the space {self.space!r}"
        if set(self.cells) != set(space.choices):
            return f"cells {sorted(self.cells)} for choices {sorted(space.choices)}"
        every = getattr(space, "every_edge", False)
        faults = (self._fault_of(n, c, every) for n, c in space.choices.items())
        return next((fault for fault in faults if fault), None)

    def _fault_of(self, name: str, choice: Choice, every: bool) -> str | None:
        seen: set[tuple[int, int]] = set()
        for primitive, source, target in self.cells[name]:
            where = f"the edge {source}->{target} of {name!r}"
            if primitive not in choice.primitives:
                return f"{primitive!r} on {where}"
            if (source, target) not in choice.edges:
                return f"{where}, which does not exist"
            if (source, target) in seen:
                return f"{where} twice"
            seen.add((source, target))
        missing = [edge for edge in choice.edges if edge not in seen]
        if missing and every:
            return "no edge {}->{} of {!r}".format(*missing[0], name)
        return None

    def weights(self, space: Space) -> dict[str, jax.Array]:
        """The weights that keep this architecture alone in a supernet.

        Args:
            space: its space.

        Returns:
            Name of a choice -> float32 [E, K]: a one-hot row for a kept edge, a row of
            zeros for every other.

        Raises:
            ValueError: this is not an architecture of the space.
        """
        self.check(space)
        weights = {}
        for name, choice in space.choices.items():
            rows = np.zeros((len(choice.edges), len(choice.primitives)), np.float32)
            for primitive, *edge in self.cells[name]:
                row = choice.edges.index(tuple(edge))
                rows[row, choice.primitives.index(primitive)] = 1.0
            weights[name] = jnp.asarray(rows)
        return weights

    @classmethod
    def random(
        cls,
        key: jax.Array,
        space: Space,
        *,
        rule: Callable[[Mapping[str, np.ndarray], Space], "Genotype"] | None = None,
    ) -> "Genotype":
        """Draws an architecture, uniform over all of the space.

        Every edge is kept, with a uniform primitive. Where the space has an integer
        `inputs_per_node`, as that of DARTS has, each node instead takes so many
        distinct inputs, uniform too, and a uniform primitive other than `none` on each.

        Args:
            key: scalar key from `jax.random.key`. Consumed.
            space: the space.
            rule: derive from independent normal logits by this rule instead; for a rule
                that treats primitives and edges alike, its outcomes are uniform.

        Returns:
            An architecture of the space.

        Raises:
            TypeError: `key` is not one key.
            ValueError: a primitive other than `none` is needed and there is none.
        """
        key = checks.scalar_key("Genotype.random", key)
        if rule is not None:
            return rule(enumeration.random_logits(key, space), space)
        return cls._of(space.name, enumeration.random_cells(key, space))

    def index(self, space: Space) -> int:
        """The place of this architecture among all, every edge of the space kept.

        Lexicographic over all choices in order, the last edge fastest: for the cell of
        NAS-Bench-201 sum_e digit_e 5^(5-e), AutoDL's `gen_all`. The index that the
        benchmark itself gives to a cell is another one, a fixed shuffle that cannot be
        computed. Never mix the two: look a cell up in its files by its string.

        Args:
            space: its space.

        Returns:
            A number from 0 to the number of architectures - 1.

        Raises:
            ValueError: this is not an architecture of the space, or does not keep every
                edge.

        Example:
            >>> from types import SimpleNamespace
            >>> from gumbax.search.spaces import Choice
            >>> choice = Choice(((0, 1), (1, 2)), ("conv", "pool", "skip"))
            >>> space = SimpleNamespace(name="mine", choices={"layers": choice})
            >>> genotype = Genotype.from_index(5, space)
            >>> print(genotype, genotype.index(space))
            layers: pool(0->1), skip(1->2) 5
        """
        self.check(space)
        return enumeration.index_of(self.cells, space)

    @classmethod
    def from_index(cls, index: int, space: Space) -> "Genotype":
        """The architecture at a place in the order of `index`.

        Args:
            index: from 0 to the number of architectures - 1. Not the index of the
                NAS-Bench-201 files, see `index`.
            space: a space in which every edge is kept.

        Returns:
            The architecture.

        Raises:
            TypeError: `index` is not an integer.
            ValueError: `index` is out of range, or the space keeps some edges only.
        """
        return cls._of(space.name, enumeration.cells_at(index, space))

    def to_json(self) -> str:
        """JSON with `space`, `cells` and, for the reader alone, the text."""
        return texts.write_json(self.space, self.cells, str(self))

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Reads what `to_json` wrote; its `text` is passed over.

        Raises:
            ValueError: the text is not a genotype.
        """
        try:
            return cls._of(*texts.read_json(text))
        except ValueError as error:
            raise _unreadable("from_json", _JSON, repr(text[:60]), error) from error

    @classmethod
    def load(cls, path: str | Path) -> "Genotype":
        """Reads a genotype file.

        Args:
            path: of a file with the text of `to_json`.

        Returns:
            The genotype.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not a genotype.
        """
        text = Path(path).read_bytes().decode("utf-8", errors="replace")
        try:
            return cls._of(*texts.read_json(text))
        except ValueError as error:
            raise _unreadable("load", _JSON, str(path), error) from error

    def to_darts(self) -> str:
        """The record of DARTS: (primitive, input) pairs by node, in the listed order.

        Returns:
            `Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6),
            reduce=[...], reduce_concat=range(2, 6))` on one line.

        Raises:
            ValueError: the cells are not `normal` and `reduce` with two inputs a node.
        """
        form = "cells `normal` and `reduce` with two inputs for each node"
        return self._written(texts.write_darts(self.cells), "to_darts", form)

    @classmethod
    def from_darts(cls, text: str, *, space: str = "darts") -> "Genotype":
        """Reads the record of DARTS, as printed by a search or published.

        Nothing is executed. A concatenation may also be a list, and `NAME =` may stand
        before the record.

        Args:
            text: the record.
            space: name of the space that it is read for.

        Returns:
            The genotype, with the edges in the order of the text.

        Raises:
            ValueError: the text is not such a record, or some node has not two
                inputs or is not concatenated.

        Example:
            >>> pairs = "[('sep_conv_3x3', 1), ('skip_connect', 0)]"
            >>> text = f"Genotype(normal={pairs}, normal_concat=range(2, 3), "
            >>> text += f"reduce={pairs}, reduce_concat=[2])"
            >>> Genotype.from_darts(text).cells["reduce"][0]
            Edge(primitive='sep_conv_3x3', source=1, target=2)
        """
        try:
            return cls._of(space, texts.read_darts(text))
        except ValueError as error:
            raise _unreadable("from_darts", _DARTS, repr(text[:60]), error) from error

    def to_nasbench201(self) -> str:
        """The string of NAS-Bench-201: |primitive~source| by node, `+` between nodes.

        Raises:
            ValueError: the genotype is not one cell `cell` with every edge kept.
        """
        text = texts.write_nasbench201(self.cells)
        form = "one cell `cell` in which each node takes every node before it"
        return self._written(text, "to_nasbench201", form)

    @classmethod
    def from_nasbench201(cls, text: str, *, space: str = "nasbench201") -> "Genotype":
        """Reads the string of NAS-Bench-201.

        Args:
            text: `|o0~0|+|o1~0|o2~1|+|o3~0|o4~1|o5~2|`, for any number of nodes.
            space: name of the space that it is read for.

        Returns:
            The genotype, with edges by target and then by source.

        Raises:
            ValueError: the text is not such a string.

        Example:
            >>> genotype = Genotype.from_nasbench201("|none~0|+|skip~0|conv~1|")
            >>> genotype.cells["cell"][2]
            Edge(primitive='conv', source=1, target=2)
            >>> str(genotype)
            '|none~0|+|skip~0|conv~1|'
        """
        try:
            return cls._of(space, texts.read_nasbench201(text))
        except ValueError as error:
            raise _unreadable(
                "from_nasbench201", _NASBENCH201, repr(text[:60]), error
            ) from error

    def _written(self, text: str | None, function: str, form: str) -> str:
        if text is None:
            cure = "`str` and `to_json` write every genotype."
            got = texts.write_plain(self.cells)
            raise ValueError(
                checks.message(f"Genotype.{function}", "self", f"be {form}", got, cure)
            )
        return text


def architectures(space: Space) -> Iterator[Genotype]:
    """All architectures of a space, by their index."""
    for index in range(space.num_architectures):
        yield Genotype.from_index(index, space)


def constant_architectures(space: Space) -> dict[str, Genotype]:
    """The architectures with one operation everywhere: what needs no search.

    Args:
        space: a space.

    Returns:
        Name of a primitive -> the architecture that has it on every edge, for each
        primitive that all choices have. Where a node keeps some of its inputs only,
        these are its first ones, and `none` has no architecture.

    Example:
        >>> from gumbax.search.spaces import nasbench201
        >>> print(constant_architectures(nasbench201())["nor_conv_3x3"])
        |nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|
    """
    return {
        primitive: Genotype._of(space.name, cells)
        for primitive, cells in enumeration.constant_cells(space).items()
    }


def _unreadable(
    function: str, form: tuple[str, str], got: str, error: Exception
) -> ValueError:
    must, cure = form
    argument = "path" if function == "load" else "text"
    got = f"{got} ({str(error)[:200]})"
    name = f"Genotype.{function}"
    return ValueError(checks.message(name, argument, must, got, cure))
