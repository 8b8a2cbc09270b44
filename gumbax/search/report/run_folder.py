"""What the folder of a search holds so far, as a page shows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gumbax.search.genotype.genotype import Genotype
from gumbax.search.report import gap
from gumbax.search.report.costing import Trained, trained_from_json
from gumbax.search.report.gap import Row
from gumbax.search.spaces.space import Choice
from gumbax.search.store import folder, records

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


def write_space(out: Path, space: Any) -> None:
    """Keeps what a page needs of a space, which may be a user's own."""
    content = {
        "name": space.name,
        "architectures": space.num_architectures,
        "choices": {name: one.to_json() for name, one in space.choices.items()},
    }
    folder.write(out / SPACE, json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True)
class Run:
    """What a folder holds so far of a search.

    Attributes:
        folder: of the run.
        options: of the run, and what it says of itself.
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
        """Method and seed."""
        return f"{self.options.get('method')}, seed {self.options.get('seed')}"


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
    return Run(
        folder=out,
        options=record.get("options") or report.get("options") or {},
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


def command(run: Run) -> str:
    """The line that makes the run again: what is not by default."""
    words = ["gumbax search", str(run.options.get("dataset"))]
    for name, value in run.options.items():
        option = "--" + name.replace("_", "-")
        if name == "dataset" or value is None:
            continue
        if value is True:
            words.append(option)
        elif value is not False:
            words += [option, str(value)]
    return " ".join([*words, "--out", str(run.folder)])
