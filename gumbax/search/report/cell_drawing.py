"""Layouts of cells: a chain, arcs over a line, a wiring diagram. Units are inches.

A layout is a record of its size and of a function that draws it with its lower left
corner at a point. No two labels of a layout overlap: widths of text are measured first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gumbax.search.genotype.genotype import Edge

if TYPE_CHECKING:
    from gumbax.search.spaces.space import Choice

FONT_SIZE = 10
LINE = "#404040"
RADIUS = 0.22  # of a node
BOX_HEIGHT = 0.32
MOST_ARC_NODES = 4
WIDEST_ROW = 11.0  # of a chain

# Readable for the colour-blind and, by their lightness, in greyscale. First match.
_FAMILIES = {
    "none": "#ffffff",
    "sep_conv": "#08306b",
    "dil_conv": "#9ecae1",
    "conv": "#2f7ebc",
    "max_pool": "#a34a00",
    "pool": "#fdbe6f",
    "skip": "#d9d9d9",
    "identity": "#d9d9d9",
}
_OTHER = "#807dba"


@dataclass(frozen=True)
class Layout:
    width: float
    height: float
    draw: Callable[[Any, float, float], None]  # (axes, x, y)


def layout_of(choice: "Choice", edges: Sequence[Edge]) -> Layout:
    """The layout that suits the edges of a choice, for the kept ones."""
    if is_chain(choice):
        return _chain(choice, edges)
    connected = [edge for edge in edges if edge.primitive != "none"]
    if choice.num_inputs == 1 and num_nodes(choice) <= MOST_ARC_NODES:
        return _arcs(choice, connected)
    return _wiring(choice, connected)


def is_chain(choice: "Choice") -> bool:
    return choice.edges == tuple((i, i + 1) for i in range(len(choice.edges)))


def num_nodes(choice: "Choice") -> int:
    return 1 + max(target for _, target in choice.edges)


def outputs_of(choice: "Choice") -> tuple[int, ...]:
    return choice.outputs or (num_nodes(choice) - 1,)


def node_label(choice: "Choice", node: int) -> str:
    """c_{k-2} and c_{k-1} are the two cells before, as in DARTS."""
    if node < choice.num_inputs:
        names = {1: ["in"], 2: ["c_{k-2}", "c_{k-1}"]}
        return names.get(choice.num_inputs, [f"in {i}" for i in range(node + 1)])[node]
    if choice.num_inputs == 1:
        return "out" if outputs_of(choice) == (node,) else str(node)
    return str(node - choice.num_inputs)


def drawn_label(choice: "Choice", node: int) -> str:
    """`node_label` with subscripts, without matplotlib's formulas, which are slow."""
    subscripts = {"c_{k-2}": "cₖ₋₂", "c_{k-1}": "cₖ₋₁"}
    label = node_label(choice, node)
    return subscripts.get(label, label)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family="DejaVu Sans", size=size)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return width / 72


def _box_width(choice: "Choice") -> float:
    """Fits every primitive, so that the architectures of a space have one layout."""
    return max(text_width(name) for name in (*choice.primitives, "none")) + 0.24


def _colour(primitive: str) -> str:
    return next((_FAMILIES[part] for part in _FAMILIES if part in primitive), _OTHER)


def _box(axes, x: float, y: float, width: float, primitive: str) -> None:
    """A labelled primitive with its left end at x."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    colour = _colour(primitive)
    luminance = sum(w * c for w, c in zip((0.3, 0.6, 0.1), to_rgb(colour), strict=True))
    patch = FancyBboxPatch(
        (x, y - BOX_HEIGHT / 2),
        width,
        BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.07",
        facecolor=colour,
        edgecolor=LINE,
        linewidth=1,
        linestyle="--" if primitive == "none" else "-",
        zorder=3,
    )
    axes.add_patch(patch)
    dark = luminance < 0.5
    _text(axes, x + width / 2, y, primitive, color="white" if dark else "black")


def _node(axes, x: float, y: float, label: str, *, connected: bool = True) -> None:
    from matplotlib.patches import Circle

    circle = Circle(
        (x, y),
        RADIUS,
        facecolor="white",
        edgecolor="black" if connected else "#909090",
        linewidth=1.2,
        linestyle="-" if connected else "--",
        zorder=3,
    )
    axes.add_patch(circle)
    _text(axes, x, y, label)


def _text(axes, x: float, y: float, text: str, **style) -> None:
    options = {"ha": "center", "va": "center", "fontsize": FONT_SIZE, "zorder": 4}
    axes.text(x, y, text, **(options | style))


def _line(axes, points: Sequence[tuple[float, float]], **style) -> None:
    xs, ys = zip(*points, strict=True)
    options = {"color": LINE, "linewidth": 1.4, "solid_capstyle": "butt", "zorder": 2}
    axes.plot(xs, ys, **(options | style))


def _arrow(axes, start, end, *, shrink: float = 0.0, bend: float = 0.0, **style):
    from matplotlib.patches import FancyArrowPatch

    options: dict[str, Any] = {"color": LINE, "linewidth": 1.4, "shrinkA": 0}
    patch = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=12,
        connectionstyle=f"arc3,rad={bend}",
        shrinkB=72 * shrink,
        zorder=2,
        **(options | style),
    )
    axes.add_patch(patch)


def _arcs(choice: "Choice", edges: Sequence[Edge]) -> Layout:
    """Neighbours are joined by straight arrows, others by arcs, above and below."""
    last = num_nodes(choice) - 1
    gap = max(2.2, _box_width(choice) + 2 * RADIUS + 0.3)
    fed = {0, *(edge.target for edge in edges)}
    heights = {}
    for _, source, target in edges:
        side = 1 if (source + target) % 2 else -1
        span = target - source
        heights[source, target] = 0.0 if span == 1 else side * 0.75 * (span - 0.6)
    above = max([0.3, *(height + 0.35 for height in heights.values())])
    below = max([0.3, *(0.35 - height for height in heights.values() if height < 0)])

    def draw(axes, x: float, y: float) -> None:
        line = y + below
        for primitive, source, target in edges:
            height = heights[source, target]
            start, end = (x + RADIUS + gap * node for node in (source, target))
            colour = _darker(_colour(primitive))
            style = {"color": colour, "linewidth": 2, "shrinkA": 72 * RADIUS}
            bend = -2 * height / (end - start)
            _arrow(axes, (start, line), (end, line), shrink=RADIUS, bend=bend, **style)
            side = -1 if height < 0 else 1
            middle = (start + end) / 2
            style = {"va": "top" if side < 0 else "bottom", "color": colour}
            _text(axes, middle, line + height + 0.08 * side, primitive, **style)
        for node in range(last + 1):
            label = drawn_label(choice, node)
            _node(axes, x + RADIUS + gap * node, line, label, connected=node in fed)

    return Layout(gap * last + 2 * RADIUS, above + below, draw)


def _darker(colour: str) -> str:
    """Of a fill, the colour of text and lines on white."""
    darker = {"#d9d9d9": "#3f3f3f", "#fdbe6f": "#b06a10", "#9ecae1": "#4a8ab5"}
    return darker.get(colour, colour)


def _chain(choice: "Choice", edges: Sequence[Edge]) -> Layout:
    """Layers from left to right, in rows; a layer that is not kept is `none`."""
    kept = {edge.source: edge.primitive for edge in edges}
    names = [kept.get(source, "none") for source, _ in choice.edges]
    width, gap, row_height = _box_width(choice), 0.32, 0.85
    step = width + gap
    in_row = max(1, int((WIDEST_ROW - 1.2) / step))
    rows = [names[i : i + in_row] for i in range(0, len(names), in_row)]
    first = 2 * RADIUS + gap  # of the first box, from the left

    def draw(axes, x: float, y: float) -> None:
        top = y + row_height * (len(rows) - 1) + 0.25
        _node(axes, x + RADIUS, top, "in")
        for number, name in enumerate(names):
            row, column = divmod(number, in_row)
            left, level = x + first + column * step, top - row * row_height
            _box(axes, left, level, width, name)
            style = {"fontsize": 8, "color": "#606060"}
            _text(axes, left + width / 2, level + 0.26, str(number), **style)
            if number and not column:
                # From the end of the row before, around to the left.
                right = x + first + (in_row - 1) * step + width
                between, start = level + row_height / 2, x + first - gap
                turn = right + gap / 2
                before = level + row_height
                corners = [(right, before), (turn, before), (turn, between)]
                _line(axes, [*corners, (start, between), (start, level)])
            _arrow(axes, (left - gap, level), (left, level))
        last_row, end = top - row_height * (len(rows) - 1), len(rows[-1]) * step
        right = x + first + end
        _arrow(axes, (right - gap, last_row), (right, last_row))
        _node(axes, right + RADIUS, last_row, "out")

    width_of_all = first + min(len(names), in_row) * step + 2 * RADIUS
    return Layout(width_of_all, row_height * (len(rows) - 1) + 0.65, draw)


def _wiring(choice: "Choice", edges: Sequence[Edge]) -> Layout:
    """Each node has a column and each edge a row: from the wire that hangs from its
    source, through its primitive, to its target. Wires cross no label.
    """
    nodes = range(choice.num_inputs, num_nodes(choice))
    width, stub, row_height = _box_width(choice), 0.3, 0.42
    labels = [drawn_label(choice, node) for node in range(choice.num_inputs)]
    columns = {node: 0.35 + 0.8 * node for node in range(choice.num_inputs)}
    reach = 0.2 + width + stub + RADIUS  # from a wire to the next column
    for node in nodes:
        columns[node] = columns[node - 1] + reach
    rows: list[tuple[Edge, float]] = []  # with the depth below the top
    depths, depth = {}, 0.62
    for node in nodes:
        inputs = sorted(e for e in edges if e.target == node)
        inputs.sort(key=lambda edge: edge.source)
        levels = [depth + row_height * i for i in range(max(1, len(inputs)))]
        depths[node] = (levels[0] + levels[-1]) / 2
        rows += zip(inputs, levels[: len(inputs)], strict=True)
        depth = levels[-1] + row_height + 0.16
    height = depth - row_height - 0.16 + RADIUS + 0.04
    outputs = outputs_of(choice)
    if labelled_out := node_label(choice, nodes[-1]) == "out":
        outputs = ()
    bar = columns[nodes[-1]] + RADIUS + 0.45
    starts = depths | dict.fromkeys(range(choice.num_inputs), 0.15)

    def draw(axes, x: float, y: float) -> None:
        top = y + height
        for node, column in columns.items():
            hanging = [level for edge, level in rows if edge.source == node]
            if hanging:
                ends = [
                    (x + column, top - starts[node]),
                    (x + column, top - hanging[-1]),
                ]
                _line(axes, ends, zorder=1)
        for edge, level in rows:
            source, target = x + columns[edge.source], x + columns[edge.target]
            left, line = target - RADIUS - stub - width, top - level
            # A gap in the wires that are crossed; a dot on the one that is taken.
            halo = {"color": "white", "linewidth": 5, "zorder": 1.5}
            _line(axes, [(source + 0.06, line), (left, line)], **halo)
            _line(axes, [(source, line), (left, line)])
            axes.plot(source, line, "o", color=LINE, markersize=5, zorder=2)
            _box(axes, left, line, width, edge.primitive)
            end = (target, top - depths[edge.target])
            _arrow(axes, (left + width, line), end, shrink=RADIUS)
        for node, label in enumerate(labels):
            _input(axes, x + columns[node], top - 0.16, label)
        for node in nodes:
            place = x + columns[node], top - depths[node]
            fed = any(edge.target == node for edge in edges)
            _node(axes, *place, drawn_label(choice, node), connected=fed)
            if node in outputs:
                _arrow(axes, (place[0] + RADIUS, place[1]), (x + bar, place[1]))
        if labelled_out:
            return
        highest = top - min(depths[node] for node in outputs) + 0.3
        lowest = top - max(depths[node] for node in outputs) - 0.3
        _bar(axes, x + bar, lowest, highest - lowest, "output")

    width_of_all = columns[nodes[-1]] + RADIUS + 0.05 if labelled_out else bar + 0.4
    return Layout(width_of_all, height + 0.1, draw)


def _input(axes, x: float, y: float, label: str) -> None:
    _bar_patch(axes, x - 0.33, y - 0.16, 0.66, 0.32)
    _text(axes, x, y, label, fontsize=12)


def _bar(axes, x: float, y: float, height: float, label: str) -> None:
    short = height < text_width(label) + 0.1
    height, y = (0.8, y + height / 2 - 0.4) if short else (height, y)
    _bar_patch(axes, x, y, 0.32, height)
    _text(axes, x + 0.16, y + height / 2, label, rotation=90)


def _bar_patch(axes, x: float, y: float, width: float, height: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    patch = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.07",
        facecolor="white",
        edgecolor="black",
        linewidth=1.2,
        zorder=3,
    )
    axes.add_patch(patch)
