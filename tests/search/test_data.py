import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search import data
from gumbax.search.data import Examples
from gumbax.search.errors import SearchError


def rows(examples):
    return {np.asarray(image).tobytes() for image in examples.images}


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(SearchError, match=r"got 'digit'. Known: digits"):
        data.load("digit")


def test_digits(digits):
    assert digits.train.images.shape == (1437, 8, 8, 1)
    assert digits.test.images.shape == (360, 8, 8, 1)
    assert digits.train.images.min() == 0
    assert digits.train.images.max() == 1
    assert not rows(digits.train) & rows(digits.test)


def test_test_set_has_every_class_in_its_proportion(digits):
    counts = np.bincount(digits.test.labels, minlength=digits.num_classes)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    np.testing.assert_allclose(counts, np.bincount(labels) * 360 / 1797, atol=1)


def test_halves_are_disjoint_and_cover_everything(digits):
    half, other = data.split(digits.train, 700, seed=1)
    assert (half.size, other.size) == (737, 700)
    assert not rows(half) & rows(other)
    assert rows(half) | rows(other) == rows(digits.train)
    again, _ = data.split(digits.train, 700, seed=2)
    assert rows(again) != rows(half)


@pytest.fixture
def numbered():
    index = jnp.arange(50)
    return Examples(images=index[:, None, None, None].astype(float), labels=index)


def test_epoch_visits_each_example_at_most_once_in_a_new_order(numbered):
    key = jax.random.key(0)
    batch = jax.jit(lambda step: data.batch(numbered, key, step, 16).labels)
    epochs = [
        np.concatenate([batch(3 * epoch + i) for i in range(3)]) for epoch in range(2)
    ]
    for labels in epochs:
        assert len(set(labels.tolist())) == 48
    assert (epochs[0] != epochs[1]).any()


def test_batch_depends_on_key_and_step_alone(numbered):
    first = data.batch(numbered, jax.random.key(0), 5, 16)
    again = data.batch(numbered, jax.random.key(0), jnp.int32(5), 16)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.images[:, 0, 0, 0], first.labels)
    other = data.batch(numbered, jax.random.key(1), 5, 16)
    assert (first.labels != other.labels).any()


def test_batch_is_no_larger_than_the_set(numbered):
    assert data.batch(numbered, jax.random.key(0), 5, 64).size == 50
