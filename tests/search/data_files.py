"""What the tests of data sets share: arrays, files of them, and refusals."""

import re
import struct
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.data import datasets
from gumbax.search.store.errors import SearchError

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Trap:
    """A pickle that runs something when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return subprocess.call, (["touch", str(self.path)],)


def small_arrays():
    """Images whose first pixel is their number, of three classes."""
    generator = np.random.default_rng(0)
    x_train, x_test = (
        generator.integers(0, 256, (n, 4, 5)).astype(np.uint8) for n in (30, 9)
    )
    x_train[:, 0, 0], x_test[:, 0, 0] = np.arange(30), np.arange(9)
    y_train, y_test = (np.arange(n, dtype=np.uint8) % 3 for n in (30, 9))
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def idx(array):
    """Bytes as an IDX file."""
    header = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + header + array.tobytes()


def images(examples):
    return {image.tobytes() for image in np.asarray(examples.inputs)}


def refused(match, source, **options):
    """Loading `source` ends in a SearchError in the form of all errors."""
    with pytest.raises(SearchError, match=re.escape(match)) as caught:
        datasets.load(source, **options)
    assert str(caught.value).startswith("`gumbax search`: `")
    assert str(caught.value).endswith(".")


def assert_holds(dataset, arrays):
    """`dataset` is what the uint8 images of `arrays` stand for."""
    for part in ("train", "test"):
        examples = getattr(dataset, part)
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        assert examples.inputs.dtype == jnp.float32
        assert examples.labels.dtype == jnp.int32
        expected = x.astype(np.float32) / np.float32(255)
        if x.ndim == 3:
            expected = expected[..., None]
        np.testing.assert_array_equal(examples.inputs, expected)
        np.testing.assert_array_equal(examples.labels, y)
    assert dataset.num_classes == arrays["y_train"].max() + 1
