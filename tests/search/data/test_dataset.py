import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.data import dataset
from gumbax.search.data.dataset import Examples
from gumbax.search.store.errors import SearchError

NUM_EXAMPLES = 50
BATCH_SIZE = 16
PER_EPOCH = 3


@pytest.fixture
def numbered():
    index = jnp.arange(NUM_EXAMPLES, dtype=jnp.int32)
    return Examples(inputs=index[:, None].astype(jnp.float32), labels=index)


@pytest.fixture
def three_classes():
    labels = jnp.repeat(jnp.arange(3, dtype=jnp.int32), jnp.array([30, 50, 20]))
    return Examples(inputs=jnp.arange(100.0)[:, None], labels=labels)


def rows(examples):
    return set(np.asarray(examples.inputs)[:, 0].tolist())


def test_examples_are_a_pytree(numbered):
    assert numbered.size == NUM_EXAMPLES
    assert len(jax.tree.leaves(numbered)) == 2
    assert jax.jit(lambda examples: examples)(numbered).size == NUM_EXAMPLES


def test_halves_are_disjoint_and_cover_everything(three_classes):
    half, other = dataset.split(three_classes, 40, seed=1)
    assert (half.size, other.size) == (60, 40)
    assert not rows(half) & rows(other)
    assert rows(half) | rows(other) == rows(three_classes)
    again, _ = dataset.split(three_classes, 40, seed=1)
    assert rows(again) == rows(half)
    another, _ = dataset.split(three_classes, 40, seed=2)
    assert rows(another) != rows(half)


def test_split_keeps_proportions_and_pairs(three_classes):
    for part in dataset.split(three_classes, 40, seed=1):
        counts = np.bincount(part.labels)
        np.testing.assert_allclose(counts, np.array([0.3, 0.5, 0.2]) * part.size)
        index = np.asarray(part.inputs)[:, 0].astype(int)
        np.testing.assert_array_equal(part.labels, three_classes.labels[index])
        assert (part.inputs.dtype, part.labels.dtype) == (jnp.float32, jnp.int32)


@pytest.mark.parametrize("size", [0, 2, 98])
def test_split_leaves_room_for_every_class(three_classes, size):
    with pytest.raises(
        SearchError, match=rf"got {size} of 100 examples. Possible are 3 to 97"
    ):
        dataset.split(three_classes, size, seed=0)


def test_split_needs_two_examples_of_a_class():
    lonely = Examples(inputs=jnp.zeros((5, 1)), labels=jnp.array([0, 0, 1, 2, 2]))
    with pytest.raises(SearchError, match="got one example of class 1"):
        dataset.split(lonely, 2, seed=0)


@pytest.mark.parametrize(("batch_size", "shape"), [(16, (3, 16)), (64, (1, 50))])
def test_epoch_takes_each_example_at_most_once(batch_size, shape):
    order = dataset.epoch_order(jax.random.key(0), 0, NUM_EXAMPLES, batch_size)
    assert (order.shape, order.dtype) == (shape, jnp.int32)
    assert len(set(order.ravel().tolist())) == order.size
    assert set(order.ravel().tolist()) <= set(range(NUM_EXAMPLES))


def test_epochs_and_keys_have_orders_of_their_own():
    orders = [
        dataset.epoch_order(jax.random.key(seed), epoch, NUM_EXAMPLES, BATCH_SIZE)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({order.tobytes() for order in map(np.asarray, orders)}) == 3


def test_batches_are_the_rows_of_epoch_order(numbered):
    key = jax.random.key(0)
    take = jax.jit(lambda step: dataset.batch(numbered, key, step, BATCH_SIZE))
    for step in range(2 * PER_EPOCH):
        epoch, row = divmod(step, PER_EPOCH)
        order = dataset.epoch_order(key, epoch, NUM_EXAMPLES, BATCH_SIZE)
        found = take(step)
        np.testing.assert_array_equal(found.labels, order[row])
        np.testing.assert_array_equal(found.inputs[:, 0], order[row])


def test_order_is_the_same_under_jit_scan_and_x64(x64):
    key = jax.random.key(0)

    def order(epoch):
        return dataset.epoch_order(key, epoch, NUM_EXAMPLES, BATCH_SIZE)

    _, scanned = jax.lax.scan(lambda _, epoch: (None, order(epoch)), None, np.arange(2))
    assert scanned.dtype == jnp.int32
    for epoch in range(2):
        np.testing.assert_array_equal(scanned[epoch], order(epoch))


def test_batch_depends_on_key_and_step_alone(numbered):
    first = dataset.batch(numbered, jax.random.key(0), 5, BATCH_SIZE)
    again = dataset.batch(numbered, jax.random.key(0), jnp.int32(5), BATCH_SIZE)
    np.testing.assert_array_equal(first.labels, again.labels)
    other = dataset.batch(numbered, jax.random.key(1), 5, BATCH_SIZE)
    assert (first.labels != other.labels).any()


def test_batch_is_no_larger_than_the_set(numbered):
    assert dataset.batch(numbered, jax.random.key(0), 5, 64).size == NUM_EXAMPLES


def test_batch_takes_host_arrays_inside_jit(numbered):
    host = jax.tree.map(np.asarray, numbered)
    found = jax.jit(lambda step: dataset.batch(host, jax.random.key(0), step, 4))(0)
    expected = dataset.batch(numbered, jax.random.key(0), 0, 4)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize(
    ("batch_size", "error", "match"),
    [
        (0, ValueError, "`batch`: `batch_size` must be at least 1, got 0"),
        (2.0, TypeError, "`batch`: `batch_size` must be an integer, got 2.0"),
    ],
)
def test_batch_size_is_a_positive_integer(numbered, batch_size, error, match):
    with pytest.raises(error, match=match):
        dataset.batch(numbered, jax.random.key(0), 0, batch_size)
