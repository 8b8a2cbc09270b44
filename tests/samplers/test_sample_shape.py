"""Several draws from the same logits at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from tests import helpers

LOGITS = jnp.log(jnp.array([0.5, 0.25, 0.15, 0.1]))
SAMPLERS = {
    "index": gumbax.gumbel_max,
    "soft": gumbax.gumbel_softmax,
    "hard": functools.partial(gumbax.gumbel_softmax, hard=True),
    "log": gumbax.log_gumbel_softmax,
}
samplers = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


@pytest.fixture
def key():
    return jax.random.key(21)


def test_draws_are_independent_with_the_law_of_the_logits(key):
    index = np.asarray(gumbax.gumbel_max(key, LOGITS, sample_shape=(20_000, 2)))
    probs = np.exp(np.asarray(LOGITS, np.float64))
    pairs = np.bincount(4 * index[:, 0] + index[:, 1], minlength=16)
    # The law of a pair that is drawn twice would sit on the diagonal.
    helpers.assert_law(pairs, np.outer(probs, probs).ravel())


@samplers
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_equals_a_draw_from_repeated_logits(key, sampler, axis):
    logits = jax.random.normal(key, (3, 5))
    repeated = jnp.broadcast_to(logits, (2, 4, 3, 5))
    found = sampler(key, logits, axis=axis, sample_shape=(2, 4))
    expected = sampler(key, repeated, axis=axis if axis < 0 else axis + 2)
    np.testing.assert_array_equal(found, expected)
    moved = axis if axis < 0 else axis + 2
    gumbels = gumbax.gumbel.sample(key, repeated.shape, axis=moved)
    given = sampler(None, logits, axis=axis, sample_shape=(2, 4), gumbels=gumbels)
    np.testing.assert_allclose(given, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["soft", "hard", "log"])
def test_gradient_is_the_sum_over_the_draws(key, name):
    sampler = SAMPLERS[name]
    logits = jax.random.normal(key, (3, 5))
    gumbels = gumbax.gumbel.sample(key, (4, 3, 5))
    weights = jax.random.normal(key, (4, 3, 5))

    def together(logits, temperature, gumbels):
        y = sampler(
            None, logits, temperature=temperature, gumbels=gumbels, sample_shape=(4,)
        )
        return jnp.sum(weights * y)

    def apart(logits, temperature, gumbels):
        rows = [
            sampler(None, logits, temperature=temperature, gumbels=gumbels[i])
            for i in range(4)
        ]
        return sum(jnp.sum(w * y) for w, y in zip(weights, rows, strict=True))

    point = (logits, jnp.full((3, 1), 0.7), gumbels)
    found = jax.grad(together, (0, 1, 2))(*point)
    expected = jax.grad(apart, (0, 1, 2))(*point)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@samplers
def test_one_noise_for_all_rows_broadcasts(key, sampler):
    logits = jax.random.normal(key, (3, 5))
    shared = gumbax.gumbel.sample(key, (1, 5))
    whole = sampler(None, logits, gumbels=jnp.broadcast_to(shared, (3, 5)))
    np.testing.assert_array_equal(sampler(None, logits, gumbels=shared), whole)
    if sampler is not gumbax.gumbel_max:
        total = lambda g: (sampler(None, logits, gumbels=g) ** 2).sum()  # noqa: E731
        assert jax.grad(total)(shared).shape == shared.shape


@samplers
@pytest.mark.parametrize("sample_shape", [(), (0,), (1,), (2, 0)])
def test_small_sample_shapes(key, sampler, sample_shape):
    rest = () if sampler is gumbax.gumbel_max else (4,)
    assert sampler(key, LOGITS, sample_shape=sample_shape).shape == sample_shape + rest


@samplers
@pytest.mark.parametrize("bad", [3, (-1,), (1.5,), "a"])
def test_bad_sample_shape(key, sampler, bad):
    with pytest.raises(ValueError, match="`sample_shape` must be a sequence"):
        sampler(key, LOGITS, sample_shape=bad)
