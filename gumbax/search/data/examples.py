"""Checks of what a data set is made of, and the arrays that come out of them."""

import warnings
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from gumbax.search.data.dataset import Examples
from gumbax.search.store.errors import DataWarning, search_error

# Of images, usually.
_CHANNELS = {1, 3, 4}
# Standardised pixels stay below it, those up to 255 do not.
_LARGEST = 20.0
_IMAGES = "images [n, H, W, C] or [n, H, W] or features [n, D]"
_SEQUENCES = "sequences [n, length, channels] or [n, length]"


def as_examples(inputs: np.ndarray, labels: np.ndarray) -> Examples:
    """Copies of the arrays, on the device."""
    return Examples(inputs=jnp.array(inputs), labels=jnp.array(labels))


def checked_examples(
    name: str, part: str, x: Any, y: Any, *, sequences: bool = False
) -> Examples:
    """Checked examples of one part, "train", "test" or "" for all."""
    suffix = f"_{part}" if part else ""
    inputs = _inputs(f"{name}: x{suffix}", x, sequences)
    labels = _labels(f"{name}: y{suffix}", y)
    if len(inputs) != len(labels):
        raise search_error(
            f"{name}: y{suffix}",
            f"hold one label for each of {len(inputs)} inputs",
            f"{len(labels)} labels",
            "Inputs and labels go together row by row.",
        )
    return as_examples(inputs, labels)


def _inputs(argument: str, value: Any, sequences: bool) -> np.ndarray:
    array = _array(argument, "inputs", value)
    most, kind = (3, _SEQUENCES) if sequences else (4, _IMAGES)
    if not 2 <= array.ndim <= most or 0 in array.shape:
        raise search_error(
            argument,
            f"be {kind}, n > 0",
            f"shape {array.shape}",
            "Reshape it; the examples are on the first axis.",
        )
    with np.errstate(over="ignore"):  # infinity is refused below
        inputs = array.astype(np.float32)
    if array.dtype == np.uint8:
        inputs /= 255
    finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    if not finite.all():
        raise search_error(
            argument,
            "hold finite float32 numbers",
            f"NaN or infinity in {(~finite).sum()} inputs, "
            f"first in {np.argmin(finite)}",
            "Fill in what is missing, or leave these examples out.",
        )
    if sequences:
        return inputs[..., None] if inputs.ndim == 2 else inputs
    if inputs.ndim > 2:
        _doubt_images(argument, array)
    return inputs[..., None] if inputs.ndim == 3 else inputs


def _doubt_images(argument: str, array: np.ndarray) -> None:
    """Warns of images that are probably not as they were meant."""
    first_too = array.ndim == 4 and array.shape[1] in _CHANNELS
    if first_too and array.shape[3] not in _CHANNELS:
        _, height, width, channels = array.shape
        warnings.warn(
            f"{argument}: shape {array.shape} is taken as {height}x{width} pixels of "
            f"{channels} channels. If the channels come first, pass "
            "`x.transpose(0, 2, 3, 1)`.",
            DataWarning,
            stacklevel=4,
        )
    if array.ndim == 3 and array.shape[2] in _CHANNELS:
        _, height, width = array.shape
        warnings.warn(
            f"{argument}: shape {array.shape} is taken as images of {height}x{width} "
            "pixels. If it holds sequences, pass `sequences=True`, or "
            "`--space sequences` to the command.",
            DataWarning,
            stacklevel=4,
        )
    largest = float(np.abs(array.astype(np.float64)).max())
    if array.dtype != np.uint8 and largest > _LARGEST:
        warnings.warn(
            f"{argument}: {array.dtype} up to {largest:g} are kept as they are; only "
            "uint8 is divided by 255. Networks here expect [0, 1] or [-1, 1]: scale "
            "the images, or pass them as uint8.",
            DataWarning,
            stacklevel=4,
        )


def _labels(argument: str, value: Any) -> np.ndarray:
    array = _array(argument, "labels", value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    cure = "Number the classes from 0, one integer for each example."
    if array.ndim != 1:
        got = f"shape {array.shape}"
        cure = "Of one-hot rows take `.argmax(axis=1)`."
        raise search_error(argument, "be integers [n]", got, cure)
    if array.dtype == bool:
        array = array.astype(np.int32)
    fits = (array >= 0) & (array < 2**31) & (array == np.floor(array))
    if not fits.all():
        first = int(fits.argmin())
        got = f"{array[first]} in example {first}"
        raise search_error(argument, "be integers from 0", got, cure)
    return array.astype(np.int32)


def _array(argument: str, what: str, value: Any) -> np.ndarray:
    """`value` as an array of real numbers."""
    try:
        array = np.asarray(value)
    except Exception as error:  # unequal lengths, tensors of another device, ...
        shapes = _shapes(value) or f"{type(error).__name__}: {error}".rstrip(".")
    else:
        if jnp.issubdtype(array.dtype, jnp.floating) or array.dtype.kind in "biu":
            return array
        if array.dtype != object:
            must, cure = f"be {what} as real numbers", "Convert them to numbers."
            raise search_error(argument, must, f"type {array.dtype}", cure)
        shapes = _shapes(value) or "Python objects"
    cure = "Bring all images to one size first, in a plain array of numbers."
    raise search_error(argument, f"be {what} of one shape", shapes, cure)


def _shapes(value: Any) -> str:
    """The first unequal shapes in a ragged collection, if that is what it is."""
    try:
        shapes = list(dict.fromkeys(np.shape(item) for item in value))
    except (TypeError, ValueError):
        return ""
    return f"shapes {', '.join(map(str, shapes[:3]))}" if len(shapes) > 1 else ""


def collected(name: str, part: str, iterator: Iterable[Any]) -> tuple[Any, Any]:
    """Everything that an iterator yields, in two arrays."""
    inputs: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for i, item in enumerate(iterator):
        try:
            x, y = item
        except (TypeError, ValueError):
            raise search_error(
                f"{name}: {part}_iterator",
                "yield pairs (x, y)",
                f"a {type(item).__name__} in item {i}",
                "Map the items of the loader to such pairs.",
            ) from None
        x = _array(f"{name}: x_{part}, item {i}", "inputs", x)
        y = _array(f"{name}: y_{part}, item {i}", "labels", y)
        x, y = (x[None], y[None]) if y.ndim == 0 else (x, y)
        if x.shape[:1] != y.shape[:1]:
            raise search_error(
                f"{name}: y_{part}",
                "hold one label for each input",
                f"shapes {x.shape} and {y.shape} in item {i}",
                "Inputs and labels go together row by row.",
            )
        inputs.append(x)
        labels.append(y)
    if not inputs:
        cure = "A loader that was used before may be exhausted: make a new one."
        raise search_error(f"{name}: {part}_iterator", "yield pairs", "nothing", cure)
    return _joined(f"{name}: x_{part}", inputs), _joined(f"{name}: y_{part}", labels)


def _joined(argument: str, batches: list[np.ndarray]) -> np.ndarray:
    shapes = list(dict.fromkeys(batch.shape[1:] for batch in batches))
    if len(shapes) > 1:
        raise search_error(
            argument,
            "have one shape in all batches",
            f"shapes {', '.join(map(str, shapes[:3]))} after the first axis",
            "Bring all images to one size first.",
        )
    return np.concatenate(batches)


def count_classes(name: str, train: Examples) -> int:
    """K, if the labels are 0..K-1, each at least once."""
    classes = np.unique(np.asarray(train.labels))
    empty = np.flatnonzero(classes != np.arange(len(classes)))
    if empty.size:
        raise search_error(
            f"{name}: y_train",
            f"hold every label from 0 to the largest, {classes[-1]}",
            f"no example of class {empty[0]}",
            "Number the classes without gaps, or add examples of that class.",
        )
    if len(classes) == 1:
        warnings.warn(
            f"{name}: y_train has one class only: every network is right. Check the "
            "labels.",
            DataWarning,
            stacklevel=4,
        )
    return len(classes)
