"""The gap report: what was trained in the search against what is kept."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from gumbax.edge.choices import draw_choices
from gumbax.search.data.dataset import Dataset, Examples
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops.diagnostics import stable_hash
from gumbax.search.loops.evaluation import accuracy, predict, soft_weights
from gumbax.search.loops.training import (
    Training,
    TrainingOptions,
    can_share,
    train_and_test,
)
from gumbax.search.methods.methods import Soft, softened
from gumbax.search.network.derivation import modules_of, recalibrate
from gumbax.search.network.supernet import (
    Network,
    Supernet,
    dense_operation,
    path_operation,
)
from gumbax.search.report.ranking import Standing, chance, pooled
from gumbax.search.spaces.edges import Operation
from gumbax.search.spaces.space import Space
from gumbax.search.store import lines

NUM_DRAWS = 20
_TRAINED = {
    **dict.fromkeys(("name", "genotype", "training"), lines.TEXT),
    "test_accuracy": lines.NUMBER,
}
RECALIBRATION_BATCHES = 20
# Compiling one more training of digits takes as long as 1,400 steps take longer in the
# shared program (JAX 0.12.0.1, 2 cores: 15 s; 40 ms a step instead of 29).
_SHARED_STEPS = 1000
# The name of a row of the report: the weighted sum of all operations.
SOFT = "soft network"
# The name of a row: networks that are drawn from the logits.
DRAWN = "straight-through network"
# The name of a row: the derived network with the weights of the search.
ARGMAX = "argmax, inherited weights"
# The name of a row: the same, normalised by statistics of its own activations.
RECALIBRATED = "argmax, recalibrated"
# The name of a row: the derived network, trained from scratch.
RETRAINED = "derived, retrained"
# The name of a row: random architectures of the space, trained equally.
RANDOM = "random architectures"
# A constant architecture has a row of its own: the primitive, and this.
EVERYWHERE = " everywhere"
NOTES = {
    SOFT: "weighted sum of all operations, at the last temperature",
    DRAWN: "networks drawn from the logits",
    ARGMAX: "the derived network, weights of the search",
    RECALIBRATED: "the same, statistics of its own activations",
    RETRAINED: "the same network, trained from scratch",
    RANDOM: "same space, trained equally",
}
_NOTE_OF_CONSTANT = "no search: one operation, trained equally"


def note(name: str) -> str:
    """What a row says."""
    return _NOTE_OF_CONSTANT if name.endswith(EVERYWHERE) else NOTES[name]


@dataclass(frozen=True)
class Row:
    """One line of the report; accuracies in percent of the test set.

    Attributes:
        name: what was measured.
        values: one accuracy, or several: of draws, architectures or seeds.
    """

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Sample standard deviation, None for a single value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


def evaluate_supernet(
    supernet: Supernet,
    genotype: Genotype,
    test: Examples,
    temperature,
    key: jax.Array,
    *,
    soft: Soft = softened,
) -> tuple[Row, ...]:
    """Measures one searched network in the three ways of using its logits.

    Args:
        supernet: the searched network.
        genotype: what is derived from it.
        test: the test set.
        temperature: the last one of the search.
        key: of the 20 draws of the straight-through network.
        soft: weights of the soft network, those of the method.

    Returns:
        Accuracy of the weighted sum of all operations, of each drawn network, and of
        the derived one with the weights that it has in the supernet.
    """
    logits = supernet.logits()

    def measure(weights: Mapping[str, jax.Array], operation: Operation) -> float:
        classes = predict(
            supernet.network, test.inputs, weights=weights, operation=operation
        )
        return accuracy(classes, test.labels)

    draws = [
        draw_choices(one, logits, hard=True).weights
        for one in jax.random.split(key, NUM_DRAWS)
    ]
    summed = soft_weights(logits, temperature, soft)
    return (
        Row(SOFT, (measure(summed, dense_operation),)),
        Row(DRAWN, tuple(measure(weights, path_operation) for weights in draws)),
        Row(ARGMAX, (measure(genotype.weights(supernet.space), path_operation),)),
    )


def evaluate_derived(
    derived: Network, train: Examples, test: Examples, key: jax.Array
) -> tuple[Row, ...]:
    """The derived network with statistics measured on batches of the training set.

    Returns:
        A row, or none where nothing is normalised over the batch.
    """
    calibrated = calibrate(derived, train, key)
    if calibrated is derived:
        return ()
    classes = predict(calibrated, test.inputs)
    return (Row(RECALIBRATED, (accuracy(classes, test.labels),)),)


def calibrate(derived: Network, train: Examples, key: jax.Array) -> Network:
    """A network that predicts one example alone as it does in a batch.

    Args:
        derived: what `derive` gave.
        train: training examples.
        key: of the 20 batches of 256 that statistics are measured on.

    Returns:
        `derived` itself where nothing is normalised over the batch.
    """
    norms = [m for m in modules_of(derived) if isinstance(m, nnx.BatchNorm)]
    if not norms:
        return derived
    size = min(256, train.size)
    order = jax.random.permutation(key, train.size)
    count = min(RECALIBRATION_BATCHES, train.size // size)
    batches = [train.inputs[order[i * size : (i + 1) * size]] for i in range(count)]
    return recalibrate(derived, batches)


def agrees(supernet: Supernet, derived: Network, genotype: Genotype, x) -> bool:
    """Whether the derived network predicts what the supernet does for these choices.

    Classes may differ where rounding decides: one, or at most one in a thousand.
    """
    expected = predict(
        supernet.network,
        x,
        weights=genotype.weights(supernet.space),
        operation=path_operation,
    )
    found = predict(derived, x)
    return int(np.sum(expected != found)) <= max(1, len(found) // 1000)


def random_genotypes(space: Space, count: int, key: jax.Array) -> tuple[Genotype, ...]:
    """The architectures to compare with."""
    return tuple(Genotype.random(one, space) for one in jax.random.split(key, count))


def train_all(
    space: Space,
    genotypes: Mapping[str, Genotype],
    dataset: Dataset,
    options: TrainingOptions,
    *,
    seed: int,
    record: Path,
    on_progress: Callable[[str, int], None] = lambda name, epoch: None,
) -> dict[str, float]:
    """Trains networks from scratch and equally, each once.

    Short ones by one compiled program, where `can_share` says so.

    Args:
        space: the space of the genotypes.
        genotypes: name -> architecture.
        dataset: trained on all of its training set.
        options: how each is trained.
        seed: of the trainings; each has its own, by its name.
        record: JSON-lines file of finished trainings. What it holds, of the same
            architecture, options and seed, is not done again.
        on_progress: called with the name and the number of epochs done.

    Returns:
        name -> test accuracy in percent.
    """
    done = {row["name"]: row for row in lines.keep(record, _TRAINED)}
    results = {}
    shape, num_classes = dataset.train.inputs.shape[1:], dataset.num_classes
    size = dataset.train.size
    steps = options.num_epochs * (size // min(options.batch_size, size))
    short = steps <= _SHARED_STEPS
    share = short and can_share(space, shape, num_classes, options)
    shared: Training | None = None
    for name, genotype in genotypes.items():
        text = str(genotype)
        same = {"name": name, "genotype": text, "training": f"{options}, seed {seed}"}
        if same.items() <= done.get(name, {}).items():
            results[name] = done[name]["test_accuracy"]
            on_progress(name, options.num_epochs)
            continue
        own = stable_hash(f"{seed} {name}") >> 1
        if shared is not None:
            training = shared.of(genotype, seed=own)
        else:
            training = Training(
                space,
                genotype,
                dataset.train,
                num_classes=num_classes,
                options=options,
                seed=own,
                shared=share,
            )
            shared = training if share else None
        on_epoch = functools.partial(on_progress, name)
        results[name] = train_and_test(training, dataset.test, on_epoch)
        row = same | {"test_accuracy": results[name]}
        with record.open("a", encoding="utf-8") as file:
            lines.append(file, row)
    return results


def over_seeds(reports: Sequence[Sequence[Row]]) -> tuple[Row, ...]:
    """One report of several runs: for each line the means of the runs.

    The random architectures of all runs are put together.
    """
    names = dict.fromkeys(row.name for report in reports for row in report)
    rows = []
    for name in names:
        found = [row for report in reports for row in report if row.name == name]
        if name == RANDOM:
            values = tuple(value for row in found for value in row.values)
        else:
            values = tuple(row.mean for row in found)
        rows.append(Row(name, values))
    return tuple(rows)


def standing(rows: Sequence[Row]) -> Standing | None:
    """The place of the derived architecture among the random ones of one run.

    None where nothing was trained from scratch to compare with.
    """
    by_name = {row.name: row.values for row in rows}
    if RETRAINED not in by_name or RANDOM not in by_name:
        return None
    return Standing.of(by_name[RETRAINED][0], by_name[RANDOM])


def verdict(runs: Sequence[Sequence[Row]]) -> list[str]:
    """What the kept architectures are worth beside random and constant ones.

    Args:
        runs: the rows of each run.

    Returns:
        Sentences; none where nothing was trained to compare with.
    """
    sentences = []
    standings = [found for found in map(standing, runs) if found is not None]
    if standings:
        places = ", ".join(map(str, standings))
        sentences.append(
            f"The kept architecture among random ones, trained equally: {places}; by "
            f"chance as good or better with probability {chance(standings):.2g}."
        )
    together = {row.name: row for row in over_seeds(runs)}
    if len(standings) > 1:
        sentences.append(pooled(together[RETRAINED].values, together[RANDOM].values))
    constant = {n: together[n].mean for n in together if n.endswith(EVERYWHERE)}
    if constant and RETRAINED in together:
        best = max(constant, key=lambda name: constant[name])
        beside = constant[best] - together[RETRAINED].mean
        sentences.append(
            f"The best constant architecture, {best}: {constant[best]:.2f} %, "
            f"{beside:+.2f} points beside the kept one."
        )
    return sentences


def format_table(
    rows: Sequence[Row], title: str, runs: Sequence[Sequence[Row]] | None = None
) -> str:
    """The report as text.

    Args:
        rows: of the table.
        title: its first line.
        runs: the rows of each run, where `rows` are those of several.
    """
    lines = [title, ""]
    for row in rows:
        spread = "" if row.std is None else f" ± {row.std:.2f}"
        number = f"{row.mean:6.2f} %{spread}"
        count = f" ({len(row.values)})" if len(row.values) > 1 else ""
        lines.append(f"  {row.name:<26}{number:<18}{note(row.name)}{count}")
    lines += ["", "  discretisation gap (as searched minus argmax, in points)"]
    for name, (gap, std) in gap_over_runs(rows).items():
        spread = "" if std is None else f"   ± {std:.2f}"
        lines.append(f"  {name:<26}{gap:+6.2f}{spread}")
    compared = verdict([rows] if runs is None else runs)
    lines += [""] * bool(compared) + [f"  {sentence}" for sentence in compared]
    return "\n".join(lines) + "\n"


def gaps(rows: Sequence[Row]) -> dict[str, float]:
    """Points lost between what was searched, in its two readings, and what is kept."""
    by_name = {row.name: row.mean for row in rows}
    return {name: by_name[name] - by_name[ARGMAX] for name in (SOFT, DRAWN)}


def gap_over_runs(rows: Sequence[Row]) -> dict[str, tuple[float, float | None]]:
    """The gaps, and their standard deviation where rows have a value of each run."""
    by_name = {row.name: row.values for row in rows}
    kept = by_name[ARGMAX]
    found: dict[str, tuple[float, float | None]] = {}
    for name, gap in gaps(rows).items():
        searched = by_name[name]
        std = None
        if len(searched) == len(kept) > 1:
            std = float(np.std(np.subtract(searched, kept), ddof=1))
        found[name] = gap, std
    return found


def to_json(rows: Sequence[Row]) -> list[dict]:
    """Rows for report.json."""
    return [
        {"name": row.name, "mean": row.mean, "std": row.std, "values": list(row.values)}
        for row in rows
    ]


def from_json(rows: Sequence[Mapping]) -> tuple[Row, ...]:
    """Undoes `to_json`.

    Raises:
        ValueError: a row has an unknown name or no values, or one of those of the gap
            is not there.
    """
    for one in rows:
        numbers = all(map(lines.is_number, one["values"]))
        if not (lines.is_text(one["name"]) and numbers):
            raise ValueError(f"the row {one['name']!r} with {one['values']!r}")
    found = tuple(Row(r["name"], tuple(map(float, r["values"]))) for r in rows)
    for row in found:
        known = row.name in NOTES or row.name.endswith(EVERYWHERE)
        if not (known and row.values):
            raise ValueError(f"the row {row.name!r} with {len(row.values)} values")
    missing = {SOFT, DRAWN, ARGMAX} - {row.name for row in found}
    if missing:
        raise ValueError(f"no row {min(missing)!r}")
    return found
