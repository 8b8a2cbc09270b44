"""Sets by name, of arrays, of iterators; the real sets where they are there."""

import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from gumbax.search.command import cli, run
from gumbax.search.command.options import Options
from gumbax.search.data import datasets
from gumbax.search.store.errors import DataWarning, SearchError
from tests.search.data_files import (
    IDX_NAMES,
    assert_holds,
    idx,
    images,
    refused,
    small_arrays,
)

REAL = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture
def arrays():
    return small_arrays()


def test_unknown_name_lists_the_known_ones():
    refused("got 'digit'. Known: digits", "digit")


@pytest.mark.parametrize("source", ["no/such.npz", Path("digits"), "such.csv"])
def test_missing_path(source):
    refused("`dataset` must be an existing path", source)


def test_digits(digits):
    assert digits.train.inputs.shape == (1437, 8, 8, 1)
    assert digits.test.inputs.shape == (360, 8, 8, 1)
    assert (digits.train.inputs.min(), digits.train.inputs.max()) == (0, 1)
    counts = np.bincount(digits.test.labels, minlength=digits.num_classes)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    np.testing.assert_allclose(counts, np.bincount(labels) * 360 / 1797, atol=1)


def test_digits_are_split_as_ever(digits):
    """Results of earlier versions stay comparable: hash of the labels in order."""
    digest = hashlib.sha256(np.asarray(digits.test.labels).astype(np.uint8).tobytes())
    assert digest.hexdigest()[:16] == "70ee2850bb25b543"


def test_mnist1d_is_made_in_memory_and_leaves_numpy_as_it_was():
    np.random.seed(5)
    expected = np.random.uniform()
    np.random.seed(5)
    found = datasets.load("mnist1d", limit=500)
    assert np.random.uniform() == expected
    assert found.train.inputs.shape == (500, 40, 1)
    assert found.test.inputs.shape == (1000, 40, 1)
    np.testing.assert_allclose(np.bincount(found.test.labels), 100, atol=30)
    np.testing.assert_allclose(np.std(found.test.inputs), 1.0, atol=0.05)


def test_echoes_come_after_their_delay():
    """Where the code is added to itself after the delay, the sum is largest.

    A matched filter gives 7 with a deviation of .4 * sqrt(7) = 1.1 at pulse and echo;
    the label by chance would be right for a tenth.
    """
    found = datasets.load("echoes")
    assert found.train.inputs.shape == (2000, 96, 1)
    assert found.test.inputs.shape == (4000, 96, 1)
    for part in (found.train, found.test):
        labels = np.asarray(part.labels)
        assert (np.bincount(labels) == len(labels) / 10).all()
        signal = np.asarray(part.inputs)[..., 0]
        code = np.array([1, 1, 1, -1, -1, 1, -1])
        matched = np.lib.stride_tricks.sliding_window_view(signal, 7, axis=1) @ code
        pairs = [matched[:, : -9 - 8 * k] + matched[:, 9 + 8 * k :] for k in range(10)]
        told = np.argmax([pair.max(axis=1) for pair in pairs], axis=0)
        assert np.mean(told == labels) > 0.95
    fewer = datasets.load("echoes", limit=500)
    assert np.bincount(fewer.train.labels).tolist() == [50] * 10
    parts = (np.ravel(one.inputs[:2000]) for one in (found.train, found.test))
    assert abs(np.corrcoef(*parts)[0, 1]) < 0.1  # .5 with the same noise


LABELS = np.arange(6) % 2


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (
            np.zeros((6, 3, 8, 8), np.uint8),
            LABELS,
            r"shape \(\d, 3, 8, 8\) is taken as 3x8 pixels of 8 channels.*transpose",
        ),
        (
            np.full((6, 8, 8), 1000, np.uint16),
            LABELS,
            "uint16 up to 1000 are kept as they are.*pass them as uint8",
        ),
        (
            np.full((6, 8, 8, 3), 255.0),
            LABELS,
            "float64 up to 255 are kept as they are; only uint8 is divided",
        ),
        (np.zeros((6, 8, 8)), np.zeros(6, int), "y_train has one class only"),
        (
            np.zeros((6, 40, 3)),
            LABELS,
            "taken as images of 40x3 pixels. If it holds sequences, pass `sequences=T",
        ),
    ],
)
def test_data_that_are_probably_not_meant_give_a_line(x, y, told):
    with pytest.warns(DataWarning, match=told) as caught:
        datasets.from_arrays("mine", x, y, x[:0:-1], y[:0:-1])
    assert all("\n" not in str(one.message) for one in caught)


@pytest.mark.parametrize(
    "x",
    [
        np.full((6, 8, 8, 3), 255, np.uint8),
        np.full((6, 3, 8, 1), -4.5),  # 3 x 8 pixels, standardised
        np.full((6, 3, 3, 3), 1.0),
        np.full((6, 5), 1e6),  # features have any size
    ],
    ids=str,
)
def test_ordinary_data_give_none(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datasets.from_arrays("mine", x, LABELS, x, LABELS)


def test_command_says_it_in_one_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.npz"
    x = np.full((12, 8, 8), 255.0)
    np.savez(path, x=x, y=np.arange(12) % 2)
    monkeypatch.setattr(run, "run", lambda out, o, progress: str(run.load_data(o).name))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["search", str(path), "--out", str(tmp_path / "run")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gumbax: mine: x: float64 up to 255 are kept as they are;")


def test_limit_keeps_proportions_and_nests_and_leaves_the_test_set(digits):
    small, large = (datasets.load("digits", limit=n, seed=1) for n in (50, 200))
    assert (small.train.size, large.train.size) == (50, 200)
    assert images(small.train) < images(large.train) < images(digits.train)
    np.testing.assert_array_equal(small.test.inputs, digits.test.inputs)
    for dataset in (small, large):
        shares = np.bincount(dataset.train.labels) / dataset.train.size
        expected = np.bincount(digits.train.labels) / digits.train.size
        assert np.abs(shares - expected).max() * dataset.train.size <= 1.5
    other = datasets.load("digits", limit=50, seed=2)
    assert images(other.train) != images(small.train)


def test_limit_keeps_rare_classes(tmp_path):
    y = np.repeat(np.arange(3), [2, 100, 900])
    arrays = {"x_train": np.eye(1002), "y_train": y, "x_test": np.eye(1002)}
    np.savez(tmp_path / "rare.npz", **arrays, y_test=y)
    train = datasets.load(tmp_path / "rare.npz", limit=10).train
    counts = np.bincount(train.labels)
    assert (counts[0], counts.sum()) == (1, 10)
    rows = np.asarray(train.inputs).argmax(axis=1)
    np.testing.assert_array_equal(train.labels, y[rows])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"limit": 0}, "`limit` must be an integer of at least 1, got 0"),
        ({"limit": 9}, "`limit` must keep an example of each of 10 classes, got 9"),
        ({"limit": 2.5}, "`limit` must be an integer"),
        ({"test_size": 1.0}, "`test_size` must be a number between 0 and 1, got 1.0"),
        ({"seed": -1}, "`seed` must be an integer in 0..2**32-1, got -1"),
    ],
)
def test_arguments_out_of_range(options, match):
    refused(match, "digits", **options)


def test_images_get_a_channel_axis_and_uint8_a_scale(arrays):
    assert_holds(datasets.from_arrays("mine", **arrays), arrays)


@pytest.mark.parametrize("shape", [(6, 40), (6, 40, 1), (6, 40, 8)])
def test_sequences_of_ones_own(shape, tmp_path):
    """[n, length, channels], the channels last and perhaps left out."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=x, y_train=LABELS, x_test=x, y_test=LABELS)
    for found in (
        datasets.from_arrays("mine", x, LABELS, x, LABELS, sequences=True),
        datasets.from_batches("mine", [(x, LABELS)], [(x, LABELS)], sequences=True),
        run.load_data(Options(str(path), space="sequences")),
    ):
        for part in (found.train, found.test):
            np.testing.assert_array_equal(part.inputs, x.reshape(6, 40, -1))
    space = Options(str(path), space="sequences").make_space(found)
    assert space.name == Options("mine").make_space(found).name == "sequences"


def test_images_are_no_sequences(tmp_path, capsys):
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.zeros((12, 8, 8, 3), np.uint8), y=np.arange(12) % 2)
    out = tmp_path / "run"
    space = ["--space", "sequences", "--out", str(out)]
    assert cli.main(["search", str(path), *space]) == 2
    text = capsys.readouterr().err
    assert "be sequences [n, length, channels] or [n, length], n > 0, got shape" in text
    assert not out.exists()


def test_other_numbers_keep_their_values_and_are_copied():
    x = np.array([[0.5, -3.0], [200.0, 7.0]], np.float32)
    dataset = datasets.from_arrays("mine", x, [[0], [1]], x, [0.0, 1.0])
    x[:] = 0
    np.testing.assert_array_equal(dataset.train.inputs, [[0.5, -3.0], [200.0, 7.0]])
    assert dataset.train.labels.tolist() == [0, 1]


def with_nan(x):
    x = x.astype(np.float64)
    x[3, 1, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("x_train", with_nan, "NaN or infinity in 1 inputs, first in 3"),
        ("x_train", lambda x: x * 1e300, "got NaN or infinity in"),
        ("x_train", lambda x: x[:-1], "one label for each of 29 inputs, got 30"),
        ("x_train", lambda x: x.astype(str), "be inputs as real numbers, got type <U"),
        ("x_train", lambda x: x * 1j, "be inputs as real numbers, got type complex"),
        ("x_train", lambda x: x[0, 0], "or features [n, D], n > 0, got shape (5,)"),
        ("x_train", lambda x: x[:0], "n > 0, got shape (0, 4, 5)"),
        ("x_train", lambda x: [*x[1:], x[0, :2]], "got shapes (4, 5), (2, 5)"),
        ("x_train", lambda x: {"image": x}, "be inputs of one shape, got Python obj"),
        ("x_test", lambda x: x[:, :3], "of shape (4, 5, 1) as in training, got shape"),
        ("y_train", lambda y: y - 1.0, "be integers from 0, got -1.0 in example 0"),
        ("y_train", lambda y: y + 0.5, "be integers from 0, got 0.5 in example 0"),
        ("y_train", lambda y: y * np.nan, "be integers from 0, got nan in example 0"),
        ("y_train", lambda y: y + 2**40, "got 1099511627776 in example 0"),
        ("y_train", lambda y: y * 2, "to the largest, 4, got no example of class 1"),
        ("y_train", lambda y: y + 1, "no example of class 0. Number the classes"),
        ("y_train", lambda y: np.eye(3)[y], "Of one-hot rows take `.argmax(axis=1)`"),
        ("y_test", lambda y: y + 1, "labels of the training set, 0..2, got 3. Add"),
        ("y_test", lambda y: y[1:], "`mine: y_test` must hold one label for each of 9"),
    ],
)
def test_values_that_do_not_fit(arrays, name, change, match):
    arrays[name] = change(arrays[name].astype(int) if name[0] == "y" else arrays[name])
    with pytest.raises(SearchError, match=re.escape(match)):
        datasets.from_arrays("mine", **arrays)


def test_class_names_are_one_for_each_class(arrays):
    dataset = datasets.from_arrays("mine", **arrays, class_names=["a", "b", "c"])
    assert dataset.class_names == ("a", "b", "c")
    with pytest.raises(SearchError, match="`mine: class_names` must hold 3 names"):
        datasets.from_arrays("mine", **arrays, class_names=["a"])


def test_iterators_of_batches_and_of_examples(arrays):
    train = zip(np.split(arrays["x_train"], 5), np.split(arrays["y_train"], 5))  # noqa: B905
    test = ((x, int(y)) for x, y in zip(arrays["x_test"], arrays["y_test"]))  # noqa: B905
    assert_holds(datasets.from_batches("mine", train, test), arrays)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ([], "`mine: train_iterator` must yield pairs, got nothing. A loader"),
        ([1], "must yield pairs (x, y), got a int in item 0"),
        ([(np.ones(3), 0), (np.ones(4), 1)], "got shapes (3,), (4,) after the first"),
        ([(np.ones((3, 2)), np.ones(2))], "got shapes (3, 2) and (2,) in item 0"),
    ],
)
def test_iterators_that_do_not_fit(items, match):
    with pytest.raises(SearchError, match=re.escape(match)):
        datasets.from_batches("mine", items, items)


@pytest.mark.parametrize("name", ["", "notes.txt", "cifar-10-python.tar.gz"])
def test_formats_that_are_not_known(tmp_path, name):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "cifar-10-python.tar.gz").touch()
    refused("be a data set in a known format, got", tmp_path / name)


SHA256 = {
    "mnist": "37ac4434c24aa2360e2a8ddfd357ba4cdcf48919961b2b780a6d3040894d1a02",
    "fashion_mnist": "b449bc40c8140657fbdcb1f7daa479c7215d809df909f55e7a091fbc92b11db0",
}
MEAN_AND_DEVIATION = {
    "mnist": ((0.130660, 0.308108), (0.132515, 0.310480)),
    "fashion_mnist": ((0.286041, 0.353024), (0.286849, 0.352444)),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SHA256)
def test_real_images(name, tmp_path):
    path = REAL / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent.name}/ beside the repository")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]
    dataset = datasets.load(path)
    assert dataset.train.inputs.shape == (60_000, 28, 28, 1)
    assert dataset.test.inputs.shape == (10_000, 28, 28, 1)
    assert dataset.num_classes == 10
    for part, expected in zip(
        (dataset.train, dataset.test), MEAN_AND_DEVIATION[name], strict=True
    ):
        inputs = np.asarray(part.inputs)
        found = inputs.mean(dtype=np.float64), inputs.std(dtype=np.float64)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        role = "train" if part is dataset.train else "test"
        pixels = np.rint(inputs[..., 0] * 255).astype(np.uint8)
        labels = np.asarray(part.labels).astype(np.uint8)
        (tmp_path / IDX_NAMES[f"x_{role}"]).write_bytes(idx(pixels))
        (tmp_path / IDX_NAMES[f"y_{role}"]).write_bytes(idx(labels))
    again = datasets.load(tmp_path)
    for part, other in ((dataset.train, again.train), (dataset.test, again.test)):
        np.testing.assert_array_equal(part.inputs, other.inputs)
        np.testing.assert_array_equal(part.labels, other.labels)
