"""Files of JSON lines: a stopped process leaves all but the last line whole."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from gumbax.search.store import folder


def read(path: Path, fields: Iterable[str] = ()) -> list[dict]:
    """Rows of a file up to the first that is not whole, or lacks one of the fields."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not set(fields) <= row.keys():
            break
        rows.append(row)
    return rows


def keep(
    path: Path,
    wanted: Callable[[dict], bool] = lambda row: True,
    fields: Iterable[str] = (),
) -> list[dict]:
    """Drops the other rows and what cannot be read, so that rows can be added."""
    rows = [row for row in read(path, fields) if wanted(row)]
    folder.write(path, _text(rows))
    return rows


def append(file: IO[str], row: dict) -> None:
    """Adds a row and hands it to the system."""
    file.write(_text([row]))
    file.flush()


def _text(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
