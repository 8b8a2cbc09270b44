"""What branches close over lives as long as they do, and no longer."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gumbax
import gumbax.linen
import gumbax.nnx
from gumbax._common import lifetimes

X, WEIGHTS = jnp.ones(4), jnp.array([1.0, 0.0])
KEY = jax.random.key(0)


def closures(constant):
    return [lambda q, x: q * x + constant[0], lambda q, x: x + q]


def defaults(constant):
    return [lambda q, x, c=constant: q * x + c[0], lambda q, x: x + q]


def partials(constant):
    def branch(c, q, x):
        return q * x + c[0]

    return [functools.partial(branch, constant), lambda q, x: x + q]


class Model:
    """Branches that reach themselves: through the list that they are in."""

    def __init__(self, constant):
        self.constant = constant
        self.branches = [lambda q, x: q * x + self.constant[0], lambda q, x: x + q]

    def scaled(self, q, x):
        return q * x + self.constant[0]

    def __call__(self, q, x):
        return self.scaled(q, x)


def of_a_model(constant):
    return Model(constant).branches


def methods(constant):
    return [Model(constant).scaled, lambda q, x: x + q]


def objects(constant):
    return [Model(constant), lambda q, x: x + q]


def jitted(constant):
    return [jax.jit(branch) for branch in closures(constant)]


def path(branches, weights=WEIGHTS):
    return gumbax.single_path(weights, branches, [X] * 2, X)


def second_derivative(branches):
    def slope(w):
        return jnp.sum(jax.grad(lambda w: jnp.sum(path(branches, w) ** 2))(w))

    return jax.grad(slope)(WEIGHTS)


def of_x(branches):
    return [lambda x, f=f: f(1.0, x) for f in branches]


def through_nnx(branches):
    op = gumbax.nnx.MixedOp(of_x(branches))
    op(X, rngs=KEY, hard=False)
    return nnx.grad(lambda op: jnp.sum(op(X, rngs=KEY)))(op)


def through_linen(branches):
    op = gumbax.linen.MixedOp(of_x(branches))
    return op.apply(op.init(KEY, X), X, rngs={"arch": KEY})


CALLS = {
    "single_path": path,
    "single_path in jit": lambda fs: jax.jit(functools.partial(path, fs))(WEIGHTS),
    "gradient": lambda fs: jax.grad(lambda w: jnp.sum(path(fs, w)))(WEIGHTS),
    "second derivative": second_derivative,
    "mixed_op": lambda fs: gumbax.mixed_op(WEIGHTS, fs, [X] * 2, X),
    "nnx": through_nnx,
    "linen": through_linen,
}
# Before 0.10, JAX itself keeps what an eager gradient of a jitted `jax.custom_vjp`
# closes over, in caches of its own.
VERSION = tuple(map(int, jax.__version__.split(".")[:2]))
KEPT_BY_JAX = ("gradient", "second derivative") if VERSION < (0, 10) else ()
CASES = [(call, closures) for call in CALLS if call not in KEPT_BY_JAX]
MAKES = (defaults, partials, of_a_model, methods, objects, jitted)
CASES += [("single_path", make) for make in MAKES]
CASES += [("mixed_op", of_a_model), ("nnx", of_a_model), ("linen", of_a_model)]


@pytest.mark.parametrize(("call", "make"), CASES)
def test_closed_over_arrays_are_released(call, make):
    constant = jnp.full(7, 2.0)
    alive = weakref.ref(constant)
    jax.block_until_ready(jax.tree.leaves(CALLS[call](make(constant))))
    assert alive() is not None
    del constant
    gc.collect()
    assert alive() is None


def test_a_backward_pass_outlives_the_functions():
    def forward(w):
        return path(closures(jnp.full(7, 2.0)), w)

    y, pull_back = jax.vjp(forward, WEIGHTS)
    gc.collect()
    np.testing.assert_array_equal(pull_back(jnp.ones_like(y))[0], [12.0, 8.0])


def test_the_same_functions_are_traced_once():
    traced = []

    def branch(q, x):
        traced.append(x)
        return q * x

    path([branch, branch])
    count = len(traced)
    path([branch, branch])
    assert len(traced) == count > 0


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        return True

    def run(self, q, x):
        return q * x


def test_memory_makes_once_and_forgets():
    memory, made = lifetimes.Memory(), []

    def make(functions):
        made.append(functions)
        return len(made)

    one, other = closures(X)
    found = [memory.once(fs, "a", make) for fs in ([one], [one], [other], [one, other])]
    assert found == [1, 1, 2, 3]
    assert memory.once([one], "b", make) == 4
    assert memory.once([[]], "b", make) == 5  # without a hash
    assert memory.once([[]], "b", make) == 6
    model = Unhashable()  # its methods are found again, whatever it is equal to
    assert [memory.once([model.run], "c", make) for _ in range(2)] == [7, 7]
    assert memory.once([Unhashable().run], "c", make) == 8
    del one, model
    gc.collect()
    assert [fs for fs, _ in memory._values] == [(weakref.ref(other),)]
