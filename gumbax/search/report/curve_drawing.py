"""Drawings of numbers: curves over epochs, probabilities of choices, the gap report."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from gumbax._common import checks
from gumbax.search.report import canvas, cell_drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gumbax.search.spaces.space import Choice, Space

Curves = dict[str, list[tuple[float, float]]]
# (epochs, data set -> accuracies after them)
Curve = tuple[Sequence[int], Mapping[str, Sequence[float]]]

# title -> (name in a row, label); curves of one panel are compared with each other.
PANELS: Mapping[str, Sequence[tuple[str, str]]] = {
    "Loss (nats)": [("loss", "weights"), ("arch_loss", "architecture")],
    "Accuracy (%)": [("accuracy", "weights"), ("arch_accuracy", "architecture")],
    "Discretisation gap: accuracy (%)": [
        ("soft_accuracy", "soft network"),
        ("drawn_accuracy", "straight-through network"),
        ("argmax_accuracy", "argmax network"),
    ],
    "Temperature": [("temperature", "")],
    "Entropy of a choice (nats)": [("entropy", "")],
    "Effective operations on an edge": [("effective_operations", "")],
    "Share of skip connections (%)": [("skip_fraction", "")],
    "Signal-to-noise of the logit gradient": [("gradient_snr", "")],
}

# Panels that need not show 0.
_FREE = ("Loss (nats)", "Accuracy (%)", "Discretisation gap: accuracy (%)")

GAP_ROWS = (
    "soft network",
    "straight-through network",
    "argmax, inherited weights",
    "argmax, recalibrated",
    "derived, retrained",
    "random architectures",
)


def draw_curves(rows: Sequence[Mapping[str, Any]], path: canvas.Paths) -> "Figure":
    """Draws what a search measured against the epoch, a panel for each quantity.

    Losses are in nats; accuracies and the share of skip connections are fractions from
    0 to 1 and are drawn in percent. A quantity may be missing from some rows or from
    all, and may be a number or a mapping from choices to numbers.

    Args:
        rows: of metrics.jsonl, one for each epoch.
        path: file or files to write; () for none.

    Returns:
        The figure.

    Raises:
        ValueError: no row has an epoch and a quantity that is known.
    """
    panels: dict[str, Curves] = {}
    for title, names in PANELS.items():
        curves: Curves = {}
        for name, label in names:
            curves |= curves_of(rows, name, label, scale=100 if "%" in title else 1)
        if curves:
            panels[title] = curves
    if not panels:
        cure = "Let the search finish an epoch."
        must = "have rows with an epoch and a quantity of a search"
        got = f"{len(rows)} rows"
        raise ValueError(checks.message("draw_curves", "rows", must, got, cure))
    with canvas.style():
        columns = min(len(panels), 2 if len(panels) <= 4 else 3)
        lines = -(-len(panels) // columns)
        figure = canvas.blank(4.4 * columns, 2.9 * lines, layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for (title, curves), axes in zip(panels.items(), grid, strict=False):
            _draw_panel(axes, title, curves)
        for axes in grid[len(panels) :]:
            axes.remove()
        canvas.save(figure, path)
    return figure


def curves_of(
    rows: Sequence[Mapping[str, Any]], name: str, label: str, *, scale: float
) -> Curves:
    curves: Curves = {}
    for row in rows:
        value = row.get(name)
        if value is None or "epoch" not in row:
            continue
        parts = value if isinstance(value, Mapping) else {"": value}
        for part, number in parts.items():
            key = " ".join(word for word in (label, part) if word)
            curves.setdefault(key, []).append((row["epoch"], scale * float(number)))
    return curves


def _draw_panel(axes, title: str, curves: Mapping[str, list]) -> None:
    from matplotlib.ticker import MaxNLocator

    for (label, points), style in zip(
        curves.items(), itertools.cycle(canvas.SERIES), strict=False
    ):
        colour, marker, dash = style
        marker = marker if len(points) <= 20 else ""
        line = {"color": colour, "ls": dash, "marker": marker, "ms": 4}
        axes.plot(*zip(*points, strict=True), label=label, **line)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs, values = np.array([p for points in curves.values() for p in points]).T
    if epochs.min() == epochs.max():
        axes.set_xticks(epochs[:1])
    if np.nanmin(values, initial=np.inf) >= 0 and title not in _FREE:
        axes.set_ylim(bottom=0)
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9)


def draw_choices(
    history: Mapping[str, ArrayLike], space: "Space", path: canvas.Paths
) -> "Figure":
    """Draws how the probabilities of every edge move, a panel for each edge.

    The areas of a panel are the probabilities of its primitives, from below in the
    order of the legend, dark to light.

    Args:
        history: name of a choice -> probabilities [epochs, E, K].
        space: the space.
        path: file or files to write; () for none.

    Returns:
        The figure.

    Raises:
        ValueError: names or shapes are not those of the space, or there is no epoch.
    """
    arrays = _histories(history, space)
    names = list(dict.fromkeys(p for c in space.choices.values() for p in c.primitives))
    with canvas.style():
        import matplotlib
        from matplotlib.patches import Patch

        ramp = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(names)))
        colours = dict(zip(names, ramp, strict=True))
        most = max(len(choice.edges) for choice in space.choices.values())
        columns = min(most, 5 if most > 6 else 3)
        lines = {n: -(-len(c.edges) // columns) for n, c in space.choices.items()}
        legend_lines = -(-len(names) // 4)
        tall = 1.5 * sum(lines.values()) + 0.45 * len(lines) + 0.28 * legend_lines + 0.2
        figure = canvas.blank(max(2.1 * columns, 8.0), tall, layout="constrained")
        blocks = figure.subfigures(
            len(lines), 1, height_ratios=list(lines.values()), squeeze=False
        )[:, 0]
        for block, (name, choice) in zip(blocks, space.choices.items(), strict=True):
            if len(lines) > 1:
                block.suptitle(name, fontsize=12, fontweight="bold")
            grid = block.subplots(
                lines[name], columns, sharex=True, sharey=True, squeeze=False
            )
            shades = [colours[primitive] for primitive in choice.primitives]
            for edge, axes in enumerate(grid.flat):
                if edge >= len(choice.edges):
                    axes.remove()
                    continue
                _stack(axes, arrays[name][:, edge].T, shades)
                axes.set_title(_title(choice, edge), fontsize=9)
                if edge >= (lines[name] - 1) * columns:
                    axes.set_xlabel("epoch", fontsize=9)
        handles = [
            Patch(facecolor=colours[n], edgecolor=cell_drawing.LINE, label=n)
            for n in names
        ]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=-(-len(names) // legend_lines),
            frameon=False,
            fontsize=9,
        )
        canvas.save(figure, path)
    return figure


def _title(choice: "Choice", edge: int) -> str:
    if cell_drawing.is_chain(choice):
        return f"layer {edge}"
    return " → ".join(
        cell_drawing.drawn_label(choice, node) for node in choice.edges[edge]
    )


def _stack(axes, probs: np.ndarray, shades: Sequence) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(probs.shape[1])
    if len(epochs) == 1:  # an area needs two
        epochs, probs = np.array([0, 1]), np.repeat(probs, 2, axis=1)
    axes.stackplot(epochs, probs, colors=shades, edgecolor="white", linewidth=0.4)
    axes.set_xlim(epochs[0], epochs[-1])
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params(labelsize=8)


def _histories(
    history: Mapping[str, ArrayLike], space: "Space"
) -> dict[str, np.ndarray]:
    arrays = {n: np.asarray(history[n], dtype=np.float64) for n in history}
    for name, choice in space.choices.items():
        shape = arrays[name].shape if name in arrays else None
        expected = (len(choice.edges), len(choice.primitives))
        if shape is None or len(shape) != 3 or not shape[0] or shape[1:] != expected:
            must = (
                f"hold {name!r} with the shape (epochs, {expected[0]}, {expected[1]})"
            )
            got = f"shape {shape}" if shape else f"the names {sorted(arrays)}"
            cure = "Give the probabilities after each epoch."
            raise ValueError(checks.message("draw_choices", "history", must, got, cure))
    return arrays


def draw_truth(
    curves: Mapping[str, Sequence[Curve]],
    levels: Mapping[str, Mapping[str, float]],
    path: canvas.Paths,
) -> "Figure":
    """Draws the published accuracy of what would have been kept after each epoch.

    Args:
        curves: method -> for each run (epochs, data set -> accuracies in percent).
        levels: name -> data set -> accuracy that is drawn as a line across, such as the
            best constant architecture.
        path: file or files to write; () for none.

    Returns:
        The figure, a panel for each data set.

    Raises:
        ValueError: there is no curve.
    """
    names = list(
        dict.fromkeys(n for runs in curves.values() for _, a in runs for n in a)
    )
    if not names:
        must, cure = "hold a method with a run", "Search first."
        raise ValueError(checks.message("draw_truth", "curves", must, curves, cure))
    with canvas.style():
        figure = canvas.blank(5.2 * len(names), 3.6, layout="constrained")
        for axes, name in zip(
            figure.subplots(1, len(names), squeeze=False)[0], names, strict=True
        ):
            for (method, runs), style in zip(
                curves.items(), itertools.cycle(canvas.SERIES), strict=False
            ):
                colour, marker, dash = style
                line = {
                    "color": colour,
                    "ls": dash,
                    "markevery": [-1],
                    "marker": marker,
                }
                for number, (epochs, accuracies) in enumerate(runs):
                    label = method if number == 0 else None
                    axes.plot(epochs, accuracies[name], label=label, **line)
            shades = ("#555555", "#aaaaaa", "#cccccc")
            for (level, values), shade in zip(
                levels.items(), itertools.cycle(shades), strict=False
            ):
                axes.axhline(values[name], color=shade, ls=":", lw=1.2)
                axes.annotate(
                    level,
                    (1, values[name]),
                    xycoords=("axes fraction", "data"),
                    ha="right",
                    va="bottom",
                    fontsize=8,
                )
            axes.set_title(name, fontsize=11)
            axes.set_xlabel("epoch")
            axes.set_ylabel("published test accuracy (%)")
            axes.grid(color="#e5e5e5")
            axes.set_axisbelow(True)
            axes.legend(frameon=False, fontsize=9, loc="lower right")
        canvas.save(figure, path)
    return figure


def draw_gap(
    table: Mapping[str, Mapping[str, tuple[float, float | None]]], path: canvas.Paths
) -> "Figure":
    """Draws the gap report: the accuracy of each network of each method.

    Args:
        table: method -> row -> (mean, standard deviation or None), in percent. Rows are
            drawn in the order of `GAP_ROWS`, others below; a method need not have all.
        path: file or files to write; () for none.

    Returns:
        The figure.

    Raises:
        ValueError: the table is empty.
    """
    given = [row for rows in table.values() for row in rows]
    names = [row for row in GAP_ROWS if row in given]
    names += [row for row in dict.fromkeys(given) if row not in GAP_ROWS]
    if not names:
        must, cure = "hold a method with a row", "Make a report first."
        raise ValueError(checks.message("draw_gap", "table", must, table, cure))
    with canvas.style():
        figure = canvas.blank(8.0, 1.1 + 0.62 * len(names), layout="constrained")
        axes = figure.subplots()
        for place in range(0, len(names), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", zorder=0)
        offsets = np.linspace(-0.3, 0.3, len(table)) if len(table) > 1 else [0.0]
        for (method, rows), offset, style in zip(
            table.items(), offsets, itertools.cycle(canvas.SERIES), strict=False
        ):
            colour, marker, _ = style
            shown = [row for row in names if row in rows]
            axes.errorbar(
                [rows[row][0] for row in shown],
                [names.index(row) + offset for row in shown],
                xerr=[rows[row][1] or 0.0 for row in shown],
                color=colour,
                marker=marker,
                markersize=7,
                markeredgecolor="black",
                markeredgewidth=0.6,
                linestyle="none",
                capsize=3,
                label=method,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("test accuracy (%)")
        axes.grid(axis="x", color="#dcdcdc")
        axes.set_axisbelow(True)
        figure.legend(
            loc="outside upper center", ncols=min(len(table), 6), frameon=False
        )
        canvas.save(figure, path)
    return figure
