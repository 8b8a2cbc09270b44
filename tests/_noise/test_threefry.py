import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax._noise import threefry

pytestmark = [
    pytest.mark.device,
    pytest.mark.usefixtures("strict_promotion", "optimised"),
]

# Random123, kat_vectors, threefry2x32 with 20 rounds: key, counter, result.
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN_ANSWERS)
def test_known_answers(key, counter, expected):
    words = threefry.threefry2x32(
        tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, counter))
    )
    assert tuple(map(int, words)) == expected


def test_equals_the_hash_of_jax():
    key = jax.random.key(3, impl="threefry2x32")
    data = jax.random.key_data(key)
    with jax.threefry_partitionable(True):
        expected = jax.random.bits(key, (64,))
    index = jnp.arange(64, dtype=jnp.uint32)
    high, low = threefry.threefry2x32(
        (data[0], data[1]), (jnp.zeros_like(index), index)
    )
    np.testing.assert_array_equal(high ^ low, expected)


def test_typed_and_legacy_keys_give_the_same_words():
    with jax.legacy_prng_key("allow"):
        legacy = jax.random.PRNGKey(5)
    typed = jax.random.wrap_key_data(legacy, impl="threefry2x32")
    for a, b in zip(threefry.key_words(typed), threefry.key_words(legacy), strict=True):
        assert a == b


@pytest.mark.parametrize("changed", range(4))
def test_every_word_of_a_long_key_counts(changed):
    data = jnp.arange(4, dtype=jnp.uint32)
    other = data.at[changed].add(np.uint32(1))
    words, others = (
        threefry.key_words(jax.random.wrap_key_data(d, impl="rbg"))
        for d in (data, other)
    )
    assert words[0] != others[0]
    assert words[1] != others[1]


def test_stream_differs_from_that_of_jax_for_the_same_key():
    key = jax.random.key(0, impl="threefry2x32")
    high, low = threefry.random_words(key, (4, 8), axis=1)
    assert not np.isin(np.asarray(high ^ low), jax.random.bits(key, (4, 8))).any()


def test_too_many_counters_are_refused():
    with pytest.raises(ValueError, match=r"2\*\*32"):
        jax.eval_shape(
            lambda key: threefry.random_words(key, (2**20, 2**13, 2), axis=2),
            jax.random.key(0),
        )
