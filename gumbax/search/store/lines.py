"""Files of JSON lines: a stopped process leaves all but the last line whole."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from gumbax.search.store import folder
from gumbax.search.store.errors import search_error

# What a field must be, and whether a value is.
Check = tuple[str, Callable[[Any], bool]]


def is_number(value: Any) -> bool:
    """Whether this is a number of JSON; NaN and infinities are."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """Whether this is a string."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Whether this is a whole number of at least 1."""
    return is_number(value) and math.isfinite(value) and value == int(value) >= 1


def is_table(value: Any) -> bool:
    """Whether this maps names to rows of numbers, all of a name equally long."""
    return isinstance(value, dict) and all(
        isinstance(rows, list)
        and all(isinstance(row, list) and all(map(is_number, row)) for row in rows)
        and len({len(row) for row in rows}) == 1
        for rows in value.values()
    )


COUNT: Check = ("a whole number of at least 1", is_count)
NUMBER: Check = ("a number", is_number)
TEXT: Check = ("text", is_text)
TABLE: Check = ("names with rows of numbers, equally long", is_table)


def read(
    path: Path, fields: Mapping[str, Check], others: Check | None = None
) -> list[dict]:
    """The rows of a file, of which a process that was stopped leaves the last unwhole.

    Args:
        path: of the file; one that is not there has no rows.
        fields: what every row must have, and what it must be.
        others: what every other field must be, if it matters.

    Returns:
        The rows, without a last one that is not whole.

    Raises:
        SearchError: another line cannot be read, or a field is missing or is something
            else.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            fault = _fault(row, fields, others)
        except (ValueError, RecursionError):
            fault = repr(line[:40])
            if number == len(lines):
                break
        if fault is not None:
            wanted = ", ".join(f"{name} ({is_})" for name, (is_, _) in fields.items())
            if others is not None:
                wanted += f" and other fields ({others[0]})"
            raise search_error(
                path.name,
                f"have in every line {wanted}",
                f"{fault} in line {number} of {path}",
                "Restore the file, or remove the lines from there on; a search then "
                "does them again, if its checkpoints are older too.",
            )
        rows.append(row)
    return rows


def _fault(row: Any, fields: Mapping[str, Check], others: Check | None) -> str | None:
    if not isinstance(row, dict):
        return repr(row)[:40]
    for name, (_, fits) in fields.items():
        if name not in row:
            return f"no {name}"
        if not fits(row[name]):
            return f"{name} = {repr(row[name])[:40]}"
    for name, value in row.items():
        if others is not None and name not in fields and not others[1](value):
            return f"{name} = {repr(value)[:40]}"
    return None


def keep(
    path: Path,
    fields: Mapping[str, Check],
    wanted: Callable[[dict], bool] = lambda row: True,
    others: Check | None = None,
) -> list[dict]:
    """Drops the other rows and a last one that is not whole, so that more can follow.

    Raises:
        SearchError: as `read`; the file is then as it was.
    """
    rows = [row for row in read(path, fields, others) if wanted(row)]
    folder.write(path, _text(rows))
    return rows


def append(file: IO[str], row: dict) -> None:
    """Adds a row and hands it to the system."""
    file.write(_text([row]))
    file.flush()


def _text(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
