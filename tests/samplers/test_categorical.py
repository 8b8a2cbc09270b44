import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gumbax
from tests import helpers
from tests.helpers import sweep

pytestmark = pytest.mark.device
K = 4700  # ten blocks, the last one not full


@pytest.fixture
def key():
    return jax.random.key(13)


@pytest.fixture
def logits():
    """Asymmetric, and far apart between blocks."""
    ramp = jnp.linspace(-2.0, 1.0, K)
    return ramp + jnp.where(jnp.arange(K) < 1536, -1.0, 0.0)


def law(logits):
    wide = np.asarray(logits, np.float64)
    weights = np.exp(wide - wide.max())
    return weights / weights.sum()


def grouped(values, size=50):
    return np.add.reduceat(values, np.arange(0, len(values), size))


@pytest.mark.parametrize("dtype", sweep([jnp.float32], [jnp.bfloat16, jnp.float16]))
def test_law(key, logits, dtype):
    logits = logits.astype(dtype)
    index = np.asarray(gumbax.categorical(key, logits, sample_shape=(100_000,)))
    counts, probs = np.bincount(index, minlength=K), law(logits)
    helpers.assert_law(grouped(counts), grouped(probs), against=grouped(probs[::-1]))
    # And inside of blocks: by the place in its block.
    place = np.arange(K) % 512 // 64
    helpers.assert_law(
        np.bincount(place, counts), np.bincount(place, probs), against=np.full(8, 1 / 8)
    )


@pytest.mark.parametrize("size", [7, 32, 512])
def test_law_in_blocks_of_a_size(key, logits, size):
    logits = logits[:1000] - jnp.where(jnp.arange(1000) % 5 == 0, 2.0, 0.0)
    options = {"sample_shape": (50_000,), "block_size": size}
    index = np.asarray(gumbax.categorical(key, logits, **options))
    counts, probs = np.bincount(index, minlength=1000), law(logits)
    helpers.assert_law(grouped(counts), grouped(probs), against=grouped(probs[::-1]))
    place = np.arange(1000) % 5
    helpers.assert_law(
        np.bincount(place, counts), np.bincount(place, probs), against=np.full(5, 1 / 5)
    )


def test_default_block_size(key, logits):
    rows = 2 * jnp.stack([logits, logits[::-1]])
    default = gumbax.categorical(key, rows)
    np.testing.assert_array_equal(
        gumbax.categorical(key, rows, block_size=512), default
    )
    assert np.any(gumbax.categorical(key, rows, block_size=64) != default)
    few = rows[:, :4096]
    np.testing.assert_array_equal(
        gumbax.categorical(key, few, block_size=4096), gumbax.categorical(key, few)
    )


def test_one_block_has_the_law_too(key):
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    logits = jnp.log(jnp.asarray(probs))
    index = gumbax.categorical(key, logits, sample_shape=(20_000,))
    helpers.assert_law(np.bincount(index), probs, against=probs[::-1])


def test_rows_and_samples_are_independent(key):
    logits = jnp.zeros((2, 8192))
    index = np.asarray(gumbax.categorical(key, logits, sample_shape=(20_000,)))
    quarters = index // 2048
    pairs = np.bincount(4 * quarters[:, 0] + quarters[:, 1], minlength=16)
    helpers.assert_law(pairs, np.full(16, 1 / 16))
    halves = (index % 512) // 256, index // 4096  # in a block, and of the blocks
    pairs = np.bincount((2 * halves[0] + halves[1]).ravel(), minlength=4)
    helpers.assert_law(pairs, np.full(4, 1 / 4))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_any_axis(key, axis):
    logits = 5 * jax.random.normal(key, (4, 3, 5000))
    moved = jnp.moveaxis(logits, -1, axis)
    draw = functools.partial(gumbax.categorical, key, sample_shape=(5,))
    np.testing.assert_array_equal(draw(moved, axis=axis), draw(logits))


@pytest.mark.exhaustive
def test_transformations_agree(key, logits):
    rows = jnp.broadcast_to(logits, (16, K)) + jnp.arange(16.0)[:, None]
    expected = gumbax.categorical(key, rows)
    np.testing.assert_array_equal(jax.jit(gumbax.categorical)(key, rows), expected)
    keys = jax.random.split(key, 16)
    looped = [gumbax.categorical(k, row) for k, row in zip(keys, rows, strict=True)]
    np.testing.assert_array_equal(jax.vmap(gumbax.categorical)(keys, rows), looped)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    sharded = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("x")))
    np.testing.assert_array_equal(jax.jit(gumbax.categorical)(key, sharded), expected)


@pytest.mark.parametrize("num_categories", [3, 5000])
def test_edges(key, num_categories):
    zeros = np.zeros((6, num_categories), np.float32)
    zeros[1] = -np.inf
    zeros[2, 1] = np.nan
    zeros[3, -1] = np.inf
    zeros[4] = -1e30
    zeros[4, -1] = 1e30
    where = np.ones_like(zeros, bool)
    where[5] = False
    index = gumbax.categorical(key, zeros, where=where)
    assert index.dtype == jnp.int32
    last = num_categories - 1
    np.testing.assert_array_equal(index[1:], [-1, -1, last, last, -1])
    assert 0 <= index[0] <= last
    only = np.arange(num_categories) == 2
    assert gumbax.categorical(key, zeros[0], where=only) == 2
    masked_nan = np.where(only, 0, np.nan).astype(np.float32)
    assert gumbax.categorical(key, masked_nan, where=only) == 2


@pytest.mark.parametrize("shape", [(4, 1), (0, 3), (2, 0), (0, 5000), (5000,)])
def test_small_shapes(key, shape):
    assert gumbax.categorical(key, jnp.zeros(shape)).shape == shape[:-1]


def test_bad_arguments(key):
    with pytest.raises(TypeError, match="`categorical`: `logits` must be a real"):
        gumbax.categorical(key, jnp.zeros(3, int))
    with pytest.raises(ValueError, match="`categorical`: `where` must broadcast"):
        gumbax.categorical(key, jnp.zeros(3), where=jnp.ones(2, bool))
    with pytest.raises(TypeError, match="`categorical`: `key` must be one PRNG key"):
        gumbax.categorical(None, jnp.zeros(3))
    with pytest.raises(ValueError, match="`block_size` must be at least 1, got 0"):
        gumbax.categorical(key, jnp.zeros(3), block_size=0)
    with pytest.raises(TypeError, match="`block_size` must be an integer"):
        gumbax.categorical(key, jnp.zeros(3), block_size=2.0)
