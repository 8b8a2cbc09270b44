import functools

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.sharding import NamedSharding, PartitionSpec

import gumbax
from gumbax import _noise
from gumbax.samplers import binary
from tests import helpers

MODES = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
PHI = 0.8


@pytest.fixture
def key():
    return jax.random.key(5)


def logistic_noise(key, shape):
    """The noise itself: the logit at temperature 1 of even odds."""
    return gumbax.logit_relaxed_bernoulli(key, jnp.zeros(shape))


def stop_gradient_form(logits, logistics, temperature, *, hard):
    relaxed = jax.nn.sigmoid((logits + logistics) / temperature)
    if not hard:
        return relaxed
    step = (logits + logistics > 0).astype(relaxed.dtype)
    return relaxed + jax.lax.stop_gradient(step - relaxed)


def ours(logits, logistics, temperature, *, hard):
    return gumbax.relaxed_bernoulli(
        None, logits, temperature=temperature, logistics=logistics, hard=hard
    )


def loss(form, hard):
    return lambda *point: jnp.sum((form(*point, hard=hard) - 0.3) ** 3)


def in_both_orders(form, hard):
    """Second derivatives of (logits, temperature), reverse and forward over reverse."""
    gradient = jax.grad(loss(form, hard), (0, 2))
    return lambda *point: [
        derivative(gradient, (0, 2))(*point) for derivative in (jax.jacrev, jax.jacfwd)
    ]


@pytest.fixture
def point(x64):
    logits, logistics = jax.random.normal(jax.random.key(1), (2, 4), jnp.float64)
    return logits, logistics, jnp.array(0.7)


# Law


def test_noise_is_logistic_and_told_from_a_wider_one(key):
    law = scipy.stats.logistic()
    edges = law.ppf(np.linspace(0, 1, 41))
    counts = np.histogram(np.asarray(logistic_noise(key, (200_000,))), edges)[0]
    wrong = np.diff(scipy.stats.logistic(scale=1.05).cdf(edges))
    helpers.assert_law(counts, np.full(40, 1 / 40), against=wrong)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_hard_law_is_bernoulli_whatever_the_temperature(key, temperature):
    n = 20_000
    draws = gumbax.relaxed_bernoulli(
        key, jnp.array([PHI]), temperature=temperature, hard=True, sample_shape=(n,)
    )
    assert set(np.unique(draws)) == {0.0, 1.0}
    p, ones = scipy.special.expit(PHI), int(draws.sum())
    helpers.assert_law([n - ones, ones], [1 - p, p], against=[p, 1 - p])


def test_both_tails_are_exact_by_enumeration():
    """Quantiles at p = 1e-3 ... 1e-9 on both sides, from their words: no sampling."""
    p = 10.0 ** -np.arange(3, 10)
    for side, sign in ((0, 1), (1, -1)):
        # The top bit is the side, the other 63 the distance from it.
        words = [int(q * 2**64) for q in p]
        high = jnp.array([(side << 31) + (w >> 32) for w in words], jnp.uint32)
        low = jnp.array([w % 2**32 for w in words], jnp.uint32)
        found = _noise.logistic_from_words(high, low, dtype=jnp.dtype(jnp.float32))
        np.testing.assert_allclose(found, sign * scipy.special.logit(p), rtol=3e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_end_points_are_finite(dtype, x64):
    words = jnp.array([0, 2**31 - 1, 2**31, 2**32 - 1], jnp.uint32)
    high, low = jnp.meshgrid(words, words, indexing="ij")
    values = np.asarray(_noise.logistic_from_words(high, low, dtype=jnp.dtype(dtype)))
    assert np.isfinite(values).all()
    assert values[0, 0] == values.min() < -44
    assert values[2, 0] == values.max() > 44
    assert (values[:2] <= 0).all()
    assert (values[2:] >= 0).all()


def test_same_law_as_two_categories(key):
    n = 40_000
    two = jnp.array([[1.0, 1.0 - PHI]])
    as_categories = gumbax.gumbel_softmax(key, two, temperature=0.5, sample_shape=(n,))[
        :, 0, 0
    ]
    edges = np.quantile(np.asarray(as_categories), np.linspace(0, 1, 21)[1:-1])
    draws = gumbax.relaxed_bernoulli(
        jax.random.key(6), jnp.array([PHI]), temperature=0.5, sample_shape=(n,)
    )
    ours, theirs = (
        np.bincount(np.searchsorted(edges, np.asarray(x).ravel()), minlength=20)
        for x in (draws, as_categories)
    )
    result = scipy.stats.chi2_contingency([ours, theirs])
    assert result.pvalue > helpers.FALSE_POSITIVE_RATE


# Derivatives


@MODES
def test_derivatives_are_those_of_the_stop_gradient_form(point, hard):
    gradients = [
        jax.jit(jax.grad(loss(form, hard), (0, 1, 2)))(*point)
        for form in (ours, stop_gradient_form)
    ]
    for found, expected in zip(*gradients, strict=True):
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@MODES
def test_second_derivatives_are_right_in_both_orders(point, hard):
    expected, _ = jax.jit(in_both_orders(stop_gradient_form, hard))(*point)
    for of_one in zip(*expected, strict=True):  # logits, then temperature
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_one)) > 1e-2
    for found in jax.jit(in_both_orders(ours, hard))(*point):
        chex.assert_trees_all_close(found, expected, rtol=1e-8, atol=1e-10)


def test_numerical_check(point):
    f = functools.partial(ours, hard=False)
    jax.test_util.check_grads(f, point, order=2, modes=["rev"])


def test_gradient_of_a_sample_that_rounds_to_one():
    """From x = 1 alone the slope would be 0; it is exp(-18) / t to rounding."""
    x, slope = jax.value_and_grad(
        lambda phi: gumbax.relaxed_bernoulli(None, phi, logistics=0.0)
    )(jnp.float32(18))
    assert x == 1
    np.testing.assert_allclose(slope, np.exp(-18.0), rtol=1e-5)


@MODES
def test_backward_pass_keeps_nothing_but_the_inputs(key, hard):
    logits = jnp.zeros((64, 512))
    sample = functools.partial(gumbax.relaxed_bernoulli, key, hard=hard)
    _, pull_back = jax.vjp(sample, logits)
    large = [x for x in jax.tree.leaves(pull_back) if x.size >= logits.size]
    assert len(large) == 1


# Transformations and edges


@MODES
def test_transformations_agree(key, hard):
    logits = jax.random.normal(key, (16, 24))
    sample = functools.partial(gumbax.relaxed_bernoulli, temperature=0.5, hard=hard)
    expected = sample(key, logits)
    jitted = jax.jit(sample)
    np.testing.assert_allclose(jitted(key, logits), expected, rtol=1e-6)
    keys = jax.random.split(key, 16)
    looped = np.stack([sample(k, row) for k, row in zip(keys, logits, strict=True)])
    np.testing.assert_allclose(jax.vmap(sample)(keys, logits), looped, rtol=1e-6)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    for spec in (PartitionSpec("x"), PartitionSpec(None, "x")):
        sharded = jax.device_put(logits, NamedSharding(mesh, spec))
        np.testing.assert_allclose(jitted(key, sharded), expected, rtol=1e-6)
    many = sample(key, logits, sample_shape=(3,))
    np.testing.assert_allclose(many[0], expected, rtol=1e-6)
    assert (np.asarray(many[1]) != np.asarray(expected)).any()


@MODES
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.usefixtures("strict_promotion")
def test_dtype_is_kept(key, hard, dtype):
    logits = jnp.zeros((3, 5), dtype)
    for temperature in (0.5, np.float32(0.5), jnp.full((3, 1), 0.5)):
        sample = functools.partial(
            gumbax.relaxed_bernoulli, key, temperature=temperature, hard=hard
        )
        assert sample(logits).dtype == dtype
        total = jax.grad(lambda x, f=sample: f(x).astype(jnp.float32).sum())
        assert jax.eval_shape(total, logits).dtype == dtype
    assert gumbax.hard_concrete(key, logits).dtype == dtype


@MODES
@pytest.mark.parametrize("temperature", [1e-8, 1.0, 1e8])
def test_extremes(key, hard, temperature):
    logits = jnp.array([-jnp.inf, -500.0, 0.0, 500.0, jnp.inf, jnp.nan])

    def total(logits, temperature):
        x = gumbax.relaxed_bernoulli(key, logits, temperature=temperature, hard=hard)
        return x[:5].sum(), x

    gradients, x = jax.grad(total, (0, 1), has_aux=True)(logits, temperature)
    assert np.isnan(x[5])
    assert x[0] == 0
    assert x[4] == 1
    assert np.isfinite(x[:5]).all()
    assert np.isfinite(gradients[0][:5]).all()
    assert gradients[0][0] == gradients[0][4] == 0


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3)])
def test_any_shape(key, shape):
    for sampler in (
        gumbax.relaxed_bernoulli,
        gumbax.hard_concrete,
        gumbax.logit_relaxed_bernoulli,
    ):
        assert sampler(key, jnp.zeros(shape)).shape == shape
        assert sampler(key, jnp.zeros(shape), sample_shape=(4,)).shape == (4, *shape)


# Hard concrete


def test_atoms_and_mean_of_the_gate(key):
    n, options = 40_000, {"temperature": 0.6, "low": -0.2, "high": 1.3}
    z = gumbax.hard_concrete(key, jnp.array([0.4]), sample_shape=(n,), **options)
    z = np.asarray(z)[:, 0]
    p0, p1 = np.exp(
        gumbax.concrete.hard_log_prob(jnp.array([0.0, 1.0]), 0.4, **options)
    )
    counts = [np.sum(z == 0), np.sum(z == 1), np.sum((z > 0) & (z < 1))]
    helpers.assert_law(counts, [p0, p1, 1 - p0 - p1], against=[p1, p0, 1 - p0 - p1])


def test_gate_of_test_time_is_the_published_one_and_not_the_mean(key):
    gate = gumbax.hard_concrete_gate(0.5)
    np.testing.assert_allclose(gate, scipy.special.expit(0.5) * 1.2 - 0.1, rtol=1e-6)
    z = gumbax.hard_concrete(key, jnp.array(0.5), sample_shape=(100_000,))
    helpers.assert_mean(np.asarray(z)[:, None], 0.608, resolution=0.01)
    assert abs(float(gate) - 0.608) > 0.03


def test_gradient_of_the_expected_penalty_is_that_of_its_law(x64):
    """d P(z != 0) / d logit by quadrature of the logistic law."""
    phi, beta = 0.3, 2 / 3
    slope = jax.grad(gumbax.hard_concrete_penalty)(phi)
    threshold = beta * np.log(0.1 / 1.1) - phi
    np.testing.assert_allclose(slope, scipy.stats.logistic.pdf(threshold), rtol=1e-6)


def test_clipped_gates_have_no_gradient(key):
    logits = jnp.zeros(1000)
    z, pull_back = jax.vjp(lambda x: gumbax.hard_concrete(key, x), logits)
    (slope,) = pull_back(jnp.ones_like(z))
    clipped = (np.asarray(z) == 0) | (np.asarray(z) == 1)
    assert 100 < clipped.sum() < 900
    assert (np.asarray(slope)[clipped] == 0).all()
    assert (np.asarray(slope)[~clipped] > 0).all()


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (
            gumbax.relaxed_bernoulli,
            {"temperature": 0},
            "`temperature` must be a finite",
        ),
        (gumbax.relaxed_bernoulli, {"logistics": np.ones(2)}, "`logistics` must broad"),
        (gumbax.relaxed_bernoulli, {"sample_shape": 3}, "`sample_shape` must be"),
        (
            gumbax.relaxed_bernoulli,
            {"temperature": np.ones(2)},
            "`temperature` must br",
        ),
        (gumbax.hard_concrete, {"low": 0.0}, "`low` must be a Python number below 0"),
        (gumbax.hard_concrete, {"high": 1.0}, "`high` must be a Python number above 1"),
    ],
)
def test_bad_arguments(key, sampler, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        sampler(key, jnp.zeros(3), **options)
    assert str(caught.value).startswith(f"`{sampler.__name__}`: ")


def test_bad_key_and_logits(key):
    with pytest.raises(TypeError, match="`key` must be one PRNG key, got None"):
        gumbax.relaxed_bernoulli(None, jnp.zeros(3))
    with pytest.raises(TypeError, match="`logits` must be a real floating array"):
        gumbax.relaxed_bernoulli(key, jnp.zeros(3, int))


# The planted fault, at the end: it clears what the others have compiled.


def test_planted_fault_in_the_twin_turns_them_red(point, monkeypatch):
    expected = jax.jit(jax.jacrev(jax.grad(loss(stop_gradient_form, hard=True))))
    monkeypatch.setattr(binary, "_step", lambda s, t: (s > 0).astype(s.dtype))
    jax.clear_caches()
    found = jax.jit(jax.jacrev(jax.grad(loss(ours, hard=True))))(*point)
    jax.clear_caches()
    assert np.abs(found - expected(*point)).max() > 1e-2
