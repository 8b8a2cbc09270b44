"""Elementary functions whose derivatives are right to rounding, to the second order.

JAX differentiates `/`, `expm1`, `sigmoid` and `softplus` by formulas that subtract
nearly equal numbers, or that leave the range of the type. Each function here has a rule
of its own. Where JAX forgets such a rule (`jax.lax.scan` before JAX 0.12, in
derivatives of derivatives) it differentiates the value instead: less exact, and nothing
worse.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def with_slope(
    slope: Callable[[jax.Array], jax.Array],
) -> Callable[[Callable[[jax.Array], jax.Array]], Callable[[jax.Array], jax.Array]]:
    """Gives a function of one array its derivative, `slope` of the same argument."""

    def decorate(function):
        attached = jax.custom_jvp(function)

        @attached.defjvp
        def _rule(primals, tangents):
            (x,), (dot,) = primals, tangents
            return attached(x), slope(x) * dot

        return attached

    return decorate


def is_zero(tangent: Any) -> bool:
    """Whether an operand is not differentiated, in a rule with symbolic zeros."""
    return isinstance(tangent, SymbolicZero)


@jax.custom_jvp
def divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, whose derivatives stay in range as long as they are: no 1 / b**2."""
    return a / b


def _divide_jvp(primals, tangents):
    (a, b), (a_dot, b_dot) = primals, tangents
    value = divide(a, b)
    if is_zero(b_dot):
        return value, divide(a_dot, b)
    above = -value * b_dot if is_zero(a_dot) else a_dot - value * b_dot
    return value, divide(above, b)


divide.defjvp(_divide_jvp, symbolic_zeros=True)


@with_slope(jnp.exp)
def expm1(x: jax.Array) -> jax.Array:
    """exp(x) - 1."""
    return jnp.expm1(x)


def _negative_tanh_half(x: jax.Array) -> jax.Array:
    return -jnp.tanh(x / 2)


@with_slope(lambda x: logistic_prob(x) * _negative_tanh_half(x))
def logistic_prob(x: jax.Array) -> jax.Array:
    """sigmoid(x) * sigmoid(-x), the density of the logistic law."""
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


@with_slope(logistic_prob)
def sigmoid(x: jax.Array) -> jax.Array:
    """1 / (1 + exp(-x))."""
    return jax.nn.sigmoid(x)


@with_slope(lambda x: -2 * logistic_prob(x))
def _slope_of_logistic_log_prob(x: jax.Array) -> jax.Array:
    return _negative_tanh_half(x)


@with_slope(_slope_of_logistic_log_prob)
def logistic_log_prob(x: jax.Array) -> jax.Array:
    """log(sigmoid(x) * sigmoid(-x))."""
    far = jnp.abs(x)
    return -far - 2 * jnp.log1p(jnp.exp(-far))


@with_slope(lambda x: sigmoid(-x))
def log_sigmoid(x: jax.Array) -> jax.Array:
    """log(sigmoid(x))."""
    return jax.nn.log_sigmoid(x)
