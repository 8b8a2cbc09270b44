"""Logarithms in float32 that have the same bits wherever an element stands.

XLA on CPU computes the stock logarithm in vectors with one polynomial and the remainder
of a loop with another, one unit in the last place away: noise would depend on the shape
of the array and on its sharding. These are additions and multiplications only. Float64
noise keeps the stock functions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Cephes, logf: log(1 + x) = x - x**2 / 2 + x**3 * P(x), sqrt(1/2) <= 1 + x < sqrt(2),
# with a relative error below 1e-7.
_POLYNOMIAL = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
# log(2) in two parts: the products of the first with an exponent are exact.
_LOG_2 = (np.float32(0.693359375), np.float32(-2.12194440e-4))
_SQRT_HALF = np.float32(np.sqrt(0.5))
_SQRT_HALF_BITS = _SQRT_HALF.view(np.int32)


def log(x: jax.Array) -> jax.Array:
    """log(x) of positive, normal numbers."""
    if x.dtype != jnp.float32:
        return jnp.log(x)
    reduced, exponent = _reduce(x)
    return _log1p_reduced(reduced, exponent)


def log1p_negative(v: jax.Array) -> jax.Array:
    """log(1 - v), 0 <= v < 1, exact to rounding near 0."""
    if v.dtype != jnp.float32:
        return jnp.log1p(-v)
    reduced, exponent = _reduce(np.float32(1) - v)
    small = v <= np.float32(1) - _SQRT_HALF
    return _log1p_reduced(
        jnp.where(small, -v, reduced), jnp.where(small, np.float32(0), exponent)
    )


def _reduce(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(m - 1, e) with x = m * 2**e and m in [sqrt(1/2), sqrt(2))."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    exponent = (bits - _SQRT_HALF_BITS) >> np.int32(23)
    mantissa = lax.bitcast_convert_type(bits - (exponent << np.int32(23)), jnp.float32)
    return mantissa - np.float32(1), exponent.astype(jnp.float32)


def _log1p_reduced(x: jax.Array, exponent: jax.Array) -> jax.Array:
    first, *others = _POLYNOMIAL
    value = jnp.full_like(x, first)
    for coefficient in others:
        value = value * x + np.float32(coefficient)
    square = x * x
    high, low = _LOG_2
    value = value * x * square + exponent * low - np.float32(0.5) * square
    return x + value + exponent * high
