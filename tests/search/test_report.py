import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search import plots, report
from gumbax.search.genotype import Genotype
from gumbax.search.report import SupernetAccuracies


def test_rows_have_sample_standard_deviations():
    searched = SupernetAccuracies(soft=90.0, straight_through=(80.0, 84.0), argmax=83.0)
    rows = {row.name: row for row in report.make_rows(searched, 95.0, [94.0, 92.0])}
    draws = rows["straight-through network"]
    assert (draws.mean, draws.count) == (82.0, 2)
    np.testing.assert_allclose(draws.std, 8**0.5)
    assert rows["random architectures"].mean == 93.0
    text = report.format_table(tuple(rows.values()), "Title")
    assert "soft network               +7.00" in text
    assert "straight-through network   -1.00" in text
    assert "93.00 % ± 1.41" in text


def test_peaked_logits_leave_no_gap(supernet, digits):
    supernet.arch_logits[...] = 1000.0 * jax.nn.one_hot(jnp.array([2, 1, 3]), 4)
    found = report.evaluate_supernet(supernet, digits.test, jax.random.key(0))
    assert len(found.straight_through) == report.NUM_DRAWS
    assert set(found.straight_through) == {found.argmax}
    one_image = 100 / digits.test.size
    assert abs(found.soft - found.argmax) < 1.01 * one_image


def test_flat_logits_draw_different_networks(supernet, digits):
    supernet.arch_logits[...] = jnp.zeros((3, 4))
    found = report.evaluate_supernet(supernet, digits.test, jax.random.key(0))
    assert len(set(found.straight_through)) > 3


def test_trainings_are_recorded_and_not_done_twice(space, digits, tmp_path):
    names = {"derived": Genotype(space="tiny", operations=("conv_1x1",) * 3)}
    record = tmp_path / "trainings.jsonl"
    options = {"num_steps": 30, "seed": 0, "record": record}
    seen = []
    first = report.train_all(
        space, names, digits, **options, on_progress=lambda *a: seen.append(a)
    )
    assert seen == [("derived", 20), ("derived", 30)]
    row = json.loads(record.read_text())
    assert row["test_accuracy"] == first["derived"] > 0
    record.write_text(json.dumps(row | {"test_accuracy": 12.5}) + '\n{"name": "ran')
    assert report.train_all(space, names, digits, **options) == {"derived": 12.5}


def test_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 20}\n{"step": 4')
    assert report.read_lines(path) == [{"step": 20}]
    assert report.read_lines(tmp_path / "missing") == []


@pytest.fixture
def genotype():
    return Genotype(space="tiny", operations=("conv_1x1", "none", "skip_connect"))


def test_drawing_shows_the_connections_and_no_others(genotype, space, tmp_path):
    paths = [tmp_path / "cell.svg", tmp_path / "cell.png"]
    plots.draw_cell(genotype, space, paths)
    svg = paths[0].read_text()
    assert "<!-- conv_1x1 -->" in svg
    assert "<!-- skip_connect -->" in svg
    assert "<!-- none -->" not in svg
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_equal_cells_give_equal_drawings(genotype, space, tmp_path):
    paths = [tmp_path / name for name in ("a.svg", "b.svg")]
    for path in paths:
        plots.draw_cell(genotype, space, [path])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_curves_are_drawn(tmp_path):
    names = ("loss", "accuracy", "arch_loss", "arch_accuracy", "temperature", "entropy")
    rows = [{"step": i} | dict.fromkeys(names, 1 / i) for i in (1, 2, 3)]
    plots.draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
