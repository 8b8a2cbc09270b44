"""The folder of a run and its record; its files are whole or not there."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from gumbax._common.version import __version__
from gumbax.search.store.errors import SearchError, search_error

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

RECORD = "run.json"
X64 = "JAX_ENABLE_X64"
_DECIDING = ("jax", "jaxlib", "flax", "optax", "scikit-learn")


def record(
    out: Path, options: Mapping[str, Any], command: str, *, data: str | None = None
) -> None:
    """Makes the folder of a run and its run.json, once.

    Args:
        out: the folder.
        options: of the run.
        command: what runs.
        data: fingerprint of the data set.

    Raises:
        SearchError: the run that is there began with other data or options.
    """
    if (out / RECORD).exists():
        check_unchanged(read(out, command)[0], options)
        check_data(out, data)
        return
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "command": command,
        "options": dict(options),
        "data": data,
        "versions": _versions(),
    }
    write(out / RECORD, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keeps other processes from running in a folder; whatever ends this one, it ends.

    Windows and some network file systems keep none away.

    Args:
        out: the folder, made if it is not there.

    Raises:
        SearchError: another process runs there.
    """
    out.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise search_error(
            "--out",
            "be the folder of one process at a time",
            f"{out}, where another one runs",
            "Wait for it, or pass another --out; nothing was changed.",
        ) from error
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def check_data(out: Path, data: str | None) -> None:
    """Raises SearchError if a run began with other data: a path can have new content.

    Args:
        out: folder of a run.
        data: fingerprint of the data set as it is now.
    """
    try:
        before = read_json(out / RECORD).get("data")
    except (OSError, ValueError) as error:
        raise unreadable(out / RECORD, error) from error
    if None not in (before, data) and before != data:
        raise search_error(
            "dataset",
            f"hold what it did when the run in {out} began ({before})",
            f"other examples ({data})",
            "Put the old files back, or start another run with another --out; nothing "
            "was changed.",
        )


def check_empty(out: Path) -> None:
    """Raises SearchError if a new run would mix with what is in a folder."""
    unfinished = _unfinished(out / RECORD).name  # of a start that was stopped
    if not out.exists() or all(path.name == unfinished for path in out.iterdir()):
        return
    again = (out / RECORD).exists()
    raise search_error(
        "--out",
        "be a new or empty folder",
        f"{out}, which holds {'another run' if again else 'other files'}",
        "Pass --resume to go on with it, or another --out."
        if again
        else "Pass another --out.",
    )


def _versions() -> dict[str, str]:
    """Of all that decides the result: scikit-learn makes the halves, for example."""
    others = {name: metadata.version(name) for name in _DECIDING}
    return {
        "gumbax": __version__,
        **others,
        X64: str(jax.config.read("jax_enable_x64")),
    }


def check_unchanged(options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises SearchError if an option is given anew that a run has otherwise."""
    for name, value in given.items():
        if name in options and options[name] != value:
            option = name.replace("_", "-")
            raise search_error(
                option if name == "dataset" else f"--{option}",
                "be left as it was when a run is resumed",
                f"{value!r}, the run has {options[name]!r}",
                "Leave it out, or start another run with another --out.",
            )


def check_versions(path: Path, versions: Mapping[str, str]) -> None:
    """Raises SearchError if a run was made by another version of what decides it."""
    for name, version in _versions().items():
        if name == X64:
            if versions.get(name, "False") != version:
                raise search_error(
                    "--resume",
                    f"find a run with {X64}={version}",
                    f"{path} with {X64}={versions.get(name, False)}",
                    f"Set {X64} as it was to go on to the same result; nothing was "
                    "changed.",
                )
        elif versions.get(name) != version:
            raise search_error(
                "--resume",
                f"find a run of {name} {version}",
                f"{path} of {name} {versions.get(name)}",
                "Install that version to go on to the same result; nothing was "
                "changed.",
            )


def read(out: Path, command: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Options and versions of a run, as they were written.

    Raises:
        SearchError: run.json is not there or cannot be read, or is of another command.
    """
    path = out / RECORD
    try:
        content = read_json(path)
        options = dict(content["options"])
        versions = dict(content.get("versions", {}))
        found = content.get("command", "search")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(path, error) from error
    if found != command:
        raise search_error(
            "run",
            f"be the folder of `gumbax {command}`",
            f"{out} of `gumbax {found}`",
            "Pass another folder; nothing was changed.",
        )
    return options, versions


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of JSON.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"a JSON object is expected, not {type(content).__name__}")
    return content


def unreadable(path: Path, error: Exception) -> SearchError:
    """The error for a run.json that does not tell the options of a run."""
    return search_error(
        "run",
        "have its options in run.json",
        f"{path}, which cannot be read ({error})",
        "Restore the file, or start another run with another --out.",
    )


def write(path: Path, text: str) -> None:
    """Replaces a file whole or not at all."""
    temporary = _unfinished(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
