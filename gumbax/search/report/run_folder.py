"""What the folder of a search holds so far, as a page shows it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gumbax.search.genotype.genotype import Genotype
from gumbax.search.report import gap
from gumbax.search.report.costing import Trained, trained_from_json
from gumbax.search.report.gap import Row
from gumbax.search.spaces.space import Choice
from gumbax.search.store import folder, lines, records

SPACE = "space.json"
GENOTYPE = "genotype.json"


@dataclass(frozen=True)
class Choices:
    """The choices of a space as a run's folder has them; enough to show a genotype.

    Attributes:
        name: of the space.
        choices: name -> `Choice`.
        num_architectures: of the space.
    """

    name: str
    choices: Mapping[str, Choice]
    num_architectures: int

    @classmethod
    def read(cls, path: Path) -> "Choices | None":
        """What `write_space` wrote; None where it did not, or it cannot be read."""
        try:
            content = folder.read_json(path)
            choices = {
                name: Choice.from_json(one) for name, one in content["choices"].items()
            }
            return cls(str(content["name"]), choices, int(content["architectures"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def write_space(out: Path, space: Any, options: Mapping[str, Any]) -> None:
    """Keeps what a page needs while a run goes on, whose space may be a user's own."""
    content = {
        "options": dict(options),
        "name": space.name,
        "architectures": space.num_architectures,
        "choices": {name: one.to_json() for name, one in space.choices.items()},
    }
    folder.write(out / SPACE, json.dumps(content, indent=2) + "\n")


def experiment(options: Mapping[str, Any]) -> str:
    """The method and its cost, for a reader: such runs differ in the seed alone."""
    cost, budget, weight = map(options.get, ("cost", "budget", "cost_weight"))
    words = [str(options.get("method"))]
    if budget is not None:
        words.append(f"within {_number(budget)} {cost}")
    if weight is not None:
        words.append(f"{_number(weight)} nats for {cost}")
    return ", ".join(words)


def _number(value: Any) -> str:
    return f"{value:,.15g}" if lines.is_number(value) else str(value)


@dataclass(frozen=True)
class Run:
    """What a folder holds so far of a search.

    Attributes:
        folder: of the run.
        options: of the run, and what it says of itself.
        command: that makes it again; empty where Python made it.
        versions: of what decided it.
        space: its choices, if they are there.
        metrics: rows of metrics.jsonl.
        choices: rows of choices.jsonl.
        genotype: what was derived, if anything was.
        rows: of the report, none while it searches.
        trained: what was trained from scratch, with its costs.
        title: of the report.
    """

    folder: Path
    options: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    space: Choices | None
    metrics: Sequence[Mapping[str, Any]]
    choices: Sequence[Mapping[str, Any]]
    genotype: Genotype | None
    rows: tuple[Row, ...]
    trained: tuple[Trained, ...]
    title: str

    @property
    def name(self) -> str:
        """Experiment and seed."""
        return f"{self.experiment}, seed {self.options.get('seed')}"

    @property
    def experiment(self) -> str:
        """The method, and its cost."""
        return experiment(self.options)


def read_run(out: Path) -> Run:
    """Reads what a folder holds; what is missing is left out.

    Raises:
        SearchError: metrics.jsonl or choices.jsonl is damaged.
    """
    record, report = _json(out / folder.RECORD), _json(out / "report.json")
    try:
        genotype = Genotype.load(out / GENOTYPE)
    except (OSError, ValueError):
        genotype = None
    try:
        rows = gap.from_json(report.get("rows", ()))
    except (ValueError, KeyError, TypeError):
        rows = ()
    try:
        trained = trained_from_json(report.get("architectures", ()))
    except (ValueError, KeyError, TypeError):
        trained = ()
    asked = _options(record)
    return Run(
        folder=out,
        options=asked or _options(report) or _options(_json(out / SPACE)),
        command=command(asked, out) if asked else "",
        versions=record.get("versions", {}),
        space=Choices.read(out / SPACE),
        metrics=records.metrics(out),
        choices=records.choices(out),
        genotype=genotype,
        rows=rows,
        trained=trained,
        title=report.get("title", ""),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return folder.read_json(path)
    except (OSError, ValueError):
        return {}


def _options(content: Mapping[str, Any]) -> Mapping[str, Any]:
    found = content.get("options")
    return found if isinstance(found, Mapping) else {}


def command(options: Mapping[str, Any], out: Path) -> str:
    """The line that makes a run again, for a POSIX shell."""
    words = ["gumbax", "search", str(options.get("dataset"))]
    for name, value in options.items():
        option = name.replace("_", "-")
        if name == "dataset" or value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return shlex.join([*words, "--out", str(out)])
