"""A search of a person's own objects in a folder: their space, method and arrays."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.command import run
from gumbax.search.data.dataset import Dataset, Examples
from gumbax.search.loops.search import Search
from gumbax.search.loops.training import TrainingOptions
from gumbax.search.methods.methods import METHODS
from gumbax.search.report import gap
from gumbax.search.spaces.named import SPACES
from gumbax.search.store.errors import SearchError
from tests.search.conftest import CHAIN
from tests.search.small_run import files

MINE = dataclasses.replace(METHODS["gumbel"], name="mine", warmup=0.0)
TRAINING = TrainingOptions(num_epochs=1, batch_size=16)


class Stop(Exception):
    pass


def examples(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    return Examples(inputs=jnp.asarray(x), labels=jnp.arange(count) % 3)


@pytest.fixture(scope="module")
def dataset():
    return Dataset("mine", examples(64, 0), examples(30, 1), num_classes=3)


@pytest.fixture(scope="module")
def search(dataset):
    return Search(
        CHAIN, MINE, dataset.train, num_classes=3, num_epochs=3, batch_size=16, seed=5
    )


def in_folder(out, search, dataset, *, training=TRAINING, **options):
    comparisons = {"random_architectures": 1, "constant_architectures": False}
    options = comparisons | options
    return run.run_search(out, search, dataset, training=training, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, search, dataset):
    """The folder and the report of a search that nobody stopped, and its epochs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    seen = []
    text = in_folder(
        out, search, dataset, on_epoch=lambda state, row: seen.append(row["epoch"])
    )
    return out, text, seen


def test_own_search_leaves_a_report(whole):
    out, text, seen = whole
    assert seen == [1, 2, 3]
    assert "Gap report: method mine, seed 5; mine, chain (3 architectures), 3" in text
    content = json.loads((out / "report.json").read_text())
    assert content["options"] == {"method": "mine", "seed": 5, "dataset": "mine"}
    names = [row["name"] for row in content["rows"]]
    assert names[-2:] == [gap.RETRAINED, gap.RANDOM]
    files = ("metrics.jsonl", "choices.jsonl", "genotype.json", "gap.svg")
    for name in (*files, "report.html"):
        assert (out / name).exists(), name


@pytest.mark.exhaustive
def test_constant_architectures_are_trained_where_there_are_random_ones(
    whole, search, dataset, tmp_path
):
    """What was trained before is not trained again."""
    out = shutil.copytree(whole[0], tmp_path / "run")
    text = in_folder(out, search, dataset, constant_architectures=None)
    lines = (out / "trainings.jsonl").read_text().splitlines()
    rows = [json.loads(one) for one in lines]
    (choice,) = search.space.choices.values()
    constant = [f"{name} everywhere" for name in choice.primitives if name != "none"]
    assert [row["name"] for row in rows] == ["derived", "random 1", *constant]
    assert all(name in text for name in constant)
    assert "by chance as good or better with probability" in text
    assert "mine, chain (3 architectures), " in text
    none = in_folder(
        *(out, search, dataset), constant_architectures=None, random_architectures=0
    )
    assert "everywhere" not in none


def test_own_search_resumes_to_the_same_report(
    whole, search, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "SECONDS_PER_CHECKPOINT", 0.0)
    out, _, _ = whole
    seen = []

    def stop(state, row):
        raise Stop

    with pytest.raises(Stop):
        in_folder(tmp_path, search, dataset, on_epoch=stop)
    assert not (tmp_path / "report.json").exists()
    in_folder(
        tmp_path, search, dataset, on_epoch=lambda state, row: seen.append(row["epoch"])
    )
    assert seen == [2, 3]
    for name in ("report.json", "genotype.json", "trainings.jsonl"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.exhaustive
def test_other_trainings_are_done_and_equal_ones_are_not(
    whole, search, dataset, tmp_path
):
    out = shutil.copytree(whole[0], tmp_path / "run")
    first = (out / "trainings.jsonl").read_text()
    in_folder(out, search, dataset)
    assert (out / "trainings.jsonl").read_text() == first
    longer = dataclasses.replace(TRAINING, num_epochs=2)
    in_folder(out, search, dataset, training=longer)
    lines = (out / "trainings.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["name"] for row in rows] == ["derived", "random 1"] * 2


def test_another_method_of_the_name_does_not_go_on_from_its_checkpoints(whole, dataset):
    other = dataclasses.replace(MINE, warmup=0.5)
    again = Search(
        CHAIN, other, dataset.train, num_classes=3, num_epochs=3, batch_size=16, seed=5
    )
    with pytest.raises(SearchError, match="find a checkpoint of this run"):
        in_folder(whole[0], again, dataset)


def test_other_data_do_not_go_on_from_its_checkpoints(whole, dataset):
    out, _, _ = whole
    other = dataclasses.replace(dataset, train=examples(64, 7))
    again = Search(
        CHAIN, MINE, other.train, num_classes=3, num_epochs=3, batch_size=16, seed=5
    )
    before = files(out)
    with pytest.raises(SearchError, match="find a checkpoint of this run"):
        in_folder(out, again, other)
    assert files(out) == before


def test_fingerprint_is_that_of_the_examples(dataset):
    again = Dataset("other", examples(64, 0), examples(30, 1), num_classes=3)
    assert again.fingerprint() == dataset.fingerprint()
    x = dataset.test.inputs.at[3, 2].add(1e-6)
    labels = dataset.train.labels.at[0].set(2)
    for change in (
        {"test": dataclasses.replace(dataset.test, inputs=x)},
        {"train": dataclasses.replace(dataset.train, labels=labels)},
    ):
        changed = dataclasses.replace(dataset, **change)
        assert changed.fingerprint() != dataset.fingerprint()


@pytest.mark.exhaustive
def test_network_that_is_derived_again_has_statistics_of_its_own(
    dataset, tmp_path, monkeypatch
):
    """It is saved by `gumbax derive --export`, and must predict one example alone."""
    # The search of the other tests, whose programs are compiled.
    monkeypatch.setitem(SPACES, "mlp", lambda: CHAIN)
    path = tmp_path / "mine.npz"
    parts = {"train": dataset.train, "test": dataset.test}
    inputs = {f"x_{name}": part.inputs for name, part in parts.items()}
    labels = {f"y_{name}": part.labels for name, part in parts.items()}
    np.savez(path, **inputs, **labels)
    options = run.Options(
        str(path),
        space="mlp",
        seed=5,
        epochs=3,
        warmup=0.0,
        train_epochs=1,
        batch_size=16,
        random_architectures=0,
    )
    out = tmp_path / "run"
    run.run(out, options)
    calibrated = object()
    monkeypatch.setattr(gap, "calibrate", lambda network, train, key: calibrated)
    assert run.derive_again(out)[2] is calibrated
