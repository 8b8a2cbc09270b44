"""Genotypes and checkpoints that are damaged or of something else."""

import json
import sys

import jax.numpy as jnp
import pytest

from gumbax.search.command import start
from gumbax.search.command.options import Options
from gumbax.search.command.run import derive_again
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.report.pictures import draw
from gumbax.search.spaces.named import mlp_space
from gumbax.search.store.checkpoint import Checkpoints
from gumbax.search.store.errors import SearchError
from tests.search.small_run import GENOTYPE, refused, write_rows

# Folders of a search


def test_file_in_place_of_the_checkpoints(capsys, tmp_path):
    rows, out = write_rows(tmp_path), tmp_path / "run"
    start.record(out, Options(str(rows), train_epochs=1), start.RETRAIN)
    (out / "checkpoints").write_text("mine")
    path = tmp_path / "genotype.json"
    path.write_text(GENOTYPE.to_json())
    error = refused(capsys, "retrain", path, "--out", out, "--resume")
    assert "`--out` must have a folder for checkpoints, got the file" in error
    assert (out / "checkpoints").read_text() == "mine"


@pytest.mark.parametrize(
    ("dataset", "package"), [("mnist1d", "mnist1d"), ("digits", "sklearn")]
)
def test_package_that_is_missing_is_named_with_its_line(
    capsys, tmp_path, monkeypatch, dataset, package
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.data", None)
    monkeypatch.setitem(sys.modules, f"{package}.datasets", None)
    out = tmp_path / "run"
    error = refused(capsys, "search", dataset, "--out", out)
    assert f"needs {package}" in error
    assert 'pip install "gumbax[search]"' in error
    assert not out.exists()


def test_run_without_a_checkpoint_is_not_derived(capsys, tmp_path):
    rows, out = write_rows(tmp_path), tmp_path / "run"
    start.record(out, Options(str(rows)))
    error = refused(capsys, "derive", out)
    assert "`run` must have a checkpoint, got none in" in error
    assert "Search first: `gumbax search --resume --out`" in error
    assert not (out / "genotype.json").exists()


@pytest.mark.parametrize("command", ["derive", "plot"])
def test_folder_of_something_else_is_refused(capsys, tmp_path, command):
    for path in (tmp_path, tmp_path / "absent"):
        error = refused(capsys, command, path)
        assert "`run` must have its options in run.json" in error


def test_rule_that_is_not_known_is_refused(capsys, tmp_path):
    error = refused(capsys, "derive", tmp_path, "--rule", "best")
    assert "`--rule` must be a known one, got 'best'. Known: argmax" in error


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"space": "mlp"',
        '{"space": "mlp", "cells": {"layers": [["relu", 1, 0]]}}',
        '{"space": "mlp", "cells": {"layers": [["conv", 0, 1]]}}',
        '{"space": "mlp", "cells": {"layers": [["relu", 0, 2]]}}',
        '{"space": "mlp", "cells": {"layers": [["relu", 0, 1], ["relu", 0, 1]]}}',
        '{"space": "mlp", "cells": {"normal": [["relu", 0, 1]]}}',
        '{"space": "darts", "cells": {"layers": [["relu", 0, 1]]}}',
    ],
)
def test_genotype_in_a_folder_that_cannot_be_drawn(tmp_path, text):
    (tmp_path / "genotype.json").write_text(text)
    with pytest.raises(SearchError, match=r"`genotype\.json` must be of the space mlp"):
        draw(tmp_path, mlp_space())
    assert [path.name for path in tmp_path.iterdir()] == ["genotype.json"]


def test_row_that_is_damaged_is_named_but_for_a_last_half(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "gumbax.search.report.plots.draw_curves", lambda r, p: seen.append(r)
    )
    good = [{"epoch": 1, "seconds": 1.0}, {"epoch": 2, "seconds": 2.5}]
    text = "".join(json.dumps(row) + "\n" for row in good)
    (tmp_path / "metrics.jsonl").write_text(text + '{"epoch": 3, "lo')
    draw(tmp_path, mlp_space())
    assert seen.pop() == good
    for damaged in ("[3]", "\0", "3", '{"a": 1}'):
        rows = [damaged, '{"epoch": 4}']
        (tmp_path / "metrics.jsonl").write_text(text + "\n".join(rows) + "\n")
        with pytest.raises(SearchError, match=r"in line 3 of .*metrics\.jsonl"):
            draw(tmp_path, mlp_space())
    (tmp_path / "metrics.jsonl").write_text("")
    draw(tmp_path, mlp_space())
    assert not seen


def test_derivation_reads_the_checkpoint_of_its_own_run_only(tmp_path):
    rows, out = write_rows(tmp_path), tmp_path / "run"
    start.record(out, Options(str(rows)))
    made = Checkpoints(out / "checkpoints", "another")
    made.save(1, {"step": jnp.int32(0)})
    made.close()
    with pytest.raises(SearchError, match="got one of run another in"):
        derive_again(out)


def test_weights_of_an_architecture_of_another_space_are_refused():
    other = Genotype("mlp", {"layers": (("relu", 0, 1), ("relu", 0, 2))})
    with pytest.raises(ValueError, match="0->2 of 'layers', which does not exist"):
        other.weights(mlp_space())
    with pytest.raises(ValueError, match="one of the space 'mlp'"):
        GENOTYPE.index(mlp_space_named("other"))


def mlp_space_named(name):
    return type(mlp_space())(**vars(mlp_space()) | {"name": name})
