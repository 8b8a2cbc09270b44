"""What the kept architecture is compared with, trained equally."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from gumbax.search.command.progress import Progress
from gumbax.search.data.dataset import Dataset
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops.search import Search
from gumbax.search.loops.training import TrainingOptions
from gumbax.search.methods.budgets import random_of_cost
from gumbax.search.report import gap
from gumbax.search.report.gap import Row

DERIVED = "derived"
# How far the costs of random architectures may be from that of the kept one.
SAME_COST = 0.1


def others(
    search: Search, genotype: Genotype, count: int, key: jax.Array
) -> tuple[Genotype, ...]:
    """Random architectures: of about the same cost where the search minds a cost."""
    if search.cost is None or not count:
        return gap.random_genotypes(search.space, count, key)
    cost = search.cost.of(genotype).total
    high = cost * (1 + SAME_COST)
    if search.budget is not None:
        high = max(cost, min(high, search.budget))
    low = cost * (1 - SAME_COST)
    return random_of_cost(
        key, search.space, search.cost, low=low, high=high, count=count
    )


def named(
    genotype: Genotype, others: Sequence[Genotype], constants: Mapping[str, Genotype]
) -> dict[str, Genotype]:
    """What is trained equally, by the names of trainings.jsonl."""
    named = {DERIVED: genotype}
    named |= {f"random {i + 1}": one for i, one in enumerate(others)}
    return named | {
        f"{name}{gap.EVERYWHERE}": one
        for name, one in constants.items()
        if name != "none"  # nothing reaches its output
    }


def rows(results: Mapping[str, float]) -> tuple[Row, ...]:
    """The rows of what was trained from scratch."""
    rows = [Row(gap.RETRAINED, (results[DERIVED],))]
    random = tuple(results[name] for name in results if name.startswith("random "))
    rows += [Row(gap.RANDOM, random)] * bool(random)
    rows += [
        Row(name, (results[name],)) for name in results if name.endswith(gap.EVERYWHERE)
    ]
    return tuple(rows)


def trainings(
    out: Path,
    search: Search,
    named: Mapping[str, Genotype],
    dataset: Dataset,
    training: TrainingOptions,
    progress: Progress,
) -> dict[str, float]:
    """Trains architectures, equally: name -> test accuracy in percent."""
    order = list(named)
    total = len(named) * training.num_epochs
    with progress.phase("train from scratch", total) as advance:
        return gap.train_all(
            search.space,
            named,
            dataset,
            training,
            seed=search.seed,
            record=out / "trainings.jsonl",
            on_progress=lambda name, epoch: advance(
                order.index(name) * training.num_epochs + epoch, network=name
            ),
        )
