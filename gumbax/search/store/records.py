"""The files of a search that grow by a line after each epoch, checked when read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gumbax.search.store import lines
from gumbax.search.store.errors import search_error

METRICS = "metrics.jsonl"
CHOICES = "choices.jsonl"
_OF_METRICS = {"epoch": lines.COUNT}
_OF_CHOICES = {"epoch": lines.COUNT, "probabilities": lines.TABLE}


def metrics(out: Path) -> list[dict]:
    """What a search measured, a row for each epoch.

    Raises:
        SearchError: a line that is not the last cannot be read, has no epoch, or
            something that is not a number.
    """
    return lines.read(out / METRICS, _OF_METRICS, lines.NUMBER)


def choices(out: Path, expected: Mapping[str, Any] | None = None) -> list[dict]:
    """The probabilities of every choice, a row for each epoch.

    Args:
        out: folder of the run.
        expected: name of a choice -> `Choice`, if the space is known.

    Raises:
        SearchError: as for `metrics`, or the choices are those of another space.
    """
    rows = lines.read(out / CHOICES, _OF_CHOICES)
    if expected is None:
        return rows
    shapes = {name: tuple(choice.shape) for name, choice in expected.items()}
    for row in rows:
        found = {n: (len(r), len(r[0])) for n, r in row["probabilities"].items()}
        if found != shapes:
            raise search_error(
                CHOICES,
                f"have probabilities of the shapes {shapes}",
                f"{found} after epoch {row['epoch']} in {out / CHOICES}",
                "Restore the file, or remove the lines from there on.",
            )
    return rows


def keep_until(out: Path, epoch: int) -> list[dict]:
    """Drops what was written after an epoch; returns the metrics that are left.

    Raises:
        SearchError: as for `metrics`; both files are then as they were.
    """
    metrics(out), choices(out)
    lines.keep(out / CHOICES, _OF_CHOICES, lambda row: row["epoch"] <= epoch)
    return lines.keep(
        out / METRICS, _OF_METRICS, lambda row: row["epoch"] <= epoch, lines.NUMBER
    )
