"""Published accuracies of every architecture of a space, and where a run's stand."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gumbax.search.genotype.genotype import Genotype, constant_architectures
from gumbax.search.methods.budgets import within_budget
from gumbax.search.methods.derive_rules import argmax_per_edge
from gumbax.search.network import costs
from gumbax.search.spaces.named import SPACES
from gumbax.search.spaces.space import Space
from gumbax.search.store import records
from gumbax.search.store.errors import SearchError, search_error

_SUFFIX = "_test"


@dataclass(frozen=True)
class GroundTruth:
    """The test accuracy of every architecture of a space, trained by others.

    Attributes:
        space: whose nodes keep all of their edges.
        accuracies: data set -> percent, float64 [N], in the order of `Genotype.index`.
    """

    space: Space
    accuracies: Mapping[str, np.ndarray]

    def of(self, genotype: Genotype) -> dict[str, float]:
        """Data set -> the accuracy of an architecture, in percent."""
        place = genotype.index(self.space)
        return {name: float(values[place]) for name, values in self.accuracies.items()}

    def percentile(self, name: str, accuracy: float) -> float:
        """The percentage of all architectures that are not better on a data set."""
        return 100 * float(np.mean(self.accuracies[name] <= accuracy))


def load_table(path: Path, space: Space) -> GroundTruth:
    """Reads a table of a space.

    Args:
        path: of an .npz file with `op_names` [K], the names of the operations,
            `edge_ops` [N, E], their numbers on the edges of each architecture, by
            target and then by source, and for each data set `NAME_test` [N], percent.
        space: of one choice, all of whose edges are kept.

    Returns:
        The accuracies, by `Genotype.index`.

    Raises:
        SearchError: the file cannot be read, is of another space, or has not each
            architecture once, with an accuracy.
    """

    def refused(must: str, got: object) -> SearchError:
        cure = "Pass the table of the space of the run."
        return search_error("--table", must, f"{got} in {path}", cure)

    try:
        with Path(path).open("rb") as file, np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
    # NumPy has many errors for what is no archive, or for a part of one.
    except Exception as error:
        got = f"{path} ({type(error).__name__}: {error})"
        cure = "Name another file."
        raise search_error("--table", "be an .npz file", got, cure) from error
    found = {n: a for n, a in arrays.items() if n.endswith(_SUFFIX)}
    if not {"op_names", "edge_ops"} <= arrays.keys() or not found:
        must = f"hold op_names, edge_ops and accuracies named NAME{_SUFFIX}"
        raise refused(must, ", ".join(arrays) or "nothing")
    names = [str(name) for name in arrays["op_names"].ravel()]
    if len(space.choices) > 1 or space.inputs_per_node is not None:
        must = "be of a space with one cell that keeps all of its edges"
        raise refused(must, f"a run of the space {space.name!r}")
    (choice,) = space.choices.values()
    if set(names) != set(choice.primitives):
        raise refused(f"be of the operations {', '.join(choice.primitives)}", names)
    total, num_edges = space.num_architectures, len(choice.edges)
    digits = arrays["edge_ops"]
    if digits.shape != (total, num_edges) or digits.dtype.kind not in "iu":
        must = f"have integers [{total}, {num_edges}] as edge_ops"
        raise refused(must, f"{digits.dtype} {list(digits.shape)}")
    if digits.size and not 0 <= digits.min() <= digits.max() < len(names):
        must = f"have edge_ops from 0 to {len(names) - 1}"
        raise refused(must, f"{digits.min()} to {digits.max()}")
    place = np.zeros(total, int)
    for column in np.array([choice.primitives.index(n) for n in names])[digits].T:
        place = place * len(names) + column
    if missing := sorted(set(range(total)) - set(place.tolist())):
        must = "hold each architecture once"
        raise refused(must, f"none {Genotype.from_index(missing[0], space)}")
    accuracies = {}
    for name, values in found.items():
        fits = values.shape == (total,) and values.dtype.kind == "f"
        if not (fits and np.isfinite(values).all()):
            must = f"have {total} finite numbers as {name}"
            raise refused(must, f"{values.dtype} {list(values.shape)}")
        accuracies[name.removesuffix(_SUFFIX)] = np.empty(total)
        accuracies[name.removesuffix(_SUFFIX)][place] = values
    return GroundTruth(space, accuracies)


def from_nats_bench(
    api: Any,
    space: Space,
    datasets: Sequence[str] = ("cifar10", "cifar100", "ImageNet16-120"),
) -> GroundTruth:
    """The table of the topology search space of the package `nats_bench`.

    Args:
        api: what `nats_bench.create(path, "tss", fast_mode=True)` returns.
        space: `gumbax.search.spaces.nasbench201()`, of any size.
        datasets: whose test accuracies after 200 epochs are read.

    Returns:
        The accuracies, mean over the seeds that were trained; `report.compare` takes
        them as its table.

    Raises:
        SearchError: an architecture of the space is not in it.

    References:
        Dong, Liu, Musial, Gabrys, 2021. https://arxiv.org/abs/2009.00437
    """
    accuracies = {name: np.full(space.num_architectures, np.nan) for name in datasets}
    for row in range(len(api)):
        genotype = Genotype.from_nasbench201(api.arch(row), space=space.name)
        place = genotype.index(space)
        for name in datasets:
            found = api.get_more_info(row, name, hp="200", is_random=False)
            accuracies[name][place] = found["test-accuracy"]
    for name, values in accuracies.items():
        if missing := np.flatnonzero(np.isnan(values)).tolist():
            first = Genotype.from_index(missing[0], space)
            raise search_error(
                "api",
                f"know all {len(values):,} architectures on {name}",
                f"none of {len(missing):,}, the first of them {first}",
                "Load the whole benchmark.",
            )
    return GroundTruth(space, accuracies)


@dataclass(frozen=True)
class Kept:
    """What a run keeps, by its folder.

    Attributes:
        folder: of the run.
        experiment: its method, and its cost.
        genotype: what was derived.
        epochs: numbers of the epochs of choices.jsonl.
        by_epoch: what would have been derived after each of them: the most probable
            architecture, within the budget of the run.
    """

    folder: Path
    experiment: str
    genotype: Genotype
    epochs: tuple[int, ...]
    by_epoch: tuple[Genotype, ...]


def read_kept(
    folder: Path,
    experiment: str,
    space: Space,
    *,
    cost: str | None = None,
    budget: float | None = None,
) -> Kept:
    """Reads genotype.json and choices.jsonl of a run, and costs.json for its budget.

    Raises:
        SearchError: there is no genotype, or it is of another space; or the cost of the
            budget is gone.
    """
    try:
        genotype = Genotype.load(folder / "genotype.json")
        genotype.index(space)
    except (OSError, ValueError) as error:
        raise search_error(
            "--table",
            f"be of the space of the run, {space.name}",
            f"{folder} ({error})",
            "Report this run without --table, or derive it again.",
        ) from error
    derive = _derivation(folder, space, cost, budget)
    rows = records.choices(folder, space.choices)
    by_epoch = [
        derive({name: np.asarray(p) for name, p in row["probabilities"].items()})
        for row in rows
    ]
    epochs = tuple(row["epoch"] for row in rows)
    return Kept(folder, experiment, genotype, epochs, tuple(by_epoch))


def _derivation(
    folder: Path, space: Space, cost: str | None, budget: float | None
) -> Callable[[Mapping[str, np.ndarray]], Genotype]:
    """Choice -> probabilities [E, K] to what is kept of them, within the budget."""
    if budget is None:  # the order of the probabilities is that of the logits
        return lambda probabilities: argmax_per_edge(probabilities, space)
    try:
        table = costs.read(folder)[str(cost)]
    except (ValueError, KeyError) as error:
        must = f"have the {cost} of its budget in {costs.COSTS}"
        cure = "Restore the file."
        raise search_error("run", must, f"{folder} ({error})", cure) from error

    def derive(probabilities: Mapping[str, np.ndarray]) -> Genotype:
        # To six digits some are 0, which are not ruled out.
        logits = {n: np.log(np.maximum(p, 1e-7)) for n, p in probabilities.items()}
        return within_budget(
            logits, space, table=table, budget=budget, rule=argmax_per_edge
        )

    return derive


def levels(truth: GroundTruth) -> dict[str, dict[str, float]]:
    """What needs no search: the best constant architecture, and the mean of all."""
    first = next(iter(truth.accuracies))
    constant = {
        f"{name} everywhere": truth.of(one)
        for name, one in constant_architectures(truth.space).items()
    }
    best = max(constant, key=lambda name: constant[name][first])
    mean = {name: float(values.mean()) for name, values in truth.accuracies.items()}
    return {best: constant[best], "mean of all": mean}


def space_of(folders: Sequence[Path]) -> Space:
    """The space that runs share, by the name in their genotypes.

    Raises:
        SearchError: a genotype is missing, or they are of several spaces, or of one
            that has no name here.
    """
    names: dict[str, Path] = {}
    for folder in folders:
        try:
            genotype = Genotype.load(folder / "genotype.json")
        except (OSError, ValueError) as error:
            raise search_error(
                "run",
                "have a genotype.json",
                f"{folder} ({error})",
                "Finish it: `gumbax search --resume --out` and the folder.",
            ) from error
        names.setdefault(genotype.space, folder)
    if len(names) > 1 or next(iter(names)) not in SPACES:
        raise search_error(
            "--table",
            f"be for runs of one space that has a name ({', '.join(SPACES)})",
            ", ".join(f"{name} in {folder}" for name, folder in names.items()),
            "Report the others without it.",
        )
    return SPACES[next(iter(names))]()


def format_truth(truth: GroundTruth, runs: Sequence[Kept]) -> str:
    """What is published of the kept architectures and of the constant ones, as text."""
    names = list(truth.accuracies)

    def line(label: str, cells: Sequence[str]) -> str:
        return f"  {label:<32}{''.join(f'{cell:>20}' for cell in cells)}"

    def one(label: str, genotype: Genotype) -> str:
        found = truth.of(genotype)
        percentiles = {n: truth.percentile(n, found[n]) for n in names}
        return line(label, [f"{found[n]:.2f} ({percentiles[n]:.1f})" for n in names])

    text = [
        "Published test accuracy of what was kept, in percent (and how many percent of "
        f"the {truth.space.num_architectures:,} architectures are not better)",
        "",
        line("", names),
    ]
    for experiment in dict.fromkeys(run.experiment for run in runs):
        own = [run for run in runs if run.experiment == experiment]
        text += [one(str(run.folder), run.genotype) for run in own]
        if len(own) > 1:
            values = [[truth.of(run.genotype)[n] for run in own] for n in names]
            means = [f"{np.mean(v):.2f} ± {np.std(v, ddof=1):.2f}" for v in values]
            text.append(line(f"{experiment}, mean of {len(own)}", means))
    text += [
        one(f"{name} everywhere", genotype)
        for name, genotype in constant_architectures(truth.space).items()
    ]
    for label, reduce in (("mean of all", np.mean), ("best of all", np.max)):
        text.append(line(label, [f"{reduce(truth.accuracies[n]):.2f}" for n in names]))
    return "\n".join(text) + "\n"


def to_json(truth: GroundTruth, runs: Sequence[Kept]) -> str:
    """The same for programs, with the accuracy after each epoch."""
    content = {
        "architectures": truth.space.num_architectures,
        "runs": [
            {
                "folder": str(run.folder),
                "experiment": run.experiment,
                "genotype": str(run.genotype),
                "accuracy": (found := truth.of(run.genotype)),
                "percentile": {n: truth.percentile(n, a) for n, a in found.items()},
                "epochs": list(run.epochs),
                "accuracy_by_epoch": [truth.of(one) for one in run.by_epoch],
            }
            for run in runs
        ],
        "constant": {
            name: truth.of(genotype)
            for name, genotype in constant_architectures(truth.space).items()
        },
    }
    return json.dumps(content, indent=2) + "\n"
