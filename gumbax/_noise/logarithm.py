"""Logarithms in float32 that have the same bits wherever an element stands.

XLA on CPU computes the stock logarithm in vectors with one polynomial and the remainder
of a loop with another, one unit in the last place away: noise would depend on the shape
of the array and on its sharding. These are additions and multiplications only. On
NVIDIA GPUs the stock functions are CUDA's own, of one element each and right to a unit;
they are shorter, with multiplications and additions in one. Float64 noise keeps the
stock functions everywhere.
"""

import functools
from collections.abc import Callable

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
_SQRT_2 = np.float32(np.sqrt(2))
_SQRT_HALF = np.float32(np.sqrt(0.5))
_SQRT_HALF_BITS = _SQRT_HALF.view(np.int32)


def _or_stock(
    stock: Callable[[jax.Array], jax.Array],
) -> Callable[[Callable[[jax.Array], jax.Array]], Callable[[jax.Array], jax.Array]]:
    """Where the stock function is as good, it takes the place of the decorated one."""

    def decorate(portable: Callable[[jax.Array], jax.Array]):
        @functools.wraps(portable)
        def function(x: jax.Array) -> jax.Array:
            if x.dtype != jnp.float32:
                return stock(x)
            return lax.platform_dependent(x, cuda=stock, default=portable)

        return function

    return decorate


@_or_stock(lax.log)
def log(x: jax.Array) -> jax.Array:
    """log(x) of positive, normal numbers."""
    reduced, exponent = _reduce(x)
    return _log1p_reduced(reduced, exponent)


@_or_stock(lambda v: lax.log1p(-v))
def log1p_negative(v: jax.Array) -> jax.Array:
    """log(1 - v), 0 <= v < 1, exact to rounding near 0."""
    reduced, exponent = _reduce(np.float32(1) - v)
    small = v <= np.float32(1) - _SQRT_HALF
    return _log1p_reduced(
        jnp.where(small, -v, reduced), jnp.where(small, np.float32(0), exponent)
    )


@_or_stock(lax.log1p)
def log1p_unit(u: jax.Array) -> jax.Array:
    """log(1 + u), 0 <= u <= 1, exact to rounding near 0."""
    large = u > _SQRT_2 - np.float32(1)
    # log(2) + log(1 + (u - 1) / 2) there.
    half = np.float32(0.5) * (u - np.float32(1))
    return _log1p_reduced(
        jnp.where(large, half, u), jnp.where(large, np.float32(1), np.float32(0))
    )


def _reduce(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(m - 1, e) with x = m * 2**e and m in [sqrt(1/2), sqrt(2))."""
    # lax and not jnp, whose operators cost several times as much to trace.
    bits = lax.bitcast_convert_type(x, jnp.int32)
    shift = lax.full_like(bits, 23)
    offset = lax.sub(bits, lax.full_like(bits, _SQRT_HALF_BITS))
    exponent = lax.shift_right_arithmetic(offset, shift)
    mantissa = lax.bitcast_convert_type(
        lax.sub(bits, lax.shift_left(exponent, shift)), jnp.float32
    )
    one = lax.full_like(mantissa, 1)
    return lax.sub(mantissa, one), lax.convert_element_type(exponent, jnp.float32)


def _log1p_reduced(x: jax.Array, exponent: jax.Array) -> jax.Array:
    first, *others = _POLYNOMIAL
    value = lax.full_like(x, first)
    for coefficient in others:
        value = lax.add(lax.mul(value, x), lax.full_like(x, coefficient))
    square = lax.mul(x, x)
    high, low = (lax.mul(exponent, lax.full_like(x, part)) for part in _LOG_2)
    value = lax.add(lax.mul(lax.mul(value, x), square), low)
    value = lax.sub(value, lax.mul(lax.full_like(x, 0.5), square))
    return lax.add(lax.add(x, value), high)
