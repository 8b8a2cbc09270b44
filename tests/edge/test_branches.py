"""Branches of any kind of output: Python numbers are arrays of rank 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax

X = jnp.ones(3)
WEIGHTS = jnp.array([0.0, 1.0, 0.0])
NUMBERS = [lambda params, x: 1.0, lambda params, x: x.sum(), lambda params, x: jnp.pi]
OPERATIONS = [gumbax.single_path, gumbax.mixed_op]
each = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)


@each
def test_python_numbers_are_outputs(operation):
    def squared(weights, x):
        return operation(weights, NUMBERS, [None] * 3, x) ** 2

    value, gradients = jax.value_and_grad(squared, (0, 1))(WEIGHTS, X)
    assert value == 9.0
    np.testing.assert_allclose(gradients[0], 6 * np.array([1, 3, np.pi]), rtol=1e-6)
    np.testing.assert_array_equal(gradients[1], [6.0, 6.0, 6.0])


@each
def test_python_numbers_are_states(operation):
    branches = [lambda own, x: (own[0] * x, 2.0), lambda own, x: (x, own[1])]
    params = [(3.0, 0.0), (None, 1.0)]
    y, states = operation(jnp.array([1.0, 0.0]), branches, params, X, has_state=True)
    assert (y.tolist(), states) == ([3.0] * 3, (2.0, 1.0))


@each
@pytest.mark.parametrize(
    ("branches", "error", "match"),
    [
        ([lambda params, x: 1] * 3, TypeError, r"got int32\[\] from branch 0"),
        ([*NUMBERS[:2], lambda params, x: x], ValueError, "must agree in the struct"),
    ],
)
def test_numbers_that_do_not_fit(operation, branches, error, match):
    with pytest.raises(error, match=match):
        operation(WEIGHTS, branches, [None] * 3, X)


def test_python_numbers_are_nodes():
    edges = [(0, 1), (1, 2)]
    found = gumbax.scan_edges(lambda own, x: 1.0, None, jnp.zeros(3), edges)
    assert found.tolist() == [0.0, 1.0, 1.0]
