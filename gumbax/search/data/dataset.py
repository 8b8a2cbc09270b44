"""Examples, data sets, their splits, and the batches of a step."""

import hashlib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import checks
from gumbax._common.records import pytree
from gumbax.search.store.errors import search_error


@pytree
class Examples:
    """Inputs and their labels, n of each.

    Attributes:
        inputs: float32, images [n, height, width, channels], sequences [n, length,
            channels] or features [n, D].
        labels: int32 [n], from 0.

    Example:
        >>> Examples(inputs=jnp.zeros((5, 2)), labels=jnp.zeros(5, int)).size
        5
    """

    inputs: jax.Array
    labels: jax.Array

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.labels.shape[0]


@dataclass(frozen=True)
class Dataset:
    """A training and a test set. A search sees `train` alone.

    Attributes:
        name: how reports call it.
        train: what weights and architecture are learned from; it has every class.
        test: what the gap report measures on.
        num_classes: number of labels.
        class_names: one text for each label, or empty.
    """

    name: str
    train: Examples
    test: Examples
    num_classes: int
    class_names: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """The same for the same examples in the same order: 16 hexadecimal digits."""
        found = hashlib.sha256()
        for examples in (self.train, self.test):
            for array in (examples.inputs, examples.labels):
                values = np.ascontiguousarray(array)
                found.update(f"{values.dtype}{values.shape}".encode())
                found.update(values.data)
        return found.hexdigest()[:16]


def split(examples: Examples, size: int, *, seed: int) -> tuple[Examples, Examples]:
    """Splits off `size` examples, each class in its proportion.

    Args:
        examples: what is split, n examples of K classes, two or more of each.
        size: of the part that is split off, from K to n - K.
        seed: of the split.

    Returns:
        The rest, and the part of that size.

    Raises:
        SearchError: a class has one example only, or `size` leaves no room for every
            class on both sides.

    Example:
        >>> labels = jnp.arange(6) % 2
        >>> rest, part = split(Examples(inputs=jnp.eye(6), labels=labels), 2, seed=0)
        >>> rest.size, sorted(part.labels.tolist())
        (4, [0, 1])
    """
    from sklearn.model_selection import train_test_split  # an extra

    labels = np.asarray(examples.labels)
    _check_split(labels, size)
    rest, part = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed
    )
    return take(examples, rest), take(examples, part)


def take(examples: Examples, chosen: np.ndarray) -> Examples:
    """The examples at the indices `chosen`, in that order; computed on the host.

    Args:
        examples: where they are taken from.
        chosen: indices [m].

    Returns:
        Examples, m of them.

    Example:
        >>> examples = Examples(inputs=jnp.eye(3), labels=jnp.arange(3))
        >>> take(examples, np.array([2, 0])).labels.tolist()
        [2, 0]
    """
    return Examples(
        inputs=jnp.asarray(np.asarray(examples.inputs)[chosen]),
        labels=jnp.asarray(np.asarray(examples.labels)[chosen]),
    )


def epoch_order(
    key: jax.Array, epoch: jax.Array | int, num_examples: int, batch_size: int
) -> jax.Array:
    """The index sets of one epoch: a new permutation, its incomplete batch dropped.

    Args:
        key: of the whole search, the same for every epoch.
        epoch: number of the epoch, from 0. May be traced.
        num_examples: n, at least 1. Static.
        batch_size: at least 1; no batch is larger than n. Static.

    Returns:
        int32 [n // size, size] with size = min(batch_size, n). Row i is what `batch`
        takes in step epoch * (n // size) + i.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is below 1.

    Example:
        >>> order = epoch_order(jax.random.key(0), 0, 7, 3)
        >>> order.shape, len(set(order.ravel().tolist()))
        ((2, 3), 6)
    """
    size, per_epoch = _epoch_shape("epoch_order", num_examples, batch_size)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
    return order[: per_epoch * size].reshape(per_epoch, size).astype(jnp.int32)


def batch(
    examples: Examples, key: jax.Array, step: jax.Array | int, batch_size: int
) -> Examples:
    """The batch of a step: a pure function of (key, step), so that a search resumes.

    Every epoch goes through the examples in a new order and drops the incomplete batch
    at its end. For a whole epoch in one loop take `epoch_order`, which permutes once.

    Args:
        examples: n examples.
        key: of the whole search, the same for every step.
        step: number of the step, from 0. May be traced.
        batch_size: at least 1; no batch is larger than n. Static.

    Returns:
        Examples, min(batch_size, n) of them.

    Raises:
        TypeError: `batch_size` is not an integer.
        ValueError: `batch_size` is below 1, or there are no examples.

    Example:
        >>> examples = Examples(inputs=jnp.eye(5), labels=jnp.arange(5))
        >>> batch(examples, jax.random.key(0), 0, 2).inputs.shape
        (2, 5)
    """
    _, per_epoch = _epoch_shape("batch", examples.size, batch_size)
    order = epoch_order(key, step // per_epoch, examples.size, batch_size)
    chosen = order[step % per_epoch]
    return Examples(
        inputs=jnp.asarray(examples.inputs)[chosen],
        labels=jnp.asarray(examples.labels)[chosen],
    )


def _epoch_shape(function: str, num_examples: int, batch_size: int) -> tuple[int, int]:
    """Examples in a batch, and batches in an epoch."""
    cure = "A batch needs at least one example."
    checks.count(function, "num_examples", num_examples, 1, cure)
    size = min(checks.count(function, "batch_size", batch_size, 1, cure), num_examples)
    return size, num_examples // size


def _check_split(labels: np.ndarray, size: int) -> None:
    """Refuses a split in which a class could not be on both sides."""
    classes, counts = np.unique(labels, return_counts=True)
    if (counts < 2).any():
        raise search_error(
            "labels",
            "have at least two examples of every class, to be split",
            f"one example of class {classes[np.argmin(counts)]}",
            "Add examples or leave the class out.",
        )
    least, most = len(classes), len(labels) - len(classes)
    if not least <= size <= most:
        raise search_error(
            "size",
            f"leave room for {least} classes on both sides of a split",
            f"{size} of {len(labels)} examples",
            f"Possible are {least} to {most}."
            if least <= most
            else "Use more examples.",
        )
