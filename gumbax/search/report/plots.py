"""Pictures of a search: architectures, curves, choices and the discretisation gap.

matplotlib is an extra, imported where it is used. Every drawing is written to files,
whose endings name the format (.svg, .png), and returned as a figure for a notebook. The
style of the user is set aside, and equal input gives equal SVG files.
"""

import textwrap
from typing import TYPE_CHECKING

from gumbax.search.genotype.genotype import Genotype
from gumbax.search.report import canvas, cell_drawing
from gumbax.search.report.curve_drawing import (
    GAP_ROWS,
    draw_choices,
    draw_curves,
    draw_gap,
    draw_truth,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gumbax.search.spaces.space import Space

__all__ = [
    "GAP_ROWS",
    "draw_choices",
    "draw_curves",
    "draw_gap",
    "draw_genotype",
    "draw_truth",
    "genotype_text",
]


def draw_genotype(genotype: Genotype, space: "Space", paths: canvas.Paths) -> "Figure":
    """Draws an architecture, one panel for each choice.

    A chain is a row of boxes, a small cell arcs over a line of nodes. A cell with more
    inputs, as that of DARTS, is a wiring diagram: a node has a column, an edge a row
    that starts with a dot at its source. `none` is left out, but in a chain.

    Args:
        genotype: the architecture.
        space: its space.
        paths: file or files to write; () for none.

    Returns:
        The figure.

    Raises:
        ValueError: the genotype is not an architecture of the space.
    """
    genotype.check(space)
    with canvas.style():
        layouts = {
            name: cell_drawing.layout_of(choice, genotype.cells[name])
            for name, choice in space.choices.items()
        }
        margin, title = 0.15, 0.3 if len(layouts) > 1 else 0.0
        wide = max(layout.width for layout in layouts.values()) + 2 * margin
        tall = sum(layout.height + title + 2 * margin for layout in layouts.values())
        figure = canvas.blank(wide, tall)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, wide)
        axes.set_ylim(0, tall)
        axes.set_axis_off()
        top = tall
        for name, layout in layouts.items():
            if title:
                place = (margin, top - margin)
                axes.text(*place, name, va="top", fontsize=12, fontweight="bold")
            top -= layout.height + title + 2 * margin
            layout.draw(axes, margin, top + margin)
        canvas.save(figure, paths)
    return figure


def genotype_text(genotype: Genotype, space: "Space") -> str:
    """An architecture in plain ASCII, for terminals: the inputs of each node.

    Args:
        genotype: the architecture.
        space: its space.

    Returns:
        Lines without a newline at the end. `none` is left out, but in a chain.

    Raises:
        ValueError: the genotype is not an architecture of the space.

    Example:
        >>> from types import SimpleNamespace
        >>> from gumbax.search.spaces import Choice
        >>> choice = Choice(((0, 1), (0, 2), (1, 2)), ("none", "conv", "pool"))
        >>> space = SimpleNamespace(name="mine", choices={"cell": choice})
        >>> text = "|conv~0|+|none~0|pool~1|"
        >>> genotype = Genotype.from_nasbench201(text, space="mine")
        >>> print(genotype_text(genotype, space))
        cell
          node 1 <- conv(in)
          out    <- pool(1)
    """
    genotype.check(space)
    lines = []
    for name, choice in space.choices.items():
        lines.append(name)
        edges = genotype.cells[name]
        if cell_drawing.is_chain(choice):
            kept = {edge.source: edge.primitive for edge in edges}
            layers = [kept.get(source, "none") for source, _ in choice.edges]
            text = " -> ".join(["in", *layers, "out"])
            lines += textwrap.wrap(
                text, 78, initial_indent="  ", subsequent_indent="    "
            )
            continue
        labels = {
            node: cell_drawing.node_label(choice, node)
            for node in range(cell_drawing.num_nodes(choice))
        }
        for node in range(choice.num_inputs, len(labels)):
            inputs = [
                f"{primitive}({labels[source]})"
                for primitive, source, target in edges
                if target == node and primitive != "none"
            ]
            label = labels[node] if labels[node] == "out" else f"node {labels[node]}"
            lines.append(f"  {label:7}<- {' + '.join(inputs) or 'nothing'}")
        outputs = cell_drawing.outputs_of(choice)
        if choice.num_inputs > 1 or len(outputs) > 1:
            joined = ", ".join(labels[node] for node in outputs)
            lines.append(f"  output <- nodes {joined}")
    return "\n".join(lines)
