"""Data sets, their splits, and the batches of a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._records import pytree
from gumbax.search.errors import search_error

TEST_SPLIT_SEED = 0
TEST_SIZE = 360


@pytree
class Examples:
    """Images [n, height, width, channels], float32 in [0, 1], and labels [n]."""

    images: jax.Array
    labels: jax.Array

    @property
    def size(self) -> int:
        return self.labels.shape[0]


@dataclass(frozen=True)
class Dataset:
    """A training and a test set. A search sees `train` alone.

    Attributes:
        name: its name on the command line.
        train: what weights and architecture are learned from.
        test: what the gap report measures on.
        num_classes: number of labels.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int


def load(name: str) -> Dataset:
    """Loads a data set by name.

    Raises:
        SearchError: the name is unknown; the message lists the known ones.
    """
    if name not in DATASETS:
        raise search_error(
            "dataset",
            "be a known data set",
            repr(name),
            f"Known: {', '.join(DATASETS)}.",
        )
    return DATASETS[name]()


def _digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8x8, 360 of them for tests."""
    from sklearn.datasets import load_digits  # an extra

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    everything = Examples(images=images, labels=digits.target.astype(np.int32))
    train, test = split(everything, TEST_SIZE, seed=TEST_SPLIT_SEED)
    return Dataset(name="digits", train=train, test=test, num_classes=10)


DATASETS: Mapping[str, Callable[[], Dataset]] = {"digits": _digits}


def split(examples: Examples, size: int, *, seed: int) -> tuple[Examples, Examples]:
    """Splits off `size` examples, each class in its proportion.

    Returns:
        The rest, and the part of that size.
    """
    from sklearn.model_selection import train_test_split  # an extra

    labels = np.asarray(examples.labels)
    indices = np.arange(len(labels))
    rest, part = train_test_split(
        indices, test_size=size, stratify=labels, random_state=seed
    )

    def take(chosen: np.ndarray) -> Examples:
        return Examples(
            images=jnp.asarray(np.asarray(examples.images)[chosen]),
            labels=jnp.asarray(labels[chosen]),
        )

    return take(rest), take(part)


def batch(
    examples: Examples, key: jax.Array, step: jax.Array, batch_size: int
) -> Examples:
    """The batch of a step: a pure function of (key, step), so that a search resumes.

    Every epoch goes through the examples in a new order and drops the incomplete batch
    at its end.
    """
    size = min(batch_size, examples.size)
    per_epoch = examples.size // size
    epoch_key = jax.random.fold_in(key, step // per_epoch)
    order = jax.random.permutation(epoch_key, examples.size)
    chosen = jax.lax.dynamic_slice_in_dim(order, step % per_epoch * size, size)
    return Examples(images=examples.images[chosen], labels=examples.labels[chosen])
