"""Genotypes and checkpoints that are damaged or of something else."""

import errno
import json
import os

import chex
import jax
import jax.numpy as jnp
import pytest

from gumbax.search.command.options import Options
from gumbax.search.command.run import derive_again, draw
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.spaces.named import mlp_space
from gumbax.search.store import folder
from gumbax.search.store.checkpoint import Checkpoints
from gumbax.search.store.errors import SearchError
from tests.search.small_run import GENOTYPE, files, refused, write_rows

# Checkpoints

STATE = {"step": jnp.int32(0), "weights": jnp.arange(6.0)}


@pytest.fixture
def checkpoints(tmp_path):
    """Of steps 1 and 2."""
    made = Checkpoints(tmp_path / "checkpoints", "run")
    for step in (1, 2):
        made.save(step, state_at(step))
    made.close()
    return tmp_path / "checkpoints"


def state_at(step):
    return {"step": jnp.int32(step), "weights": STATE["weights"] + step}


def restore(path, state=STATE, run_id="run"):
    made = Checkpoints(path, run_id)
    try:
        return made.restore(state)
    finally:
        made.close()


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(how, how))


@pytest.mark.parametrize("how", ["cut", "empty", b"\xff" * 100, b"[]", b"{}"])
def test_name_of_the_run_that_cannot_be_read(checkpoints, how):
    for path in (checkpoints / "2" / "run").iterdir():
        damage(path, how)
    before = files(checkpoints)
    with pytest.raises(SearchError, match="find a whole checkpoint") as caught:
        restore(checkpoints)
    assert "resumes from that of step 1" in str(caught.value)
    assert files(checkpoints) == before


@pytest.mark.parametrize("how", ["cut", "empty", b"\xff" * 100])
def test_state_that_cannot_be_read(checkpoints, how):
    for path in (checkpoints / "2" / "state").rglob("*"):
        if path.is_file():
            damage(path, how)
    with pytest.raises(SearchError, match="that of step 1"):
        restore(checkpoints)
    (checkpoints / "2").rename(checkpoints.parent / "away")
    step, found = restore(checkpoints)
    assert step == 1
    chex.assert_trees_all_equal(found, state_at(1))


def test_only_checkpoint_that_cannot_be_read(checkpoints):
    (checkpoints / "1").rename(checkpoints.parent / "away")
    for path in (checkpoints / "2" / "state").rglob("*"):
        if path.is_file():
            damage(path, "empty")
    with pytest.raises(SearchError, match="resumes from the first step"):
        restore(checkpoints)


@pytest.mark.parametrize(
    "state",
    [
        STATE | {"weights": jnp.zeros((2, 3))},  # another shape
        STATE | {"more": jnp.zeros(2)},
        {"step": STATE["step"]},
    ],
)
def test_state_of_another_version(checkpoints, state):
    """Another Flax or gumbax may have other arrays; none is taken for another."""
    with pytest.raises(SearchError, match="find a whole checkpoint"):
        restore(checkpoints, state)


def test_full_disk_at_a_checkpoint_is_said_and_the_one_before_is_kept(
    checkpoints, monkeypatch
):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made = Checkpoints(checkpoints, "run")
    monkeypatch.setattr(made._manager, "save", full)
    with pytest.raises(SearchError, match="`--out` must take a checkpoint") as caught:
        made.save(3, state_at(3))
    made.close()
    assert "No space left on device" in str(caught.value)
    assert str(checkpoints) in str(caught.value)
    assert "Make room, then pass --resume" in str(caught.value)
    step, found = restore(checkpoints)
    assert step == 2
    chex.assert_trees_all_equal(found, state_at(2))


def test_file_in_place_of_the_checkpoints(capsys, tmp_path):
    rows, out = write_rows(tmp_path), tmp_path / "run"
    folder.record(out, Options(str(rows), train_epochs=1), folder.RETRAIN)
    (out / "checkpoints").write_text("mine")
    path = tmp_path / "genotype.json"
    path.write_text(GENOTYPE.to_json())
    error = refused(capsys, "retrain", path, "--out", out, "--resume")
    assert "`--out` must have a folder for checkpoints, got the file" in error
    assert (out / "checkpoints").read_text() == "mine"


# Folders of a search


def test_run_without_a_checkpoint_is_not_derived(capsys, tmp_path):
    rows, out = write_rows(tmp_path), tmp_path / "run"
    folder.record(out, Options(str(rows)))
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


def test_rows_after_one_that_is_damaged_are_not_drawn(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "gumbax.search.report.plots.draw_curves", lambda r, p: seen.append(r)
    )
    good = [{"epoch": 1, "seconds": 1.0}, {"epoch": 2, "seconds": 2.5}]
    text = "".join(json.dumps(row) + "\n" for row in good)
    for damaged in ('{"epoch": 3, "lo', "[3]\n", "\x00\n", "3\n", '{"a": 1}\n'):
        (tmp_path / "metrics.jsonl").write_text(text + damaged + '{"epoch": 4}\n')
        draw(tmp_path, mlp_space())
        assert seen.pop() == good
    (tmp_path / "metrics.jsonl").write_text("")
    draw(tmp_path, mlp_space())
    assert not seen


def test_derivation_reads_the_checkpoint_of_its_own_run_only(tmp_path):
    rows, out = write_rows(tmp_path), tmp_path / "run"
    folder.record(out, Options(str(rows)))
    made = Checkpoints(out / "checkpoints", "another")
    made.save(1, STATE)
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


def test_arrays_of_the_template_are_not_used(checkpoints):
    template = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), STATE)
    chex.assert_trees_all_equal(restore(checkpoints, template)[1], state_at(2))
