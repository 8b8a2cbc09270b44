"""Training of one architecture in a folder: sources, results, stops and resumption."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import jax.export
import numpy as np
import pytest

from gumbax.search.command import retrain, start
from gumbax.search.command.options import Options
from gumbax.search.command.progress import Silent
from gumbax.search.command.retrain import read_genotype
from gumbax.search.data import datasets
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops.evaluation import accuracy
from gumbax.search.spaces.named import SPACES
from gumbax.search.store.errors import SearchError
from tests.search.small_run import (
    GENOTYPE,
    OTHER,
    files,
    full_disk,
    refused,
    write_rows,
)

NUM_EPOCHS = 4
RESNET = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
PAIRS = "[('sep_conv_3x3', 1), ('skip_connect', 0)]"
DARTS = (
    f"Genotype(normal={PAIRS}, normal_concat=[2], reduce={PAIRS}, reduce_concat=[2])"
)


class Stop(Exception):
    pass


class StoppedAt(Silent):
    """Stops the process of a training after an epoch, and keeps what it was told."""

    def __init__(self, epoch=None):
        self.epoch = epoch
        self.told = []

    @contextlib.contextmanager
    def phase(self, name, total):
        assert total == NUM_EPOCHS

        def advance(done, **metrics):
            self.told.append((done, metrics.get("loss")))
            if done == self.epoch:
                raise Stop

        yield advance


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def options(rows):
    return Options(str(rows), train_epochs=NUM_EPOCHS, batch_size=16, drop_path=0.3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, options):
    """Folder and accuracy of a training that nobody stopped, and what it told."""
    out = tmp_path_factory.mktemp("whole") / "run"
    progress = StoppedAt()
    return out, retrain.retrain(out, GENOTYPE, options, progress), progress.told


def scores_of(out, x):
    """Of the saved network, read as a user would."""
    content = bytearray((out / "network.stablehlo").read_bytes())
    return np.asarray(jax.export.deserialize(content).call(x))


@pytest.mark.exhaustive
def test_result_is_that_of_the_trained_network(whole, options):
    out, result, _ = whole
    content = json.loads((out / "result.json").read_text())
    assert content["test_accuracy"] == result
    assert content["genotype"] == str(GENOTYPE)
    assert content["options"]["train_epochs"] == NUM_EPOCHS
    assert content["options"]["space"] == "mlp"
    assert Genotype.load(out / "genotype.json") == GENOTYPE
    assert start.read(out, start.RETRAIN)[0] == options


def test_saved_network_gives_the_scores_of_the_result(whole, options, monkeypatch):
    """The last checkpoint has the same weights."""
    out, result, _ = whole
    test = datasets.load(options.dataset).test
    scores = scores_of(out, test.inputs)
    assert accuracy(scores.argmax(axis=-1), test.labels) == result
    kept = []

    def keep(network, inputs):
        kept.append(np.asarray(network(inputs)))
        return kept[0].argmax(axis=-1)

    monkeypatch.setattr(retrain, "predict", keep)
    monkeypatch.setattr(retrain, "export", lambda *arguments: None)
    assert retrain.retrain(out, GENOTYPE, options) == result
    np.testing.assert_allclose(scores, kept[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(scores) > 0.1


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_stopped_training_resumes_to_the_same_result_bit_for_bit(
    whole, options, tmp_path, monkeypatch, seconds
):
    """From the last checkpoint, or from the start where there is none yet."""
    monkeypatch.setattr(retrain, "SECONDS_PER_CHECKPOINT", seconds)
    expected, result, told = whole
    out = tmp_path / "run"
    with pytest.raises(Stop):
        retrain.retrain(out, GENOTYPE, options, StoppedAt(2))
    assert not (out / "result.json").exists()
    given = start.settle(out, {}, resume=True, command=start.RETRAIN)
    progress = StoppedAt()
    assert retrain.retrain(out, GENOTYPE, given, progress) == result
    assert progress.told == ([(2, None), *told[2:]] if seconds == 0 else told)
    for name in ("result.json", "genotype.json"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    x = datasets.load(options.dataset).train.inputs
    np.testing.assert_array_equal(scores_of(out, x), scores_of(expected, x))


def test_stopped_training_of_another_genotype_is_refused(options, tmp_path):
    """Before its first checkpoint too, which would name the run."""
    out = tmp_path / "run"
    with pytest.raises(Stop):
        retrain.retrain(out, GENOTYPE, options, StoppedAt(1))
    with pytest.raises(SearchError, match=f"`genotype` must be that of {out}"):
        retrain.retrain(out, OTHER, options)
    assert Genotype.load(out / "genotype.json") == GENOTYPE


def test_finished_training_is_not_done_again(whole, options):
    out, result, _ = whole
    before = (out / "result.json").read_bytes()
    progress = StoppedAt()
    assert retrain.retrain(out, GENOTYPE, options, progress) == result
    assert progress.told == [(NUM_EPOCHS, None)]
    assert (out / "result.json").read_bytes() == before


# Where a genotype comes from


def test_genotype_of_a_file_a_folder_and_a_text(whole, tmp_path):
    out, *_ = whole
    assert read_genotype(str(out)) == GENOTYPE
    assert read_genotype(str(out / "genotype.json")) == GENOTYPE
    for text, expected in (
        (RESNET, Genotype.from_nasbench201(RESNET)),
        (DARTS, Genotype.from_darts(DARTS)),
        (f"MINE = {DARTS}", Genotype.from_darts(DARTS)),
    ):
        assert read_genotype(text) == expected
        path = tmp_path / "text.txt"
        path.write_text(f"\n{text}\n")
        assert read_genotype(str(path)) == expected


def test_text_of_a_cell_is_of_the_space_that_is_asked_for():
    assert read_genotype(RESNET).space == "nasbench201"
    assert read_genotype(RESNET, "small_images").space == "small_images"
    for other in ("mlp", "darts", "no_such_space"):
        assert read_genotype(RESNET, other).space == "nasbench201"


def test_text_longer_than_the_name_of_a_file():
    cells = {"normal": PAIRS, "reduce": PAIRS}
    pairs = ", ".join(["('skip_connect', 0), ('skip_connect', 1)"] * 40)
    fields = [f"{n}=[{pairs}], {n}_concat=range(2, 42)" for n in cells]
    text = f"Genotype({', '.join(fields)})"
    assert len(text) > 2000
    assert read_genotype(text) == Genotype.from_darts(text)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "nonsense",
        "no/such.json",
        "|none~1|",
        "normal",
        DARTS[:-1],
        "\0",
        "x" * 5000,
    ],
)
def test_text_that_is_nothing(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # "" is the current folder
    with pytest.raises(SearchError) as caught:
        read_genotype(source)
    message = str(caught.value)
    assert "`genotype` must be a genotype file, the folder of a search" in message
    assert repr(source[:80]) in message
    assert message.endswith("Pass the genotype.json that a search wrote.")


@pytest.mark.parametrize("content", [b"", b"hello", b'{"space": 3}', b"\x89PNG\xff"])
def test_file_that_is_no_genotype_is_named(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(SearchError, match=re.escape(repr(str(path)))) as caught:
        read_genotype(str(path))
    assert "no such file" not in str(caught.value)


def test_folder_without_a_genotype_is_named(tmp_path):
    with pytest.raises(SearchError, match=re.escape(str(tmp_path))):
        read_genotype(str(tmp_path))


# Refusals


def test_genotype_of_another_space_is_refused_before_anything_is_written(
    capsys, rows, tmp_path
):
    out = tmp_path / "run"
    arguments = ["retrain", RESNET, rows, "--out", out, "--space", "mlp"]
    error = refused(capsys, *arguments)
    assert "`genotype` must be of the space mlp" in error
    assert "one of the space 'nasbench201'" in error
    assert "Change --space." in error
    assert not out.exists()


def test_genotype_of_a_space_without_a_name_is_refused(capsys, rows, tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(Genotype("mine", {"layers": (("conv", 0, 1),)}).to_json())
    error = refused(capsys, "retrain", path, rows, "--out", tmp_path / "run")
    assert "`--space` must be a known one, got 'mine'. Known: small_images" in error


def test_genotype_that_its_own_space_does_not_hold(capsys, rows, tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(Genotype("mlp", {"layers": (("conv", 0, 1),)}).to_json())
    error = refused(capsys, "retrain", path, rows, "--out", tmp_path / "run")
    assert "'conv' on the edge 0->1" in error


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(whole[0], tmp_path / "run")


def resumed(capsys, out, source=None):
    before = files(out)
    source = out / "genotype.json" if source is None else source
    error = refused(capsys, "retrain", source, "--out", out, "--resume")
    assert files(out) == before
    return error


def test_resume_with_another_architecture_is_refused(capsys, finished, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(OTHER.to_json())
    error = resumed(capsys, finished, path)
    assert "`genotype` must be that of" in error
    assert "Pass that one, or another --out." in error


def test_checkpoints_of_another_run_are_refused(capsys, finished):
    path = finished / "run.json"
    content = json.loads(path.read_text())
    content["options"]["seed"] = 1
    path.write_text(json.dumps(content))
    assert "find a checkpoint of this run" in resumed(capsys, finished)


@pytest.mark.parametrize("part", ["state", "run"])
def test_damaged_checkpoint_is_refused_with_the_way_out(capsys, finished, part):
    place = finished / "checkpoints" / str(NUM_EPOCHS)
    for path in (place / part).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    error = resumed(capsys, finished)
    assert "find a whole checkpoint" in error
    assert str(place) in error
    assert "Move that folder away: the run then resumes from" in error


def test_full_disk_leaves_the_saved_network_whole(capsys, finished, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", full_disk(Path.write_bytes))
    error = resumed(capsys, finished)
    assert "No space left on device" in error
    assert "Pass --resume" in error


def test_folder_of_a_search_is_not_retrained_in(capsys, finished):
    path = finished / "run.json"
    content = json.loads(path.read_text())
    content["command"] = start.SEARCH
    path.write_text(json.dumps(content))
    error = resumed(capsys, finished)
    assert "`run` must be the folder of `gumbax retrain`" in error
    assert "of `gumbax search`" in error


def test_loss_that_is_not_finite_is_said(capsys, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(
        retrain.Training, "epoch", lambda self, state: (state, np.float32(np.nan))
    )
    path = tmp_path / "genotype.json"
    path.write_text(GENOTYPE.to_json())
    error = refused(capsys, "retrain", path, rows, "--out", tmp_path / "run")
    assert "The loss became nan" in error
    assert "Lower the learning rate" in error


def test_sequences_of_ones_own_are_read_as_such(tmp_path, monkeypatch):
    """By the space of the genotype, where no `--space` says so."""
    path, seen = tmp_path / "mine.npz", []
    x = np.zeros((6, 40, 3), np.float32)
    np.savez(path, x_train=x, y_train=np.arange(6) % 2, x_test=x, y_test=[0, 1] * 3)

    def stopped(space, genotype, train, **options):
        seen.append((space.name, train.inputs.shape))
        raise Stop

    monkeypatch.setattr(retrain, "Training", stopped)
    genotype = Genotype.from_index(0, SPACES["sequences"]())
    with pytest.raises(Stop):
        retrain.retrain(tmp_path / "run", genotype, Options(str(path)))
    assert seen == [("sequences", (6, 40, 3))]
