"""The Gumbel distribution and its noise."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax import _checks, _logarithm, _threefry


def sample(
    key: jax.Array,
    shape: Sequence[int] = (),
    *,
    loc: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    dtype: Any = jnp.float32,
    axis: int = -1,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
) -> jax.Array:
    """Draws Gumbel noise, loc - scale * log(E) with E ~ Exponential(1).

    `sample(key, logits.shape, axis=axis)` is exactly the noise that the samplers draw
    for these logits. The random words of an element depend on (key, row, category) and
    on nothing else: not on the number of categories, padding, sharding under jit or
    JAX's random-number flags. Both words of the hash are used, which makes categories
    of probability 1e-9 as frequent as they should be, and no draw is infinite.

    Under `jax.vmap` with one unbatched key every row draws the same noise: give each
    row a key. Inside `jax.shard_map` each shard counts from 0: give it its `offset`.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        shape: shape of the result; its category axis is `axis`. Static.
        loc: location, broadcasts to `shape`.
        scale: scale > 0, broadcasts to `shape`.
        dtype: of the result, a real floating type. Narrow types are drawn in float32
            and rounded.
        axis: the category axis. Static.
        offset: (first row, first category) of this block in a larger array.

    Returns:
        Array of `shape` and `dtype`.

    Raises:
        TypeError: `key` is not one key, or `dtype` is not floating.
        ValueError: `axis`, `loc` or `scale` does not fit `shape`.

    Example:
        >>> whole = sample(jax.random.key(0), (4, 10))
        >>> part = sample(jax.random.key(0), (2, 5), offset=(2, 5))
        >>> bool((whole[2:, 5:] == part).all())
        True

    References:
        Gumbel, 1954; Salmon et al., 2011 (the hash). README, "Noise".
    """
    name = "gumbel.sample"
    key = _checks.scalar_key(name, key)
    shape = tuple(shape)
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(
            _checks.message(
                name,
                "dtype",
                "be a real floating type",
                jnp.dtype(dtype).name,
                "Pass for example `dtype=jnp.float32`.",
            )
        )
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    # A scalar is one row of one category.
    axis = _checks.category_axis(name, shape, axis) if shape else 0
    loc = _checks.broadcast(name, "loc", loc, shape)
    scale = _checks.broadcast(name, "scale", scale, shape)
    return _sample(key, loc, scale, offset, shape=shape, dtype=dtype, axis=axis)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "axis"))
def _sample(
    key: jax.Array,
    loc: jax.Array,
    scale: jax.Array,
    offset: tuple[jax.Array, jax.Array],
    *,
    shape: tuple[int, ...],
    dtype: Any,
    axis: int,
) -> jax.Array:
    wide = computation_dtype(dtype)
    gumbels = standard(key, shape or (1,), axis=axis, dtype=wide, offset=offset)
    gumbels = gumbels.reshape(shape)
    scaled = loc.astype(wide) + scale.astype(wide) * gumbels
    return scaled.astype(dtype)


def computation_dtype(dtype: Any) -> Any:
    """Returns the dtype in which noise is drawn for logits of this dtype."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def standard(
    key: jax.Array,
    shape: Sequence[int],
    *,
    axis: int,
    dtype: Any = jnp.float32,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
) -> jax.Array:
    """Draws standard Gumbel noise inside a jitted function, without checks."""
    words = _threefry.random_words(key, shape, axis=axis, offset=offset)
    return from_words(*words, dtype=dtype)


def from_words(high: jax.Array, low: jax.Array, *, dtype: Any) -> jax.Array:
    """Turns 64 random bits into standard Gumbel noise by inversion, -log(-log1p(-v)).

    v is a centred 64-bit uniform. It is flipped: the fine resolution of floats near 0
    is at the end where a category wins.
    """
    coarse = high.astype(dtype) * np.asarray(2.0**-32, dtype)
    fine = (low.astype(dtype) + np.asarray(0.5, dtype)) * np.asarray(2.0**-64, dtype)
    below_one = np.nextafter(np.asarray(1, dtype), np.asarray(0, dtype))
    v = jnp.minimum(coarse + fine, below_one)
    if dtype == jnp.float32:
        return -_logarithm.log(-_logarithm.log1p_negative(v))
    return -jnp.log(-jnp.log1p(-v))
