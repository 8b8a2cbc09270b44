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
_ENUMERATED = 2**20
_BATCH = 2**16
_BATCHES = 128


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
        least = _genotype(space, digits, [c.sum(axis=-1).argmin() for c in costs])
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
    cheapest = _genotype(space, digits, [int(found.argmin()) for found in sums])
    return cheapest, _genotype(space, digits, [int(found.argmax()) for found in sums])


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

    Up to a million architectures are enumerated. In larger spaces uniform ones are
    drawn until enough are in the range.

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
        ValueError: no architecture is in the range, or too few of eight million draws.

    References:
        gumbax/search/README.md.
    """
    key = checks.scalar_key("random_of_cost", key)
    digits = list(_digits(space, _kept_inputs(space)))
    costs = [digit.of(table.costs) for digit in digits]
    sizes = [len(digit.kept) for digit in digits]
    if space.num_architectures <= _ENUMERATED:
        totals = np.full(1, table.fixed)
        for of_digit in costs:
            totals = _added(totals, of_digit).ravel()
        within = np.flatnonzero((low <= totals) & (totals <= high))
        if len(within):
            drawn = within[
                np.asarray(jax.random.randint(key, (count,), 0, len(within)))
            ]
            return tuple(Genotype.from_index(int(i), space) for i in drawn)
        raise _none_of_cost(low, high, space, table, "none of all")
    found: list[Genotype] = []
    for batch in range(_BATCHES):
        if len(found) >= count:
            return tuple(found[:count])
        keys = jax.random.split(jax.random.fold_in(key, batch), len(digits))
        indices = np.stack(
            [
                np.asarray(jax.random.randint(one, (_BATCH,), 0, size))
                for one, size in zip(keys, sizes, strict=True)
            ],
            axis=-1,
        )
        totals = np.full(_BATCH, table.fixed)
        for column, of_digit in zip(indices.T, costs, strict=True):
            for of_edge in of_digit[column].T:
                totals = totals + of_edge
        within = np.flatnonzero((low <= totals) & (totals <= high))
        found += [
            _genotype(space, digits, indices[i]) for i in within[: count - len(found)]
        ]
    got = f"{len(found)} of {_BATCH * _BATCHES} random ones"
    raise _none_of_cost(low, high, space, table, got)


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


def _none_of_cost(
    low: float, high: float, space: Space, table: CostTable, got: str
) -> ValueError:
    cheapest, costliest = (table.of(found).total for found in bounds(space, table))
    return ValueError(
        checks.message(
            "random_of_cost",
            "low",
            "leave architectures up to `high`",
            f"{got} from {low:.15g} to {high:.15g}",
            f"Those of {space.name!r} cost {cheapest:.15g} to {costliest:.15g}.",
        )
    )
