"""The page of a run: whole, self-contained, and made of whatever is there."""

import html.parser
import json
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from gumbax.search.command import cli
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.report import charts, gap, page, run_folder
from gumbax.search.report.comparison import compare
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.store.errors import SearchError
from tests.search.report.test_comparison import write_run

SPACE = CellSpace("<mine>", ("none", "skip_connect", "nor_conv_3x3"), num_nodes=3)
DEEP = "[" * 100_000
VOID = {"meta", "input", "img", "link", "br"}


class Document(html.parser.HTMLParser):
    """Fails on elements that are not closed in order; collects what loads something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.names = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [v for k, v in attributes if k in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path):
    """The folder of a search in its third epoch."""
    out = write_run(tmp_path / "run", dataset="<digits>.npz", epochs=3, flip=True)
    report = (out / "report.json").read_text()
    (out / "report.json").unlink()
    run_folder.write_space(out, SPACE, {})
    record = {"options": json.loads(report)["options"], "versions": {"jax": "1.2.3"}}
    (out / "run.json").write_text(json.dumps(record))
    for name, row in (
        ("metrics", lambda i: {"epoch": i, "loss": 2.0 / i, "accuracy": 0.1 * i}),
        ("choices", lambda i: {"epoch": i, "probabilities": {"cell": frame(i)}}),
    ):
        text = "".join(json.dumps(row(i)) + "\n" for i in (1, 2, 3))
        (out / f"{name}.jsonl").write_text(text)
    return out, report


def frame(epoch):
    return np.random.default_rng(epoch).dirichlet(np.ones(3), 3).tolist()


def written(folders, path, **options):
    page.write_page(folders, path, **options)
    text = path.read_text("utf-8")
    loaded = Document(text).loaded
    assert all(source.startswith("data:") for source in loaded)
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    for svg in re.findall(r"<svg.*?</svg>", text):
        ET.fromstring(svg)
    return text


def test_search_is_shown_while_it_runs(run, tmp_path):
    out, _ = run
    text = written([out], tmp_path / "p.html", running=True)
    assert "3 epochs so far" in text
    assert '<meta http-equiv="refresh"' in text
    assert "&lt;mine&gt;" in text
    assert "gumbax search &#x27;&lt;digits&gt;.npz&#x27;" in text
    assert "--epochs 3 --flip" in text
    assert "1.2.3" in text
    assert "epoch 2: 1<" in text  # the loss under the pointer


def test_command_is_one_for_the_shell():
    options = {"dataset": "my data.npz", "flip": True, "limit": None, "seed": 0}
    options |= {"constant_architectures": False}
    text = run_folder.command(options, tmp := Path("runs/it's"))
    words = shlex.split(text)
    assert words[:3] == ["gumbax", "search", "my data.npz"]
    given = vars(cli.parser().parse_args(words[1:]))
    assert given == given | {k: v for k, v in options.items() if v is not None}
    assert given["out"] == tmp


def test_search_that_python_makes_is_named_and_has_no_command(run, tmp_path):
    out, _ = run
    (out / "run.json").unlink()
    run_folder.write_space(out, SPACE, {"method": "mine", "seed": 7})
    text = written([out], tmp_path / "p.html", running=True)
    assert "mine, seed 7" in text
    assert "gumbax search" not in text


def test_slider_has_the_choices_of_every_epoch(run, tmp_path):
    out, _ = run
    text = written([out], tmp_path / "p.html")
    (frames,) = re.findall(r'data-frames="([^"]*)"', text)
    frames = json.loads(html.unescape(frames))
    assert [epoch for epoch, *_ in frames] == [1, 2, 3]
    for epoch, *values in frames:
        np.testing.assert_allclose(values, np.ravel(frame(epoch)), atol=6e-4)
    assert text.count("<i ") == 9
    assert 'max="2" value="2"' in text


def test_long_searches_have_fewer_frames_and_the_last(run, tmp_path):
    out, _ = run
    rows = [{"epoch": i, "probabilities": {"cell": frame(i)}} for i in range(1, 1001)]
    (out / "choices.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = written([out], tmp_path / "p.html")
    (frames,) = re.findall(r'data-frames="([^"]*)"', text)
    frames = json.loads(html.unescape(frames))
    assert len(frames) <= 201
    assert frames[-1][0] == 1000


def test_finished_run_says_gap_rank_and_what_is_kept(run, tmp_path):
    out, report = run
    (out / "report.json").write_text(report)
    genotype = Genotype.from_nasbench201(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|", space=SPACE.name
    )
    (out / "genotype.json").write_text(genotype.to_json())
    (out / "cell.svg").write_text("<svg/>")
    text = written([out], tmp_path / "p.html")
    assert "refresh" not in text
    assert "nor_conv_3x3(in)" in text
    assert "data:image/svg+xml;base64,PHN2Zy8+" in text
    # (argmax - 1 + argmax + 3) / 2 is what was drawn: a point above.
    assert "(straight-through network) to what is kept (argmax): -1.00 points" in text
    assert "1 of 3; by chance as good or better with probability 0.33" in text
    for row in gap.from_json(json.loads(report)["rows"]):
        assert f"<th>{row.name}</th>" in text


def test_runs_stand_side_by_side(run, tmp_path):
    out, report = run
    (out / "report.json").write_text(report)
    other = write_run(
        tmp_path / "other", seed=1, dataset="<digits>.npz", method="darts"
    )
    compare([out, other], tmp_path / "all")
    text = (tmp_path / "all/report.html").read_text()
    Document(text)
    assert text.count('<section class="run">') == 2
    assert "gumbel: From what was trained (straight-through network)" in text
    assert "darts: From what was trained (soft network)" in text


def test_accuracy_stands_against_every_cost(run, tmp_path):
    out, report = run
    content = json.loads(report)
    content["architectures"] = [
        {"name": name, "accuracy": accuracy, "costs": {"weights": cost}}
        for name, accuracy, cost in (
            ("derived", 95.0, 200),
            ("random 1", 90.0, 100),
            ("random 2", 80.0, 150),
            ("nor_conv_3x3 everywhere", 96.0, 900),
        )
    ]
    (out / "report.json").write_text(json.dumps(content))
    text = written([out], tmp_path / "p.html")
    assert "gumbel, seed 0, random 2: 80.00 % at 150" in text
    front = text.split("Nothing beats ")[1].split("</p>")[0]
    assert [one.split(": ")[0] for one in front.split("; ")] == [
        "gumbel, seed 0, random 1",
        "gumbel, seed 0, derived",
        "gumbel, seed 0, nor_conv_3x3 everywhere",
    ]
    assert 'class="front"' in text


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"cells": 3}', DEEP])
def test_whatever_is_missing_or_damaged_is_left_out_or_named(content, run, tmp_path):
    out, report = run
    (out / "report.json").write_text(report)
    for name in ("run.json", "space.json", "genotype.json"):
        (out / name).unlink(missing_ok=True)
        if content is not None:
            (out / name).write_text(content)
        assert "argmax, inherited weights" in written([out], tmp_path / "p.html")
    for name in ("metrics.jsonl", "choices.jsonl"):
        (out / name).write_text("3\n")
        with pytest.raises(SearchError, match=f"`{name}` must have in every line"):
            written([out], tmp_path / "p.html")
        (out / name).unlink()


def test_choices_of_another_space_are_left_out(run, tmp_path):
    out, _ = run
    row = {"epoch": 1, "probabilities": {"cell": [[0.5, 0.5]], "other": [[1.0]]}}
    (out / "choices.jsonl").write_text(json.dumps(row) + "\n")
    assert "data-frames=" not in written([out], tmp_path / "p.html")


def test_curves_pass_through_their_points():
    points = [(1.0, 0.0), (2.0, 10.0), (3.0, float("nan")), (4.0, 5.0)]
    root = ET.fromstring(charts.lines("Loss", {"weights": points}))
    (line,) = [e for e in root.iter("path") if "line" in e.get("class")]
    assert re.sub(r"[-\d. ]", "", line.get("d")) == "MLM"  # interrupted at NaN
    dots = list(root.iter("circle"))
    assert [dot.find("title").text for dot in dots] == [
        "weights, epoch 1: 0",
        "weights, epoch 2: 10",
        "weights, epoch 4: 5",
    ]
    x, y = ([float(dot.get(c)) for dot in dots] for c in ("cx", "cy"))
    assert y[0] - y[1] == pytest.approx(2 * (y[0] - y[2]), abs=0.2)
    assert x[2] - x[0] == pytest.approx(3 * (x[1] - x[0]), abs=0.2)


def test_charts_of_nothing_are_nothing():
    assert charts.lines("Loss", {"weights": [(1.0, float("nan"))]}) == ""
    assert charts.scatter("Rank", {}, "rank") == ""
    assert charts.legend(["alone"]) == ""


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (2.31, 2.36), (-3e5, 7e8), (1e-9, 4e-9), (5.0, 6.0)]
)
def test_ticks_are_round_and_few(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low - 1e-9 * abs(low) <= found[0]
    assert found[-1] <= high * (1 + 1e-9)
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert all(tick.is_integer() for tick in charts.ticks(1.0, 4.0, whole=True))
