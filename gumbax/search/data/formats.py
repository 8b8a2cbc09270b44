"""Readers of data files: a path in, arrays as they are stored out.

What the values mean is checked in `datasets`; here only that a file is what it says.
"""

import contextlib
import csv
import gzip
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gumbax.search.data.cifar_pickle import load_plain
from gumbax.search.store.errors import SearchError, search_error

Pair = tuple[Any, Any]
DAMAGED = "It is damaged, incomplete or of another format: copy or download it again."


class Parts(NamedTuple):
    """What was read: (inputs, labels), with a test part of its own or None."""

    train: Pair
    test: Pair | None
    class_names: tuple[str, ...] = ()
    standardise: bool = False


class Layout(NamedTuple):
    """A set that lies in several files: their names by role, and the reader."""

    title: str
    names: Mapping[str, str]
    read: Callable[[Mapping[str, Path]], Parts]


def title(path: Path) -> str:
    """What reports call the data set at `path`."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.stem if path.suffix.lower() in (".npz", ".csv") else path.parent.name


def read(path: Path, *, label: str) -> Parts:
    """Reads a data set in the format that its name or its files show.

    Args:
        path: an existing file or folder.
        label: name of the label column of a CSV file.

    Returns:
        Parts, of unchecked values.

    Raises:
        SearchError: no known format, a file is missing, or one cannot be read.
    """
    if path.is_file() and path.suffix.lower() == ".npz":
        return _read_npz(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _read_csv(path, label)
    folder = path if path.is_dir() else path.parent
    for layout in LAYOUTS:
        if path.is_file() and not _is_member(path.name, layout):
            continue
        found = {role: _find(folder, name) for role, name in layout.names.items()}
        files = {role: file for role, file in found.items() if file}
        if files:
            missing = [layout.names[role] for role in found if role not in files]
            if missing:
                raise search_error(
                    str(folder),
                    f"hold all files of the {layout.title} format",
                    f"no {', '.join(missing)}",
                    "Add what is missing, under these names.",
                )
            return layout.read(files)
    raise search_error(
        str(path),
        "be a data set in a known format",
        "a folder without known files" if path.is_dir() else "another kind of file",
        "Known: .npz, .csv, and a folder (unpacked) with "
        + " or ".join(
            f"{next(iter(layout.names.values()))}, ... ({layout.title})"
            for layout in LAYOUTS
        )
        + ".",
    )


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Whatever a reader stumbles over in a foreign file is a fault of the file."""
    try:
        yield
    except SearchError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise search_error(str(path), f"be {kind}", got, DAMAGED) from error


def _spellings(name: str) -> list[str]:
    """The names that one file goes by."""
    plain = dict.fromkeys((name, name.replace("-idx", ".idx")))
    return [spelling + suffix for suffix in ("", ".gz") for spelling in plain]


def _is_member(file_name: str, layout: Layout) -> bool:
    return any(file_name in _spellings(name) for name in layout.names.values())


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / spelling for spelling in _spellings(name))
    return next((path for path in paths if path.is_file()), None)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _read_npz(path: Path) -> Parts:
    with (
        _reading(path, "a readable .npz archive of plain arrays"),
        path.open("rb") as file,
    ):
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise search_error(str(path), "be an .npz archive", "one array", DAMAGED)
        with archive:
            names = archive.files
            class_names: tuple[str, ...] = ()
            if "class_names" in names:
                class_names = tuple(str(text) for text in archive["class_names"])
            if {"x_train", "y_train", "x_test", "y_test"} <= set(names):
                train = archive["x_train"], archive["y_train"]
                test = archive["x_test"], archive["y_test"]
                return Parts(train, test, class_names)
            if {"x", "y"} <= set(names):
                return Parts((archive["x"], archive["y"]), None, class_names)
    raise search_error(
        str(path),
        "hold the arrays x_train, y_train, x_test and y_test, or x and y",
        ", ".join(names) or "an empty archive",
        "Save it with `numpy.savez(path, x_train=..., ...)`.",
    )


def _read_csv(path: Path, label: str) -> Parts:
    with (
        _reading(path, "a CSV file in UTF-8"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.reader(file, strict=True)
        header = [name.strip() for name in next(reader, [])]
        column = _label_column(path, header, label)
        rows, labels = [], []
        for row in filter(None, reader):
            where = f"line {reader.line_num}"
            rows.append(_numbers(path, where, header, row, column))
            labels.append(row[column].strip())
    if not rows:
        cure = "Add rows of numbers and a label each."
        raise search_error(str(path), "hold examples", "a header alone", cure)
    classes, numbers = _classes(path, label, labels)
    # Rounding to float32 comes later, and must find no large offset. This is no leak:
    # the scale of the training set is put on top and undoes it.
    features = np.array(rows)
    features = standardised(features, features)
    return Parts((features, numbers), None, classes, standardise=True)


def standardised(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Features [n, D] by mean and deviation of `reference`; where that is constant, the
    difference from the constant alone."""
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    constant = reference.min(axis=0) == reference.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # refused as not finite later
        mean = np.where(constant, reference[0], reference.mean(axis=0))
        deviation = np.where(constant, 1, reference.std(axis=0))
        return (features - mean) / deviation


def _label_column(path: Path, header: list[str], label: str) -> int:
    if header.count(label) != 1:
        raise search_error(
            str(path),
            f"have one column {label!r} with the labels",
            f"columns {', '.join(header[:20])}{', ...' if header[20:] else ''}",
            "The first line names the columns, with commas between them; "
            "name the one with the labels with `label`.",
        )
    return header.index(label)


def _numbers(
    path: Path, where: str, header: list[str], row: list[str], column: int
) -> list[float]:
    """The features of a row."""
    if len(row) != len(header):
        must, got = f"have {len(header)} values in every row", f"{len(row)} in {where}"
        raise search_error(str(path), must, got, "Quote values that hold a comma.")
    numbers = []
    for i, (name, text) in enumerate(zip(header, row, strict=True)):
        if i == column:
            continue
        try:
            numbers.append(float(text))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise search_error(
                str(path),
                "hold finite numbers in every column but that of the labels",
                f"{text!r} in column {name!r}, {where}",
                "Fill in what is missing, encode texts as numbers, or leave the row "
                "or column out.",
            )
    return numbers


def _classes(
    path: Path, label: str, labels: list[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of classes and numbers of labels: numbers stay, texts are sorted."""
    if "" in labels:
        raise search_error(
            str(path),
            f"have a label in every row of column {label!r}",
            f"none in row {labels.index('') + 1} of the examples",
            "Fill it in or leave the row out.",
        )
    try:
        return (), np.array([float(text) for text in labels])
    except ValueError:
        names, numbers = np.unique(labels, return_inverse=True)
        return tuple(names.tolist()), numbers


def _read_idx(files: Mapping[str, Path]) -> Parts:
    arrays = {role: _idx_array(path, role) for role, path in files.items()}
    return Parts(
        (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    )


def _idx_array(path: Path, role: str) -> np.ndarray:
    """One IDX file: 0, 0, type (8: bytes), rank; big-endian lengths; the values."""
    rank = 3 if role.startswith("x") else 1
    with _reading(path, "an IDX file"):
        content = _content(path)
        start = 4 + 4 * rank
        if content[:4] != bytes((0, 0, 8, rank)):
            must = f"start with the IDX header 0x0000080{rank}"
            raise search_error(str(path), must, f"0x{content[:4].hex()}", DAMAGED)
        if len(content) < start:
            must = f"have a header of {start} bytes"
            raise search_error(str(path), must, f"{len(content)} bytes", DAMAGED)
        shape = struct.unpack(f">{rank}I", content[4:start])
        if len(content) != start + math.prod(shape):
            must = f"have {start + math.prod(shape)} bytes for shape {shape}"
            raise search_error(str(path), must, f"{len(content)} bytes", DAMAGED)
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_cifar_python(files: Mapping[str, Path]) -> Parts:
    return _cifar(files, _cifar_python_batch, _cifar_names(files, "batches.meta"))


def _read_cifar_binary(files: Mapping[str, Path]) -> Parts:
    return _cifar(files, _cifar_binary_batch, _cifar_names(files, "batches.meta.txt"))


def _cifar(
    files: Mapping[str, Path],
    read_batch: Callable[[Path], tuple[np.ndarray, np.ndarray]],
    class_names: tuple[str, ...],
) -> Parts:
    def join(roles: list[str]) -> Pair:
        batches = [read_batch(files[role]) for role in roles]
        pixels, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        # A record is channel by channel.
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels

    train = join([role for role in files if role != "test"])
    return Parts(train, join(["test"]), class_names)


def _cifar_python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with _reading(path, "a batch of CIFAR-10 (python)"):
        record = load_plain(_content(path))
        pixels, labels = record["data"], np.asarray(record["labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (*labels.shape, 3072):
            must = "hold bytes [n, 3072] as `data` and n labels"
            got = f"{pixels.dtype} {pixels.shape} and labels {labels.shape}"
            raise search_error(str(path), must, got, DAMAGED)
        return pixels, labels


def _cifar_binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with _reading(path, "a batch of CIFAR-10 (binary)"):
        content = _content(path)
        if not content or len(content) % 3073:
            must, got = "have 3073 bytes for each image", f"{len(content)} bytes"
            raise search_error(str(path), must, got, DAMAGED)
        records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        return records[:, 1:], records[:, 0]


def _cifar_names(files: Mapping[str, Path], name: str) -> tuple[str, ...]:
    """The names of the classes, from a file that may be left out."""
    path = files["test"].parent / name
    if not path.is_file():
        return ()
    with _reading(path, "a list of class names"):
        content = _content(path)
        if path.suffix == ".txt":
            return tuple(content.decode().split())
        return tuple(
            text.decode() if isinstance(text, bytes) else str(text)
            for text in load_plain(content)["label_names"]
        )


def _cifar_files(suffix: str) -> dict[str, str]:
    batches = {f"batch {i}": f"data_batch_{i}{suffix}" for i in range(1, 6)}
    return {**batches, "test": f"test_batch{suffix}"}


IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
LAYOUTS = (
    Layout("IDX", IDX_FILES, _read_idx),
    Layout("CIFAR-10 python", _cifar_files(""), _read_cifar_python),
    Layout("CIFAR-10 binary", _cifar_files(".bin"), _read_cifar_binary),
)
