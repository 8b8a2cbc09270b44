import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import gumbax

LOGITS = jax.random.normal(jax.random.key(1), (3, 5)) * 4
MASK = np.array([True, False, True, True, False])


def reference(logits, mask):
    logits = np.where(mask, np.asarray(logits, np.float64), -np.inf)
    log_probs = scipy.special.log_softmax(logits, axis=-1)
    probs = np.exp(log_probs)
    return log_probs, -np.sum(scipy.special.xlogy(probs, probs), axis=-1)


@pytest.mark.parametrize("mask", [MASK, np.ones(5, bool)])
def test_values(mask):
    log_probs, entropy = reference(LOGITS, mask)
    index = jnp.arange(5)[:, None]  # of every row each
    found = gumbax.categorical_log_prob(index, LOGITS, where=mask)
    np.testing.assert_allclose(found, log_probs.T, rtol=1e-6)
    found = gumbax.categorical_entropy(LOGITS, where=mask)
    np.testing.assert_allclose(found, entropy, rtol=1e-6)
    moved = jnp.moveaxis(LOGITS, -1, 0)
    found = gumbax.categorical_log_prob(index, moved, where=mask[:, None], axis=0)
    np.testing.assert_allclose(found, log_probs.T, rtol=1e-6)
    found = gumbax.categorical_entropy(moved, where=mask[:, None], axis=0)
    np.testing.assert_allclose(found, entropy, rtol=1e-6)


def test_masked_categories_have_a_gradient_of_exactly_0():
    def loss(logits, index):
        log_prob = gumbax.categorical_log_prob(index, logits, where=MASK)
        return jnp.sum(jnp.exp(log_prob)) - jnp.sum(
            gumbax.categorical_entropy(logits, where=MASK)
        )

    broken = LOGITS.at[:, 1].set(jnp.nan)
    for index in (0, 1):  # allowed, and masked
        found = jax.grad(loss)(broken, jnp.full(3, index))
        assert (found[:, ~MASK] == 0).all()
        assert np.isfinite(found).all()
        assert (found[:, MASK] != 0).all()


def test_gradients_are_those_of_the_plain_formula():
    def plain(logits):
        log_probs = jax.nn.log_softmax(logits[:, MASK])
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return jnp.sum(log_probs[:, 0] ** 2 + jnp.sin(entropy))

    def ours(logits):
        log_prob = gumbax.categorical_log_prob(0, logits, where=MASK)
        entropy = gumbax.categorical_entropy(logits, where=MASK)
        return jnp.sum(log_prob**2 + jnp.sin(entropy))

    for derive in (jax.grad, jax.hessian):
        found, expected = (jax.jit(derive(f))(LOGITS) for f in (ours, plain))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_category_and_rows_without_one():
    none = jnp.full((2, 3), -jnp.inf)
    index = gumbax.gumbel_max(jax.random.key(0), none)
    assert index.tolist() == [-1, -1]

    def both(logits):
        log_prob = gumbax.categorical_log_prob(index, logits)
        return log_prob, gumbax.categorical_entropy(logits)

    for logits, entropy in ((none, 0), (jnp.zeros((2, 3)), np.log(3))):
        log_prob, found = both(logits)
        assert (log_prob == -jnp.inf).all()
        np.testing.assert_allclose(found, entropy, rtol=1e-6)
        gradient = jax.grad(lambda x: jnp.sum(jnp.exp(both(x)[0]) + both(x)[1]))(logits)
        assert np.isfinite(gradient).all()
    assert np.isnan(both(jnp.array([[0.0, jnp.nan, 0.0]] * 2))).all()
    certain = jnp.array([[0.0, jnp.inf, 0.0]] * 2)
    assert gumbax.categorical_log_prob(1, certain).tolist() == [0, 0]
    assert both(certain)[1].tolist() == [0, 0]


def test_logits_of_probabilities_that_are_0():
    probs = jnp.array([0.0, 0.25, 0.75])
    logits = gumbax.probs_to_logits(probs)
    assert logits[0] == -jnp.inf
    np.testing.assert_array_equal(logits[1:], np.log(np.asarray(probs[1:])))
    key = jax.random.key(0)
    drawn = gumbax.gumbel_max(key, logits, sample_shape=(1000,))
    assert (drawn > 0).all()

    def loss(probs, to_logits):
        y = gumbax.gumbel_softmax(key, to_logits(probs))
        return jnp.sum(y * jnp.arange(3.0))

    assert np.isnan(jax.grad(loss)(probs, jnp.log)[0])
    found = jax.grad(loss)(probs, gumbax.probs_to_logits)
    expected = jax.grad(loss)(probs + jnp.array([1e-30, 0, 0]), jnp.log)
    assert found[0] == 0
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-5)
    assert np.isnan(gumbax.probs_to_logits(-0.1))
    assert gumbax.probs_to_logits(jnp.bfloat16(0.5)).dtype == jnp.bfloat16


def test_bad_arguments():
    with pytest.raises(ValueError, match="`index` must broadcast with the rows of"):
        gumbax.categorical_log_prob(jnp.zeros(4, int), LOGITS)
    with pytest.raises(TypeError, match="`index` must be an integer or an array"):
        gumbax.categorical_log_prob(0.0, LOGITS)
