"""Pictures of a search: the derived cell and the curves."""

from collections.abc import Sequence
from pathlib import Path

from gumbax.search.genotype import Genotype
from gumbax.search.space import CellSpace

# Readable for the colour-blind and, by their lightness, in greyscale.
_FAMILIES = {
    "sep_conv": "#08306b",
    "conv": "#2171b5",
    "max_pool": "#b35806",
    "avg_pool": "#d98c3f",
    "skip": "#3f3f3f",
}


def draw_cell(genotype: Genotype, space: CellSpace, paths: Sequence[Path]) -> None:
    """Draws the cell as arcs over a line of nodes; edges without connection are left
    out.

    Args:
        genotype: the cell.
        space: its space.
        paths: files to write; the ending names the format (.svg, .png).
    """
    import matplotlib  # an extra
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    genotype.check(space)
    gap = 3.0
    reach = space.num_nodes - 1
    wide, tall = gap * reach + 2.0, 0.75 * reach + 0.6
    # The same inches for a unit of both axes: arcs keep the height that they are given.
    figure = Figure(figsize=(0.8 * wide, 0.8 * 2 * tall))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    for (source, target), name in zip(space.edges, genotype.operations, strict=True):
        if name == "none":
            continue
        span = target - source
        # Neighbours are joined by straight arrows, others by arcs, above and below.
        side = 1 if (source + target) % 2 else -1
        height = 0.0 if span == 1 else side * 0.95 * (span - 0.6)
        _arrow(axes, gap * source, gap * target, height, name)
    for node in range(space.num_nodes):
        label = {0: "in", reach: "out"}.get(node, str(node))
        axes.plot(
            gap * node, 0, "o", markersize=34, color="white", markeredgecolor="black"
        )
        axes.text(gap * node, 0, label, ha="center", va="center", fontsize=12)
    axes.set_xlim(-1.0, wide - 1.0)
    axes.set_ylim(-tall, tall)
    axes.set_axis_off()
    # Without random names and the date, equal cells give equal files.
    with matplotlib.rc_context({"svg.hashsalt": "gumbax"}):
        for path in paths:
            date = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata=date)


def _arrow(axes, start: float, end: float, height: float, name: str) -> None:
    from matplotlib.patches import FancyArrowPatch

    family = next((key for key in _FAMILIES if name.startswith(key)), "skip")
    colour = _FAMILIES[family]
    bend = -2 * height / (end - start)
    arrow = FancyArrowPatch(
        (start, 0),
        (end, 0),
        connectionstyle=f"arc3,rad={bend}",
        arrowstyle="-|>",
        mutation_scale=18,
        linewidth=2,
        color=colour,
        shrinkA=18,
        shrinkB=18,
        zorder=0,
    )
    axes.add_patch(arrow)
    axes.text(
        (start + end) / 2,
        height + (0.16 if height >= 0 else -0.16),
        name,
        ha="center",
        va="bottom" if height >= 0 else "top",
        fontsize=11,
        color=colour,
    )


def draw_curves(rows: Sequence[dict], path: Path) -> None:
    """Draws loss, accuracy, temperature and entropy against the step.

    Args:
        rows: of metrics.jsonl.
        path: PNG or SVG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # an extra
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True).flat
    steps = [row["step"] for row in rows]
    pairs = [
        ("Loss (nats)", "loss", "arch_loss"),
        ("Accuracy", "accuracy", "arch_accuracy"),
    ]
    for (title, weights, arch), axes in zip(pairs, panels, strict=False):
        axes.plot(steps, [r[weights] for r in rows], color="#2171b5", label="weights")
        axes.plot(
            steps,
            [r[arch] for r in rows],
            color="#d98c3f",
            linestyle="--",
            label="architecture",
        )
        axes.set_title(title)
        axes.legend(title="half of the training set", frameon=False)
    singles = [
        ("Temperature", "temperature"),
        ("Entropy of a choice (nats)", "entropy"),
    ]
    for (title, name), axes in zip(singles, panels, strict=False):
        axes.plot(steps, [row[name] for row in rows], color="black")
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
    figure.savefig(path, dpi=120)
