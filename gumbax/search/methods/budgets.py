"""The most probable architecture within a budget, and random ones of equal cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from gumbax._common import checks
from gumbax.search.genotype import enumeration
from gumbax.search.genotype.enumeration import Kept
from gumbax.search.genotype.genotype import Edge, Genotype
from gumbax.search.methods import derive_rules
from gumbax.search.methods.derive_rules import Rule
from gumbax.search.network.costs import CostTable
from gumbax.search.spaces.space import Space

# Edges that a node keeps, None for all: the rules that maximise a product over edges.
_INPUTS: Mapping[Rule, int | None] = {
    derive_rules.argmax_per_edge: None,
    derive_rules.top_two_edges: 2,
}
_STEPS = 2**14  # from the cheapest to the costliest architecture
_BATCH = 256
_BATCHES = 1000


class _Digit(NamedTuple):
    """What is decided at once: an edge, or the inputs of a node. Shapes [V, s].

    Attributes:
        choice: its name.
        kept: V alternatives, each of s edges.
        rows: of their logits.
        columns: of their logits.
    """

    choice: str
    kept: Sequence[Kept]
    rows: np.ndarray
    columns: np.ndarray

    def of(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The entries of choice -> [E, K] for each alternative, [V, s]."""
        return arrays[self.choice][self.rows, self.columns]

    def only(self, chosen: np.ndarray) -> "_Digit":
        """Some of the alternatives."""
        kept = [self.kept[i] for i in chosen]
        return _Digit(self.choice, kept, self.rows[chosen], self.columns[chosen])


def within_budget(
    arch_logits: Mapping[str, ArrayLike],
    space: Space,
    *,
    table: CostTable,
    budget: float,
    rule: Rule,
) -> Genotype:
    """The most probable architecture of all that cost no more than a budget.

    What the rule keeps without a budget, if that is within it. Else, of the
    architectures that the rule chooses from, that with the largest product of the
    softmax probabilities of what it keeps: with `argmax_per_edge` over all edges, with
    `top_two_edges` over pairs of inputs of each node, `none` left out; both rules
    maximise that. Of equally probable ones the cheaper is kept, of these the first in
    the order of `Genotype.index`. Primitives ruled out by -inf are not kept.

    It is exact: dynamic programming over edges or nodes, which drops a beginning only
    for another that costs no more and is as probable.

    Args:
        arch_logits: name of a choice -> logits [E, K].
        space: the space that they choose from.
        table: the cost.
        budget: largest total cost, that of the fixed part included.
        rule: `argmax_per_edge` or `top_two_edges`.

    Returns:
        The architecture; `table.of` it is at most the budget.

    Raises:
        ValueError: the budget is below the cheapest architecture, or the rule is
            another one or refuses the logits.

    References:
        The multiple-choice knapsack problem by dominance: Nemhauser, Ullmann, 1969.
        https://doi.org/10.1287/mnsc.15.9.494
    """
    plain = rule(arch_logits, space)
    if table.of(plain).total <= budget:
        return plain
    log_probs = derive_rules.log_probabilities("within_budget", arch_logits, space)
    digits, values = [], []
    for digit in _digits(space, _inputs("within_budget", rule)):
        found = digit.of(log_probs)
        possible = np.flatnonzero(np.isfinite(found).all(axis=-1))
        if not possible.size:  # all are ruled out: the rules then take the first
            possible, found = np.arange(len(found)), np.zeros_like(found)
        digits.append(digit.only(possible))
        values.append(found[possible])
    costs = [digit.of(table.costs) for digit in digits]
    chosen = _most_probable(values, costs, table.fixed, budget)
    if chosen is None:
        least = _genotype(
            space, digits, [int(np.argmin(c.sum(axis=-1))) for c in costs]
        )
        raise _too_small("within_budget", budget, table, least)
    cells: dict[str, list[Edge]] = {name: [] for name in space.choices}
    for digit, value, i in zip(digits, values, chosen, strict=True):
        # As the rules list them: of a node the more probable input first.
        order = np.argsort(-value[i], kind="stable")
        cells[digit.choice] += [Edge(*digit.kept[i][j]) for j in order]
    return Genotype(space.name, {name: tuple(kept) for name, kept in cells.items()})


def bounds(
    space: Space, table: CostTable, *, rule: Rule | None = None
) -> tuple[Genotype, Genotype]:
    """The cheapest and the costliest architecture of a space.

    Args:
        space: the space.
        table: the cost.
        rule: `argmax_per_edge` or `top_two_edges`, whose architectures are meant; those
            of `Genotype.random` if None.

    Returns:
        Two architectures, the first of equal ones in the order of `Genotype.index`.

    Raises:
        ValueError: the rule is another one.

    Example:
        >>> from gumbax.search.network import cost_tables, weights
        >>> from gumbax.search.spaces import nasbench201
        >>> space = nasbench201()
        >>> tables = cost_tables(space, (32, 32, 3), 10, {"weights": weights})
        >>> cheap, costly = bounds(space, tables["weights"])
        >>> print(costly)
        |nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|

    References:
        gumbax/search/README.md.
    """
    inputs = _kept_inputs(space) if rule is None else _inputs("bounds", rule)
    digits = list(_digits(space, inputs))
    sums = [digit.of(table.costs).sum(axis=-1) for digit in digits]
    cheapest = _genotype(space, digits, [int(np.argmin(found)) for found in sums])
    return cheapest, _genotype(space, digits, [int(np.argmax(found)) for found in sums])


def check_budget(space: Space, table: CostTable, budget: float, rule: Rule) -> None:
    """Raises ValueError if no architecture of a rule is within a budget."""
    least, _ = bounds(space, table, rule=rule)
    if not table.of(least).total <= budget:
        raise _too_small("check_budget", budget, table, least)


def random_of_cost(
    key: jax.Array,
    space: Space,
    table: CostTable,
    *,
    low: float,
    high: float,
    count: int = 1,
) -> tuple[Genotype, ...]:
    """Draws architectures of about one cost, uniform among all that have it.

    In a space of any size: the architectures of about each cost are counted, costs
    being rounded down to a grid, edge by edge; one is drawn uniformly of those that may
    be in the range, and again where its exact cost is not.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        space: the space.
        table: the cost.
        low: least total cost.
        high: largest total cost.
        count: how many, drawn independently: one may come twice.

    Returns:
        The architectures.

    Raises:
        TypeError: `key` is not one key.
        ValueError: no architecture is in the range, or hardly one of those near it.

    References:
        gumbax/search/README.md.
    """
    key = checks.scalar_key("random_of_cost", key)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    digits = list(_digits(space, _kept_inputs(space)))
    costs = [digit.of(table.costs) for digit in digits]
    grid = _Grid([of_digit.sum(axis=-1) for of_digit in costs])
    found: list[Genotype] = []
    for _ in range(_BATCHES):
        if len(found) >= count:
            return tuple(found[:count])
        drawn = grid.draw(generator, low - table.fixed, high - table.fixed)
        totals = np.full(len(drawn), table.fixed)
        for column, of_digit in zip(drawn.T, costs, strict=True):
            for of_edge in of_digit[column].T:
                totals = totals + of_edge
        within = np.flatnonzero((low <= totals) & (totals <= high))
        found += [_genotype(space, digits, one) for one in drawn[within].tolist()]
    cheapest, costliest = (table.of(one).total for one in bounds(space, table))
    raise ValueError(
        checks.message(
            "random_of_cost",
            "low",
            "leave architectures up to `high`",
            f"{len(found)} from {low:.15g} to {high:.15g} in {_BATCHES * _BATCH} draws "
            "near them",
            f"Those of {space.name!r} cost {cheapest:.15g} to {costliest:.15g}.",
        )
    )


class _Grid:
    """Numbers of architectures by their cost, in steps of a grid.

    Args:
        costs: of the alternatives of each digit, [V].
    """

    def __init__(self, costs: Sequence[np.ndarray]):
        self._least = sum(float(of_digit.min()) for of_digit in costs)
        extent = sum(float(np.ptp(of_digit)) for of_digit in costs)
        self._step = extent / _STEPS or 1.0
        self._places = [
            ((of_digit - of_digit.min()) / self._step).astype(int) for of_digit in costs
        ]
        # For each digit how many ways the later ones have to each sum of places.
        size = _STEPS + len(costs) + 1  # a place more for each that is rounded up
        ways = np.zeros(size)
        ways[0] = 1.0
        self._after = [ways]
        for places in reversed(self._places):
            ways = np.zeros(size)
            found, times = np.unique(places, return_counts=True)
            for place, number in zip(found, times, strict=True):
                ways[place:] += number * self._after[0][: size - place]
            self._after.insert(0, ways)

    def draw(
        self, generator: np.random.Generator, low: float, high: float
    ) -> np.ndarray:
        """Uniform alternatives [n, digits] of all that may cost from low to high."""
        # Rounded down at every digit, a sum is too small by up to their number.
        first, last = (
            int(np.clip((cost - self._least) / self._step, -_STEPS, 2 * _STEPS))
            for cost in (low, high)
        )
        margin, ways = len(self._places) + 1, self._after[0]
        sums = np.arange(max(first - margin, 0), min(last + margin + 1, len(ways)))
        total = np.cumsum(ways[sums])
        if not len(sums) or not total[-1]:
            return np.zeros((0, len(self._places)), int)
        level = generator.random(_BATCH) * total[-1]
        left = sums[np.searchsorted(total, level, side="right")]
        chosen = []
        for places, after in zip(self._places, self._after[1:], strict=True):
            rest = left[:, None] - places
            ways = np.where(rest >= 0, after[np.maximum(rest, 0)], 0.0)
            total = np.cumsum(ways, axis=-1)
            level = generator.random((_BATCH, 1)) * total[:, -1:]
            chosen.append((total <= level).sum(axis=-1))
            left = left - places[chosen[-1]]
        return np.stack(chosen, axis=-1)


def _kept_inputs(space: Space) -> int | None:
    return getattr(space, "inputs_per_node", None)


def _inputs(function: str, rule: Rule) -> int | None:
    if rule in _INPUTS:
        return _INPUTS[rule]
    raise ValueError(
        checks.message(
            function,
            "rule",
            "maximise a product of probabilities",
            repr(rule),
            "Use `argmax_per_edge` or `top_two_edges`.",
        )
    )


def _digits(space: Space, inputs: int | None) -> Iterator[_Digit]:
    for name, choice in space.choices.items():
        row_of = {edge: row for row, edge in enumerate(choice.edges)}
        for kept in enumeration.alternatives(choice, inputs):
            rows = [[row_of[i, j] for _, i, j in edges] for edges in kept]
            columns = [[choice.primitives.index(p) for p, _, _ in e] for e in kept]
            yield _Digit(name, kept, np.array(rows), np.array(columns))


def _genotype(
    space: Space, digits: Sequence[_Digit], chosen: Sequence[int]
) -> Genotype:
    cells: dict[str, list[Edge]] = {name: [] for name in space.choices}
    for digit, i in zip(digits, chosen, strict=True):
        cells[digit.choice] += [Edge(*edge) for edge in digit.kept[i]]
    return Genotype(space.name, {name: tuple(kept) for name, kept in cells.items()})


def _added(totals: np.ndarray, found: np.ndarray) -> np.ndarray:
    """[n] and [V, s] -> [n, V]: edge after edge, as `CostTable.of` adds them."""
    sums = totals[:, None]
    for column in found.T:
        sums = sums + column
    return sums


def _front(costs: np.ndarray, values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Positions, by rising cost, of what nothing dominates: as cheap and as good."""
    order = np.lexsort((ranks, -values, costs))
    best = np.maximum.accumulate(values[order])
    return order[values[order] > np.concatenate([[-np.inf], best[:-1]])]


def _most_probable(
    values: Sequence[np.ndarray],
    costs: Sequence[np.ndarray],
    fixed: float,
    budget: float,
) -> list[int] | None:
    """One alternative of each digit: the largest sum of values within the budget.

    Args:
        values: of each digit, [V, s]; a sum over all of them is maximised.
        costs: of each digit, [V, s], 0 or more.
        fixed: cost of no alternative at all.
        budget: largest cost.

    Returns:
        Positions, the first of the cheapest of the best; None if nothing fits.
    """
    # One beginning for each entry: its cost, its value, its place among all by index.
    cost, value, rank = np.full(1, float(fixed)), np.zeros(1), np.zeros(1, int)
    steps = []
    for of_value, of_cost in zip(values, costs, strict=True):
        size = len(of_cost)
        useful = _front(of_cost.sum(axis=-1), of_value.sum(axis=-1), np.arange(size))
        new_cost = _added(cost, of_cost[useful]).ravel()
        new_value = _added(value, of_value[useful]).ravel()
        new_rank = (rank[:, None] * size + useful).ravel()
        fits = np.flatnonzero(new_cost <= budget)
        front = fits[_front(new_cost[fits], new_value[fits], new_rank[fits])]
        before, alternative = np.divmod(front, max(len(useful), 1))
        steps.append((before, useful[alternative]))
        cost, value = new_cost[front], new_value[front]
        rank = new_rank[front].argsort().argsort()
    if not len(cost):
        return None
    at = len(cost) - 1  # the costliest beginning is the most probable one
    chosen = []
    for before, alternative in reversed(steps):
        chosen.append(int(alternative[at]))
        at = before[at]
    return chosen[::-1]


def _too_small(
    function: str, budget: float, table: CostTable, least: Genotype
) -> ValueError:
    cost = table.of(least).total
    return ValueError(
        checks.message(
            function,
            "budget",
            f"be at least {cost:.15g} {table.name}, the cost of the cheapest "
            f"architecture, of which {table.fixed:.15g} are not chosen",
            f"{budget:.15g}",
            "Raise it, or make the network narrower.",
        )
    )
