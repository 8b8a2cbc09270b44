"""One run in one folder: search, derivation, report; whatever stops it, it resumes."""

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from gumbax.search import datasets, folder, lines, plots, report
from gumbax.search.checkpoint import Checkpoints
from gumbax.search.comparison import REPORT, for_plot, read_report
from gumbax.search.data import Dataset
from gumbax.search.diagnostics import probabilities, stable_hash
from gumbax.search.errors import SearchError, search_error
from gumbax.search.fit import Search, SearchState, fit
from gumbax.search.genotype import Genotype
from gumbax.search.network import Network, derive
from gumbax.search.options import Options
from gumbax.search.progress import Progress, Silent
from gumbax.search.report import Row
from gumbax.search.space import Space

SECONDS_PER_CHECKPOINT = 5.0
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
CHOICES = "choices.jsonl"
GENOTYPE = "genotype.json"


def load_data(options: Options) -> Dataset:
    """The data set of a run."""
    return datasets.load(options.dataset, label=options.label, limit=options.limit)


def make_search(options: Options, dataset: Dataset) -> Search:
    """The search of a run.

    Raises:
        SearchError: the space does not fit the data.
    """
    return Search(
        options.make_space(dataset),
        options.make_method(),
        dataset.train,
        num_classes=dataset.num_classes,
        num_epochs=options.search_epochs(dataset),
        batch_size=options.batch_size,
        seed=options.seed,
        augmentation=options.augmentation(cutout=False),
    )


def run(out: Path, options: Options, progress: Progress | None = None) -> str:
    """Searches, derives, retrains and reports, from wherever the folder stands.

    Args:
        out: folder that `folder.start` has looked into.
        options: what it returned.
        progress: where to show how far it is.

    Returns:
        The gap report as text. The folder holds run.json, metrics.jsonl, choices.jsonl,
        checkpoints, genotype.json, trainings.jsonl, report.json, report.txt and the
        pictures of `draw`.

    Raises:
        SearchError: the data or a checkpoint cannot be used, or the loss is not finite.
    """
    progress = progress or Silent()
    dataset = load_data(options)
    search = make_search(options, dataset)
    folder.record(out, options)
    state = _search(out, options, search, progress)
    genotype = search.method.genotype(state.arch, search.space)
    folder.write(out / GENOTYPE, genotype.to_json())
    progress.say(plots.genotype_text(genotype, search.space))

    supernet = search.supernet(state)
    derived = derive(supernet, genotype)
    if not report.agrees(supernet, derived, genotype, dataset.test.inputs):
        raise SearchError(
            "The derived network does not predict what the supernet does for these "
            "choices: this is a fault of gumbax, please report it."
        )
    draw_key, calibration_key, random_key = jax.random.split(
        jax.random.fold_in(jax.random.key(options.seed), stable_hash("report")), 3
    )
    temperature = search.temperature(search.num_steps)
    rows = report.evaluate_supernet(
        supernet, genotype, dataset.test, temperature, draw_key
    )
    rows += report.evaluate_derived(
        derived, dataset.train, dataset.test, calibration_key
    )
    rows += _trainings(
        out, options, search.space, genotype, dataset, random_key, progress
    )
    title = (
        f"Gap report: {dataset.name}, {search.space.name}, method {options.method}, "
        f"seed {options.seed}, {search.num_epochs} epochs of search, "
        f"{options.training(dataset).num_epochs} of training; accuracy on "
        f"{dataset.test.size} test images"
    )
    text = report.format_table(rows, title)
    content = {
        "options": asdict(options),
        "space": search.space.name,
        "genotype": str(genotype),
        "title": title,
        "rows": report.to_json(rows),
    }
    folder.write(out / REPORT, json.dumps(content, indent=2) + "\n")
    folder.write(out / "report.txt", text)
    draw(out, search.space)
    return text


def _trainings(
    out: Path,
    options: Options,
    space: Space,
    genotype: Genotype,
    dataset: Dataset,
    key: jax.Array,
    progress: Progress,
) -> tuple[Row, ...]:
    """Trains the derived architecture and random ones, equally."""
    others = report.random_genotypes(space, options.random_architectures, key)
    named = {"derived": genotype} | {f"random {i + 1}": g for i, g in enumerate(others)}
    training = options.training(dataset)
    order = list(named)
    total = len(named) * training.num_epochs
    with progress.phase("train from scratch", total) as advance:
        results = report.train_all(
            space,
            named,
            dataset,
            training,
            seed=options.seed,
            record=out / "trainings.jsonl",
            on_progress=lambda name, epoch: advance(
                order.index(name) * training.num_epochs + epoch, network=name
            ),
        )
    rows: tuple[Row, ...] = (Row(report.RETRAINED, (results["derived"],)),)
    if others:
        rows += (Row(report.RANDOM, tuple(results[name] for name in order[1:])),)
    return rows


def _search(
    out: Path, options: Options, search: Search, progress: Progress
) -> SearchState:
    """Runs or resumes the search; returns its last state."""
    checkpoints = Checkpoints(out / CHECKPOINTS, options.run_id)
    state = search.init()
    first = 0
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore(state)
        if restored is not None:
            first, state = restored
            progress.say(f"resumed from epoch {first}")
        paths = (out / METRICS, out / CHOICES)
        # What was written after the checkpoint is done again.
        rows, _ = (lines.keep(p, lambda row: row["epoch"] <= first) for p in paths)
        seconds = rows[-1]["seconds"] if rows else 0.0
        began = saved = time.perf_counter()
        with (
            paths[0].open("a", encoding="utf-8") as metrics_file,
            paths[1].open("a", encoding="utf-8") as choices_file,
            progress.phase(f"search ({options.method})", search.num_epochs) as advance,
        ):
            if first:
                advance(first)

            def on_epoch(state: SearchState, row: dict[str, float]) -> None:
                nonlocal saved
                now = time.perf_counter()
                epoch = int(row["epoch"])
                chosen = {
                    name: np.round(np.asarray(p, np.float64), 6).tolist()
                    for name, p in probabilities(state.arch).items()
                }
                row = row | {"seconds": round(seconds + now - began, 3)}
                lines.append(metrics_file, row)
                lines.append(choices_file, {"epoch": epoch, "probabilities": chosen})
                last = epoch == search.num_epochs
                if last or now - saved >= SECONDS_PER_CHECKPOINT:
                    checkpoints.save(epoch, state)
                    saved = now
                shown = ("loss", "accuracy", "argmax_accuracy", "temperature")
                advance(epoch, **{name: row[name] for name in shown})

            return fit(search, state, on_epoch)


def draw(out: Path, space: Space) -> None:
    """Draws what a folder holds: cell, curves, choices and gap, as SVG and PNG."""

    def both(name: str) -> list[Path]:
        return [out / f"{name}.svg", out / f"{name}.png"]

    if (out / GENOTYPE).exists():
        try:
            genotype = Genotype.load(out / GENOTYPE)
            genotype.check(space)
        except ValueError as error:
            cure = "Derive it again: `gumbax derive` and the folder."
            must = f"be of the space {space.name}"
            raise search_error(GENOTYPE, must, str(error), cure) from error
        plots.draw_genotype(genotype, space, both("cell"))
    rows = lines.read(out / METRICS)
    if rows:
        plots.draw_curves(rows, both("curves"))
    epochs = lines.read(out / CHOICES)
    if epochs:
        history = {
            name: np.asarray([row["probabilities"][name] for row in epochs])
            for name in space.choices
        }
        plots.draw_choices(history, space, both("choices"))
    if (out / REPORT).exists():
        found = read_report(out)
        plots.draw_gap({found.method: for_plot(found.rows)}, both("gap"))


def derive_again(out: Path, rule=None) -> tuple[Search, Genotype, Network]:
    """Derives from the last checkpoint of a run.

    Args:
        out: folder of the run.
        rule: a rule of `gumbax.search.derive_rules`; the method's own if None.

    Returns:
        The search, the genotype, and the network with the weights of the search.

    Raises:
        SearchError: the folder has no run or no checkpoint.
    """
    options, _ = folder.read(out)
    dataset = load_data(options)
    search = make_search(options, dataset)
    checkpoints = Checkpoints(out / CHECKPOINTS, options.run_id)
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore(search.init())
    if restored is None:
        raise search_error(
            "run",
            "have a checkpoint",
            f"none in {out / CHECKPOINTS}",
            "Search first: `gumbax search --resume --out` and the folder.",
        )
    _, state = restored
    make = search.method.genotype if rule is None else rule
    try:
        genotype = make(state.arch, search.space)
        network = derive(search.supernet(state), genotype)
    except ValueError as error:
        cure = "Use another rule."
        raise search_error("--rule", "fit the space", str(error), cure) from error
    return search, genotype, network
