"""How a command begins: its options settled, or its folder left as it is."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gumbax.search.command.options import Options, typed
from gumbax.search.store import folder
from gumbax.search.store.errors import search_error

SEARCH = "search"
RETRAIN = "retrain"


def settle(
    out: Path, given: Mapping[str, Any], *, resume: bool, command: str = SEARCH
) -> Options:
    """Settles the options of a run, or refuses to touch what is in its folder.

    Nothing is written: `record` does that, when the data have been read too.

    Args:
        out: the folder.
        given: the options that the user named; others take their defaults, or those of
            the run that is resumed.
        resume: go on with the run that is there.
        command: what runs, `SEARCH` or `RETRAIN`.

    Returns:
        The options of the run.

    Raises:
        SearchError: an option is out of range or would change the resumed run, the
            run was made by another version or command, or the folder holds something
            else.
    """
    if out.exists() and not out.is_dir():
        raise search_error("--out", "be a folder", f"the file {out}", "Name another.")
    if resume:
        if not (out / folder.RECORD).exists():
            raise search_error(
                "--resume",
                "find a run in --out",
                f"no run.json in {out}",
                "Leave out --resume to start a run there.",
            )
        options, versions = read(out, command)
        folder.check_unchanged(asdict(options), given)
        folder.check_versions(out / folder.RECORD, versions)
        return options
    folder.check_empty(out)
    if "dataset" not in given:
        cure = "Name one, in the command or in the TOML file: digits, or a path."
        raise search_error("dataset", "be given", "none", cure)
    options = Options(**given)
    options.check()
    return options


def record(
    out: Path, options: Options, command: str = SEARCH, *, data: str | None = None
) -> None:
    """Makes the folder of a run and its run.json, once; see `folder.record`."""
    folder.record(out, asdict(options), command, data=data)


def read(out: Path, command: str = SEARCH) -> tuple[Options, dict[str, str]]:
    """Options and versions of a run.

    Raises:
        SearchError: run.json is not there or cannot be read, or is of another command.
    """
    options, versions = folder.read(out, command)
    path = out / folder.RECORD
    try:
        found = Options(**typed(options, str(path)))
        found.check()
    except (ValueError, TypeError) as error:
        raise folder.unreadable(path, error) from error
    return found, versions
