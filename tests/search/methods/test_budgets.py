"""Budgets against brute force over all architectures, and random ones of equal cost."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from gumbax.search.genotype import enumeration
from gumbax.search.genotype.genotype import Edge, Genotype
from gumbax.search.methods import budgets, derive_rules
from gumbax.search.methods.budgets import (
    bounds,
    check_budget,
    random_of_cost,
    within_budget,
)
from gumbax.search.methods.derive_rules import argmax_per_edge, top_two_edges
from gumbax.search.network.costs import CostTable
from gumbax.search.spaces.space import Choice, Space
from tests.helpers import assert_law, sweep
from tests.search.small_spaces import DARTS, DARTS_PRIMITIVES, dense_edges


class Bare(Space):
    """A space without its network."""

    def __init__(self, choices, inputs_per_node=None):
        self.name = "bare"
        self._choices = choices
        self.inputs_per_node = inputs_per_node

    @property
    def choices(self):
        return self._choices

    def build(self, *arguments, **options):
        raise NotImplementedError


# Every edge kept, two choices; pairs of inputs, `none` in the middle.
EVERY = Bare(
    {
        "cell": Choice(dense_edges(3), ("none", "conv", "pool"), outputs=(2,)),
        "last": Choice(((0, 1), (1, 2)), ("conv", "skip"), outputs=(2,)),
    }
)
PAIRS = Bare(
    {
        "normal": Choice(dense_edges(4, 2), ("conv", "none", "pool"), 2, (2, 3)),
        "reduce": Choice(dense_edges(3, 2), ("skip", "conv", "none"), 2, (2,)),
    },
    inputs_per_node=2,
)
DARTS_LIKE = Bare(dict(DARTS.choices), inputs_per_node=2)
CASES = [(EVERY, argmax_per_edge), (PAIRS, top_two_edges)]


def random_table(space, seed, whole=True):
    generator = np.random.default_rng(seed)

    def costs(shape):
        if whole:
            return generator.integers(0, 8, shape).astype(float)
        return np.round(generator.exponential(1.0, shape), 3)

    return CostTable(
        "mine",
        space.name,
        2.0,
        space.choices,
        {name: costs(choice.shape) for name, choice in space.choices.items()},
    )


def random_logits(space, seed, coarse=False):
    generator = np.random.default_rng(seed)
    found = {
        name: generator.normal(size=choice.shape)
        for name, choice in space.choices.items()
    }
    return {name: np.round(rows) if coarse else rows for name, rows in found.items()}


def log_probability(genotype, logits, space):
    total = 0.0
    for name, choice in space.choices.items():
        rows = logits[name] - np.log(np.exp(logits[name]).sum(axis=-1, keepdims=True))
        for primitive, *edge in genotype.cells[name]:
            row = choice.edges.index(tuple(edge))
            total += rows[row, choice.primitives.index(primitive)]
    return total


def sets(genotype):
    return {name: frozenset(kept) for name, kept in genotype.cells.items()}


def all_of(space):
    for index in range(space.num_architectures):
        yield Genotype.from_index(index, space)


@pytest.mark.parametrize(("space", "rule"), CASES, ids=["every", "pairs"])
@pytest.mark.parametrize(
    ("whole", "seeds"), sweep([(True, 3), (False, 3)], [(True, 40)])
)
def test_budget_keeps_the_most_probable_by_brute_force(space, rule, whole, seeds):
    for seed in range(seeds):
        table = random_table(space, seed, whole)
        logits = random_logits(space, seed + 100)
        found = [
            (
                table.of(genotype).total,
                log_probability(genotype, logits, space),
                genotype,
            )
            for genotype in all_of(space)
        ]
        totals = sorted({total for total, _, _ in found})
        for budget in (*totals[:: max(1, len(totals) // 12)], totals[-1]):
            kept = within_budget(logits, space, table=table, budget=budget, rule=rule)
            cost = table.of(kept).total
            assert cost <= budget
            best = max(value for total, value, _ in found if total <= budget)
            value = log_probability(kept, logits, space)
            assert value == pytest.approx(best, abs=1e-9), (seed, budget)
            kept.check(space)
        # Within the largest, what the rule keeps, listed as the rule lists it.
        assert kept == rule(logits, space)


@pytest.mark.parametrize(("space", "rule"), CASES, ids=["every", "pairs"])
def test_ties_are_the_cheapest_and_then_the_first(space, rule):
    """Equal logits: all are equally probable, unless the rule's own is affordable."""
    logits = {name: np.zeros(choice.shape) for name, choice in space.choices.items()}
    broken = 0
    for seed in range(6):
        table = random_table(space, seed)
        found = [(table.of(g).total, i, g) for i, g in enumerate(all_of(space))]
        plain = table.of(rule(logits, space)).total
        cheapest = min(found)
        if plain == cheapest[0]:
            continue
        broken += 1
        for budget in (cheapest[0], plain - 1):
            kept = within_budget(logits, space, table=table, budget=budget, rule=rule)
            assert sets(kept) == sets(cheapest[2])
        kept = within_budget(logits, space, table=table, budget=plain, rule=rule)
        assert kept == rule(logits, space)
    assert broken


def test_equally_cheap_and_probable_ones_are_the_first_of_all():
    """Two edges, one of which must be cheap: it is the later one."""
    choice = Choice(((0, 1), (1, 2), (2, 3)), ("conv", "skip"))
    space = Bare({"cell": choice})
    table = CostTable(
        "mine", "bare", 0.0, space.choices, {"cell": np.array([[3.0, 1.0]] * 3)}
    )
    logits = {"cell": np.array([[1.0, 0.0]] * 3)}
    kept = within_budget(logits, space, table=table, budget=7.0, rule=argmax_per_edge)
    assert [edge.primitive for edge in kept.cells["cell"]] == ["conv", "conv", "skip"]


def test_inputs_of_a_node_are_listed_by_falling_probability():
    choice = Choice(dense_edges(3, 2), ("conv", "pool"), 2, (2,))
    space = Bare({"normal": choice}, inputs_per_node=2)
    logits = {"normal": np.array([[0.0, -0.5], [3.0, 0.0]])}
    table = CostTable(
        "mine", "bare", 0.0, space.choices, {"normal": np.array([[9.0, 1.0], [1, 1]])}
    )
    kept = within_budget(logits, space, table=table, budget=2.0, rule=top_two_edges)
    assert kept.cells["normal"] == (Edge("conv", 1, 2), Edge("pool", 0, 2))


def test_node_with_fewer_inputs_than_are_kept_keeps_those():
    edges = ((0, 1), (0, 2), (1, 2))
    space = Bare({"cell": Choice(edges, ("conv", "none", "pool"))}, inputs_per_node=2)
    table, logits = random_table(space, 0), random_logits(space, 0)
    assert space.num_architectures == 2 * 2**2
    everyone = list(all_of(space))
    assert [genotype.index(space) for genotype in everyone] == list(range(8))
    assert sets(top_two_edges(logits, space)) in map(sets, everyone)
    cheapest, _ = bounds(space, table)
    kept = within_budget(
        logits,
        space,
        table=table,
        budget=table.of(cheapest).total,
        rule=top_two_edges,
    )
    assert {edge[1:] for edge in kept.cells["cell"]} == set(edges)
    assert table.of(kept).total == min(table.of(one).total for one in everyone)


def test_ruled_out_primitives_are_not_kept():
    space, table = EVERY, random_table(EVERY, 4)
    logits = random_logits(space, 0)
    cheap = {name: np.argmin(table.costs[name], axis=-1) for name in space.choices}
    logits["cell"][0, cheap["cell"][0]] = -np.inf
    allowed = [
        table.of(genotype).total
        for genotype in all_of(space)
        if np.isfinite(log_probability(genotype, logits, space))
    ]
    kept = within_budget(
        logits, space, table=table, budget=min(allowed), rule=argmax_per_edge
    )
    assert table.of(kept).total == min(allowed)
    with pytest.raises(ValueError, match=f"be at least {min(allowed):g} mine"):
        within_budget(
            logits, space, table=table, budget=min(allowed) - 0.5, rule=argmax_per_edge
        )


def numbers(arrays, choice, kept):
    """The sum of what arrays [E, K] hold for edges."""
    return sum(
        arrays[choice.edges.index((i, j)), choice.primitives.index(primitive)]
        for primitive, i, j in kept
    )


@pytest.mark.parametrize("seed", sweep([0], [1, 2]))
def test_budget_of_two_darts_cells_is_exact(seed):
    """52 million architectures: all of each cell, then the best of both together."""
    choice = Choice(dense_edges(4, 2), DARTS_PRIMITIVES, 2, (2, 3))
    space = Bare({"normal": choice, "reduce": choice}, inputs_per_node=2)
    table, logits = random_table(space, seed, whole=False), random_logits(space, seed)
    log_probs = derive_rules.log_probabilities("test", logits, space)
    cells = []
    for name in space.choices:
        sums = [
            [
                [numbers(arrays[name], choice, kept) for kept in node]
                for node in enumeration.alternatives(choice, 2)
            ]
            for arrays in (table.costs, log_probs)
        ]
        costs, values = (np.add.outer(*nodes).ravel() for nodes in sums)
        order = np.argsort(costs)
        cells.append((costs[order], values[order]))
    (costs, values), (others, of_others) = cells
    best_of_others = np.maximum.accumulate(of_others)
    least, most = (table.of(found).total for found in bounds(space, table))
    for share in (0.1, 0.25, 0.5):
        budget = least + share * (most - least)
        kept = within_budget(
            logits, space, table=table, budget=budget, rule=top_two_edges
        )
        assert table.of(kept).total <= budget
        left = budget - table.fixed - costs
        last = np.searchsorted(others, left, side="right") - 1
        best = np.max(values[last >= 0] + best_of_others[last[last >= 0]])
        value = sum(
            numbers(log_probs[name], choice, cell) for name, cell in kept.cells.items()
        )
        assert value == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("space", "rule"), CASES, ids=["every", "pairs"])
def test_bounds_are_the_cheapest_and_the_costliest(space, rule):
    table = random_table(space, 3)
    totals = [table.of(genotype).total for genotype in all_of(space)]
    for found in (bounds(space, table), bounds(space, table, rule=rule)):
        assert [table.of(g).total for g in found] == [min(totals), max(totals)]
    check_budget(space, table, min(totals), rule)
    message = (
        f"be at least {min(totals):g} mine, .* of which 2 are not chosen, got 0. R"
    )
    with pytest.raises(ValueError, match=message):
        check_budget(space, table, 0, rule)
    with pytest.raises(ValueError, match="got nan"):
        check_budget(space, table, math.nan, rule)


def test_rule_without_a_product_is_refused():
    table, logits = random_table(EVERY, 0), random_logits(EVERY, 0)
    with pytest.raises(ValueError, match="`rule` must maximise a product of prob"):
        check_budget(EVERY, table, 100.0, derive_rules.threshold())
    with pytest.raises(ValueError, match="Use `argmax_per_edge` or `top_two_edges`"):
        within_budget(
            logits, EVERY, table=table, budget=1.0, rule=derive_rules.threshold()
        )


# Random architectures of equal cost


def check_uniform(space, table, quantiles):
    totals = np.array([table.of(genotype).total for genotype in all_of(space)])
    low, high = np.quantile(totals, quantiles, method="nearest")
    within = np.flatnonzero((low <= totals) & (totals <= high))
    assert 4 < len(within) < len(totals)

    def draw(count):
        key = jax.random.key(1)
        return random_of_cost(key, space, table, low=low, high=high, count=count)

    count = 40 * len(within)
    drawn = draw(count)
    assert len(drawn) == count
    place = {int(index): i for i, index in enumerate(within)}
    places = [place[genotype.index(space)] for genotype in drawn]
    counts = np.bincount(places, minlength=len(within))
    assert_law(counts, np.full(len(within), 1 / len(within)))
    assert draw(3) == drawn[:3]


@pytest.mark.parametrize("space", [EVERY, PAIRS], ids=["every", "pairs"])
@pytest.mark.parametrize("whole", [True, False])
def test_random_ones_of_a_cost_are_uniform(space, whole):
    table = random_table(space, 1, whole)
    for quantiles in ((0.02, 0.08), (0.6, 0.65)):
        check_uniform(space, table, quantiles)


@pytest.mark.parametrize("space", [EVERY, PAIRS], ids=["every", "pairs"])
def test_random_ones_are_uniform_where_many_primitives_cost_the_same(space):
    table = random_table(space, 1)
    costs = {name: 1.0 * (rows > 3) for name, rows in table.costs.items()}
    check_uniform(space, dataclasses.replace(table, costs=costs), (0.3, 0.3))


@pytest.mark.parametrize("steps", [1, 5])
def test_grid_that_is_coarse_changes_nothing(monkeypatch, steps):
    """What is rounded is drawn again where its exact cost is not in the range."""
    monkeypatch.setattr(budgets, "_STEPS", steps)
    for quantiles in ((0.02, 0.08), (0.6, 0.65)):
        check_uniform(EVERY, random_table(EVERY, 1, whole=False), quantiles)


def test_rare_ones_of_a_large_space_are_found():
    """Of 10^18 cells those that are nearly the costliest."""
    table = random_table(DARTS_LIKE, 0, whole=False)
    cheapest, costliest = (table.of(one).total for one in bounds(DARTS_LIKE, table))
    for low, high in ((0.99 * costliest, costliest), (cheapest, cheapest * 1.01)):
        drawn = random_of_cost(
            jax.random.key(0), DARTS_LIKE, table, low=low, high=high, count=5
        )
        assert all(low <= table.of(genotype).total <= high for genotype in drawn)
        for genotype in drawn:
            genotype.check(DARTS_LIKE)


def test_all_of_one_cost():
    costs = {name: np.ones(choice.shape) for name, choice in EVERY.choices.items()}
    table = CostTable("mine", "bare", 1.0, EVERY.choices, costs)
    (one,) = random_of_cost(jax.random.key(0), EVERY, table, low=6, high=6)
    assert table.of(one).total == 6


def test_range_without_architectures_is_refused(monkeypatch):
    monkeypatch.setattr(budgets, "_BATCHES", 3)
    table = random_table(EVERY, 1)
    least, most = (table.of(genotype).total for genotype in bounds(EVERY, table))
    for low, high in ((1000, 2000), (-math.inf, least - 1), (least + 0.2, least + 0.3)):
        message = f"near them. Those of 'bare' cost {least:g} to {most:g}"
        with pytest.raises(ValueError, match=message):
            random_of_cost(jax.random.key(0), EVERY, table, low=low, high=high)
    with pytest.raises(TypeError, match="key"):
        random_of_cost(0, EVERY, table, low=0, high=2000)
