"""What a terminal shows while a search runs."""

import io

import pytest
from rich.console import Console

from gumbax.search.command.progress import RichProgress


@pytest.mark.parametrize("width", [60, 80, 140])
def test_narrow_terminal_still_shows_how_far_it_is(width):
    progress, shown = RichProgress(), io.StringIO()
    progress._console = Console(file=shown, width=width, force_terminal=True)
    with progress.phase("search (gumbel)", 137) as advance:
        advance(121, loss=0.015, accuracy=0.999, argmax_accuracy=0.975, temperature=1.0)
    text = shown.getvalue()
    assert "121/137" in text
    assert "0:00:00" in text
    assert "loss" in text
    assert ("temperature 1.000" in text) == (width == 140)
