"""Where the kept architecture stands, and how likely by chance."""

import dataclasses
import itertools
import json

import pytest

from gumbax.search.report import gap
from gumbax.search.report.costing import (
    Trained,
    format_costs,
    pareto,
    trained_from_json,
)
from gumbax.search.report.gap import Row
from gumbax.search.report.ranking import Standing, chance


def test_rank_is_one_more_than_those_that_are_as_good():
    assert Standing.of(95.0, [94.0, 96.0, 93.0]) == Standing(2, 4)
    assert Standing.of(95.0, [95.0, 95.0]) == Standing(3, 3)  # ties are not won
    assert Standing.of(95.0, []) == Standing(1, 1)
    assert str(Standing(2, 4)) == "2 of 4"


@pytest.mark.parametrize("standings", [[(2, 4)], [(1, 3), (2, 5)], [(3, 3)] * 3])
def test_chance_is_that_of_uniform_ranks_by_enumeration(standings):
    found = sum(rank for rank, _ in standings)
    cases = list(itertools.product(*(range(1, n + 1) for _, n in standings)))
    expected = sum(sum(case) <= found for case in cases) / len(cases)
    assert chance([Standing(*one) for one in standings]) == pytest.approx(expected)


def report(kept, others, constant=()):
    rows = [Row(gap.SOFT, (90.0,)), Row(gap.DRAWN, (90.0,)), Row(gap.ARGMAX, (89.0,))]
    rows += [Row(gap.RETRAINED, (kept,)), Row(gap.RANDOM, others)]
    return (*rows, *(Row(f"{n}{gap.EVERYWHERE}", (v,)) for n, v in constant))


def test_report_says_rank_chance_and_the_best_constant_architecture():
    runs = [
        report(95.0, (94.0, 96.0), [("conv", 97.0), ("pool", 90.0)]),
        report(97.0, (94.0, 96.0), [("conv", 96.0), ("pool", 91.0)]),
    ]
    first, middle, second = gap.verdict(runs)
    # Of 94, 94, 96 and 96 the 90th percentile is 96.
    assert "all 4 random ones is 96.00 %: 1 of the 2 kept ones are above it" in middle
    assert "their mean (96.00 %) is not." in middle
    assert "2 of 3, 1 of 3; by chance as good or better with probability 0.33" in first
    assert "conv everywhere: 96.50 %, +0.50 points" in second
    text = gap.format_table(gap.over_seeds(runs), "title", runs)
    assert first in text
    assert second in text
    alone = gap.format_table(runs[0], "title")
    assert "2 of 3; by chance" in alone


def test_nothing_is_said_of_what_was_not_trained():
    assert gap.verdict([report(95.0, (94.0,))[:3]]) == []


def test_rows_of_constant_architectures_are_kept_in_json():
    rows = report(95.0, (94.0,), [("conv", 97.0)])
    assert gap.from_json(gap.to_json(rows)) == rows


TRAINED = (
    Trained("derived", 95.0, {"weights": 300.0, "multiply_adds": 5e6}),
    Trained("random 1", 94.0, {"weights": 100.0, "multiply_adds": 6e6}),
    Trained("random 2", 93.0, {"weights": 200.0, "multiply_adds": 2e6}),
    Trained(f"conv{gap.EVERYWHERE}", 96.0, {"weights": 900.0, "multiply_adds": 9e6}),
)


def test_costs_of_what_was_trained_are_told():
    text = format_costs(TRAINED)
    assert "weights                   300               random ones 100 to 200" in text
    assert "5e+06" in text
    assert "constant ones 900 to 900" in text
    assert format_costs([Trained("derived", 95.0, {})]) == ""


def test_trained_architectures_are_kept_in_json():
    rows = json.loads(json.dumps([dataclasses.asdict(one) for one in TRAINED]))
    assert trained_from_json(rows) == TRAINED
    for field, value in (("accuracy", "95"), ("name", 3), ("costs", {"weights": None})):
        with pytest.raises(ValueError, match="the architecture"):
            trained_from_json([rows[0] | {field: value}])


def test_front_is_what_nothing_is_as_cheap_and_as_accurate_as():
    points = [(one.costs["weights"], one.accuracy) for one in TRAINED]
    assert pareto(points) == [1, 0, 3]
    assert pareto([(1.0, 1.0), (1.0, 2.0), (2.0, 2.0)]) == [1]
    assert pareto([]) == []
