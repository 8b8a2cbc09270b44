"""Gumbel noise below a bound, and scores given their argmax."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.stats

import gumbax
from gumbax import gumbel
from gumbax.gumbel import sampling
from tests import helpers

LOGITS = jnp.log(jnp.array([0.6, 0.25, 0.1, 0.05]))


@pytest.fixture
def key():
    return jax.random.key(8)


# Truncated


@pytest.mark.parametrize("upper", [-1.5, 0.3, 4.0])
def test_truncated_law(key, upper):
    loc, scale, n = 0.4, 1.7, 100_000
    x = gumbel.sample_truncated(key, (n, 1), upper=upper, loc=loc, scale=scale)
    law = scipy.stats.gumbel_r(loc, scale)
    below = law.cdf(upper)
    edges = law.ppf(below * np.linspace(0, 1, 21))
    edges[-1] = upper
    counts = np.histogram(np.asarray(x), edges)[0]
    assert counts.sum() == n
    # A location that is 0.1 higher, below the same bound.
    shifted = scipy.stats.gumbel_r(loc + 0.1, scale)
    wrong = np.diff(shifted.cdf(edges)) / shifted.cdf(upper)
    helpers.assert_law(counts, np.full(20, 1 / 20), against=wrong)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("upper", [-50.0, -5.03, 0.1, 3.3, 60.0])
def test_never_above_the_bound(key, upper, dtype):
    x = gumbel.sample_truncated(key, (4096,), upper=upper, dtype=dtype)
    assert x.dtype == dtype
    assert np.isfinite(np.asarray(x, np.float32)).all()
    assert (np.asarray(x, np.float32) <= np.float32(upper)).all()


def test_without_a_bound_it_is_the_noise_itself(key):
    x = gumbel.sample_truncated(key, (7, 9), upper=jnp.inf)
    np.testing.assert_allclose(x, gumbel.sample(key, (7, 9)), rtol=1e-6)
    assert gumbel.sample_truncated(key, (), upper=-jnp.inf) == -np.inf


def test_far_below_the_bulk_it_is_the_bound_less_an_exponential(key):
    """P(G <= -6) = exp(-exp(6)) ~ 1e-175: rejection would never end."""
    x = np.asarray(gumbel.sample_truncated(key, (100_000, 1), upper=-6.0), np.float64)
    gap = (np.exp(-x) - np.exp(6.0))[:, 0]  # Exponential(1), but for rounding of x
    edges = scipy.stats.expon.ppf(np.linspace(0, 1, 11))
    counts = np.histogram(gap, edges)[0]
    helpers.assert_law(counts, np.full(10, 0.1))


@pytest.mark.exhaustive
def test_truncated_derivatives(key, x64):
    def f(upper, loc, scale):
        options = {"dtype": jnp.float64, "loc": loc, "scale": scale}
        return gumbel.sample_truncated(key, (2,), upper=upper, **options)

    point = tuple(map(jnp.asarray, (0.3, -0.2, 1.4)))
    jax.test_util.check_grads(f, point, order=2)


# Given the index


def test_marginals_over_a_drawn_index_are_those_of_free_scores(key):
    n = 60_000
    logits = jnp.broadcast_to(LOGITS, (n, 4))
    index = gumbax.gumbel_max(key, logits)
    # The same key: the conditional noise is a stream of its own.
    scores = np.asarray(gumbel.sample_given_index(key, logits, index))
    for j, theta in enumerate(np.asarray(LOGITS)):
        law = scipy.stats.gumbel_r(theta)
        edges = law.ppf(np.linspace(0, 1, 21))
        counts = np.histogram(scores[:, j], edges)[0]
        wrong = np.diff(scipy.stats.gumbel_r(theta + 0.1).cdf(edges))
        helpers.assert_law(counts, np.full(20, 1 / 20), against=wrong)


@pytest.mark.exhaustive
def test_the_noise_that_drew_the_index_would_turn_that_red(key, monkeypatch):
    """The planted fault: one stream for both. The winner's noise is large already."""
    monkeypatch.setattr(sampling, "_GIVEN_INDEX", 0)
    jax.clear_caches()
    with pytest.raises(AssertionError, match="chi-square"):
        test_marginals_over_a_drawn_index_are_those_of_free_scores(key)
    jax.clear_caches()


def test_law_given_the_index_is_that_of_rejection(key):
    """The gap between the two highest scores, given that category 1 won."""
    n = 400_000
    free = np.asarray(LOGITS) + np.asarray(gumbel.sample(key, (n, 4)))
    kept = free[free.argmax(-1) == 1]
    m = len(kept)
    index = jnp.ones(m, int)
    ours = gumbel.sample_given_index(key, jnp.broadcast_to(LOGITS, (m, 4)), index)

    def gap(scores):
        ordered = np.sort(np.asarray(scores, np.float64), -1)
        return ordered[:, -1] - ordered[:, -2]

    result = scipy.stats.ks_2samp(gap(ours), gap(kept))
    assert result.pvalue > helpers.FALSE_POSITIVE_RATE
    # Power: the scores of an index that was not asked for are told apart.
    other = gumbel.sample_given_index(key, jnp.broadcast_to(LOGITS, (m, 4)), 0 * index)
    assert scipy.stats.ks_2samp(gap(other), gap(kept)).pvalue < 1e-12


@pytest.mark.parametrize("far", [0, 1e5])  # where numbers are .008 apart
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_argmax_is_always_the_index(key, dtype, far, x64):
    logits = (far + 30 * jax.random.normal(key, (20_000, 6))).astype(dtype)
    index = jax.random.randint(key, (20_000,), 0, 6)
    scores = gumbel.sample_given_index(key, logits, index)
    assert scores.dtype == dtype
    np.testing.assert_array_equal(jnp.argmax(scores, -1), index)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis(key, axis):
    logits = jax.random.normal(key, (3, 4, 5))
    index = gumbax.gumbel_max(key, logits, axis=axis)
    scores = gumbel.sample_given_index(key, logits, index, axis=axis)
    np.testing.assert_array_equal(jnp.argmax(scores, axis), index)
    moved = gumbel.sample_given_index(key, jnp.moveaxis(logits, axis, -1), index)
    np.testing.assert_allclose(
        jnp.moveaxis(scores, axis, -1), moved, rtol=1e-5, atol=1e-5
    )


def test_derivatives_reach_the_logits(key, x64):
    logits = jnp.asarray(LOGITS, jnp.float64)
    f = functools.partial(gumbel.sample_given_index, key, index=jnp.array(2))
    jax.test_util.check_grads(f, (logits,), order=2)
    # The top is logsumexp + noise: its gradient is softmax, not a one-hot.
    top = jax.jit(jax.grad(lambda x: f(x)[2]))(logits)
    np.testing.assert_allclose(top, jax.nn.softmax(logits), rtol=1e-9)


def test_edges(key):
    given = functools.partial(gumbel.sample_given_index, key)
    logits = jnp.array([0.0, -jnp.inf, 1.0])
    scores = np.asarray(given(logits, 2))
    assert scores[1] == -np.inf
    assert np.isfinite(scores[[0, 2]]).all()
    for impossible in (-1, 1, 3):
        assert np.isnan(given(logits, impossible)).all()
    nothing = jnp.full(3, -jnp.inf)
    np.testing.assert_array_equal(given(nothing, -1), nothing)
    assert np.isnan(given(jnp.array([0.0, jnp.nan, 1.0]), 0)).all()
    certain = np.asarray(given(jnp.array([0.0, jnp.inf, 1.0]), 1))
    assert certain[1] == np.inf
    assert np.isfinite(certain[[0, 2]]).all()
    through = jax.grad(lambda x: given(x, 1)[0])(jnp.array([0.0, jnp.inf, 1.0]))
    np.testing.assert_array_equal(through[::2], [1, 0])
    both = np.asarray(given(jnp.array([0.0, jnp.inf, jnp.inf]), 2))
    assert both.argmax() == 2
    assert np.isfinite(both[:2]).all()
    gradient = jax.grad(lambda x: jnp.where(jnp.isfinite(x), given(x, 2), 0).sum())
    assert np.isfinite(jax.jit(gradient)(logits)).all()


def test_what_cannot_be_drawn_has_no_derivative(key):
    """Whatever the loss makes of -inf, and forward mode too."""
    logits, mask = jnp.array([0.5, -jnp.inf, 1.0, 2.0]), jnp.array([1, 1, 1, 0]) != 0

    def scores(x, allowed):
        return gumbel.sample_given_index(key, x, 2, where=allowed)

    def squares(x):
        found = scores(x, mask)
        return jnp.where(jnp.isfinite(found), found**2, 0).sum()

    gradient = np.asarray(jax.grad(squares)(logits))
    assert np.isfinite(gradient).all()
    assert (gradient[jnp.array([1, 3])] == 0).all()
    assert (gradient[jnp.array([0, 2])] != 0).all()
    nothing = functools.partial(scores, allowed=jnp.zeros(4, bool))
    _, change = jax.jvp(nothing, (logits,), (jnp.ones(4),))
    np.testing.assert_array_equal(change, 0)


def test_narrow_logits(key):
    logits = jnp.zeros((100, 5), jnp.bfloat16)
    index = gumbax.gumbel_max(key, logits)
    scores = np.asarray(gumbel.sample_given_index(key, logits, index), np.float32)
    chosen = np.take_along_axis(scores, np.asarray(index)[:, None], -1)[:, 0]
    np.testing.assert_array_equal(scores.max(-1), chosen)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.zeros(3, np.float32), "`index` must be an integer array"),
        (np.zeros(3, int), r"`index` must have the shape of `logits` without"),
        (0, r"`index` must have the shape of `logits` without"),
    ],
)
def test_bad_index(key, index, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gumbel.sample_given_index(key, jnp.zeros((2, 3)), index)


def test_masks_and_several_draws():
    key, logits = jax.random.key(8), jnp.array([[0.3, 2.0, -1.0], [1.0, 0.0, 0.5]])
    mask, index = jnp.array([[True, False, True]]), jnp.array([2, 0])
    options = {"where": mask, "sample_shape": (4,)}
    found = gumbel.sample_given_index(key, logits, index, **options)
    assert found.shape == (4, 2, 3)
    assert (found[..., 1] == -jnp.inf).all()
    np.testing.assert_array_equal(found.argmax(-1), jnp.tile(index, (4, 1)))
    # As of logits with the mask in them, and of the rows of one array.
    inside = jnp.tile(jnp.where(mask, logits, -jnp.inf), (4, 1, 1))
    whole = gumbel.sample_given_index(key, inside, jnp.tile(index, (4, 1)))
    np.testing.assert_array_equal(found, whole)
    each = gumbax.gumbel_max(key, logits, **options)
    scores = gumbel.sample_given_index(key, logits, each, **options)
    np.testing.assert_array_equal(scores.argmax(-1), each)
    masked = gumbel.sample_given_index(key, logits, jnp.array([1, 0]), where=mask)
    assert np.isnan(masked[0]).all()
    with pytest.raises(ValueError, match="`index` must have the shape of `logits`"):
        gumbel.sample_given_index(key, logits, jnp.zeros((5, 2), int), **options)
