"""The architectures of a space: numbered where every edge is kept, drawn anywhere.

Cells are plain here, name -> (primitive, source, target) triples.
"""

import itertools
import math
from collections.abc import Iterable

import jax
import numpy as np

from gumbax._common import checks
from gumbax.search.genotype.texts import Cells, Triple
from gumbax.search.spaces.space import Choice, Space

# What one digit of an index stands for: the edges that it keeps.
Kept = tuple[Triple, ...]


def alternatives(choice: Choice, inputs: int | None) -> list[list[Kept]]:
    """For each digit of a choice its values in order, the last digit fastest.

    Where every edge is kept (`inputs` is None) a digit is an edge, else a node: its
    pairs of inputs (or more; all it has if these are fewer), and for each of them all
    primitives but `none`.
    """
    if inputs is None:
        return [
            [((name, *edge),) for name in choice.primitives] for edge in choice.edges
        ]
    names = [choice.primitives[i] for i in connecting("Genotype.index", choice)]
    return [
        [
            tuple(
                (name, *choice.edges[row]) for name, row in zip(used, rows, strict=True)
            )
            for rows in itertools.combinations(node, min(inputs, len(node)))
            for used in itertools.product(names, repeat=len(rows))
        ]
        for node in by_node(choice)
    ]


def digits_of(space: Space) -> dict[str, list[list[Kept]]]:
    inputs = getattr(space, "inputs_per_node", None)
    return {name: alternatives(c, inputs) for name, c in space.choices.items()}


def index_of(cells: Cells, space: Space) -> int:
    place = 0
    for name, digits in digits_of(space).items():
        kept = sorted(cells[name], key=lambda triple: (triple[2], triple[1]))
        for values in digits:
            size = len(values[0])
            first = tuple((primitive, i, j) for primitive, i, j in kept[:size])
            kept = kept[size:]
            if first not in values:
                raise _not_numbered(f"{first or 'nothing'} in {name!r}")
            place = place * len(values) + values.index(first)
        if kept:
            raise _not_numbered(f"also {tuple(kept[0])} in {name!r}")
    return place


def cells_at(index: int, space: Space) -> dict[str, list[Triple]]:
    by_choice = digits_of(space)
    number = math.prod(len(v) for digits in by_choice.values() for v in digits)
    cure = f"The space {space.name!r} has {number} architectures."
    function = "Genotype.from_index"
    place = checks.count(function, "index", index, 0, cure)
    if place >= number:
        must = f"be below {number}"
        raise ValueError(checks.message(function, "index", must, place, cure))
    cells: dict[str, list[Triple]] = {}
    for name, digits in reversed(by_choice.items()):
        chosen: list[Kept] = []
        for values in reversed(digits):
            place, digit = divmod(place, len(values))
            chosen.append(values[digit])
        cells[name] = [triple for kept in reversed(chosen) for triple in kept]
    return {name: cells[name] for name in by_choice}


def _not_numbered(got: str) -> ValueError:
    must = "keep as many edges into every node as the space does"
    cure = "Others, as a threshold gives, have no number."
    return ValueError(checks.message("Genotype.index", "cells", must, got, cure))


def constant_cells(space: Space) -> dict[str, dict[str, list[Triple]]]:
    """For each primitive that every choice has, the cells with it on every edge.

    Where a node keeps some of its edges only, these are the first ones.
    """
    inputs = getattr(space, "inputs_per_node", None)
    choices = space.choices.values()
    shared = [
        name
        for name in next(iter(choices)).primitives
        if all(name in choice.primitives for choice in choices)
    ]
    if inputs is not None:
        shared = [name for name in shared if name != "none"]
    return {
        primitive: {
            name: [
                (primitive, *choice.edges[row])
                for node in by_node(choice)
                for row in node[:inputs]
            ]
            for name, choice in space.choices.items()
        }
        for primitive in shared
    }


def random_logits(key: jax.Array, space: Space) -> dict[str, np.ndarray]:
    """Independent standard normal logits for every choice."""
    keys = jax.random.split(key, len(space.choices))
    return {
        name: np.asarray(
            jax.random.normal(key, (len(choice.edges), len(choice.primitives)))
        )
        for key, (name, choice) in zip(keys, space.choices.items(), strict=True)
    }


def random_cells(key: jax.Array, space: Space) -> dict[str, list[Triple]]:
    """Uniform over all architectures."""
    keys = jax.random.split(key, len(space.choices))
    inputs = getattr(space, "inputs_per_node", None)
    return {
        name: _random_cell(key, choice, inputs)
        for key, (name, choice) in zip(keys, space.choices.items(), strict=True)
    }


def _random_cell(key: jax.Array, choice: Choice, inputs: int | None) -> list[Triple]:
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


def _full_cell(choice: Choice, digits: Iterable[int]) -> list[Triple]:
    rows = zip(choice.edges, digits, strict=True)
    return [(choice.primitives[digit], *edge) for edge, digit in rows]


def by_node(choice: Choice) -> list[np.ndarray]:
    """The rows of the edges into each node."""
    targets = np.array([target for _, target in choice.edges], int)
    return [np.flatnonzero(targets == node) for node in np.unique(targets)]


def connecting(function: str, choice: Choice) -> list[int]:
    """The positions of the primitives that connect: all but `none`, wherever it is."""
    found = [i for i, name in enumerate(choice.primitives) if name != "none"]
    if not found:
        must, got = "have a primitive other than `none`", choice.primitives
        cure = "Add one to the choice."
        raise ValueError(checks.message(function, "space", must, got, cure))
    return found
