"""Derived networks within budgets, beside random ones that cost as much.

    python -m tests.benchmarks.budgets runs/budgets digits --seeds 0 1 2

For each seed one search; for each share of the costliest architecture of the space the
most probable architecture within that budget, and random ones of 90 to 100 % of it, all
trained equally from scratch. Stopped at any moment, the same command goes on: searches
from their checkpoints, trainings after the last one that is done.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from gumbax.search.command import run, start
from gumbax.search.command.progress import RichProgress
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.methods.budgets import bounds, random_of_cost
from gumbax.search.report import gap
from gumbax.search.report.ranking import Standing, chance

SHARES = (0.25, 0.5, 0.75)
LEAST = 0.9  # cost of the random ones, of the budget
# The search's own, which are of other costs.
NO_COMPARISON = {"random_architectures": 0, "constant_architectures": False}


def parser():
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("out", type=Path, help="folder of the runs")
    made.add_argument("dataset", help="name or path of a data set")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--shares", type=float, nargs="+", default=SHARES)
    made.add_argument("--random", type=int, default=20, metavar="N")
    options = made.add_argument_group("of the search, as those of `gumbax search`")
    options.add_argument("--cost", default="multiply_adds")
    for name in ("space", "method"):
        options.add_argument(f"--{name}")
    for name in ("channels", "cells", "epochs", "train_epochs", "limit", "crop"):
        options.add_argument(f"--{name.replace('_', '-')}", type=int)
    options.add_argument("--flip", action="store_true", default=None)
    return made


def of_seed(out, given, shares, count, progress):
    """Share -> cost of the kept network, its accuracy, those of the random ones."""
    options = start.settle(out, given, resume=(out / "run.json").exists())
    if not (out / "report.json").exists():
        run.run(out, options, progress)
    dataset = run.load_data(options)
    found = {}
    for share in shares:
        search, _, _ = run.derive_again(out)
        _, costliest = bounds(search.space, search.cost)
        budget = share * search.cost.of(costliest).total
        _, kept, _ = run.derive_again(out, cost=options.cost, budget=budget)
        key = jax.random.fold_in(jax.random.key(options.seed), round(1000 * share))
        others = random_of_cost(
            key, search.space, search.cost, low=LEAST * budget, high=budget, count=count
        )
        accuracies = trained(out, share, kept, others, search.space, dataset, options)
        cost = search.cost.of(kept).total
        assert cost <= budget
        found[share] = cost, accuracies.pop("derived"), list(accuracies.values())
    return found


def trained(out, share, kept: Genotype, others, space, dataset, options):
    named = {f"random {i + 1}": other for i, other in enumerate(others)}
    return gap.train_all(
        space,
        {"derived": kept, **named},
        dataset,
        options.training(dataset),
        seed=options.seed,
        record=out / f"budget-{share:g}.jsonl",
    )


def main():
    given = {
        name: v for name, v in vars(parser().parse_args()).items() if v is not None
    }
    out, seeds, shares = (given.pop(name) for name in ("out", "seeds", "shares"))
    count = given.pop("random")
    standings = {share: [] for share in shares}
    columns = "seed  budget, % of the largest  cost  accuracy, %"
    print(f"{columns}  random, mean  75th percentile  place")
    for seed in seeds:
        own = given | NO_COMPARISON | {"seed": seed}
        found = of_seed(out / f"seed-{seed}", own, shares, count, RichProgress())
        for share, (cost, accuracy, others) in found.items():
            place = Standing.of(accuracy, others)
            standings[share].append(place)
            row = f"{seed:4}  {100 * share:.0f}  {cost:.0f}  {accuracy:.2f}"
            mean, upper = np.mean(others), np.percentile(others, 75)
            print(f"{row}  {mean:.2f}  {upper:.2f}  {place}", flush=True)
    for share, places in standings.items():
        print(f"{100 * share:.0f} %: by chance {chance(places):.2g}")


if __name__ == "__main__":
    main()
