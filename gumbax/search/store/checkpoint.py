"""Saves and restores the state of a search, whole or not at all."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gumbax.search.store.errors import SearchError, search_error

PyTree = Any


class Checkpoints:
    """The checkpoints of one run, the last two kept.

    Saving is atomic: a process that is killed while it writes leaves the checkpoint
    before. The state is saved as its arrays in order, so that files do not depend on
    how a Flax version nests them.

    Args:
        folder: where they are.
        run_id: name of the run that they belong to.

    Raises:
        SearchError: there is a file in place of the folder.
    """

    def __init__(self, folder: Path, run_id: str):
        import orbax.checkpoint as ocp  # an extra, slow to import

        self._ocp = ocp
        self._folder = folder.absolute()
        self._run_id = run_id
        if self._folder.exists() and not self._folder.is_dir():
            must, got = "have a folder for checkpoints", f"the file {self._folder}"
            raise search_error("--out", must, got, "Move that file away.")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, state: PyTree) -> None:
        """Saves in the background. Ctrl-C takes effect after it.

        Raises:
            SearchError: this checkpoint, or the one before, cannot be written.
        """
        args = self._ocp.args
        with _whole(), self._writing():
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave(_arrays(state)),
                    run=args.JsonSave({"run_id": self._run_id}),
                ),
            )

    def restore(self, template: PyTree) -> tuple[int, PyTree] | None:
        """Returns the last checkpoint as (step, state), None if there is none.

        Args:
            template: a state of the same search; its values are not used.

        Raises:
            SearchError: the checkpoint is truncated, or of another run.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        place = self._folder / str(step)
        args = self._ocp.args
        expected = _arrays(template)
        try:
            run = self._manager.restore(
                step, args=args.Composite(run=args.JsonRestore())
            ).run
            found_id = run["run_id"]
        except Exception as error:
            raise self._unreadable(place, error) from error
        if found_id != self._run_id:
            raise search_error(
                "--resume",
                f"find a checkpoint of this run ({self._run_id})",
                f"one of run {found_id} in {place}",
                "Put the folder back where it came from; nothing was changed.",
            )
        try:
            restored = self._manager.restore(
                step,
                args=args.Composite(state=args.StandardRestore(_shapes(expected))),
            ).state
            arrays = [restored[name] for name in expected]
        except Exception as error:
            raise self._unreadable(place, error) from error
        for name, array in zip(expected, arrays, strict=True):
            want = expected[name]
            if array.shape != want.shape or array.dtype != want.dtype:
                raise self._unreadable(place, ValueError(f"array {name} differs"))
        leaves = [jax.numpy.asarray(np.asarray(array)) for array in arrays]
        return step, jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _unreadable(self, place: Path, error: Exception) -> SearchError:
        others = [s for s in self._manager.all_steps() if str(s) != place.name]
        fallback = f"that of step {max(others)}" if others else "the first step"
        return search_error(
            "--resume",
            "find a whole checkpoint",
            f"one that cannot be read in {place} ({_reason(error)})",
            f"Move that folder away: the run then resumes from {fallback}. Nothing was "
            "changed.",
        )

    def close(self) -> None:
        """Waits until everything is written, a first ctrl-C too.

        Raises:
            SearchError: the last checkpoint cannot be written.
        """
        with _whole():
            try:
                with self._writing():
                    self._manager.wait_until_finished()
            finally:
                self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax raises many kinds, a full disk as ValueError
            raise search_error(
                "--out",
                "take a checkpoint",
                f"an error in {self._folder} ({_reason(error)})",
                "Make room, then pass --resume to go on from the last whole one.",
            ) from error


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Holds a first ctrl-C back until the end of the block; a second one goes through.

    A save of orbax that is interrupted leaves threads that wait for each other, and
    with them a process that never ends.
    """
    usual = signal.getsignal(signal.SIGINT)
    of_main_thread = threading.current_thread() is threading.main_thread()
    if not (of_main_thread and callable(usual)):
        yield
        return
    held = False

    def hold(number: int, frame: Any) -> None:
        nonlocal held
        if held:
            usual(number, frame)
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if held:
            usual(signal.SIGINT, None)


def _reason(error: Exception) -> str:
    """The end of its first line, where the system's own error is."""
    found = str(error).strip().splitlines() or [type(error).__name__]
    return found[0][-200:]


def _shapes(arrays: dict[str, jax.Array]) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
        for name, array in arrays.items()
    }


def _arrays(state: PyTree) -> dict[str, jax.Array]:
    leaves = jax.tree.leaves(state)
    return {f"array_{i:04d}": leaf for i, leaf in enumerate(leaves)}
