"""Costs in the loss: the published forms, and gradients against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.samplers.relaxation import gumbel_softmax
from gumbax.search.methods.penalties import add_linear, step_cost, times_log
from gumbax.search.network.costs import CostTable
from tests.search.small_spaces import DARTS, NASBENCH201


def random_table(space, seed=0):
    generator = np.random.default_rng(seed)
    costs = {
        name: generator.integers(1, 100, choice.shape).astype(float)
        for name, choice in space.choices.items()
    }
    return CostTable("mine", space.name, 5.0, space.choices, costs)


def random_logits(space, seed=1):
    generator = np.random.default_rng(seed)
    return {
        name: jnp.asarray(generator.normal(size=choice.shape), jnp.float32)
        for name, choice in space.choices.items()
    }


def softmax(logits):
    return {name: jax.nn.softmax(rows) for name, rows in logits.items()}


def draw(key, logits, temperature=0.7):
    return {
        name: gumbel_softmax(key, rows, temperature=temperature, hard=True)
        for name, rows in logits.items()
    }


def closed_form(table, logits):
    """p_j (c_j - sum_i p_i c_i), in float64."""
    found = {}
    for name, rows in logits.items():
        probs = np.exp(np.asarray(rows, np.float64))
        probs /= probs.sum(axis=-1, keepdims=True)
        costs = table.costs[name]
        found[name] = probs * (costs - (probs * costs).sum(axis=-1, keepdims=True))
    return found


@pytest.mark.parametrize("space", [DARTS, NASBENCH201], ids=lambda space: space.name)
@pytest.mark.parametrize("weights_of", [draw, lambda key, logits: softmax(logits)])
def test_cost_is_that_of_the_weights_used_and_its_gradient_the_expectation(
    space, weights_of
):
    """A gradient of zero, a sign or a factor are NNI's faults and the like."""
    table, logits = random_table(space), random_logits(space)
    key = jax.random.key(2)

    def cost(logits):
        return step_cost(table, weights_of(key, logits), softmax(logits))

    value, gradient = jax.value_and_grad(cost)(logits)
    used = weights_of(key, logits)
    expected = 5.0 + sum(np.sum(used[name] * table.costs[name]) for name in used)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name, rows in closed_form(table, logits).items():
        assert np.abs(rows).max() > 1
        np.testing.assert_allclose(gradient[name], rows, rtol=1e-4, atol=1e-4)


def test_gradient_is_that_of_the_mean_over_all_draws():
    """By enumeration: E cost = sum over architectures of probability times cost."""
    table, logits = random_table(NASBENCH201), random_logits(NASBENCH201)
    letters = "abcdef"
    cost = np.zeros((5,) * 6)
    for axis, row in enumerate(table.costs["cell"]):
        cost += row.reshape(np.where(np.arange(6) == axis, 5, 1))

    @jax.jit
    def mean(rows):
        probability = jnp.einsum(
            f"{','.join(letters)}->{letters}", *jax.nn.softmax(rows)
        )
        return jnp.sum(probability * cost)

    by_enumeration = jax.grad(mean)(logits["cell"])
    found = jax.grad(lambda a: step_cost(table, softmax(a), softmax(a)))(logits)
    np.testing.assert_allclose(found["cell"], by_enumeration, rtol=1e-3, atol=1e-3)


def test_published_forms_at_points_by_hand():
    assert add_linear(weight=0.1, reference=50.0)(2.0, 75.0) == pytest.approx(2.15)
    # FBNet: alpha log(LAT)^beta, and not alpha log(LAT^beta).
    fbnet = times_log(factor=0.2, power=0.6)
    assert float(fbnet(2.0, 100.0)) == pytest.approx(2 * 0.2 * math.log(100) ** 0.6)
    proxyless = times_log(factor=0.2, power=0.3, reference=20.0)
    by_hand = 0.2 * 1.5 * (math.log(80) / math.log(20)) ** 0.3
    assert float(proxyless(1.5, 80.0)) == pytest.approx(by_hand)
    assert float(proxyless(1.5, 20.0)) == pytest.approx(0.2 * 1.5)


@pytest.mark.parametrize(
    ("penalty", "slope"),
    [
        (add_linear(weight=0.1, reference=50.0), lambda loss, cost: 0.1 / 50),
        (
            times_log(factor=0.2, power=0.6),
            lambda loss, cost: loss * 0.2 * 0.6 * math.log(cost) ** -0.4 / cost,
        ),
    ],
    ids=["add_linear", "times_log"],
)
def test_forms_pass_the_gradient_on(penalty, slope):
    table, logits = random_table(NASBENCH201), random_logits(NASBENCH201)
    drawn = draw(jax.random.key(3), logits)

    def loss(logits):
        return penalty(jnp.float32(1.7), step_cost(table, drawn, softmax(logits)))

    cost = float(table.expected(drawn))
    expected = slope(1.7, cost) * closed_form(table, logits)["cell"]
    found = jax.grad(loss)(logits)["cell"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_forms_are_equal_by_their_numbers():
    assert add_linear(weight=1.0, reference=2.0) == add_linear(
        weight=1.0, reference=2.0
    )
    assert times_log(factor=0.2, power=0.6) != times_log(factor=0.2, power=0.3)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (add_linear, {"weight": -1.0, "reference": 1.0}, "`weight` must be 0 or more"),
        (add_linear, {"weight": 1.0, "reference": 0.0}, "`reference` must be above 0"),
        (times_log, {"factor": 0.0, "power": 1.0}, "`factor` must be above 0"),
        (times_log, {"factor": 1.0, "power": math.nan}, "`power` must be 0 or more"),
        (
            times_log,
            {"factor": 1.0, "power": 1.0, "reference": 1.0},
            "`reference` must be above 1",
        ),
    ],
)
def test_numbers_that_no_form_can_have(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
