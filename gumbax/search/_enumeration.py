"""The architectures of a space: numbered where every edge is kept, drawn anywhere.

Cells are plain here, name -> (primitive, source, target) triples.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax
import numpy as np

from gumbax import _checks
from gumbax.search._genotype_text import Cells, Triple

if TYPE_CHECKING:
    from gumbax.search.space import Choice, Space


def index_of(cells: Cells, space: "Space") -> int:
    place = 0
    for name, choice in space.choices.items():
        chosen = {tuple(edge): primitive for primitive, *edge in cells[name]}
        missing = [edge for edge in choice.edges if edge not in chosen]
        if missing:
            raise _not_numbered("Genotype.index", f"no edge {missing[0]} of {name!r}")
        for edge in choice.edges:
            digit = choice.primitives.index(chosen[edge])
            place = place * len(choice.primitives) + digit
    return place


def cells_at(index: int, space: "Space") -> dict[str, list[Triple]]:
    function = "Genotype.from_index"
    if getattr(space, "inputs_per_node", None) is not None:
        raise _not_numbered(function, f"the space {space.name!r}")
    choices = list(space.choices.items())
    number = math.prod(len(c.primitives) ** len(c.edges) for _, c in choices)
    cure = f"The space {space.name!r} has {number} architectures."
    place = _checks.count(function, "index", index, 0, cure)
    if place >= number:
        must = f"be below {number}"
        raise ValueError(_checks.message(function, "index", must, place, cure))
    cells = {}
    for name, choice in reversed(choices):
        digits = []
        for _ in choice.edges:
            place, digit = divmod(place, len(choice.primitives))
            digits.append(digit)
        cells[name] = _full_cell(choice, reversed(digits))
    return {name: cells[name] for name, _ in choices}


def _not_numbered(function: str, got: str) -> ValueError:
    cure = "Architectures are numbered where all of their edges are always kept."
    return ValueError(_checks.message(function, "space", "keep every edge", got, cure))


def random_logits(key: jax.Array, space: "Space") -> dict[str, np.ndarray]:
    """Independent standard normal logits for every choice."""
    keys = jax.random.split(key, len(space.choices))
    return {
        name: np.asarray(
            jax.random.normal(key, (len(choice.edges), len(choice.primitives)))
        )
        for key, (name, choice) in zip(keys, space.choices.items(), strict=True)
    }


def random_cells(key: jax.Array, space: "Space") -> dict[str, list[Triple]]:
    """Uniform over all architectures."""
    keys = jax.random.split(key, len(space.choices))
    inputs = getattr(space, "inputs_per_node", None)
    return {
        name: _random_cell(key, choice, inputs)
        for key, (name, choice) in zip(keys, space.choices.items(), strict=True)
    }


def _random_cell(key: jax.Array, choice: "Choice", inputs: int | None) -> list[Triple]:
    rank_key, primitive_key = jax.random.split(key)
    shape = (len(choice.edges),)
    usable = list(range(len(choice.primitives)))
    if inputs is not None:
        usable = connecting("Genotype.random", choice)
    drawn = jax.random.randint(primitive_key, shape, 0, len(usable)).tolist()
    edges = _full_cell(choice, [usable[digit] for digit in drawn])
    if inputs is None:
        return edges
    ranks = np.asarray(jax.random.uniform(rank_key, shape))
    kept = [sorted(rows[np.argsort(ranks[rows])[:inputs]]) for rows in by_node(choice)]
    return [edges[row] for rows in kept for row in rows]


def _full_cell(choice: "Choice", digits: Iterable[int]) -> list[Triple]:
    rows = zip(choice.edges, digits, strict=True)
    return [(choice.primitives[digit], *edge) for edge, digit in rows]


def by_node(choice: "Choice") -> list[np.ndarray]:
    """The rows of the edges into each node."""
    targets = np.array([target for _, target in choice.edges], int)
    return [np.flatnonzero(targets == node) for node in np.unique(targets)]


def connecting(function: str, choice: "Choice") -> list[int]:
    """The positions of the primitives that connect: all but `none`, wherever it is."""
    found = [i for i, name in enumerate(choice.primitives) if name != "none"]
    if not found:
        must, got = "have a primitive other than `none`", choice.primitives
        cure = "Add one to the choice."
        raise ValueError(_checks.message(function, "space", must, got, cure))
    return found
