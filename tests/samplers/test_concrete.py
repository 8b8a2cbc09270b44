"""Densities of the relaxed laws: by quadrature, at the boundary, of their samples."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import gumbax
from gumbax import concrete
from tests import helpers
from tests.helpers import sweep

LOGITS = np.array([0.3, -0.8, 1.1])


def published_density(x, logits, t):
    """Maddison et al., Eq. 10, as written."""
    k = len(x)
    weights = np.exp(logits)
    factor = scipy.special.factorial(k - 1) * t ** (k - 1)
    return factor * np.prod(weights * x ** (-t - 1)) / np.sum(weights * x**-t) ** k


@pytest.fixture
def points():
    return np.random.default_rng(0).dirichlet(np.ones(3), 20)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.1, 0.5, 1.0, 3.0])
def test_is_the_published_density(points, t):
    found = concrete.log_prob(jnp.asarray(points), jnp.asarray(LOGITS), temperature=t)
    expected = [np.log(published_density(x, LOGITS, t)) for x in points]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    log_space = concrete.exp_log_prob(
        jnp.log(points), jnp.asarray(LOGITS), temperature=t
    )
    np.testing.assert_allclose(
        log_space - np.log(points).sum(-1), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
def test_integrates_to_one(t):
    # A fixed grid: the trapezoid rule is exponentially accurate on the whole plane.
    grid = np.linspace(-60 / t, 60 / t, 801)
    y = np.stack([*np.meshgrid(grid, grid), np.zeros((801, 801))], -1)
    values = jnp.exp(_exp(jnp.asarray(y), jnp.asarray(LOGITS), t))
    total = np.asarray(values).sum() * (grid[1] - grid[0]) ** 2
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def _exp(y, logits, t):
    return concrete.exp_log_prob(y, logits, temperature=t)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
def test_binary_density_integrates_to_one_and_equals_two_categories(t):
    phi = 0.7

    def density(logit):
        return float(jnp.exp(concrete.binary_logit_log_prob(logit, phi, temperature=t)))

    total, _ = scipy.integrate.quad(density, -100, 100, points=[0.0], limit=200)
    np.testing.assert_allclose(total, 1, rtol=1e-8)
    x = jnp.linspace(0.01, 0.99, 21)
    both = jnp.stack([x, 1 - x], -1)
    expected = concrete.log_prob(both, jnp.array([1.2, 0.5]), temperature=t)
    found = concrete.binary_log_prob(x, phi, temperature=t)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_hard_concrete_is_a_whole_law():
    options = {"temperature": 0.6, "low": -0.2, "high": 1.3}
    phi = 0.4

    def density(z):
        return float(jnp.exp(concrete.hard_log_prob(z, phi, **options)))

    inside, _ = scipy.integrate.quad(density, 1e-12, 1 - 1e-12, limit=200)
    np.testing.assert_allclose(inside + density(0.0) + density(1.0), 1, rtol=1e-7)
    penalty = gumbax.hard_concrete_penalty(phi, **options)
    np.testing.assert_allclose(1 - density(0.0), penalty, rtol=1e-12)
    assert concrete.hard_log_prob(jnp.array([-0.1, 1.1]), phi).tolist() == [-np.inf] * 2


# Samples satisfy their own densities.


@pytest.mark.parametrize("t", sweep([0.3], [1.0]))
def test_relaxed_samples_have_their_density(t):
    # Counts of u = y_0 - y_2 in 12 cells against the integral of the density over them.
    samples = gumbax.log_gumbel_softmax(
        jax.random.key(3),
        jnp.asarray(LOGITS, jnp.float32),
        temperature=t,
        sample_shape=(40_000,),
    )
    u = np.asarray(samples[:, 0] - samples[:, 2], np.float64)
    span = 12 / t
    grid = np.linspace(-4 * span, 4 * span, 2401)
    with helpers.enable_x64():
        y = np.stack([*np.meshgrid(grid, grid, indexing="ij")], -1)
        y = np.concatenate([y, np.zeros((*y.shape[:2], 1))], -1)
        joint = np.exp(np.asarray(_exp(jnp.asarray(y), jnp.asarray(LOGITS), t)))
    marginal = joint.sum(1) * (grid[1] - grid[0])
    cumulative = scipy.integrate.cumulative_trapezoid(marginal, grid, initial=0)
    np.testing.assert_allclose(cumulative[-1], 1, rtol=1e-5)
    edges = np.interp(np.linspace(0, 1, 13)[1:-1], cumulative, grid)
    counts = np.bincount(np.searchsorted(edges, u), minlength=12)
    # The law of another temperature must be told apart.
    wrong = np.diff([0, *np.interp(edges * 1.2, grid, cumulative), 1])
    helpers.assert_law(counts, np.full(12, 1 / 12), against=wrong)


@pytest.mark.parametrize("t", [0.3, 2 / 3])
def test_binary_samples_have_their_density(t):
    phi, n = 0.6, 40_000
    logit = gumbax.logit_relaxed_bernoulli(
        jax.random.key(4), jnp.array([phi]), temperature=t, sample_shape=(n,)
    )
    # Its density is that of a logistic law of location phi / t and scale 1 / t.
    law = scipy.stats.logistic(phi / t, 1 / t)
    grid = np.linspace(-20, 20, 41)
    found = concrete.binary_logit_log_prob(jnp.asarray(grid), phi, temperature=t)
    np.testing.assert_allclose(found, law.logpdf(grid), rtol=1e-4, atol=1e-5)
    edges = law.ppf(np.linspace(0, 1, 21))
    counts = np.histogram(np.asarray(logit), edges)[0]
    wrong = np.diff(scipy.stats.logistic(phi / t, 1.1 / t).cdf(edges))
    helpers.assert_law(counts, np.full(20, 0.05), against=wrong)


# The boundary


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_corners_of_the_simplex_are_read_as_the_nearest_points_inside(
    dtype, temperature
):
    logits = jnp.array([0.3, -0.8, 1.1, 0.2])
    corner, info = jnp.array([0, 1, 0, 0], dtype), jnp.finfo(dtype)
    # float16 has subnormal numbers that are normal ones in float32.
    lowest = max(float(info.smallest_subnormal), float(jnp.finfo(jnp.float32).tiny))
    density = functools.partial(concrete.log_prob, temperature=temperature)
    value, gradients = jax.value_and_grad(density, (0, 1))(corner, logits)
    near = density(jnp.where(corner == 0, lowest, corner.astype(jnp.float32)), logits)
    np.testing.assert_allclose(np.float32(value), near, rtol=1e-2)
    for gradient in gradients:
        assert np.isfinite(np.asarray(gradient, np.float32)).all()


@pytest.mark.parametrize("x", [0.0, 1.0])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
def test_ends_of_the_binary_law_are_read_as_the_nearest_numbers_inside(x, temperature):
    density = functools.partial(concrete.binary_log_prob, temperature=temperature)
    value, gradients = jax.value_and_grad(density, (0, 1))(x, 0.7)
    near = np.finfo(np.float32).tiny if x == 0 else np.nextafter(np.float32(1), 0)
    np.testing.assert_allclose(value, density(near, 0.7), rtol=1e-6)
    assert np.isfinite(gradients).all()


def test_a_sample_that_is_exactly_1_has_a_finite_elbo():
    """Where a one-sample log q(x) - log p(x) was inf - inf."""
    x = gumbax.relaxed_bernoulli(None, 20.0, temperature=0.5, logistics=0.0)
    assert x == 1

    def elbo(logits):
        q, p = (
            concrete.binary_log_prob(x, own, temperature=0.5)
            for own in (logits, -logits)
        )
        return q - p

    assert np.isfinite(jax.value_and_grad(elbo)(0.5)).all()


def test_scores_what_it_samples_at_low_temperature():
    """Where the simplex form of others is NaN: K = 1024 at t = 0.1 in float32."""
    logits = jax.random.normal(jax.random.key(0), (1024,))
    key, t = jax.random.key(1), 0.1
    x = gumbax.gumbel_softmax(key, logits, temperature=t)
    assert (np.asarray(x) == 0).any()
    assert not np.isnan(concrete.log_prob(x, logits, temperature=t))
    y = gumbax.log_gumbel_softmax(key, logits, temperature=t)
    value, gradient = jax.value_and_grad(_exp)(y, logits, t)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.usefixtures("x64")
def test_category_of_logit_minus_infinity_does_not_exist():
    x = jnp.array([0.2, 0.0, 0.8])
    logits = jnp.array([0.3, -jnp.inf, 1.1])
    expected = concrete.log_prob(x[::2], logits[::2], temperature=0.7)
    np.testing.assert_allclose(
        concrete.log_prob(x, logits, temperature=0.7), expected, rtol=1e-12
    )
    expected = concrete.exp_log_prob(jnp.log(x[::2]), logits[::2], temperature=0.7)
    np.testing.assert_allclose(
        concrete.exp_log_prob(jnp.log(x), logits, temperature=0.7), expected, rtol=1e-12
    )
    there = jnp.array([0.2, 0.1, 0.7])
    assert concrete.log_prob(there, logits) == -np.inf
    assert concrete.exp_log_prob(jnp.log(there), logits) == -np.inf
    assert concrete.exp_log_prob(jnp.log(x), jnp.zeros(3)) == -np.inf


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("density", "x", "logits"),
    sweep(
        [
            (concrete.log_prob, [0.2, 0.3, 0.5], LOGITS),
            (concrete.hard_log_prob, 0.3, 0.2),  # the other binary ones are inside it
        ],
        [
            (concrete.exp_log_prob, np.log([0.2, 0.3, 0.5]), LOGITS),
            (concrete.binary_log_prob, 0.3, 0.2),
            (concrete.binary_logit_log_prob, 0.3, 0.2),
        ],
    ),
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_derivatives(density, x, logits):
    f = lambda x, a, t: density(x, a, temperature=t)  # noqa: E731
    point = (jnp.asarray(x), jnp.asarray(logits), jnp.asarray(0.7))
    jax.test_util.check_grads(f, point, order=2)


def test_derivative_is_smooth_where_the_binary_law_is_symmetric():
    second = jax.grad(jax.grad(concrete.binary_logit_log_prob))(0.0, 0.0)
    np.testing.assert_allclose(second, -0.5, rtol=1e-6)  # an |x| form would give 0


def test_constant_added_in_log_space_changes_nothing():
    y = jnp.array([-1.0, -2.0, -0.5])
    np.testing.assert_allclose(
        _exp(y + 30, jnp.asarray(LOGITS), 0.5), _exp(y, jnp.asarray(LOGITS), 0.5), 1e-4
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.usefixtures("strict_promotion")
def test_dtype_axis_and_temperature_of_each_row(dtype):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.dirichlet(np.ones(3), 5), dtype)
    logits = jnp.asarray(rng.normal(size=3), dtype)
    t = jnp.asarray([[0.3], [0.5], [1.0], [2.0], [3.0]])
    rows = concrete.log_prob(x, logits, temperature=t)
    assert rows.shape == (5,)
    assert rows.dtype == dtype
    looped = [concrete.log_prob(x[i], logits, temperature=t[i]) for i in range(5)]
    np.testing.assert_allclose(
        np.asarray(rows, np.float32), np.asarray(looped, np.float32), rtol=1e-2
    )
    moved = concrete.log_prob(x.T, logits[:, None], temperature=t.T, axis=0)
    np.testing.assert_array_equal(moved, rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (functools.partial(concrete.log_prob, np.ones(3), np.ones(2)), "broadcast"),
        (
            functools.partial(
                concrete.log_prob, np.ones((2, 3)), np.ones(3), temperature=np.ones(2)
            ),
            r"`temperature` must broadcast to \(2, 1\)",
        ),
        (
            functools.partial(concrete.log_prob, np.ones(3), np.ones(3), axis=1),
            "`axis` must name one of the 1 axes of `x`",
        ),
        (
            functools.partial(concrete.binary_log_prob, 0.5, 0.0, temperature=0.0),
            "`temperature` must be a finite number above 0",
        ),
        (functools.partial(concrete.hard_log_prob, 0.5, 0.0, low=0.1), "`low` must be"),
        (
            functools.partial(concrete.hard_log_prob, 0.5, 0.0, high=0.9),
            "`high` must be",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["binary", "stretched", "hard"])
def test_distribution_functions_lose_no_nan(name):
    cdf, log_cdf = (getattr(concrete, f"{name}_{kind}") for kind in ("cdf", "log_cdf"))
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    for function in (cdf, log_cdf):
        assert np.isnan(function(x, np.nan)).all()
        assert np.isnan(function(np.nan, 0.0))
    np.testing.assert_array_equal(cdf(x[[0, -1]], 0.3), [0.0, 1.0])
    np.testing.assert_array_equal(log_cdf(x[[0, -1]], 0.3), [-np.inf, 0.0])
