"""One run in one folder: search, derivation, report; whatever stops it, it resumes."""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from gumbax.search import datasets, folder, plots, report
from gumbax.search.checkpoint import Checkpoints
from gumbax.search.data import Dataset
from gumbax.search.diagnostics import probabilities
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
REPORT = "report.json"


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
        out: folder that `folder.start` has opened.
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
        jax.random.fold_in(jax.random.key(options.seed), 2), 3
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
        rows, _ = (_keep_lines(path, first) for path in paths)
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
                _append(metrics_file, row)
                _append(choices_file, {"epoch": epoch, "probabilities": chosen})
                last = epoch == search.num_epochs
                if last or now - saved >= SECONDS_PER_CHECKPOINT:
                    checkpoints.save(epoch, state)
                    saved = now
                shown = ("loss", "accuracy", "argmax_accuracy", "temperature")
                advance(epoch, **{name: row[name] for name in shown})

            return fit(search, state, on_epoch)


def _append(file, row: dict) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()


def _keep_lines(path: Path, last_epoch: int) -> list[dict]:
    """Drops what was written after the checkpoint, or cut off."""
    rows = [row for row in report.read_lines(path) if row["epoch"] <= last_epoch]
    folder.write(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def draw(out: Path, space: Space) -> None:
    """Draws what a folder holds: cell, curves, choices and gap, as SVG and PNG."""

    def both(name: str) -> list[Path]:
        return [out / f"{name}.svg", out / f"{name}.png"]

    if (out / GENOTYPE).exists():
        plots.draw_genotype(Genotype.load(out / GENOTYPE), space, both("cell"))
    rows = report.read_lines(out / METRICS)
    if rows:
        plots.draw_curves(rows, both("curves"))
    epochs = report.read_lines(out / CHOICES)
    if epochs:
        history = {
            name: np.asarray([row["probabilities"][name] for row in epochs])
            for name in space.choices
        }
        plots.draw_choices(history, space, both("choices"))
    if (out / REPORT).exists():
        method, found = read_report(out)
        plots.draw_gap({method: _for_plot(found)}, both("gap"))


def read_report(out: Path) -> tuple[str, tuple[Row, ...]]:
    """Method and rows of a finished run.

    Raises:
        SearchError: there is no report, or it cannot be read.
    """
    path = out / REPORT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["options"]["method"]), report.from_json(content["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise search_error(
            "run",
            "be the folder of a finished search",
            f"{path}, which cannot be read ({error})",
            "Finish it: `gumbax search --resume --out` and the folder.",
        ) from error


def _for_plot(rows: Sequence[Row]) -> dict[str, tuple[float, float | None]]:
    return {row.name: (row.mean, row.std) for row in rows}


def compare(folders: Sequence[Path], out: Path | None = None) -> str:
    """The report of several runs: means over the seeds, method by method.

    Args:
        folders: of finished runs.
        out: where the figure (gap.svg, gap.png) and the tables (gap.txt) go.

    Returns:
        One table for each method.

    Raises:
        SearchError: a folder has no report.
    """
    by_method: dict[str, list[tuple[Row, ...]]] = {}
    for one in folders:
        method, rows = read_report(one)
        by_method.setdefault(method, []).append(rows)
    tables, figure = [], {}
    for method, reports in by_method.items():
        together = report.over_seeds(reports)
        runs = "1 run" if len(reports) == 1 else f"{len(reports)} runs"
        tables.append(report.format_table(together, f"Method {method}, {runs}"))
        figure[method] = _for_plot(together)
    text = "\n".join(tables)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        folder.write(out / "gap.txt", text)
        plots.draw_gap(figure, [out / "gap.svg", out / "gap.png"])
    return text


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
    options, _ = folder.read(out / folder.RECORD)
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
    genotype = make(state.arch, search.space)
    return search, genotype, derive(search.supernet(state), genotype)
