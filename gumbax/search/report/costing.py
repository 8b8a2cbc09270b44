"""Accuracy against cost: of what was kept, and of what was trained beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gumbax.search.store import lines


@dataclass(frozen=True)
class Trained:
    """An architecture that was trained from scratch.

    Attributes:
        name: "derived", "random 1", ..., or a constant one.
        accuracy: on the test set, in percent.
        costs: name of a cost -> its number, of the whole network.
    """

    name: str
    accuracy: float
    costs: Mapping[str, float]


def trained_from_json(rows: Sequence[Mapping]) -> tuple[Trained, ...]:
    """Reads the architectures of report.json.

    Raises:
        KeyError, TypeError, ValueError: they are something else.
    """
    found = []
    for row in rows:
        costs = dict(row["costs"])
        numbers = [row["accuracy"], *costs.values()]
        if not (lines.is_text(row["name"]) and all(map(lines.is_number, numbers))):
            raise ValueError(f"the architecture {row!r}")
        found.append(Trained(row["name"], float(row["accuracy"]), costs))
    return tuple(found)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of what nothing else beats, by rising cost.

    Args:
        points: (cost, accuracy) pairs.

    Returns:
        Those that no other is as cheap and as accurate as, of equal ones the first.

    Example:
        >>> pareto([(3.0, 90.0), (1.0, 80.0), (2.0, 79.0), (3.0, 91.0)])
        [1, 3]
    """
    best, front = float("-inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return front


def format_costs(trained: Sequence[Trained]) -> str:
    """What the kept architecture costs, and what the others do, as text."""
    kept, *others = trained
    kinds = {
        "random": [one for one in others if one.name.startswith("random ")],
        "constant": [one for one in others if not one.name.startswith("random ")],
    }
    text = []
    for name, cost in kept.costs.items():
        ranges = []
        for kind, found in kinds.items():
            costs = [one.costs[name] for one in found]
            if costs:
                ranges.append(f"{kind} ones {min(costs):,.6g} to {max(costs):,.6g}")
        text.append(f"  {name:<26}{cost:<18,.6g}{'; '.join(ranges)}".rstrip())
    if not text:
        return ""
    return "\n".join(["", "  cost of the derived network", *text]) + "\n"
