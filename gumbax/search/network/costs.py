"""What every operation of a network costs, and so every architecture of a space."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import checks
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.spaces.space import Choice
from gumbax.search.store import folder

Shapes = tuple[tuple[int, ...], ...]
COSTS = "costs.json"


class OperationCost(NamedTuple):
    """What one operation costs at one place of the network.

    Attributes:
        primitive: its name.
        inputs: shapes of its input, of one example; a single one but for trees.
        outputs: those of its output. Both together tell the stride.
        cost: of one example.
        uses: edges of the network where it can stand so.
    """

    primitive: str
    inputs: Shapes
    outputs: Shapes
    cost: float
    uses: int


class GenotypeCost(NamedTuple):
    """What an architecture costs.

    Attributes:
        total: of the whole network.
        fixed: of what is not chosen: stem, reductions between cells, head.
        primitives: of the kept operations, by the name of their primitive.
    """

    total: float
    fixed: float
    primitives: dict[str, float]


@dataclass(frozen=True, eq=False)
class CostTable:
    """The cost of every operation that a space can keep, all cells together.

    Attributes:
        name: of the cost: "weights", "multiply_adds", "latency" or your own.
        space: name of the space.
        fixed: cost of what is not chosen: stem, preprocessing, reductions, head.
        choices: those of the space.
        costs: choice -> float64 [E, K], each entry the sum over the cells that have the
            edge.
        operations: what single operations cost; the sums are made of these.
    """

    name: str
    space: str
    fixed: float
    choices: Mapping[str, Choice]
    costs: Mapping[str, np.ndarray]
    operations: tuple[OperationCost, ...] = field(default=(), repr=False)

    def of(self, genotype: Genotype) -> GenotypeCost:
        """The cost of an architecture, exact for whole numbers.

        Numbers are added in one order, the fixed part first, then edge by edge in the
        order of the space: equal architectures cost the same to the last bit.

        Raises:
            ValueError: the genotype is of another space.
        """
        space: Any = SimpleNamespace(name=self.space, choices=self.choices)
        genotype.check(space)
        total = float(self.fixed)
        primitives: dict[str, float] = {}
        for name, choice in self.choices.items():
            kept = [
                (choice.edges.index(edge[1:]), edge[0]) for edge in genotype.cells[name]
            ]
            for row, primitive in sorted(kept):
                cost = float(self.costs[name][row, choice.primitives.index(primitive)])
                total += cost
                primitives[primitive] = primitives.get(primitive, 0.0) + cost
        return GenotypeCost(total, float(self.fixed), primitives)

    def expected(self, weights: Mapping[str, jax.Array]) -> jax.Array:
        """Fixed cost + sum over the edges of <weights, costs>, float32.

        With the one-hot rows of a draw it is the cost of the network drawn, every edge
        of the space counted; with probabilities its expectation, as edges are drawn
        independently.

        Args:
            weights: choice -> [E, K].

        Returns:
            Scalar, differentiable in the weights.
        """
        total = jnp.asarray(self.fixed, jnp.float32)
        for name, costs in self.costs.items():
            total += jnp.sum(weights[name] * jnp.asarray(costs, jnp.float32))
        return total


# Files


def write(out: Path, tables: Mapping[str, CostTable]) -> None:
    """Writes the costs that a run knows, `costs.json` in its folder, whole or not.

    Args:
        out: the folder.
        tables: name of a cost -> its table, all of one space.
    """
    (first, *_) = tables.values()
    content = {
        "space": first.space,
        "choices": {name: one.to_json() for name, one in first.choices.items()},
        "costs": {
            name: {
                "fixed": _short(table.fixed),
                "edges": {
                    choice: [[_short(cost) for cost in row] for row in rows.tolist()]
                    for choice, rows in table.costs.items()
                },
                "operations": [
                    one._replace(cost=_short(one.cost))._asdict()
                    for one in table.operations
                ],
            }
            for name, table in tables.items()
        },
    }
    folder.write(out / COSTS, json.dumps(content, indent=1) + "\n")


def read(out: Path) -> dict[str, CostTable]:
    """The costs that a run knows, name -> table; none where there is no file.

    Args:
        out: folder of a run.

    Raises:
        ValueError: the file cannot be read.
    """
    path = out / COSTS
    if not path.exists():
        return {}
    try:
        content = folder.read_json(path)
        choices = {
            name: Choice.from_json(found) for name, found in content["choices"].items()
        }
        return {
            name: _table(name, str(content["space"]), choices, found)
            for name, found in content["costs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            checks.message(
                "costs.read",
                COSTS,
                "hold the costs that a search wrote",
                f"{path}, which cannot be read ({error})",
                "Restore the file.",
            )
        ) from error


def _table(
    name: str, space: str, choices: Mapping[str, Choice], found: Mapping[str, Any]
) -> CostTable:
    costs = {n: np.asarray(found["edges"][n], np.float64) for n in choices}
    for n, choice in choices.items():
        if costs[n].shape != choice.shape or not np.isfinite(costs[n]).all():
            raise ValueError(f"costs of {name!r} for {n!r} that do not fit")
    operations = [
        OperationCost(
            str(one["primitive"]),
            tuple(map(tuple, one["inputs"])),
            tuple(map(tuple, one["outputs"])),
            float(one["cost"]),
            int(one["uses"]),
        )
        for one in found["operations"]
    ]
    return CostTable(
        name, space, float(found["fixed"]), choices, costs, tuple(operations)
    )


def _short(number: float) -> float | int:
    """Whole numbers without a fraction."""
    return int(number) if number == int(number) else number
