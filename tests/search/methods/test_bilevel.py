"""Gradients of the logits against the derivative of the whole map."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.methods import bilevel
from gumbax.search.methods.bilevel import Problem
from gumbax.search.methods.optimizers import InnerStep

SECOND_ORDER = (bilevel.unrolled, bilevel.finite_difference)


@pytest.fixture
def case(x64):
    """A small network: two mixed layers, smooth, with logits of two names."""
    rng = np.random.default_rng(0)
    arch = {"first": rng.normal(size=3), "second": rng.normal(size=(2, 3))}
    weights = {"w": rng.normal(size=(4, 4)), "v": [rng.normal(size=4)]}
    arch, weights = jax.tree.map(jnp.asarray, (arch, weights))

    def loss(seed, arch, weights):
        x = np.random.default_rng(seed).normal(size=(6, 4))
        for a in (arch["first"], arch["second"][0]):
            z = x @ weights["w"]
            p = jax.nn.softmax(a)
            x = p[0] * jnp.tanh(z) + p[1] * jnp.sin(z) + p[2] * x
        y = jnp.mean((x @ weights["v"][0] - jnp.arange(6.0)) ** 2)
        y += jnp.mean(arch["second"][1] ** 2 * weights["v"][0][:3])
        return y, {"seed": seed}

    problem = Problem(
        train=functools.partial(loss, 1), valid=functools.partial(loss, 2)
    )
    trace = jax.tree.map(jnp.cos, weights)
    inner = InnerStep(jnp.float64(0.05), 0.9, 0.01, trace)
    return problem, arch, weights, inner


def after_one_step(problem, arch, weights, inner):
    slope = jax.grad(lambda w: problem.train(arch, w)[0])(weights)
    return jax.tree.map(
        lambda w, m, g: (
            w - inner.learning_rate * (inner.momentum * m + g + inner.weight_decay * w)
        ),
        weights,
        inner.trace,
        slope,
    )


def whole_map(problem, weights, inner):
    def outer(arch):
        return problem.valid(arch, after_one_step(problem, arch, weights, inner))[0]

    return outer


@pytest.mark.exhaustive
def test_first_order_is_the_gradient_of_the_validation_loss(case):
    problem, arch, weights, inner = case
    (value, aux), gradient = bilevel.first_order(problem, arch, weights, inner)
    expected, slope = jax.value_and_grad(lambda a: problem.valid(a, weights)[0])(arch)
    assert aux == {"seed": 2}
    chex.assert_trees_all_equal((value, gradient), (expected, slope))


def test_single_level_is_the_gradient_of_the_training_loss(case):
    problem, arch, weights, inner = case
    (value, aux), gradient = bilevel.single_level(problem, arch, weights, inner)
    expected, slope = jax.value_and_grad(lambda a: problem.train(a, weights)[0])(arch)
    assert aux == {"seed": 1}
    chex.assert_trees_all_equal((value, gradient), (expected, slope))


def test_unrolled_is_the_derivative_of_the_whole_map(case):
    problem, arch, weights, inner = case
    (value, aux), gradient = jax.jit(functools.partial(bilevel.unrolled, problem))(
        arch, weights, inner
    )
    outer = whole_map(problem, weights, inner)
    expected = jax.jit(jax.value_and_grad(outer))(arch)
    assert aux == {"seed": 2}
    chex.assert_trees_all_close((value, gradient), expected, rtol=1e-10)


def test_finite_difference_is_near_it(case):
    problem, arch, weights, inner = case
    _, exact = bilevel.unrolled(problem, arch, weights, inner)
    (value, aux), found = bilevel.finite_difference(problem, arch, weights, inner)
    _, first = bilevel.first_order(
        problem, arch, after_one_step(problem, arch, weights, inner), inner
    )
    assert aux == {"seed": 2}
    np.testing.assert_allclose(value, whole_map(problem, weights, inner)(arch))
    for name, slope in exact.items():
        scale = np.abs(slope).max()
        np.testing.assert_allclose(found[name], slope, rtol=0, atol=1e-3 * scale)
        # Not exactly: it is a difference; and there is something to approximate.
        assert np.abs(found[name] - slope).max() > 0
        assert np.abs(first[name] - slope).max() > 0.01 * scale


@pytest.mark.parametrize("rule", SECOND_ORDER)
@pytest.mark.parametrize("part", ["momentum", "weight_decay", "trace"])
def test_momentum_and_decay_enter(case, rule, part):
    problem, arch, weights, inner = case
    zero = jax.tree.map(jnp.zeros_like, getattr(inner, part))
    other = inner._replace(**{part: zero})
    value = rule(problem, arch, weights, inner)[0][0]
    assert np.abs(rule(problem, arch, weights, other)[0][0] - value) > 1e-4 * value


@pytest.mark.parametrize("rule", SECOND_ORDER)
def test_learning_rate_zero_is_first_order(case, rule):
    problem, arch, weights, inner = case
    still = inner._replace(learning_rate=jnp.float32(0))
    chex.assert_trees_all_close(
        rule(problem, arch, weights, still)[1],
        bilevel.first_order(problem, arch, weights, inner)[1],
    )


def test_validation_loss_without_weights_gives_no_nan(case):
    """The direction of the finite difference is then zero."""
    problem, arch, weights, inner = case
    blind = problem._replace(valid=lambda a, w: (jnp.sum(a["first"] ** 2), None))
    _, found = bilevel.finite_difference(blind, arch, weights, inner)
    np.testing.assert_allclose(found["first"], 2 * arch["first"])
    np.testing.assert_array_equal(found["second"], 0)


@pytest.mark.parametrize("rule", SECOND_ORDER)
def test_gradients_keep_their_dtype(rule):
    def loss(arch, weights):
        return jnp.sum(arch * weights**2), None

    inner = InnerStep(jnp.float32(0.1), 0.9, 0.0, jnp.ones(2))
    _, found = rule(Problem(loss, loss), jnp.ones(2), jnp.ones(2), inner)
    assert found.dtype == jnp.float32
