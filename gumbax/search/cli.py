"""The command `gumbax`."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_EXTRAS = ("sklearn", "matplotlib", "rich", "orbax", "tensorstore")

_DESCRIPTION = """\
Differentiable architecture search with Gumbel-Softmax.

  gumbax search digits --out runs/digits     the main job, minutes on 2 cores
"""

_SEARCH = """\
Search a cell on a data set, derive it, train it from scratch, and report the
discretisation gap: test accuracy of what was searched against what is kept, beside
random architectures trained equally.

DIR gets metrics.jsonl, checkpoints, genotype.json, the drawn cell (cell.svg, cell.png),
curves.png, and the report (report.txt, report.json).
"""


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    top = argparse.ArgumentParser(
        prog="gumbax",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    search = commands.add_parser(
        "search",
        help="search a cell, derive it and report the gap",
        description=_SEARCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    search.add_argument("dataset", help="name of a data set: digits")
    search.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the run"
    )
    search.add_argument(
        "--method",
        help="gumbel: one sampled operation per edge, straight-through, annealed "
        "(default); darts: softmax-weighted sum of all",
    )
    search.add_argument(
        "--seed", type=int, help="of splits, weights, data order, draws (default: 0)"
    )
    search.add_argument(
        "--steps",
        type=int,
        help="steps of the search (default: 1500)",
    )
    search.add_argument(
        "--train-steps",
        type=int,
        metavar="STEPS",
        help="steps of each training from scratch (default: 1000)",
    )
    search.add_argument(
        "--random-architectures",
        type=int,
        metavar="N",
        help="random architectures to compare with (default: 5)",
    )
    search.add_argument(
        "--resume",
        action="store_true",
        default=False,
        help="go on with the run in DIR, to the same result as without a stop",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        Exit code: 0 done, 2 an error that the user can mend, 130 interrupted.
    """
    top = parser()
    given = vars(top.parse_args(arguments))
    if given.pop("version"):
        import gumbax

        print(f"gumbax {gumbax.__version__}")
        return 0
    if given.pop("command") is None:
        top.print_help()
        return 0
    try:
        return _search(given)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRAS:
            raise
        return _fail(
            f"`gumbax search` needs {error.name}. Install the extra: "
            'pip install "gumbax[search]"'
        )
    except KeyboardInterrupt:
        print(
            "gumbax: stopped. Pass --resume to go on from the last checkpoint.",
            file=sys.stderr,
        )
        return 130


def _search(given: dict[str, Any]) -> int:
    from gumbax.search import run
    from gumbax.search.errors import SearchError

    out, resume = given.pop("out"), given.pop("resume")
    try:
        options = run.start(out, given, resume=resume)
        text = run.run(out, options, RichProgress())
    except (SearchError, OSError) as error:
        return _fail(str(error))
    print(f"\n{text}\nWritten to {out}")
    return 0


def _fail(text: str) -> int:
    print(f"gumbax: {text}", file=sys.stderr)
    return 2


class RichProgress:
    """Live bars in the terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console()

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Any]:
        """A bar of `total` steps; yields a function (steps done, metrics by name)."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=20),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[metrics]}"),
        )
        with progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, metrics="compiling ...")

            def advance(done: int, **metrics: Any) -> None:
                shown = "  ".join(
                    f"{key} {value:.3f}" if isinstance(value, float) else f"{value}"
                    for key, value in metrics.items()
                )
                bars.update(task, completed=done, metrics=shown)

            yield advance

    def say(self, text: str) -> None:
        """Shows a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
