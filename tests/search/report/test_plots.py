import itertools
import subprocess
import sys
import xml.etree.ElementTree

import jax
import matplotlib
import matplotlib.axes
import matplotlib.image
import matplotlib.legend
import matplotlib.patches
import matplotlib.text
import numpy as np
import pytest

from gumbax.search.genotype.genotype import Edge, Genotype
from gumbax.search.methods import derive_rules
from gumbax.search.report import plots
from gumbax.search.spaces.space import Choice
from tests.helpers import sweep
from tests.search.small_spaces import (
    CHAIN,
    DARTS,
    NASBENCH201,
    SmallSpace,
    chain,
    dense_edges,
)

LONG = chain(22, ("a_primitive_with_a_rather_long_name", "none", "WWWWWWWW"))
WIDE = SmallSpace(
    "wide", {"cell": Choice(dense_edges(6), ("conv", "a_long_name_of_a_primitive"))}
)


def by_space(*spaces):
    return pytest.mark.parametrize("space", spaces, ids=lambda space: space.name)


def full_genotype(space):
    """Every edge kept, with the last primitive."""
    return Genotype(
        space.name,
        {
            name: tuple(Edge(choice.primitives[-1], *edge) for edge in choice.edges)
            for name, choice in space.choices.items()
        },
    )


def size_of(path):
    """Width and height; fails if the file is no image."""
    if path.suffix == ".png":
        height, width, _ = matplotlib.image.imread(path).shape
        return width, height
    root = xml.etree.ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return tuple(
        float(root.get(side).removesuffix("pt")) for side in ("width", "height")
    )


def visible_texts(figure):
    """Every text that is drawn, with its box in pixels."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    # Ticks beyond the limits of their axis are there but not drawn.
    beyond = set()
    for axes in figure.findobj(matplotlib.axes.Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    beyond |= {tick.label1, tick.label2}
    texts = [
        text
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_visible() and text.get_text().strip() and text not in beyond
    ]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts]


def assert_texts_are_apart(figure):
    texts = visible_texts(figure)
    assert len(texts) > 3
    for (name, box), (other, other_box) in itertools.combinations(texts, 2):
        overlap = box.width > 0 and other_box.width > 0 and box.overlaps(other_box)
        assert not overlap, f"{name!r} at {box} overlaps {other!r} at {other_box}"
    for name, box in texts:
        inside = figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(
            box.x1, box.y1
        )
        assert inside, f"{name!r} at {box} leaves the figure"


@by_space(DARTS, NASBENCH201, CHAIN)
def test_drawing_of_a_genotype(space, tmp_path):
    paths = [tmp_path / "cell.png", tmp_path / "cell.svg"]
    genotype = Genotype.random(jax.random.key(0), space)
    figure = plots.draw_genotype(genotype, space, paths)
    assert_texts_are_apart(figure)
    width, height = size_of(paths[0])
    assert 300 < width < 6000
    assert 100 < height < 3000
    points = size_of(paths[1])
    np.testing.assert_allclose([width / 150, height / 150], np.array(points) / 72, 0.02)


@by_space(NASBENCH201, LONG, WIDE)
def test_labels_of_a_full_genotype_do_not_overlap(space):
    figure = plots.draw_genotype(full_genotype(space), space, ())
    assert_texts_are_apart(figure)


def test_labels_lie_in_their_boxes():
    figure = plots.draw_genotype(full_genotype(LONG), LONG, ())
    boxes = [
        patch.get_window_extent()
        for patch in figure.findobj(matplotlib.patches.FancyBboxPatch)
    ]
    names = LONG.choices["layers"].primitives
    labels = [box for text, box in visible_texts(figure) if text in names]
    assert len(labels) == len(boxes) == 22
    for label in labels:
        assert any(
            box.x0 < label.x0 and label.x1 < box.x1 and box.y0 < label.y0 < box.y1
            for box in boxes
        )


def test_every_kept_primitive_is_named_and_none_is_left_out():
    genotype = Genotype.from_nasbench201(
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
    )
    texts = [
        text
        for text, _ in visible_texts(plots.draw_genotype(genotype, NASBENCH201, ()))
    ]
    assert sorted(texts) == sorted(
        ["nor_conv_3x3", "nor_conv_3x3", "skip_connect", "in", "1", "2", "out"]
    )


def test_nodes_without_inputs_are_drawn():
    rng = np.random.default_rng(0)
    logits = {name: rng.standard_normal((14, 8)) for name in DARTS.choices}
    genotype = derive_rules.threshold(minimum=0.9)(logits, DARTS)
    assert len({edge.target for edge in genotype.cells["normal"]}) < 4
    assert_texts_are_apart(plots.draw_genotype(genotype, DARTS, ()))
    empty = Genotype("darts", {"normal": (), "reduce": ()})
    assert_texts_are_apart(plots.draw_genotype(empty, DARTS, ()))
    assert "node 3 <- nothing" in plots.genotype_text(empty, DARTS)


def test_a_cell_of_three_inputs_and_one_output():
    choice = Choice(dense_edges(6, 3), ("conv", "pool"), 3, (5,))
    space = SmallSpace("three", {"cell": choice})
    assert_texts_are_apart(plots.draw_genotype(full_genotype(space), space, ()))
    text = plots.genotype_text(full_genotype(space), space)
    assert "node 0 <- pool(in 0) + pool(in 1) + pool(in 2)" in text
    assert text.endswith("output <- nodes 2")


def test_text_of_a_genotype():
    normal = (("sep_conv_3x3", 1, 2), ("skip_connect", 0, 2), ("none", 2, 3))
    genotype = Genotype("darts", {"normal": normal, "reduce": ()})
    assert plots.genotype_text(genotype, DARTS).splitlines()[:6] == [
        "normal",
        "  node 0 <- sep_conv_3x3(c_{k-1}) + skip_connect(c_{k-2})",
        "  node 1 <- nothing",
        "  node 2 <- nothing",
        "  node 3 <- nothing",
        "  output <- nodes 0, 1, 2, 3",
    ]
    layers = plots.genotype_text(full_genotype(CHAIN), CHAIN).splitlines()
    assert layers[1].startswith("  in -> skip_connect -> skip_connect")
    assert all(len(line) < 80 and line.isascii() for line in layers)


def test_a_genotype_of_another_space_is_not_drawn(tmp_path):
    genotype = full_genotype(CHAIN)
    path = tmp_path / "cell.png"
    for draw in (
        lambda: plots.draw_genotype(genotype, DARTS, path),
        lambda: plots.genotype_text(genotype, DARTS),
    ):
        with pytest.raises(ValueError, match="one of the space 'chain'"):
            draw()
    assert not path.exists()


def epochs(number, **more):
    return [
        {
            "epoch": epoch,
            "loss": 2.0 - 0.1 * epoch,
            "arch_loss": 2.1 - 0.1 * epoch,
            "accuracy": 0.2 + 0.05 * epoch,
            "arch_accuracy": 0.1 + 0.05 * epoch,
            "temperature": 5.0 / (epoch + 1),
            "entropy": 1.0,
        }
        | more
        for epoch in range(number)
    ]


MORE = {
    "soft_accuracy": 0.9,
    "argmax_accuracy": 0.5,
    "skip_fraction": 0.25,
    "effective_operations": 3.0,
    "gradient_snr": {"normal": 0.1, "reduce": 0.2},
}


@pytest.mark.parametrize(
    ("rows", "panels"),
    sweep([(epochs(5), 4), (epochs(1), 4)], [(epochs(30, **MORE), 8)]),
)
def test_curves(rows, panels, tmp_path):
    path = tmp_path / "curves.png"
    figure = plots.draw_curves(rows, path)
    assert len(figure.axes) == panels
    width, height = size_of(path)
    assert 1000 < width < 2500
    assert 700 < height < 2000
    assert_texts_are_apart(figure)


def line_of(figure, title, label):
    axes = next(axes for axes in figure.axes if axes.get_title() == title)
    return next(line for line in axes.lines if line.get_label() == label)


def test_curves_show_percent_and_skip_what_is_missing():
    rows = epochs(4, **MORE)
    rows[1]["argmax_accuracy"] = None
    del rows[2]["argmax_accuracy"]
    rows[3]["loss"] = float("nan")
    figure = plots.draw_curves(rows, ())
    line = line_of(figure, "Discretisation gap: accuracy (%)", "argmax network")
    np.testing.assert_allclose(line.get_xydata(), [[0, 50], [3, 50]])
    line = line_of(figure, "Signal-to-noise of the logit gradient", "reduce")
    np.testing.assert_allclose(line.get_ydata(), 0.2)
    line = line_of(figure, "Loss (nats)", "weights")
    np.testing.assert_allclose(line.get_ydata(), [2.0, 1.9, 1.8, np.nan])


@pytest.mark.parametrize("rows", [[], [{"epoch": 0}], [{"loss": 1.0}]])
def test_curves_of_nothing(rows):
    with pytest.raises(ValueError, match="Let the search finish an epoch"):
        plots.draw_curves(rows, ())


def probabilities(space, num_epochs):
    rng = np.random.default_rng(0)
    return {
        name: rng.dirichlet(
            np.ones(len(choice.primitives)), (num_epochs, len(choice.edges))
        )
        for name, choice in space.choices.items()
    }


@pytest.mark.parametrize(
    ("space", "num_epochs"), sweep([(NASBENCH201, 1), (CHAIN, 12)], [(DARTS, 12)])
)
def test_choices(space, num_epochs, tmp_path):
    path = tmp_path / "choices.png"
    figure = plots.draw_choices(probabilities(space, num_epochs), space, path)
    panels = figure.findobj(matplotlib.axes.Axes)
    edges = sum(len(choice.edges) for choice in space.choices.values())
    assert len(panels) == edges
    assert len(figure.findobj(matplotlib.legend.Legend)) == 1
    width, height = size_of(path)
    assert 1000 < width < 2000
    assert 300 < height < 2000
    assert_texts_are_apart(figure)


def test_areas_are_the_probabilities():
    history = probabilities(NASBENCH201, 6)
    figure = plots.draw_choices(history, NASBENCH201, ())
    panel = figure.findobj(matplotlib.axes.Axes)[4]
    assert panel.get_title() == "1 → out"
    top = np.cumsum(history["cell"][:, 4], axis=-1)
    for k, area in enumerate(panel.collections):
        (outline,) = [path.vertices for path in area.get_paths()]
        for epoch in range(6):
            heights = outline[outline[:, 0] == epoch, 1]
            np.testing.assert_allclose(heights.max(), top[epoch, k], atol=1e-6)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({}, r"`history` must hold 'cell' .* got the names \[\]"),
        ({"cell": np.zeros((0, 6, 5))}, r"\(epochs, 6, 5\), got shape \(0, 6, 5\)"),
        ({"cell": np.zeros((6, 5))}, r"got shape \(6, 5\)"),
        ({"cell": np.zeros((3, 5, 6))}, r"got shape \(3, 5, 6\)"),
    ],
)
def test_choices_that_do_not_fit(history, message):
    with pytest.raises(ValueError, match=message):
        plots.draw_choices(history, NASBENCH201, ())


TABLE = {
    "darts": {row: (70.0 + i, 1.0) for i, row in enumerate(plots.GAP_ROWS)},
    "gumbel": {"argmax, recalibrated": (80.0, None), "soft network": (81.0, 0.5)},
    "random": {"random architectures": (75.0, 3.0), "something else": (60.0, None)},
}


def test_gap(tmp_path):
    path = tmp_path / "gap.png"
    figure = plots.draw_gap(TABLE, path)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [*plots.GAP_ROWS, "something else"]
    width, height = size_of(path)
    assert 1000 < width < 1500
    assert 500 < height < 1500
    assert_texts_are_apart(figure)
    dots = figure.axes[0].containers[1].lines[0]
    np.testing.assert_array_equal(dots.get_xdata(), [81.0, 80.0])
    assert [round(place) for place in dots.get_ydata()] == [0, 3]


def test_gap_of_one_method_and_of_many():
    assert_texts_are_apart(plots.draw_gap({"darts": TABLE["darts"]}, ()))
    many = {f"method {i}": TABLE["darts"] for i in range(9)}
    assert_texts_are_apart(plots.draw_gap(many, ()))


@pytest.mark.parametrize("table", [{}, {"darts": {}}])
def test_gap_of_nothing(table):
    with pytest.raises(ValueError, match="`table` must hold a method with a row"):
        plots.draw_gap(table, ())


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plots.draw_genotype(full_genotype(DARTS), DARTS, path),
        lambda path: plots.draw_curves(epochs(3), path),
        lambda path: plots.draw_choices(probabilities(CHAIN, 3), CHAIN, path),
        lambda path: plots.draw_gap(TABLE, path),
    ],
    ids=["cell", "curves", "choices", "gap"],
)
def test_equal_input_gives_equal_files(draw, tmp_path):
    paths = [tmp_path / "one.svg", tmp_path / "two.svg"]
    draw(paths[0])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        draw(paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"<dc:date>" not in paths[0].read_bytes()
    assert min(size_of(paths[0])) > 100


def test_import_brings_no_matplotlib():
    code = "import sys, gumbax.search.report; print('matplotlib' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
