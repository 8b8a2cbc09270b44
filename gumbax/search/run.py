"""One run in one folder: search, derivation, report; whatever stops it, it resumes."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import jax

import gumbax
from gumbax.search import data, plots, report
from gumbax.search.checkpoint import Checkpoints
from gumbax.search.errors import SearchError, search_error
from gumbax.search.fit import Search, fit
from gumbax.search.genotype import Genotype
from gumbax.search.methods import METHODS
from gumbax.search.network import derive
from gumbax.search.space import SMALL_IMAGES

STEPS_PER_CHECKPOINT = 100


@dataclass(frozen=True)
class Options:
    """What decides the result of a run.

    Attributes:
        dataset: name of the data set.
        method: name of the search method.
        seed: of everything random.
        steps: steps of the search.
        train_steps: steps of every training from scratch.
        random_architectures: how many to compare with.
    """

    dataset: str
    method: str = "gumbel"
    seed: int = 0
    steps: int = 1500
    train_steps: int = 1000
    random_architectures: int = 5

    @property
    def run_id(self) -> str:
        """A name for the run, equal for equal options."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def check(self) -> None:
        """Raises SearchError for a value that no run can have."""
        if self.dataset not in data.DATASETS:
            data.load(self.dataset)
        if self.method not in METHODS:
            raise search_error(
                "--method",
                "be a known method",
                repr(self.method),
                f"Known: {', '.join(METHODS)}.",
            )
        ranges = {
            "--steps": (self.steps, 1, "Pass a number of steps."),
            "--train-steps": (self.train_steps, 1, "Pass a number of steps."),
            "--random-architectures": (
                self.random_architectures,
                0,
                "Pass 0 to compare with none.",
            ),
            "--seed": (self.seed, 0, "Pass a non-negative integer."),
        }
        for name, (value, least, cure) in ranges.items():
            if not least <= value < 2**31:
                raise search_error(name, f"be from {least} to 2**31 - 1", value, cure)


class Progress(Protocol):
    """Where a run tells how far it is."""

    def phase(self, name: str, total: int) -> contextlib.AbstractContextManager[Any]:
        """Yields a function (steps done, metrics by name)."""

    def say(self, text: str) -> None:
        """Shows a line."""


class Silent:
    """Tells nothing."""

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Any]:
        """Yields a function that does nothing."""
        del name, total
        yield lambda done, **metrics: None

    def say(self, text: str) -> None:
        """Shows nothing."""


def start(out: Path, given: dict[str, Any], *, resume: bool) -> Options:
    """Opens the folder of a run, or refuses to touch what is in it.

    Args:
        out: the folder.
        given: the options that the user named; others take their defaults, or those of
            the run that is resumed.
        resume: go on with the run that is there.

    Returns:
        The options of the run, written to run.json.

    Raises:
        SearchError: an option is out of range or would change the resumed run, or the
            folder holds something else.
    """
    record = out / "run.json"
    if out.exists() and not out.is_dir():
        raise search_error("--out", "be a folder", f"the file {out}", "Name another.")
    if resume:
        if not record.exists():
            raise search_error(
                "--resume",
                "find a run in --out",
                f"no run.json in {out}",
                "Leave out --resume to start a run there.",
            )
        options = _read_options(record)
        for name, value in given.items():
            if getattr(options, name) != value:
                option = name.replace("_", "-")
                raise search_error(
                    option if name == "dataset" else f"--{option}",
                    "be left as it was when a run is resumed",
                    f"{value!r}, the run has {getattr(options, name)!r}",
                    "Leave it out, or start another run with another --out.",
                )
        options.check()
        return options
    if out.exists() and any(out.iterdir()):
        held = "another run" if record.exists() else "other files"
        cure = "Pass --resume to go on with it, or another --out."
        raise search_error(
            "--out",
            "be a new or empty folder",
            f"{out}, which holds {held}",
            cure if record.exists() else "Pass another --out.",
        )
    options = Options(**given)
    options.check()
    out.mkdir(parents=True, exist_ok=True)
    versions = {"gumbax": gumbax.__version__, "jax": jax.__version__}
    content = {"options": asdict(options), "versions": versions}
    _write(record, json.dumps(content, indent=2) + "\n")
    return options


def _read_options(record: Path) -> Options:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))["options"]
        options = Options(**content)
        for field in fields(Options):
            if type(getattr(options, field.name)) is not field.type:
                raise TypeError(f"{field.name} is not {field.type}")
        return options
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise search_error(
            "--resume",
            "find the options of the run in run.json",
            f"{record}, which cannot be read ({error})",
            "Restore the file, or start another run with another --out.",
        ) from error


def run(out: Path, options: Options, progress: Progress | None = None) -> str:
    """Searches, derives, retrains and reports, from wherever the folder stands.

    Args:
        out: folder that `start` has opened.
        options: what `start` returned.
        progress: where to show how far it is.

    Returns:
        The gap report as text. The folder holds run.json, metrics.jsonl, checkpoints,
        genotype.json, cell.svg, cell.png, curves.png, trainings.jsonl, report.json and
        report.txt.

    Raises:
        SearchError: a checkpoint cannot be used, or the loss is not finite.
    """
    progress = progress or Silent()
    dataset = data.load(options.dataset)
    space = replace(SMALL_IMAGES, num_classes=dataset.num_classes)
    search = Search(
        space,
        METHODS[options.method],
        dataset.train,
        num_steps=options.steps,
        seed=options.seed,
    )
    state, rows = _search(out, options, search, progress)

    supernet = search.supernet(state)
    genotype = Genotype.most_probable(supernet.arch_logits[...], space)
    _write(out / "genotype.json", genotype.to_json())
    plots.draw_cell(genotype, space, [out / "cell.svg", out / "cell.png"])
    plots.draw_curves(rows, out / "curves.png")
    progress.say(f"cell  {genotype}")
    derived = derive(supernet, genotype)
    if not report.check_derived(supernet, derived, genotype, dataset.test.images):
        raise SearchError(
            "The derived network does not predict what the supernet's most probable "
            "path does: this is a fault of gumbax, please report it."
        )

    draw_key = jax.random.fold_in(jax.random.key(options.seed), options.steps)
    searched = report.evaluate_supernet(supernet, dataset.test, draw_key)
    others = report.random_genotypes(
        space, options.random_architectures, jax.random.fold_in(draw_key, 1)
    )
    named = {"derived": genotype} | {f"random {i + 1}": g for i, g in enumerate(others)}
    total = len(named) * options.train_steps
    with progress.phase("train from scratch", total) as advance:
        order = list(named)
        results = report.train_all(
            space,
            named,
            dataset,
            num_steps=options.train_steps,
            seed=options.seed,
            record=out / "trainings.jsonl",
            on_progress=lambda name, step: advance(
                order.index(name) * options.train_steps + step, network=name
            ),
        )
    lines = report.make_rows(
        searched, results["derived"], [results[name] for name in order[1:]]
    )
    title = (
        f"Gap report: {options.dataset}, method {options.method}, seed {options.seed}, "
        f"{options.steps} steps of search, {options.train_steps} of training; "
        f"accuracy on {dataset.test.size} test images"
    )
    text = report.format_table(lines, title)
    content = {
        "options": asdict(options),
        "genotype": str(genotype),
        "rows": [asdict(row) for row in lines],
    }
    _write(out / "report.json", json.dumps(content, indent=2) + "\n")
    _write(out / "report.txt", text)
    return text


def _search(out: Path, options: Options, search: Search, progress: Progress):
    """Runs or resumes the search; returns its last state and the rows of metrics."""
    checkpoints = Checkpoints(out / "checkpoints", options.run_id)
    state = search.init()
    restored = checkpoints.restore(state)
    first = 0
    if restored is not None:
        first, state = restored
        progress.say(f"resumed from step {first}")
    path = out / "metrics.jsonl"
    rows = [row for row in report.read_lines(path) if row["step"] <= first]
    _write(path, "".join(json.dumps(row) + "\n" for row in rows))
    seconds = rows[-1]["seconds"] if rows else 0.0
    began = time.perf_counter()
    with (
        path.open("a", encoding="utf-8") as file,
        contextlib.closing(checkpoints),
        progress.phase(f"search ({options.method})", options.steps) as advance,
    ):
        if first:
            advance(first)

        def on_advance(state, metrics: dict[str, float]) -> None:
            elapsed = round(seconds + time.perf_counter() - began, 3)
            row = metrics | {"seconds": elapsed}
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            step = int(metrics["step"])
            if step % STEPS_PER_CHECKPOINT == 0 or step == options.steps:
                checkpoints.save(step, state)
            shown = ("loss", "accuracy", "temperature", "entropy")
            advance(step, **{name: metrics[name] for name in shown})

        state = fit(search, state, on_advance)
    return state, rows


def _write(path: Path, text: str) -> None:
    """Replaces a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
