"""The pictures in the folder of a run."""

from pathlib import Path

import numpy as np

from gumbax.search.genotype.genotype import Genotype
from gumbax.search.report import plots, run_folder
from gumbax.search.report.comparison import REPORT, for_plot, read_report
from gumbax.search.spaces.space import Space
from gumbax.search.store import records
from gumbax.search.store.errors import search_error


def draw(out: Path, space: Space) -> None:
    """Draws what a folder holds: cell, curves, choices and gap, as SVG and PNG.

    Args:
        out: folder of the run.
        space: of the run.

    Raises:
        SearchError: the genotype is of another space, or a file is damaged.
    """

    def both(name: str) -> list[Path]:
        return [out / f"{name}.svg", out / f"{name}.png"]

    if (out / run_folder.GENOTYPE).exists():
        try:
            genotype = Genotype.load(out / run_folder.GENOTYPE)
            genotype.check(space)
        except ValueError as error:
            cure = "Derive it again: `gumbax derive` and the folder."
            must = f"be of the space {space.name}"
            raise search_error(run_folder.GENOTYPE, must, str(error), cure) from error
        plots.draw_genotype(genotype, space, both("cell"))
    rows = records.metrics(out)
    if rows:
        plots.draw_curves(rows, both("curves"))
    epochs = records.choices(out, space.choices)
    if epochs:
        history = {
            name: np.asarray([row["probabilities"][name] for row in epochs])
            for name in space.choices
        }
        plots.draw_choices(history, space, both("choices"))
    if (out / REPORT).exists():
        found = read_report(out)
        plots.draw_gap({found.experiment: for_plot(found.rows)}, both("gap"))
