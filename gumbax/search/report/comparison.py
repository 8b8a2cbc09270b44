"""Reports of finished searches, read again and put together over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gumbax.search.report import gap, ground_truth, page, plots, run_folder
from gumbax.search.report.gap import Row
from gumbax.search.report.ground_truth import GroundTruth, Kept
from gumbax.search.store import folder, lines
from gumbax.search.store.errors import search_error

REPORT = "report.json"
# Of the options, what a comparison reads.
_OPTIONS = {
    "method": lines.is_text,
    "seed": lambda value: isinstance(value, int),
    "dataset": lines.is_text,
}


@dataclass(frozen=True)
class Report:
    """What report.json holds of one search.

    Attributes:
        folder: where it was.
        options: of the search.
        rows: of the report.
        equal: what is the same for every seed, for a reader: data, space and lengths.
    """

    folder: Path
    options: dict[str, Any]
    rows: tuple[Row, ...]
    equal: str

    @property
    def experiment(self) -> str:
        """The search method, and its cost."""
        return run_folder.experiment(self.options)


def read_report(out: Path) -> Report:
    """The report of a finished search.

    Raises:
        SearchError: there is no report, or it cannot be read.
    """
    path = out / REPORT
    try:
        content = folder.read_json(path)
        options = dict(content["options"])
        for name, fits in _OPTIONS.items():
            if not fits(options[name]):
                raise ValueError(f"the option {name} = {options[name]!r}")
        equal = str(content.get("equal", ""))
        return Report(out, options, gap.from_json(content["rows"]), equal)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise search_error(
            "run",
            "be the folder of a finished search",
            f"{path}, which cannot be read ({error})",
            "Finish it: `gumbax search --resume --out` and the folder.",
        ) from error


def for_plot(rows: Sequence[Row]) -> dict[str, tuple[float, float | None]]:
    """Name -> mean and standard deviation, as `plots.draw_gap` takes them."""
    return {row.name: (row.mean, row.std) for row in rows}


def compare(
    folders: Sequence[Path],
    out: Path | None = None,
    table: Path | GroundTruth | None = None,
) -> str:
    """The report of several searches: means over the seeds of each experiment.

    Args:
        folders: of finished searches. Those of one method and cost, with its budget or
            weight, differ in the seed alone.
        out: where the page (report.html), the figure (gap.svg, gap.png) and the tables
            (gap.txt) go, and with a table truth.txt, truth.json, truth.svg, truth.png.
        table: published accuracies, or their file: see `ground_truth.load_table`.

    Returns:
        One table for each experiment, and what is published of what was kept.

    Raises:
        SearchError: a folder has no report, or two searches of one experiment have
            other options, or the same seed.
    """
    experiments: dict[str, list[Report]] = {}
    for one in folders:
        found = read_report(one)
        experiments.setdefault(found.experiment, []).append(found)
    tables, figure = [], {}
    for name, reports in experiments.items():
        _check_alike(reports)
        together = gap.over_seeds([one.rows for one in reports])
        runs = "1 run" if len(reports) == 1 else f"{len(reports)} runs"
        title = f"Method {name}, {runs}"
        if reports[0].equal:
            title += f"; {reports[0].equal}"
        each = [one.rows for one in reports]
        tables.append(gap.format_table(together, title, each))
        figure[name] = for_plot(together)
    text = "\n".join(tables)
    reports = [one for found in experiments.values() for one in found]
    truth = None if table is None else _truth(reports, table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        folder.write(out / "gap.txt", text)
        plots.draw_gap(figure, [out / "gap.svg", out / "gap.png"])
    published = ""
    if truth is not None:
        published = ground_truth.format_truth(*truth)
        text += f"\n{published}"
        if out is not None:
            _write_truth(*truth, out)
    if out is not None:
        folders = [one.folder for one in reports]
        page.write_page(folders, out / page.PAGE, truth=published)
    return text


def _truth(
    reports: Sequence[Report], table: Path | GroundTruth
) -> tuple[GroundTruth, list[Kept]]:
    if isinstance(table, GroundTruth):
        truth = table
    else:
        space = ground_truth.space_of([one.folder for one in reports])
        truth = ground_truth.load_table(table, space)
    kept = [
        ground_truth.read_kept(
            one.folder,
            one.experiment,
            truth.space,
            cost=one.options.get("cost"),
            budget=one.options.get("budget"),
        )
        for one in reports
    ]
    return truth, kept


def _write_truth(truth: GroundTruth, runs: Sequence[Kept], out: Path) -> None:
    folder.write(out / "truth.txt", ground_truth.format_truth(truth, runs))
    folder.write(out / "truth.json", ground_truth.to_json(truth, runs))
    curves: dict[str, list] = {}
    for run in runs:
        found = [truth.of(one) for one in run.by_epoch]
        if found:
            by_name = {name: [one[name] for one in found] for name in truth.accuracies}
            curves.setdefault(run.experiment, []).append((run.epochs, by_name))
    if curves:
        levels = ground_truth.levels(truth)
        plots.draw_truth(curves, levels, [out / "truth.svg", out / "truth.png"])


def _check_alike(reports: Sequence[Report]) -> None:
    """Means over the seeds are those of one experiment, each seed once."""
    first = reports[0]
    seeds: dict[int, Path] = {}
    for one in reports:
        seed = one.options["seed"]
        differing = [
            name
            for name in first.options | one.options
            if name not in ("seed", "dataset")
            and first.options.get(name) != one.options.get(name)
        ]
        # The same file may have another path on another machine.
        names = [Path(str(r.options["dataset"])).name for r in (first, one)]
        differing += ["dataset"] * (names[0] != names[1])
        if differing:
            raise search_error(
                "run",
                f"differ from the others of its method in the seed alone, or in the "
                f"budget or weight of a cost ({first.experiment})",
                f"another {', '.join(differing)} in {one.folder} than in "
                f"{first.folder}",
                "Report them apart.",
            )
        if seed in seeds:
            raise search_error(
                "run",
                f"have a seed of its own ({first.experiment})",
                f"seed {seed} in {seeds[seed]} and in {one.folder}",
                "Name each run once.",
            )
        seeds[seed] = one.folder
