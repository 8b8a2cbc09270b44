"""Density, distribution functions and moments against scipy and by quadrature."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from gumbax import gumbel
from tests.helpers import sweep

pytestmark = pytest.mark.usefixtures("optimised")  # rounding is what they are about

LAW = scipy.stats.gumbel_r(loc=-1.5, scale=2.5)
PARAMETERS = {"loc": -1.5, "scale": 2.5}
POINTS = np.array([-20.0, -7.0, -4.0, -1.5, 0.0, 0.7, 3.0, 20.0, 80.0])
PEERS = {
    "log_prob": LAW.logpdf,
    "prob": LAW.pdf,
    "cdf": LAW.cdf,
    "log_cdf": LAW.logcdf,
    "survival_function": LAW.sf,
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.usefixtures("x64", "strict_promotion")
def test_equals_scipy(name):
    found = getattr(gumbel, name)(jnp.asarray(POINTS), **PARAMETERS)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, PEERS[name](POINTS), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_log_survival_function_is_right_in_both_tails():
    # scipy takes the logarithm of a rounded difference: compare with what is exact.
    z = np.array([-6.0, -3.0, -0.5, 0.0, 0.4, 2.0, 15.0, 19.9, 20.1, 30.0, 700.0])
    e = np.exp(-z)
    small = np.log(-np.expm1(-np.minimum(e, 1)))
    far = -z - e / 2 + e * e / 24
    expected = np.where(
        e > 0.7, np.log1p(-np.exp(-np.maximum(e, 0.1))), np.where(z > 10, far, small)
    )
    found = gumbel.log_survival_function(jnp.asarray(z))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", [*PEERS, "log_survival_function"])
def test_narrow_types_are_the_float64_value_rounded(name, dtype):
    points = jnp.asarray(POINTS / 3, dtype)
    wide = np.asarray(points, np.float64)
    peers = {**PEERS, "log_survival_function": LAW.logsf}
    found = getattr(gumbel, name)(points, **PARAMETERS)
    assert found.dtype == dtype
    precision = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), peers[name](wide), rtol=precision, atol=1e-7
    )


@pytest.mark.usefixtures("x64")
def test_quantile_is_the_inverse_of_the_cdf():
    q = jnp.asarray([1e-300, 1e-9, 0.1, 0.5, 0.9, 1 - 1e-9])
    x = gumbel.quantile(q, **PARAMETERS)
    np.testing.assert_allclose(x, LAW.ppf(q), rtol=1e-12)
    np.testing.assert_allclose(gumbel.cdf(x, **PARAMETERS), q, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["log_prob", "prob", "cdf", "log_cdf", "survival_function", "quantile"]
)
def test_extremes_are_values_and_not_nan(name):
    function = getattr(gumbel, name)
    low, high = (0.0, 1.0) if name == "quantile" else (-np.inf, np.inf)
    expected = {
        "log_prob": [-np.inf, -np.inf],
        "prob": [0, 0],
        "cdf": [0, 1],
        "log_cdf": [-np.inf, 0],
        "survival_function": [1, 0],
        "quantile": [-np.inf, np.inf],
    }[name]
    np.testing.assert_array_equal(function(jnp.array([low, high])), expected)
    assert np.isnan(function(jnp.nan))
    if name == "quantile":
        assert np.isnan(function(jnp.array([-0.1, 1.1]))).all()


@pytest.mark.parametrize("name", ["prob", "cdf", "survival_function"])
@pytest.mark.parametrize("x", [-1e4, -100.0, -8.0, 0.0, 100.0, 1e4])
def test_derivatives_of_bounded_functions_are_finite(name, x):
    first = jax.grad(getattr(gumbel, name))
    assert np.isfinite(first(x))
    assert np.isfinite(jax.grad(first)(x))


@pytest.mark.parametrize("x", [-1e4, -100.0, -8.0, 0.0, 19.99, 20.01, 100.0, 1e4])
def test_derivative_of_the_log_survival_function(x):
    """-e / expm1(e) with e = exp(-x): the hazard rate, finite in both tails."""
    e = np.exp(-np.float64(max(x, -6.0)))
    expected = 0.0 if x < -6 else -e / np.expm1(e) if e else -1.0
    found = jax.grad(gumbel.log_survival_function)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-30)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    sweep(["log_prob", "log_survival_function"], sorted({*PEERS} - {"log_prob"})),
)
def test_differentiable_twice_in_all_arguments(name):
    def function(x, loc, scale):
        return getattr(gumbel, name)(x, loc=loc, scale=scale)

    point = tuple(map(jnp.asarray, (0.8, -0.3, 1.7)))
    jax.test_util.check_grads(function, point, order=2)


@pytest.mark.usefixtures("x64")
def test_log_prob_is_the_derivative_of_the_cdf_and_integrates_to_one():
    def density(x):
        return float(gumbel.prob(x, **PARAMETERS))

    total, _ = scipy.integrate.quad(density, -40, 200, limit=200)
    np.testing.assert_allclose(total, 1, rtol=1e-9)
    slope = jax.grad(lambda x: gumbel.cdf(x, **PARAMETERS))(0.7)
    np.testing.assert_allclose(slope, density(0.7), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_moments():
    found = {
        name: float(getattr(gumbel, name)(**PARAMETERS))
        for name in ("mean", "median", "variance", "stddev", "entropy", "mode")
    }
    assert found.pop("mode") == PARAMETERS["loc"]
    expected = {
        "mean": LAW.mean(),
        "median": LAW.median(),
        "variance": LAW.var(),
        "stddev": LAW.std(),
        "entropy": LAW.entropy(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("other", [(-1.5, 2.5), (-1.4, 2.5), (0.3, 1.9), (-4.0, 7.0)])
def test_kl_divergence_by_quadrature(other):
    law = scipy.stats.gumbel_r(loc=other[0], scale=other[1])

    def integrand(x):
        return LAW.pdf(x) * (LAW.logpdf(x) - law.logpdf(x))

    expected, _ = scipy.integrate.quad(integrand, -12, 120, limit=400, epsabs=1e-13)
    found = gumbel.kl_divergence(**PARAMETERS, other_loc=other[0], other_scale=other[1])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)


def test_kl_divergence_of_near_laws_keeps_its_digits():
    shift = 1e-3  # float32: expm1(t) - t would be noise
    found = gumbel.kl_divergence(loc=0.0, other_loc=shift)
    np.testing.assert_allclose(found, np.expm1(shift) - shift, rtol=1e-3)


@pytest.mark.parametrize("name", ["log_prob", "cdf", "quantile", "mean", "entropy"])
def test_scale_must_be_positive(name):
    arguments = () if name in ("mean", "entropy") else (0.5,)
    function = getattr(gumbel, name)
    with pytest.raises(ValueError, match="`scale` must be a finite number above 0"):
        function(*arguments, scale=0.0)
    traced = jax.jit(lambda scale: function(*arguments, scale=scale))
    assert np.isnan(traced(-1.0))


def test_arguments_broadcast_or_are_refused():
    x = jnp.zeros((4, 3))
    assert gumbel.log_prob(x, loc=jnp.zeros(3), scale=jnp.ones((4, 1))).shape == (4, 3)
    with pytest.raises(ValueError, match="`x`, `loc`, `scale` must broadcast together"):
        gumbel.log_prob(x, loc=jnp.zeros(2))
    with pytest.raises(TypeError, match="`x` must be a real number or array"):
        gumbel.log_prob(1j)
