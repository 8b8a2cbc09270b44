"""Figures without a window, in one style, written the same way each time."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = str | Path | Sequence[str | Path]

# (colour, marker, dash) of a series: apart in colour, in greyscale and in shape.
SERIES = (
    ("#08306b", "o", "-"),
    ("#f4a13c", "s", "--"),
    ("#2a8a4a", "^", "-."),
    ("#9ecae1", "v", "-"),
    ("#6a51a3", "D", ":"),
    ("#000000", "P", "--"),
    ("#a50f15", "X", "-."),
    ("#969696", "*", ":"),
)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The default style, and no random names in SVG files."""
    import matplotlib
    import matplotlib.style

    with (
        matplotlib.style.context("default"),
        matplotlib.rc_context({"svg.hashsalt": "gumbax"}),
    ):
        yield


def blank(wide: float, tall: float, **options) -> "Figure":
    """A figure of this many inches, apart from pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, tall), **options)
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", paths: Paths) -> None:
    """Writes one file or several, without the date."""
    for path in [paths] if isinstance(paths, str | Path) else paths:
        date = {".svg": "Date", ".pdf": "CreationDate"}.get(Path(path).suffix.lower())
        figure.savefig(path, dpi=150, metadata={date: None} if date else None)
