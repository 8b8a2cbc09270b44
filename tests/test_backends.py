"""An accelerator beside the CPU of its machine: the same words, and what follows.

Float values agree to rounding, so that indices and one-hots do but for near-ties, of
which there is none here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from gumbax import gumbel
from gumbax._noise import threefry

pytestmark = pytest.mark.device
KEY = jax.random.key(5)
LOGITS = np.random.default_rng(0).normal(size=(64, 1000)).astype(np.float32)
WIDE = np.random.default_rng(1).normal(size=(8, 20_000)).astype(np.float32)


def on(device, function, *operands):
    placed = jax.device_put((KEY, *operands), device)
    return jax.device_get(jax.jit(function)(*placed))


@pytest.fixture
def both():
    """A function of (function, operands) -> its results on the CPU and here."""
    cpu, here = jax.devices("cpu")[0], jax.devices()[0]

    def run(function, *operands):
        return on(cpu, function, *operands), on(here, function, *operands)

    return run


def test_words_are_the_same(both):
    def words(key):
        return threefry.random_words(key, (64, 1000), axis=1)

    expected, found = both(words)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("function", "logits"),
    [
        (gumbax.gumbel_max, LOGITS),
        (gumbax.categorical, LOGITS),
        (gumbax.categorical, WIDE),
        (lambda k, x: gumbax.gumbel_softmax(k, x, hard=True), LOGITS),
        (lambda k, x: gumbax.relaxed_bernoulli(k, x, hard=True), LOGITS),
    ],
    ids=["gumbel_max", "categorical", "categorical, wide", "hard", "bits"],
)
def test_indices_and_one_hots_are_the_same(both, function, logits):
    expected, found = both(function, logits)
    np.testing.assert_array_equal(found, expected)


def test_noise_is_the_same_to_rounding(both):
    expected, found = both(lambda key: gumbel.sample(key, (64, 1000)))
    # Units of numbers near 1: the noise is a logarithm, and may be near 0. That of CPU
    # is up to 2.2 of them from the right value, CUDA's logarithms less than 1.
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=3e-7)
    assert np.mean(found != expected) < 0.25


def test_soft_samples_and_gradients_are_close(both):
    def function(key, x):
        def loss(x):
            y = gumbax.gumbel_softmax(key, x, temperature=0.5)
            return jnp.sum(y**2), y

        (_, y), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        return y, gradient

    expected, found = both(function, LOGITS)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
