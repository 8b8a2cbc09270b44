"""Checkpoints that cannot be read or written are told from whole ones."""

import errno
import os

import chex
import jax
import jax.numpy as jnp
import pytest

from gumbax.search.store.checkpoint import Checkpoints
from gumbax.search.store.errors import SearchError
from tests import helpers
from tests.helpers import sweep
from tests.search.small_run import files

# Tasks of orbax, when a checkpoint cannot be read.
pytestmark = [*helpers.LEAVES_OBJECTS_BEHIND]

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


@pytest.mark.parametrize("how", sweep(["cut"], ["empty", b"\xff" * 100, b"[]", b"{}"]))
def test_name_of_the_run_that_cannot_be_read(checkpoints, how):
    for path in (checkpoints / "2" / "run").iterdir():
        damage(path, how)
    before = files(checkpoints)
    with pytest.raises(SearchError, match="find a whole checkpoint") as caught:
        restore(checkpoints)
    assert "resumes from that of step 1" in str(caught.value)
    assert files(checkpoints) == before


@pytest.mark.parametrize("how", sweep(["cut"], ["empty", b"\xff" * 100]))
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
    sweep(
        [STATE | {"weights": jnp.zeros((2, 3))}],  # another shape
        [STATE | {"more": jnp.zeros(2)}, {"step": STATE["step"]}],
    ),
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


def test_arrays_of_the_template_are_not_used(checkpoints):
    template = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), STATE)
    chex.assert_trees_all_equal(restore(checkpoints, template)[1], state_at(2))
