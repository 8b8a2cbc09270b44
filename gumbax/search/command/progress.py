"""Where a run tells how far it is."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol


class Progress(Protocol):
    """What a run is given."""

    def phase(self, name: str, total: int) -> contextlib.AbstractContextManager[Any]:
        """Yields a function (done, metrics by name)."""

    def say(self, text: str) -> None:
        """Shows a line."""


class Silent:
    """Tells nothing."""

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Any]:
        """Yields a function that does nothing."""
        del name, total
        yield lambda done, **metrics: None

    def say(self, text: str) -> None:
        """Shows nothing."""


class RichProgress:
    """Live bars in the terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # an extra

        self._console = Console()

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Any]:
        """A bar of `total`; yields a function (done, metrics by name)."""
        from rich import progress, table

        # What a narrow terminal has no room for is the end of the metrics.
        rest = table.Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=20),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[metrics]}", table_column=rest),
        )
        with progress.Progress(*columns, console=self._console, expand=True) as bars:
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
