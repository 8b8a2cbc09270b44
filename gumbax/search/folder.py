"""The folder of a run: opened, refused, resumed; its files are whole or not there."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

import gumbax
from gumbax.search.errors import search_error
from gumbax.search.options import Options, typed

RECORD = "run.json"


def start(out: Path, given: Mapping[str, Any], *, resume: bool) -> Options:
    """Opens the folder of a run, or refuses to touch what is in it.

    Args:
        out: the folder.
        given: the options that the user named; others take their defaults, or those of
            the run that is resumed.
        resume: go on with the run that is there.

    Returns:
        The options of the run, written to run.json.

    Raises:
        SearchError: an option is out of range or would change the resumed run, the
            run was made by another version, or the folder holds something else.
    """
    record = out / RECORD
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
        options, versions = read(record)
        _check_unchanged(options, given)
        _check_versions(record, versions)
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
    if "dataset" not in given:
        cure = "Name one, in the command or in the TOML file: digits, or a path."
        raise search_error("dataset", "be given", "none", cure)
    options = Options(**given)
    options.check()
    out.mkdir(parents=True, exist_ok=True)
    content = {"options": asdict(options), "versions": _versions()}
    write(record, json.dumps(content, indent=2) + "\n")
    return options


def _versions() -> dict[str, str]:
    return {"gumbax": gumbax.__version__, "jax": jax.__version__}


def _check_unchanged(options: Options, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if getattr(options, name) != value:
            option = name.replace("_", "-")
            raise search_error(
                option if name == "dataset" else f"--{option}",
                "be left as it was when a run is resumed",
                f"{value!r}, the run has {getattr(options, name)!r}",
                "Leave it out, or start another run with another --out.",
            )


def _check_versions(record: Path, versions: Mapping[str, str]) -> None:
    for name, version in _versions().items():
        if versions.get(name) != version:
            raise search_error(
                "--resume",
                f"find a run of {name} {version}",
                f"{record} of {name} {versions.get(name)}",
                "Install that version to go on to the same result; nothing was "
                "changed.",
            )


def read(record: Path) -> tuple[Options, dict[str, str]]:
    """Options and versions of a run.

    Raises:
        SearchError: the file is not there or cannot be read.
    """
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        options = Options(**typed(content["options"], str(record)))
        return options, dict(content.get("versions", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise search_error(
            "run",
            "have its options in run.json",
            f"{record}, which cannot be read ({error})",
            "Restore the file, or start another run with another --out.",
        ) from error


def write(path: Path, text: str) -> None:
    """Replaces a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
