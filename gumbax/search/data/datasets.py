"""Data sets by name, from files, from arrays and from iterators.

All come out alike: float32 inputs, labels 0..K-1 of which the training set has every
one. What does not fit is refused with a SearchError that says what to do.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gumbax.search.data import formats
from gumbax.search.data.dataset import Dataset, Examples, split, take
from gumbax.search.data.examples import (
    as_examples,
    checked_examples,
    collected,
    count_classes,
)
from gumbax.search.store.errors import search_error

DIGITS_SPLIT_SEED = 0
DIGITS_TEST_SIZE = 360


def load(
    source: str | Path,
    *,
    label: str = "label",
    test_size: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
    sequences: bool = False,
) -> Dataset:
    """Loads a data set by name or by path.

    A path is one of

    - an .npz file with the arrays x_train, y_train, x_test, y_test, or x and y, and, if
      wanted, class_names;
    - a folder, or a file in it, with the IDX files of MNIST or Fashion-MNIST, packed
      (.gz) or not;
    - a folder, or a file in it, with the five batches and the test batch of CIFAR-10,
      python or binary;
    - a .csv file with a header. Labels are numbers from 0, or texts, which are sorted.
      Features are standardised by mean and standard deviation of the training set.

    Args:
        source: a name in `DATASETS`, or a path. A name comes first: write "./digits"
            for a folder of that name.
        label: the label column of a CSV file.
        test_size: share of the examples that become the test set, each class in its
            proportion, where the files have no test set of their own.
        limit: training examples to keep, each class in its proportion; a smaller
            `limit` keeps a part of them. The test set is left whole.
        seed: of the split and of what `limit` keeps.
        sequences: the inputs of a file are sequences [n, length, channels] or
            [n, length], not images or features.

    Returns:
        Dataset, named as the source.

    Raises:
        SearchError: an unknown name, no such path, an argument out of range, a file
            that cannot be read, or values that do not fit (see `from_arrays`).

    Example:
        >>> load("digits", limit=100).train.inputs.shape
        (100, 8, 8, 1)
    """
    _check_arguments(test_size, limit, seed)
    if isinstance(source, str) and source in DATASETS:
        dataset = DATASETS[source]()
        train = _limited(dataset.train, limit, seed)
        return dataclasses.replace(dataset, train=train)
    path = _existing(source)
    name = formats.title(path)
    parts = formats.read(path, label=label)
    checked = functools.partial(checked_examples, sequences=sequences)
    train = checked(name, "train" if parts.test else "", *parts.train)
    if parts.test:
        test = checked(name, "test", *parts.test)
    else:
        count_classes(name, train)
        train, test = split(train, round(train.size * test_size), seed=seed)
    train = _limited(train, limit, seed)
    if parts.standardise:
        train, test = _standardised(train, test)
    return _dataset(name, train, test, parts.class_names)


def from_arrays(
    name: str,
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    *,
    class_names: Sequence[str] = (),
    sequences: bool = False,
) -> Dataset:
    """Makes a data set of arrays, or of what `numpy.asarray` takes.

    Args:
        name: how reports call it.
        x_train: images [n, H, W, C] or [n, H, W], or features [n, D]. uint8 is divided
            by 255, other numbers keep their values.
        y_train: integers [n] or [n, 1], each of 0..K-1 at least once.
        x_test: as `x_train`, with m examples.
        y_test: as `y_train`, not necessarily each of 0..K-1.
        class_names: K texts, or none.
        sequences: the inputs are sequences [n, length, channels] or [n, length].

    Returns:
        Dataset, of copies of the arrays.

    Raises:
        SearchError: inputs of unequal shape or number of axes, not finite, or not
            numbers; labels that are no integers, negative, not in the training set, or
            a class without training examples; unequal numbers of inputs and labels.

    Example:
        >>> x, y = jnp.zeros((4, 8, 8)), [0, 1, 0, 1]
        >>> dataset = from_arrays("mine", x, y, x, y)
        >>> dataset.train.inputs.shape, dataset.num_classes
        ((4, 8, 8, 1), 2)
    """
    checked = functools.partial(checked_examples, sequences=sequences)
    train = checked(name, "train", x_train, y_train)
    test = checked(name, "test", x_test, y_test)
    return _dataset(name, train, test, tuple(class_names))


def from_batches(
    name: str,
    train_iterator: Iterable[tuple[Any, Any]],
    test_iterator: Iterable[tuple[Any, Any]],
    *,
    class_names: Sequence[str] = (),
    sequences: bool = False,
) -> Dataset:
    """Makes a data set of iterators, for example of another library's loaders.

    Args:
        name: how reports call it.
        train_iterator: yields (x, y), single examples or batches of them, and ends;
            values as in `from_arrays`. All of it is kept in memory.
        test_iterator: the same for the test set.
        class_names: K texts, or none.
        sequences: as in `from_arrays`.

    Returns:
        Dataset.

    Raises:
        SearchError: something else than pairs comes, or as in `from_arrays`.

    Example:
        >>> batches = [(jnp.zeros((2, 5)), jnp.array([0, 1]))] * 3
        >>> from_batches("mine", iter(batches), batches).train.size
        6
    """
    train = collected(name, "train", train_iterator)
    test = collected(name, "test", test_iterator)
    names = class_names
    return from_arrays(name, *train, *test, class_names=names, sequences=sequences)


def _digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8x8, 360 of them for tests."""
    from sklearn.datasets import load_digits  # an extra

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    everything = as_examples(images, digits.target.astype(np.int32))
    train, test = split(everything, DIGITS_TEST_SIZE, seed=DIGITS_SPLIT_SEED)
    return Dataset(name="digits", train=train, test=test, num_classes=10)


def _mnist1d() -> Dataset:
    """MNIST-1D: ten digits as sequences of 40 numbers, 4,000 and 1,000 for tests.

    Greydanus, Kobak, 2024. https://arxiv.org/abs/2011.14439
    """
    from mnist1d.data import get_dataset_args, make_dataset  # an extra

    before = random.getstate(), np.random.get_state()  # which it seeds
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    train, test = (
        as_examples(
            made[f"x{part}"][..., None].astype(np.float32),
            made[f"y{part}"].astype(np.int32),
        )
        for part in ("", "_test")
    )
    return Dataset(name="mnist1d", train=train, test=test, num_classes=10)


# The Barker code of length 7, whose shifts hardly resemble it: a pulse of radar.
PULSE = np.array([1, 1, 1, -1, -1, 1, -1], np.float32)
NEAREST, SPACING, ECHO_CLASSES, ECHO_LENGTH = 9, 8, 10, 96


def _echoes() -> Dataset:
    """A pulse and its echo in noise, and ten delays: 2,000 sequences, 4,000 for tests.

    [96, 1]; the pulse is 7 numbers of +-1, the noise has a standard deviation of 0.4,
    the echo comes 9, 17, .., 81 numbers after the pulse. To tell the delay a network
    has to look both closely and far.
    """
    train, test = _echoed(0, 2000), _echoed(1, 4000)
    return Dataset(name="echoes", train=train, test=test, num_classes=ECHO_CLASSES)


def _echoed(seed: int, n: int) -> Examples:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % ECHO_CLASSES
    delays = NEAREST + SPACING * labels
    x = 0.4 * generator.normal(size=(n, ECHO_LENGTH))
    start = generator.integers(ECHO_LENGTH - len(PULSE) - delays, endpoint=True)
    for place in (start, start + delays):
        x[np.arange(n)[:, None], place[:, None] + np.arange(len(PULSE))] += PULSE
    return as_examples(x[..., None].astype(np.float32), labels.astype(np.int32))


DATASETS: Mapping[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "echoes": _echoes,
    "mnist1d": _mnist1d,
}


def _check_arguments(test_size: float, limit: int | None, seed: int) -> None:
    for argument, must, value, fits in (
        (
            "test_size",
            "be a number between 0 and 1",
            test_size,
            isinstance(test_size, float | int) and 0 < test_size < 1,
        ),
        (
            "limit",
            "be an integer of at least 1",
            limit,
            limit is None or (isinstance(limit, int) and limit >= 1),
        ),
        (
            "seed",
            "be an integer in 0..2**32-1",
            seed,
            isinstance(seed, int) and 0 <= seed < 2**32,
        ),
    ):
        if not fits:
            raise search_error(argument, must, value, "Correct it or leave it out.")


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    known = f"Known: {', '.join(DATASETS)}."
    if isinstance(source, str) and len(path.parts) == 1 and not path.suffix:
        must = "be a known data set or an existing path"
        raise search_error("dataset", must, repr(source), known)
    cure = f"Check the spelling and the current folder, or use a name. {known}"
    raise search_error("dataset", "be an existing path", repr(str(source)), cure)


def _dataset(
    name: str, train: Examples, test: Examples, class_names: tuple[str, ...]
) -> Dataset:
    """The data set, if its parts fit together."""
    num_classes = count_classes(name, train)
    shape, test_shape = train.inputs.shape[1:], test.inputs.shape[1:]
    if shape != test_shape:
        must, cure = f"have inputs of shape {shape} as in training", "Resize them."
        raise search_error(f"{name}: x_test", must, f"shape {test_shape}", cure)
    if (largest := int(test.labels.max())) >= num_classes:
        raise search_error(
            f"{name}: y_test",
            f"hold labels of the training set, 0..{num_classes - 1}",
            largest,
            "Add training examples of that class, or leave it out of the test set.",
        )
    if class_names and len(class_names) != num_classes:
        must, cure = f"hold {num_classes} names", "Name every class, or none."
        raise search_error(f"{name}: class_names", must, len(class_names), cure)
    return Dataset(name, train, test, num_classes, class_names)


def _limited(train: Examples, limit: int | None, seed: int) -> Examples:
    """At most `limit` examples: one of each class, then each class in proportion."""
    if limit is None or limit >= train.size:
        return train
    labels = np.asarray(train.labels)
    num_classes = len(np.unique(labels))
    if limit < num_classes:
        must, cure = f"keep an example of each of {num_classes} classes", "Raise it."
        raise search_error("limit", must, limit, cure)
    generator = np.random.default_rng(seed)
    place = np.empty(len(labels))  # in the order in which examples are kept
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
        place[members[0]] = 0
    return take(train, np.argsort(place, kind="stable")[:limit])


def _standardised(train: Examples, test: Examples) -> tuple[Examples, Examples]:
    """Both by mean and deviation of the training set."""
    reference = np.asarray(train.inputs)

    def scaled(examples: Examples) -> Examples:
        features = formats.standardised(np.asarray(examples.inputs), reference)
        return as_examples(features.astype(np.float32), np.asarray(examples.labels))

    return scaled(train), scaled(test)
