import signal

import chex
import jax
import jax.numpy as jnp
import pytest

from gumbax.search.store.checkpoint import Checkpoints
from gumbax.search.store.errors import SearchError
from tests import helpers

# Tasks of orbax, when a checkpoint cannot be read.
pytestmark = [*helpers.LEAVES_OBJECTS_BEHIND]


@pytest.fixture
def state():
    leaves = {
        "step": jnp.int32(7),
        "weights": jax.random.normal(jax.random.key(0), (9,)),
    }
    return leaves | {"low": jnp.ones((2, 3), jnp.bfloat16), "none": None}


@pytest.fixture
def folder(tmp_path, state):
    """Checkpoints of steps 1, 2 and 3."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", "run")
    for step in (1, 2, 3):
        checkpoints.save(step, state | {"step": jnp.int32(step)})
    checkpoints.close()
    return tmp_path / "checkpoints"


def restore(folder, state, run_id="run"):
    checkpoints = Checkpoints(folder, run_id)
    try:
        return checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
    finally:
        checkpoints.close()


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_no_checkpoint(tmp_path, state):
    assert restore(tmp_path / "checkpoints", state) is None


def test_round_trip_is_exact_and_the_last_two_are_kept(folder, state):
    step, restored = restore(folder, state)
    assert step == 3
    expected = state | {"step": jnp.int32(3)}
    chex.assert_trees_all_equal(restored, expected)
    chex.assert_trees_all_equal_dtypes(restored, expected)
    assert sorted(p.name for p in folder.iterdir() if p.name.isdigit()) == ["2", "3"]


@pytest.fixture
def _interruptible():
    """Shells start background processes with ctrl-C ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, usual) is signal.default_int_handler


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("presses", [1, 2])
def test_interrupt_waits_for_the_save_and_a_second_one_does_not(folder, state, presses):
    checkpoints = Checkpoints(folder, "run")
    save = checkpoints._manager.save

    def interrupted(*args, **options):
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
        save(*args, **options)

    checkpoints._manager.save = interrupted
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(4, state)
    checkpoints.close()
    assert restore(folder, state)[0] == {1: 4, 2: 3}[presses]


def test_unfinished_checkpoint_is_passed_over_and_removed(folder, state):
    half = folder / "4.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").write_text("half")
    assert restore(folder, state)[0] == 3
    assert not half.exists()


def test_checkpoint_of_another_run_is_refused(folder, state):
    before = files(folder)
    with pytest.raises(SearchError, match=r"one of run run in .*nothing was changed"):
        restore(folder, state, run_id="other")
    assert files(folder) == before


def test_truncated_checkpoint_is_refused_with_the_way_out(folder, state):
    for path in (folder / "3").rglob("*"):
        if path.is_file() and "state" in path.parts:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = files(folder)
    message = "Move that folder away: the run then resumes from that of step 2"
    with pytest.raises(SearchError, match=message):
        restore(folder, state)
    assert files(folder) == before
    (folder / "3").rename(folder.parent / "moved")
    assert restore(folder, state)[0] == 2


def test_checkpoint_without_its_run_is_refused(folder, state):
    for path in (folder / "3" / "run").iterdir():
        path.unlink()
    with pytest.raises(SearchError, match="find a whole checkpoint"):
        restore(folder, state)


def test_state_of_another_shape_is_refused(folder, state):
    with pytest.raises(SearchError, match="find a whole checkpoint"):
        restore(folder, state | {"weights": jnp.zeros(8)})
