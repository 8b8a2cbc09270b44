"""The command `gumbax`."""

import argparse
import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gumbax._common.version import __version__
from gumbax.search.command import run, start
from gumbax.search.command.options import Options, read_toml
from gumbax.search.command.progress import RichProgress
from gumbax.search.command.retrain import read_genotype, retrain
from gumbax.search.methods.derive_rules import RULES
from gumbax.search.network.export import export
from gumbax.search.report import comparison, pictures, plots, run_folder
from gumbax.search.store import folder
from gumbax.search.store.errors import DataWarning, SearchError, search_error

_RESUME = "Pass --resume to go on from the last checkpoint."
_EXTRAS = (
    "sklearn",
    "mnist1d",
    "matplotlib",
    "rich",
    "orbax",
    "tensorstore",
    "flatbuffers",
)

_DESCRIPTION = """\
Differentiable architecture search with Gumbel-Softmax.

  gumbax search digits --out runs/digits        search, derive, retrain, report
  gumbax report runs/a runs/b --out runs/all    one report of several runs
  gumbax derive runs/digits --rule threshold    the architecture, by another rule
  gumbax retrain runs/digits digits --out runs/long   one architecture from scratch
  gumbax plot runs/digits                       draw a run's pictures again
"""

_SEARCH = """\
Search a network on a data set, derive it, train it from scratch, and report the
discretisation gap: test accuracy of what was searched against what is kept, beside
random architectures trained equally.

DATASET is a name (digits, echoes, mnist1d) or a path: an .npz file, a folder of IDX
files (MNIST) or of the CIFAR-10 batches, a .csv file. DIR gets report.html, written
after every epoch, metrics.jsonl, choices.jsonl, checkpoints, genotype.json, the
pictures (cell, curves, choices, gap; .svg and .png) and the report (report.txt,
report.json). Stopped at any moment, --resume goes on to the same result.
"""


_DERIVE = """\
Derive from the last checkpoint of a search. Writes genotype.json and the pictures in
its folder; with --rule or --budget, genotype-RULE-COST-BUDGET.json and a picture of the
cell beside them.
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

    def command(name: str, text: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
        )

    search = command("search", "search, derive, retrain and report", _SEARCH)
    search.add_argument("dataset", nargs="?", help="name or path of a data set")
    _common(search)
    _searching(search)
    _training(search)

    derive = command("derive", "derive from a run", _DERIVE)
    derive.add_argument("run", type=Path, help="folder of a search")
    derive.add_argument("--rule", help="argmax, top2 or threshold (the method's own)")
    _budget(derive, "the run's")
    derive.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="also save the network with the weights of the search as StableHLO, "
        "which runs without gumbax",
    )

    retrain = command(
        "retrain", "train one architecture from scratch", "Train from scratch."
    )
    retrain.add_argument(
        "genotype", help="genotype file, folder of a search, or text of a genotype"
    )
    retrain.add_argument("dataset", nargs="?", help="name or path of a data set")
    _common(retrain)
    _training(retrain)

    report = command(
        "report", "one report of several runs", "Means over seeds of each experiment."
    )
    report.add_argument(
        "run", type=Path, nargs="+", help="folders of finished searches"
    )
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="write gap.txt, gap.svg, gap.png there"
    )

    report.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="published accuracies of all architectures (.npz); writes truth.* too",
    )

    plot = command("plot", "draw a run's pictures again", "Draw what a run has so far.")
    plot.add_argument("run", type=Path, help="folder of a search")
    return top


def _common(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--config", type=Path, metavar="FILE", help="options from a TOML file")
    add(
        "--space",
        help="small_images, nasbench201, darts, macro, mlp or sequences (by the data)",
    )
    add("--channels", type=int, help="of the first stage (by the space)")
    add("--cells", type=int, help="in a stage; in all for darts (by the space)")
    add("--seed", type=int, help="of splits, weights, data order, draws (0)")
    add("--batch-size", type=int, help="examples in a step (64)")
    add("--learning-rate", type=float, help="of the weights (by method and space)")
    flag = argparse.BooleanOptionalAction
    add(
        "--published",
        action=flag,
        help="optimisers, schedules, epochs of the search as published",
    )
    add("--crop", type=int, metavar="PIXELS", help="random crops after padding (0)")
    add("--flip", action=flag, help="random mirror images")
    add("--limit", type=int, metavar="N", help="training examples to use (all)")
    add("--label", metavar="NAME", help="label column of a .csv file (label)")
    add(
        "--resume",
        action="store_true",
        default=False,
        help="go on with the run in DIR, to the same result as without a stop",
    )


def _searching(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--method",
        help="gumbel (default), darts, darts_second_order, darts_unrolled, "
        "snas, gdas, gdas_sampled or random",
    )
    add(
        "--epochs",
        type=int,
        help="of the search (1,500 steps, sequences 6,000; or as published)",
    )
    add("--arch-learning-rate", type=float, help="of the logits (by the method)")
    add("--warmup", type=float, help="share before the logits move (by the method)")
    _budget(command, "none")
    add(
        "--cost-weight",
        type=float,
        metavar="NATS",
        help="in the loss of the logits, for the costliest architecture (0)",
    )
    add(
        "--random-architectures",
        type=int,
        metavar="N",
        help="random architectures to compare with (5)",
    )
    add(
        "--constant-architectures",
        action=argparse.BooleanOptionalAction,
        help="also compare with one operation everywhere (where there are random ones)",
    )


def _budget(command: argparse.ArgumentParser, default: str) -> None:
    add = command.add_argument
    add("--cost", help=f"weights, multiply_adds or latency ({default})")
    add(
        "--budget",
        type=float,
        metavar="COST",
        help=f"largest cost of what is derived, of one example ({default})",
    )


def _training(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--train-epochs",
        type=int,
        metavar="EPOCHS",
        help="of each training from scratch (1,000 steps, sequences 6,000)",
    )
    add("--cutout", type=int, metavar="PIXELS", help="side of blanked squares (0)")
    add("--drop-path", type=float, metavar="P", help="dropped operations (0)")
    add("--auxiliary", type=float, metavar="WEIGHT", help="of an auxiliary head (0)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        Exit code: 0 done, 2 an error that the user can mend, 130 interrupted.
    """
    top = parser()
    given = vars(top.parse_args(arguments))
    if given.pop("version"):
        print(f"gumbax {__version__}")
        return 0
    command = given.pop("command")
    if command is None:
        top.print_help()
        return 0
    usual = warnings.showwarning
    warnings.showwarning = functools.partial(_warned, usual)
    resume = f" {_RESUME}" if command in ("search", "retrain") else ""
    try:
        return _run(command, given, resume)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRAS:
            raise
        return _fail(
            f"`gumbax {command}` needs {error.name}. Install the extra: "
            'pip install "gumbax[search]"'
        )
    except KeyboardInterrupt:
        print(f"gumbax: stopped.{resume}", file=sys.stderr)
        return 130
    finally:
        warnings.showwarning = usual


def _warned(usual: Any, message: Any, category: Any, *place: Any) -> None:
    """One line for the user of a warning about data, without a place in the code."""
    if issubclass(category, DataWarning):
        print(f"gumbax: {message}", file=sys.stderr)
    else:
        usual(message, category, *place)


def _run(command: str, given: dict[str, Any], resume: str) -> int:
    commands = {
        "search": _search,
        "derive": _derive,
        "retrain": _retrain,
        "report": _report,
        "plot": _plot,
    }
    try:
        commands[command](given)
    except SearchError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(_told(error) + resume)
    return 0


def _told(error: OSError) -> str:
    """What the system refused: a full disk, a file that may not be written."""
    where = "" if error.filename is None else f" ({error.filename})"
    return f"{error.strerror or error}{where}."


def _start(given: dict[str, Any], command: str) -> tuple[Path, Options]:
    out, resume = given.pop("out"), given.pop("resume")
    config = given.pop("config", None)
    if given.get("dataset", "") is None:
        del given["dataset"]
    if config is not None:
        given = read_toml(config) | given
    return out, start.settle(out, given, resume=resume, command=command)


def _search(given: dict[str, Any]) -> None:
    out, options = _start(given, "search")
    text = run.run(out, options, RichProgress())
    print(f"\n{text}\nWritten to {out}")


def _derive(given: dict[str, Any]) -> None:
    name, path = given.get("rule"), given.get("export")
    if name is not None and name not in RULES:
        known = f"Known: {', '.join(RULES)}."
        raise search_error("--rule", "be a known one", repr(name), known)
    rule = None if name is None else RULES[name]
    cost, budget = given.get("cost"), given.get("budget")
    search, genotype, network = run.derive_again(
        given["run"], rule, cost=cost, budget=budget
    )
    if path is not None:
        export(network, search.weight_half.inputs.shape[1:], path)
    out = given["run"]
    other = [] if name is None else [name]
    if budget is not None and search.cost is not None:
        other.append(f"{search.cost.name}-{budget:.15g}")
    if not other:
        with folder.alone(out):
            folder.write(out / run_folder.GENOTYPE, genotype.to_json())
            pictures.draw(out, search.space)
    else:  # beside what the run reports on
        made = "-".join(other)
        folder.write(out / f"genotype-{made}.json", genotype.to_json())
        files = [out / f"cell-{made}.{kind}" for kind in ("svg", "png")]
        plots.draw_genotype(genotype, search.space, files)
    if search.cost is not None:
        print(f"{search.cost.name} {search.cost.of(genotype).total:.15g}")
    print(plots.genotype_text(genotype, search.space))
    print(genotype)


def _retrain(given: dict[str, Any]) -> None:
    genotype = read_genotype(given.pop("genotype"), given.get("space"))
    out, options = _start(given, "retrain")
    result = retrain(out, genotype, options, RichProgress())
    print(f"\n{genotype}\ntest accuracy {result:.2f} %\nWritten to {out}")


def _report(given: dict[str, Any]) -> None:
    runs, out = given["run"], given.get("out")
    if out and (out / "gap.txt").exists() and not (out / comparison.REPORT).exists():
        # `runs/*` has the folder of the last report too, which is no search.
        runs = [one for one in runs if one.resolve() != out.resolve()] or runs
    print(comparison.compare(runs, out, given.get("table")))


def _plot(given: dict[str, Any]) -> None:
    options, _ = start.read(given["run"])
    pictures.draw(given["run"], options.make_space(run.load_data(options)))
    print(f"Drawn in {given['run']}")


def _fail(text: str) -> int:
    print(f"gumbax: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
