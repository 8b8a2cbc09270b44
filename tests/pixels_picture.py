"""The picture at the top of the README, an animated SVG that GitHub shows.

It stands still, at the end, where animations or motion are switched off.
"""

from collections.abc import Sequence

import numpy as np

FRAMES = 24
REST = 8  # frames that the end is shown for
SECONDS = 9
WIDTH, HEIGHT = 720, 300
CELL, LEFT, TOP = 31, 14, 36
PLOT = (350, 52, 350, 190)  # left, top, width, height
COLORS = (
    *("#e15759", "#f28e2b", "#edc948", "#59a14f"),
    *("#76b7b2", "#4e79a7", "#b07aa1", "#9c755f"),
)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.ink { fill: #24292f }
.line { stroke: #24292f; fill: none }
.still { display: none }
@media (prefers-color-scheme: dark) {
  text, .ink { fill: #e6edf3 }
  .line { stroke: #e6edf3 }
}
@media (prefers-reduced-motion: reduce) {
  .moving { display: none }
  .still { display: inline }
}
"""


def _animate(attribute: str, values: Sequence[str], *, mode: str = "linear") -> str:
    every = ";".join([*values, *values[-1:] * REST])
    return (
        f'<animate attributeName="{attribute}" values="{every}" dur="{SECONDS}s" '
        f'calcMode="{mode}" repeatCount="indefinite"/>'
    )


def _pixels(image: np.ndarray) -> str:
    """The digit, one square for each of its 64 pixels."""
    squares = [
        f'<rect x="{LEFT + CELL * (p % 8)}" y="{TOP + CELL * (p // 8)}" '
        f'width="{CELL - 1}" height="{CELL - 1}" opacity="{0.04 + 0.3 * ink:.2f}"/>'
        for p, ink in enumerate(image)
    ]
    return f'<g class="ink">{"".join(squares)}</g>'


def _clouds(probs: np.ndarray, *, moving: bool) -> str:
    """A dot for each choice on each pixel, with the area of its probability."""
    radii = 10 * np.sqrt(probs)
    dots = []
    for choice, color in enumerate(COLORS):
        angle = 2 * np.pi * choice / len(COLORS)
        for p in range(64):
            x = LEFT + CELL * (p % 8 + 0.5) + 5 * np.cos(angle)
            y = TOP + CELL * (p // 8 + 0.5) + 5 * np.sin(angle)
            last = radii[-1, choice, p]
            values = [f"{r:.1f}".removesuffix(".0") for r in radii[:, choice, p]]
            inside = _animate("r", values) if moving else ""
            if moving or last > 0.3:
                dots.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{last:.1f}" '
                    f'fill="{color}">{inside}</circle>'
                )
    return "".join(dots)


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", opacity: float = 1
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" opacity="{opacity:g}">'
        f"{words}</text>"
    )


def _axes(baseline: float) -> str:
    left, top, width, height = PLOT
    parts = [_text(left, top - 34, "accuracy of the eight pixels that would be kept")]
    for percent in (0, 50, 100):
        y = top + height * (1 - percent / 100)
        parts.append(_text(left - 6, y + 4, f"{percent} %", anchor="end"))
        parts.append(f'<path class="line" opacity=".25" d="M{left} {y:g}h{width}"/>')
    y = top + height * (1 - baseline / 100)
    parts.append(
        f'<path class="line" stroke-dasharray="4 4" d="M{left} {y:.1f}h{width}"/>'
    )
    words = f"eight random pixels {baseline:.0f} %"
    parts.append(_text(left + width, y + 17, words, anchor="end"))
    return "".join(parts)


def draw(
    image: np.ndarray,
    probs: np.ndarray,
    temperatures: Sequence[float],
    accuracies: Sequence[float],
    *,
    baseline: float,
) -> str:
    """The SVG.

    Args:
        image: a digit, [64], from 0 to 1.
        probs: of the choices over the pixels at each frame, [FRAMES + 1, 8, 64].
        temperatures, accuracies: at each frame; in percent.
        baseline: accuracy of random pixels, in percent.
    """
    left, top, width, height = PLOT
    xs = [left + width * f / FRAMES for f in range(FRAMES + 1)]
    ys = [top + height * (1 - a / 100) for a in accuracies]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    marker = f'<circle class="ink" cx="{xs[-1]:.1f}" cy="{ys[-1]:.1f}" r="5">'
    labels = [
        f"temperature {temperature:.2g}, accuracy {accuracy:.0f} %"
        for temperature, accuracy in zip(temperatures, accuracies, strict=True)
    ]
    captions = []
    for frame, words in enumerate(labels):
        shown = ["1" if i == frame else "0" for i in range(FRAMES + 1)]
        inside = _animate("opacity", shown, mode="discrete")
        # Where nothing moves the last one is read.
        opacity = float(frame == FRAMES)
        captions.append(_text(left, top + height + 34, words + inside, opacity=opacity))
    still = _text(left, top + height + 34, labels[-1])
    moving_marker = (
        marker
        + _animate("cx", [f"{x:.0f}" for x in xs])
        + _animate("cy", [f"{y:.0f}" for y in ys])
        + "</circle>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img"><title>Eight relaxed choices over the 64 pixels of a digit '
        f"settle as the temperature falls</title><style>{STYLE}</style>"
        + _text(LEFT, 18, "which eight of 64 pixels should a camera keep?")
        + _pixels(image)
        + _axes(baseline)
        + f'<polyline class="line" stroke-width="2" points="{points}"/>'
        + f'<g class="moving">{_clouds(probs, moving=True)}{moving_marker}'
        + f"{''.join(captions)}</g>"
        + f'<g class="still">{_clouds(probs, moving=False)}{marker}</circle>{still}</g>'
        + "</svg>\n"
    )
