"""Charts as SVG text for a page: colours by its style, values shown under the pointer.

The classes `s0` to `s7` are the series; whoever shows a chart styles them.
"""

import html
import math
from collections.abc import Mapping, Sequence

# Of a chart, in units of its view box.
WIDE, TALL = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 28
NUM_SERIES = 8

Points = Sequence[tuple[float, float]]


def ticks(
    low: float, high: float, count: int = 5, *, whole: bool = False
) -> list[float]:
    """About `count` round numbers from low to high, on request whole ones.

    Example:
        >>> ticks(0.0, 97.0)
        [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    step: float = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next((m for m in (1, 2, 5) if (high - low) / (m * step) <= count), 10)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


class _Frame:
    """Where a value lies in a chart, and its axes."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]):
        self.x, self.y = _span(xs), _span(ys)
        # Epochs and ranks are.
        self.whole = all(float(x).is_integer() for x in xs)

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(_LEFT + across * (WIDE - _LEFT - _RIGHT), 1),
            round(TALL - _BOTTOM - up * (TALL - _TOP - _BOTTOM), 1),
        )

    def axes(self, x_label: str) -> str:
        lines = []
        for value in ticks(*self.y):
            _, y = self.at(self.x[0], value)
            lines.append(
                f'<path class="grid" d="M{_LEFT} {y}H{WIDE - _RIGHT}"/>'
                f'<text x="{_LEFT - 5}" y="{y + 4}" text-anchor="end">{value:g}</text>'
            )
        for value in ticks(*self.x, whole=self.whole):
            x, _ = self.at(value, self.y[0])
            lines.append(
                f'<text x="{x}" y="{TALL - 14}" text-anchor="middle">{value:g}</text>'
            )
        middle = (_LEFT + WIDE - _RIGHT) / 2
        lines.append(
            f'<text class="label" x="{middle}" y="{TALL - 2}" text-anchor="middle">'
            f"{html.escape(x_label)}</text>"
        )
        return "".join(lines)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest, with room where that is one number."""
    low, high = min(values), max(values)
    if low == high:
        room = abs(low) / 10 or 1.0
        return low - room, high + room
    return low, high


def _figure(title: str, frame: _Frame, x_label: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDE} {TALL}" role="img" '
        f'aria-label="{html.escape(title)}">{frame.axes(x_label)}{content}</svg>'
    )


def lines(title: str, curves: Mapping[str, Points], x_label: str = "epoch") -> str:
    """Curves over one axis; points that are not finite interrupt them.

    Args:
        title: for who does not see the chart.
        curves: name -> (x, y) pairs, by x.
        x_label: what x is.

    Returns:
        An <svg> element, or nothing where no point is finite.
    """
    finite = [p for points in curves.values() for p in points if math.isfinite(p[1])]
    if not finite:
        return ""
    frame = _Frame(*zip(*finite, strict=True))
    parts = []
    for number, (name, points) in enumerate(curves.items()):
        series = f"s{number % NUM_SERIES}"
        path, pen = "", "M"
        for x, y in points:
            if not math.isfinite(y):
                pen = "M"
                continue
            path += f"{pen}{frame.at(x, y)[0]} {frame.at(x, y)[1]}"
            pen = "L"
        parts.append(f'<path class="line {series}" d="{path}"/>')
        for x, y in points:
            if math.isfinite(y):
                told = f"{name + ', ' if name else ''}{x_label} {x:g}: {y:.4g}"
                parts.append(_dot(frame.at(x, y), series, told, "point"))
    return _figure(title, frame, x_label, "".join(parts))


def scatter(
    title: str,
    groups: Mapping[str, Sequence[tuple[float, float, str]]],
    x_label: str,
    line: Points = (),
) -> str:
    """Points (x, y, what is told of it) of several groups.

    Args:
        title: for who does not see the chart.
        groups: name -> points.
        x_label: what x is.
        line: of points that are joined.

    Returns:
        An <svg> element, or nothing where there is no point.
    """
    every = [point for points in groups.values() for point in points]
    if not every:
        return ""
    frame = _Frame([x for x, _, _ in every], [y for _, y, _ in every])
    parts = [
        _dot(frame.at(x, y), f"s{number % NUM_SERIES}", told, "mark")
        for number, (name, points) in enumerate(groups.items())
        for x, y, told in points
    ]
    if len(line) > 1:
        path = "L".join(f"{x} {y}" for x, y in (frame.at(*point) for point in line))
        parts.insert(0, f'<path class="front" d="M{path}"/>')
    return _figure(title, frame, x_label, "".join(parts))


def _dot(place: tuple[float, float], series: str, told: str, kind: str) -> str:
    return (
        f'<circle class="{kind} {series}" cx="{place[0]}" cy="{place[1]}" r="4">'
        f"<title>{html.escape(told)}</title></circle>"
    )


def legend(names: Sequence[str]) -> str:
    """The names of the series, where there are several."""
    if len(names) < 2:
        return ""
    items = [
        f'<span class="key s{number % NUM_SERIES}">{html.escape(name)}</span>'
        for number, name in enumerate(names)
    ]
    return f'<p class="legend">{" ".join(items)}</p>'
