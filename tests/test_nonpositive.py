"""A traced temperature or scale that is not above 0 gives NaN wherever it is used.

A learned one can get there. Python numbers are refused, which the rooms test.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from gumbax import concrete, gumbel
from tests.helpers import sweep
from tests.mesh_cases import CASES

PARAMETERS = {"temperature", "scale", "other_scale"}
# Those that draw; of the others every call is cheap.
DRAWN = ("gumbel_softmax", "gumbel_softmax hard", "relaxed_bernoulli hard", "sample")
FOUND = [name for name, case in CASES.items() if PARAMETERS & set(case.operands)]
CHEAP = [name for name in FOUND if CASES[name].elementwise or "concrete." in name]
NAMES = sweep([*DRAWN, *CHEAP], sorted(set(FOUND) - {*DRAWN, *CHEAP}))


@pytest.mark.parametrize("name", NAMES)
def test_all_is_nan(name):
    case = CASES[name]
    operands = {argument: array for argument, (_, array) in case.operands.items()}
    # A hard sample does not depend on the temperature, but its gradient does.
    hard = "hard" in name and "concrete" not in name

    @jax.jit
    def function(operands):
        def run(of):
            y = case.run(*((operands | of)[argument] for argument in case.operands))
            return jnp.sum(y**2), y

        if not hard:
            return run({})[1]
        return jax.grad(run, has_aux=True)({"logits": operands["logits"]})[0]["logits"]

    assert np.isfinite(function(operands)).any()
    for parameter in PARAMETERS & set(operands):
        for bad in (-0.5, 0.0):
            broken = operands | {parameter: np.full_like(operands[parameter], bad)}
            found = function(broken)
            if name == "sample" and bad == 0:
                np.testing.assert_array_equal(found, operands["loc"])
            else:
                assert np.isnan(found).all()


@pytest.mark.parametrize("bad", [-1.0, 0.0])
@pytest.mark.parametrize(
    "function",
    [
        *(concrete.binary_log_prob, concrete.hard_log_prob),
        lambda x, logits, **t: concrete.binary_logit_log_prob(x / 0, logits, **t),
        lambda x, logits, **t: concrete.log_prob(jnp.stack([x, 1 - x], -1), X, **t),
        lambda x, logits, **t: concrete.exp_log_prob(
            jnp.log(jnp.stack([x, 1 - x], -1)), X, **t
        ),
    ],
)
def test_nan_at_the_ends_of_a_density_too(function, bad):
    x = jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    assert np.isnan(function(x, 0.5, temperature=jnp.array(bad))).all()


X = jnp.array([[-jnp.inf, 0.3]])
ENDS = jnp.array([jnp.inf, -jnp.inf, 0.0])
KEY = jax.random.key(0)


@pytest.mark.parametrize("bad", [-1.0, 0.0])
def test_nan_where_a_choice_is_certain_too(bad):
    bad = jnp.array(bad)
    for function in (gumbax.relaxed_bernoulli, gumbax.hard_concrete):
        assert np.isnan(function(KEY, ENDS, temperature=bad)).all()

        def total(x, function=function):
            return jnp.sum(function(KEY, x, temperature=bad))

        assert np.isnan(jax.grad(total)(ENDS)).all()
    assert np.isnan(gumbax.log_gumbel_softmax(KEY, ENDS, temperature=bad)).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda t: gumbel.log_prob(0.3, scale=t),
        lambda t: gumbel.cdf(0.3, scale=t),
        lambda t: gumbel.sample(KEY, (2,), scale=t),
        lambda t: gumbel.sample_truncated(KEY, (2,), upper=1.0, scale=t),
        lambda t: gumbax.gumbel_softmax(KEY, X, temperature=t),
        lambda t: gumbax.logit_relaxed_bernoulli(KEY, X, temperature=t),
        lambda t: gumbax.hard_concrete_penalty(X, temperature=t),
        lambda t: concrete.log_prob(jnp.array([0.4, 0.6]), jnp.zeros(2), temperature=t),
        lambda t: concrete.hard_log_prob(
            jnp.array([0.0, 0.4, 1.0]), 0.5, temperature=t
        ),
    ],
)
def test_the_gradient_of_the_parameter_is_nan(function):
    assert np.isnan(jax.grad(lambda t: jnp.sum(function(t)))(jnp.array(-1.0)))


def test_scale_0_is_no_noise():
    key, loc = jax.random.key(0), jnp.array([0.3, -2.0, 1e30])
    for scale in (0, 0.0, jnp.array(0.0)):
        found = gumbel.sample(key, (3,), loc=loc, scale=scale)
        np.testing.assert_array_equal(found, loc)
    # Greedy rows beside others: T times noise, with T = 0.
    scales = jnp.array([[0.0], [1.0]])
    noise = gumbel.sample(key, (2, 5), scale=scales)
    logits = jnp.arange(5.0)[None]
    assert gumbax.gumbel_max(None, logits, gumbels=noise[:1]).item() == 4
    np.testing.assert_array_equal(noise[1], gumbel.sample(key, (2, 5))[1])
    with pytest.raises(
        ValueError, match="`scale` must be a finite number >= 0, got -1"
    ):
        gumbel.sample(key, (3,), scale=-1.0)
    with pytest.raises(ValueError, match="`scale` must be a finite number above 0"):
        gumbel.sample_truncated(key, (3,), upper=0.0, scale=0.0)
