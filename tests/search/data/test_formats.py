"""Small files of every format, and files that are none."""

import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gumbax.search.data import datasets
from tests.search.data_files import (
    IDX_NAMES,
    Trap,
    assert_holds,
    idx,
    images,
    refused,
    small_arrays,
)

CIFAR_NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture
def arrays():
    return small_arrays()


# .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_a_test_set(arrays, tmp_path, save):
    save(tmp_path / "mine.npz", **arrays, class_names=["a", "b", "c"])
    dataset = datasets.load(str(tmp_path / "mine.npz"))
    assert_holds(dataset, arrays)
    assert (dataset.name, dataset.class_names) == ("mine", ("a", "b", "c"))


def test_npz_in_one_piece_is_split(arrays, tmp_path):
    np.savez(tmp_path / "mine.npz", x=arrays["x_train"], y=arrays["y_train"])
    dataset = datasets.load(tmp_path / "mine.npz", test_size=0.3)
    assert np.bincount(dataset.train.labels).tolist() == [7, 7, 7]
    assert np.bincount(dataset.test.labels).tolist() == [3, 3, 3]
    assert len(images(dataset.train) | images(dataset.test)) == 30
    again = datasets.load(tmp_path / "mine.npz", test_size=0.3, seed=1)
    assert images(again.test) != images(dataset.test)
    refused("`size` must leave room for 3", tmp_path / "mine.npz", test_size=0.01)


def test_npz_that_is_none(arrays, tmp_path):
    path, trap = tmp_path / "mine.npz", tmp_path / "trap"
    np.savez(path, **arrays)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:200] + whole[300:]):
        path.write_bytes(content)
        refused("be a readable .npz archive of plain arrays, got", path)
    path.write_bytes(pickle.dumps(Trap(trap)))
    refused("be a readable .npz archive of plain arrays, got", path)
    with path.open("wb") as file:
        np.save(file, arrays["x_train"])
    refused("be an .npz archive, got one array", path)
    np.savez(path, x=np.array([Trap(trap)], object), y=[0])
    refused("Object arrays cannot be loaded", path)
    np.savez(path, images=arrays["x_train"], y=[0])
    refused("hold the arrays x_train, y_train, x_test and y_test, or x and y", path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused("got readme.txt. Save it", path)
    assert not trap.exists()


def test_npz_values_are_checked(arrays, tmp_path):
    np.savez(tmp_path / "mine.npz", **{**arrays, "y_test": arrays["y_test"] + 1})
    refused("`mine: y_test` must hold labels of", tmp_path / "mine.npz")


# IDX


@pytest.fixture
def idx_folder(arrays, tmp_path):
    folder = tmp_path / "fashion"
    folder.mkdir()
    for role, name in IDX_NAMES.items():
        (folder / name).write_bytes(idx(arrays[role]))
    return folder


def test_idx_files_packed_or_not_by_folder_or_file(arrays, idx_folder):
    dataset = datasets.load(idx_folder)
    assert_holds(dataset, arrays)
    assert dataset.name == "fashion"
    file = idx_folder / IDX_NAMES["x_train"]
    assert_holds(datasets.load(file), arrays)
    packed = idx_folder / (file.name + ".gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    labels = idx_folder / IDX_NAMES["y_test"]
    labels.rename(idx_folder / "t10k-labels.idx1-ubyte")
    assert_holds(datasets.load(packed), arrays)


def test_idx_files_that_are_none(arrays, idx_folder):
    path = idx_folder / IDX_NAMES["x_train"]
    whole = path.read_bytes()
    for content, match in (
        (b"", "start with the IDX header 0x00000803, got 0x."),
        (b"PK\3\4" + whole[4:], "start with the IDX header 0x00000803, got 0x504b0304"),
        (
            idx(arrays["y_train"]),
            "start with the IDX header 0x00000803, got 0x00000801",
        ),
        (whole[:9], "have a header of 16 bytes, got 9 bytes"),
        (whole[:-1], "have 616 bytes for shape (30, 4, 5), got 615"),
        (whole + b"0", "have 616 bytes for shape (30, 4, 5), got 617"),
        (whole[:4] + b"\xff" * 12 + whole[16:], "(4294967295, 4294967295, 4294967295)"),
        (gzip.compress(whole)[:-9], "be an IDX file, got EOFError"),
        (b"\x1f\x8bno gzip, whatever", "be an IDX file, got BadGzipFile"),
    ):
        path.write_bytes(content)
        refused(match, idx_folder)
    path.unlink()
    refused("IDX format, got no train-images-idx3-ubyte. Add what is", idx_folder)


# CIFAR-10


@pytest.fixture
def cifar():
    """Ten images a batch, one of each class, as records of 3072 bytes."""
    generator = np.random.default_rng(0)
    return {
        name: (
            generator.integers(0, 256, (10, 3072)).astype(np.uint8),
            generator.permutation(10).astype(np.uint8),
        )
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    }


def cifar_arrays(cifar):
    batches = list(cifar.values())
    x = np.stack([x.reshape(10, 3, 32, 32) for x, _ in batches]).transpose(
        0, 1, 3, 4, 2
    )
    y = np.stack([y for _, y in batches])
    return {
        "x_train": x[:5].reshape(50, 32, 32, 3),
        "y_train": y[:5].reshape(-1),
        "x_test": x[5],
        "y_test": y[5],
    }


def write_python(folder, cifar, protocol=2):
    for name, (x, y) in cifar.items():
        record = {"batch_label": name, "labels": y.tolist(), "data": x, "filenames": []}
        (folder / name).write_bytes(pickle.dumps(record, protocol))


def write_binary(folder, cifar):
    for name, (x, y) in cifar.items():
        content = np.concatenate([y[:, None], x], axis=1).tobytes()
        (folder / f"{name}.bin").write_bytes(content)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar_python(cifar, tmp_path, protocol):
    write_python(tmp_path, cifar, protocol)
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_NAMES}))
    dataset = datasets.load(tmp_path)
    assert_holds(dataset, cifar_arrays(cifar))
    assert dataset.class_names == tuple(CIFAR_NAMES)
    assert_holds(datasets.load(tmp_path / "data_batch_3"), cifar_arrays(cifar))


def test_cifar_binary(cifar, tmp_path):
    write_binary(tmp_path, cifar)
    names = "\n".join("abcdefghij") + "\n\n"
    (tmp_path / "batches.meta.txt").write_text(names, "utf-8")
    dataset = datasets.load(tmp_path / "test_batch.bin")
    assert_holds(dataset, cifar_arrays(cifar))
    assert dataset.class_names == tuple("abcdefghij")


def test_cifar_python_that_is_none(cifar, tmp_path):
    write_python(tmp_path, cifar)
    path, trap = tmp_path / "data_batch_2", tmp_path / "trap"
    whole = path.read_bytes()
    x, y = cifar["data_batch_2"]
    setter = b"cnumpy\nndarray\n(dV__setstate__\nI1\nsb."  # attributes of a stand-in
    for content, match in (
        (b"", "EOFError"),
        (whole[:5000], "a batch of CIFAR-10 (python), got"),
        (b"\x89PNG\r\n", "UnpicklingError"),
        (setter, "a batch of CIFAR-10 (python), got TypeError"),
        (pickle.dumps([1]), "UnpicklingError: a list, not a dict"),
        (pickle.dumps({"data": Trap(trap)}), "a foreign object, subprocess.call"),
        (pickle.dumps({"labels": Trap(trap), "data": x}), "a foreign object"),
        (pickle.dumps({"data": Path()}), "a foreign object, pathlib"),
        (pickle.dumps({"data": np.array([x], object)}), "an array of"),
        (pickle.dumps({"labels": [1]}), "KeyError: 'data'"),
        (pickle.dumps({"data": [1], "labels": [1]}), "AttributeError"),
        (pickle.dumps({"data": x[:, 1:], "labels": y}), "got uint8 (10, 3071) and"),
        (pickle.dumps({"data": x, "labels": y[1:]}), "and labels (9,). It is damaged"),
    ):
        path.write_bytes(content)
        refused(match, tmp_path)
    assert not trap.exists()
    path.unlink()
    refused("CIFAR-10 python format, got no data_batch_2", tmp_path)


def test_cifar_binary_that_is_none(cifar, tmp_path):
    write_binary(tmp_path, cifar)
    path = tmp_path / "data_batch_4.bin"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole + b"0"):
        path.write_bytes(content)
        refused(f"3073 bytes for each image, got {len(content)} bytes", tmp_path)
    path.write_bytes(b"\x63" + whole[1:])
    refused("to the largest, 99, got no example of class 10", tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    refused("CIFAR-10 binary format, got no test_batch.bin", tmp_path)


# CSV


def write_csv(path, lines, encoding="utf-8"):
    path.write_text("\n".join(lines) + "\n", encoding)
    return path


def test_csv_standardises_by_the_training_set(tmp_path):
    count = 40
    generator = np.random.default_rng(0)
    values = generator.normal(size=(count, 2)) * [1, 20]
    values[:, 0] += 1e9  # must not cost the resolution of float32
    labels = np.arange(count) % 2
    lines = ['number,kind, width ,"height",same']
    lines += [
        f'{i},"{("no", "yes, or so")[labels[i]]}",{a!r},{b!r},0.1'
        for i, (a, b) in enumerate(values.tolist())
    ]
    path = write_csv(tmp_path / "mine.csv", [*lines, ""], "utf-8-sig")
    dataset = datasets.load(path, label="kind", test_size=0.25)
    assert dataset.class_names == ("no", "yes, or so")
    assert (dataset.train.size, dataset.test.size) == (30, 10)
    inputs = np.concatenate([dataset.train.inputs, dataset.test.inputs])
    rows = np.argsort(np.argsort(inputs[:, 0]))  # the first column grows row by row
    found = np.concatenate([dataset.train.labels, dataset.test.labels])
    np.testing.assert_array_equal(found, labels[rows])
    mean, deviation = (f(values[rows[:30]], axis=0) for f in (np.mean, np.std))
    np.testing.assert_allclose(
        inputs[:, 1:3], (values[rows] - mean) / deviation, atol=1e-5
    )
    assert not inputs[:, 3].any()


def test_csv_is_standardised_by_what_limit_leaves(tmp_path):
    lines = ["label,a", *(f"{i % 3},{i**2}" for i in range(30))]
    path = write_csv(tmp_path / "mine.csv", lines)
    dataset = datasets.load(path, limit=9)
    inputs = np.asarray(dataset.train.inputs, np.float64)
    assert (inputs.shape, dataset.test.size) == ((9, 1), 6)
    np.testing.assert_allclose([inputs.mean(), inputs.std()], [0, 1], atol=1e-6)


def test_csv_labels_that_are_numbers_stay(tmp_path):
    lines = ["label,a", *(f"{i % 3},{i % 3}" for i in range(30))]
    dataset = datasets.load(write_csv(tmp_path / "mine.csv", lines))
    assert (dataset.num_classes, dataset.class_names) == (3, ())
    values = np.unique(dataset.train.inputs)
    found = np.searchsorted(values, np.asarray(dataset.test.inputs)[:, 0])
    np.testing.assert_array_equal(found, dataset.test.labels)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["a,b", "1,2"], "have one column 'label' with the labels, got columns a, b."),
        (["label,label", "1,2"], "have one column 'label'"),
        (["label;a", "1;2"], "got columns label;a. The first line names the columns"),
        ([""], "have one column 'label'"),
        (["label,a"], "hold examples, got a header alone"),
        (["label,a", "0,1,2"], "have 2 values in every row, got 3 in line 2"),
        (["label,a", "0,1", "0,x"], "got 'x' in column 'a', line 3. Fill in"),
        (["label,a", "0,1", "0,"], "got '' in column 'a', line 3"),
        (["label,a", "0,nan"], "got 'nan' in column 'a', line 2"),
        (["label,a", "0,1", ",2"], "got none in row 2 of the examples"),
        (["label,a", "0,1", "-1,2"], "`mine: y` must be integers from 0, got -1.0"),
        (["label,a", "0,1", "nan,2"], "`mine: y` must be integers from 0, got nan"),
        (["label,a", "0,1", "0.5,2"], "`mine: y` must be integers from 0, got 0.5"),
        (["label,a", "0,1", "2,2"], "got no example of class 1"),
        (["label", "0", "1"], "n > 0, got shape (2, 0)"),
        (["label,a", "0,1", "1,2"], "got one example of class 0"),
        (["label,a", '0,"1'], "be a CSV file in UTF-8, got Error: unexpected end"),
    ],
)
def test_csv_that_does_not_fit(tmp_path, lines, match):
    refused(match, write_csv(tmp_path / "mine.csv", lines))


def test_csv_that_is_none(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"label,a\n\xff\xfe,1\n")
    refused("be a CSV file in UTF-8, got UnicodeDecodeError", path)
