"""Second-order gradients against autodiff of the whole map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search import bilevel
from gumbax.search.bilevel import Problem
from gumbax.search.optimizers import InnerStep, Sgd


@pytest.fixture
def case():
    keys = jax.random.split(jax.random.key(0), 4)
    a = jax.random.normal(keys[0], (5, 4))
    b = jax.random.normal(keys[1], (5, 4))

    def loss(data, arch, weights):
        mixed = jnp.tanh(data @ weights["w"]) * jax.nn.softmax(arch["a"])
        return jnp.sum(jnp.square(mixed - 0.3)), jnp.float32(0)

    problem = Problem(
        train=lambda arch, w: loss(a, arch, w), valid=lambda arch, w: loss(b, arch, w)
    )
    arch = {"a": jnp.array([0.1, -0.4, 0.7])}
    weights = {"w": jax.random.normal(keys[2], (4, 3))}
    trace = {"w": jax.random.normal(keys[3], (4, 3))}
    inner = InnerStep(jnp.float32(0.05), 0.9, 3e-4, trace)
    return problem, arch, weights, inner


def whole(problem, weights, inner):
    """Validation loss after one step of the weights, as a function of the logits."""

    def value(arch):
        g = jax.grad(lambda w: problem.train(arch, w)[0])(weights)
        step = 0.9 * inner.trace["w"] + g["w"] + 3e-4 * weights["w"]
        return problem.valid(arch, {"w": weights["w"] - 0.05 * step})[0]

    return value


def test_unrolled_is_the_gradient_of_the_whole_map(case):
    problem, arch, weights, inner = case
    expected = jax.grad(whole(problem, weights, inner))(arch)
    (value, _), found = bilevel.unrolled(*case)
    np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-4)
    np.testing.assert_allclose(value, whole(problem, weights, inner)(arch), rtol=1e-5)
    first = bilevel.first_order(*case)[1]
    assert np.abs(first["a"] - found["a"]).max() > 1e-3


def test_finite_difference_is_near_the_exact_one(case):
    exact = bilevel.unrolled(*case)[1]["a"]
    found = bilevel.finite_difference(*case)[1]["a"]
    scale = np.abs(exact).max()
    np.testing.assert_allclose(found, exact, atol=1e-3 * scale)


def test_single_level_descends_the_training_loss(case):
    problem, arch, weights, _ = case
    expected = jax.grad(lambda a: problem.train(a, weights)[0])(arch)
    np.testing.assert_array_equal(bilevel.single_level(*case)[1]["a"], expected["a"])


def test_unrolled_step_is_the_optimisers_own_step():
    sgd = Sgd(clip=None)
    optimizer = sgd.make(10, 5)
    weights = {"w": jnp.array([1.0, -2.0])}
    state = optimizer.init(weights)
    for g in ([0.5, 1.0], [-0.2, 0.3]):
        before, gradient = state, {"w": jnp.array(g)}
        updates, state = optimizer.update(gradient, before, weights)
        inner = sgd.inner_step(before, sgd.schedule(10, 5)(0))
        step = (
            inner.momentum * inner.trace["w"]
            + gradient["w"]
            + inner.weight_decay * weights["w"]
        )
        expected = -inner.learning_rate * step
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)
        weights = {"w": weights["w"] + updates["w"]}
