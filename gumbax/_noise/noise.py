"""Standard Gumbel and logistic noise from random words, without argument checks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax._noise import logarithm, threefry


def computation_dtype(dtype: Any) -> Any:
    """Returns the dtype in which noise is drawn for logits of this dtype."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


# Jitted, not inlined: the backward pass of a sampler shares the trace of the forward.
@functools.partial(jax.jit, static_argnames=("shape", "axis", "dtype", "stream"))
def standard(
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    axis: int,
    dtype: Any = jnp.float32,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
    stream: int = 0,
) -> jax.Array:
    """Draws standard Gumbel noise."""
    words = threefry.random_words(key, shape, axis=axis, offset=offset, stream=stream)
    return gumbel_from_words(*words, dtype=dtype)


# Apart from the Gumbel noise of the same key.
_LOGISTIC = 2


def standard_logistic(
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    dtype: Any = jnp.float32,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
    stream: int = _LOGISTIC,
) -> jax.Array:
    """Draws standard logistic noise; the last axis counts as that of categories."""
    counted = shape or (1,)
    words = threefry.random_words(
        key, counted, axis=len(counted) - 1, offset=offset, stream=stream
    )
    return logistic_from_words(*words, dtype=dtype).reshape(shape)


# The largest word below 2**32 in float32.
_BELOW_ONE = np.uint32(0xFFFFFF7F)


def gumbel_from_words(high: jax.Array, low: jax.Array, *, dtype: Any) -> jax.Array:
    """Turns 64 random bits into standard Gumbel noise by inversion, -log(-log1p(-v)).

    v is a centred 64-bit uniform. It is flipped: the fine resolution of floats near 0
    is at the end where a category wins.
    """
    return -logarithm.log(exponential_from_words(high, low, dtype=dtype))


def exponential_from_words(high: jax.Array, low: jax.Array, *, dtype: Any) -> jax.Array:
    """Turns 64 random bits into an exponential draw, -log1p(-v), never 0 nor inf."""
    return -logarithm.log1p_negative(uniform_from_words(high, low, dtype=dtype))


def uniform_from_words(high: jax.Array, low: jax.Array, *, dtype: Any) -> jax.Array:
    """Turns 64 random bits into a centred uniform, 0 < v < 1, finest near 0."""
    dtype = np.dtype(dtype)
    if dtype == np.float32:
        # What would be rounded to 1. A minimum of words, which costs no instruction on
        # a GPU, where one of floats takes four.
        high = jax.lax.min(high, jax.lax.full_like(high, _BELOW_ONE))
    unit = np.asarray(2.0**-32, dtype)
    fine = (low.astype(dtype) + np.asarray(0.5, dtype)) * unit
    value = (high.astype(dtype) + fine) * unit
    if dtype == np.float32:
        return value
    return jnp.minimum(value, np.nextafter(np.asarray(1, dtype), np.asarray(0, dtype)))


def logistic_from_words(high: jax.Array, low: jax.Array, *, dtype: Any) -> jax.Array:
    """Turns 64 random bits into standard logistic noise, log(t) - log(1 - t).

    The top bit is the side, the other 63 are a centred uniform t < 1/2: both tails have
    the fine resolution of floats near 0.
    """
    half = uniform_from_words(high & np.uint32(0x7FFFFFFF), low, dtype=dtype)
    # Rounded up, the largest t is exactly 1/2: a draw of 0, which is right.
    value = logarithm.log(half) - logarithm.log1p_negative(half)
    return jnp.where(high >> np.uint32(31) == 0, value, -value)


def positive(parameter: jax.Array, *, or_zero: bool = False) -> jax.Array:
    """NaN in place of a traced temperature or scale that is not above 0."""
    fits = parameter >= 0 if or_zero else parameter > 0
    # A product: its derivative is NaN too.
    return parameter * jnp.where(fits, jnp.ones((), parameter.dtype), jnp.nan)


def defined(value: jax.Array, parameter: jax.Array) -> jax.Array:
    """A value, NaN with all of its derivatives where its parameter is not above 0.

    For what compares its parameter, or does not use it everywhere.
    """
    return value * jnp.where(parameter > 0, jnp.ones((), value.dtype), jnp.nan)


def expand(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gives x the rank of a shape to which it broadcasts."""
    missing = len(shape) - x.ndim
    return x.reshape((1,) * missing + x.shape) if missing else x
