import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import gumbax
from gumbax import logistic
from tests.helpers import FALSE_POSITIVE_RATE

KEY = jax.random.key(6)


def test_is_the_noise_of_the_binary_samplers():
    logits = jnp.linspace(-2, 2, 12).reshape(3, 4)
    noise = logistic.sample(KEY, logits.shape)
    for sampler in (gumbax.relaxed_bernoulli, gumbax.hard_concrete):
        np.testing.assert_array_equal(
            sampler(KEY, logits), sampler(None, logits, logistics=noise)
        )
    np.testing.assert_array_equal(
        noise[1:, 2:], logistic.sample(KEY, (2, 2), offset=(1, 2))
    )
    assert logistic.sample(KEY).shape == ()
    assert logistic.sample(KEY, (2,), dtype=jnp.float16).dtype == jnp.float16


@pytest.mark.parametrize("logit", [-2.0, 0.7])
def test_scores_given_their_bit_have_the_law_of_scores(logit):
    logits = jnp.full(100_000, logit)
    bit = gumbax.relaxed_bernoulli(KEY, logits, hard=True)
    scores = logistic.sample_given_bit(KEY, logits, bit)
    np.testing.assert_array_equal(scores > 0, bit == 1)
    law = scipy.stats.logistic(logit)
    assert scipy.stats.kstest(np.asarray(scores), law.cdf).pvalue > FALSE_POSITIVE_RATE
    # Of the noise that drew the bit it knows nothing but the bit.
    drawn = logits + logistic.sample(KEY, logits.shape)
    ones = np.asarray(bit) == 1
    correlation = np.corrcoef(drawn[ones], scores[ones])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(ones.sum())


def test_gradient_is_that_of_the_inverse_at_fixed_noise():
    # Tucker et al.: v uniform, u = v p + (1 - p) given 1, v (1 - p) given 0.
    def by_hand(logit, bit, v):
        p = jax.nn.sigmoid(logit)
        u = jnp.where(bit == 1, v * p + 1 - p, v * (1 - p))
        return logit + jnp.log(u) - jnp.log1p(-u)

    logits, bit = jnp.array([-1.5, 0.4, 2.0, -0.1]), jnp.array([1, 1, 0, 0])
    scores, slope = jax.jvp(
        lambda x: logistic.sample_given_bit(KEY, x, bit), [logits], [jnp.ones(4)]
    )
    p, u = jax.nn.sigmoid(logits), jax.nn.sigmoid(scores - logits)
    v = jnp.where(bit == 1, (u - (1 - p)) / p, u / (1 - p))
    value, expected = jax.jvp(lambda x: by_hand(x, bit, v), [logits], [jnp.ones(4)])
    np.testing.assert_allclose(value, scores, rtol=1e-4)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_improbable_and_impossible_bits(dtype):
    logits = jnp.array([-60, 60, -60, 60, -jnp.inf, jnp.inf, jnp.nan, 0], dtype)
    bit = jnp.array([1, 0, 0, 1, 1, 0, 1, jnp.nan])
    scores = logistic.sample_given_bit(KEY, logits, bit, sample_shape=(500,))
    assert scores.dtype == dtype
    assert (scores[:, [0, 3]] > 0).all()
    assert (scores[:, [1, 2]] <= 0).all()
    assert np.isfinite(scores[:, :4].astype(jnp.float32)).all()
    assert np.isnan(scores[:, 4:].astype(jnp.float32)).all()
    certain = logistic.sample_given_bit(KEY, jnp.array([jnp.inf, -jnp.inf]), [1, 0])
    assert certain.tolist() == [jnp.inf, -jnp.inf]


def test_bad_arguments():
    with pytest.raises(ValueError, match="`bit` must broadcast to"):
        logistic.sample_given_bit(KEY, jnp.zeros((2, 3)), jnp.zeros(2))
