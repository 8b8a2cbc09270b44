"""The maximum of each row of scores, its index, and its one-hot vector."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import sizes

# Up to here a maximum over two levels is no faster.
_ONE_LEVEL = 64
# Up to here the maximum is read at its index, with JAX before 0.12: a plain one goes
# into the loop of what is made of the scores, and they are hashed once more.
_READ = 32 if jax.__version_info__ < (0, 10) else 12
if jax.__version_info__ >= (0, 12):
    _READ = 0
# Categories in a block of the lower level, where their number is not known.
_BLOCK = 128


@functools.partial(jax.jit, static_argnums=0)
def argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum of each row and its lowest index, both kept as an axis of length 1.

    The maximum is NaN if there is one; the index is then -1, as for a row of -inf only.
    Neither has a gradient.
    """
    scores = jax.lax.stop_gradient(scores)
    top, index = _platform_argmax(axis, scores, needs_index=True)
    undefined = _has_nan(axis, scores, top)
    return jnp.where(undefined, jnp.nan, top), jnp.where(undefined, -1, index)


def _platform_argmax(
    axis: int, scores: jax.Array, *, needs_index: bool, keep_index: bool = False
) -> tuple[jax.Array, jax.Array]:
    in_one = needs_index or keep_index
    return jax.lax.platform_dependent(
        scores,
        cpu=functools.partial(_argmax_by_blocks, axis, keep_index),
        default=functools.partial(_argmax_of_pairs if in_one else _argmax, axis),
    )


def _has_nan(axis: int, scores: jax.Array, top: jax.Array) -> jax.Array:
    """Whether the maximum of a row is NaN.

    Asked of the scores on CPU, where that of some versions of XLA passes over a NaN.
    """
    return jax.lax.platform_dependent(
        scores,
        top,
        cpu=lambda x, _: jnp.any(jnp.isnan(x), axis=axis, keepdims=True),
        default=lambda _, top: jnp.isnan(top),
    )


def _argmax_of_pairs(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One reduction over pairs of a score and its category."""

    def better(one, other):
        (x, i), (y, j) = one, other
        first = (x > y) | jnp.isnan(x) | ((x == y) & (i < j))
        return jnp.where(first, x, y), jnp.where(first, i, j)

    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    nothing = (np.asarray(-np.inf, scores.dtype), np.int32(np.iinfo(np.int32).max))
    found = jax.lax.reduce((scores, category), nothing, better, (axis,))
    top, index = (jnp.expand_dims(x, axis) for x in found)
    return top, jnp.where(top > -jnp.inf, index, -1)


def _argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    num_categories = sizes.value(scores.shape[axis], jnp.int32)
    top = jnp.max(scores, axis=axis, keepdims=True, initial=-jnp.inf)
    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    candidates = jnp.where(scores == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True, initial=num_categories)
    return top, jnp.where((index == num_categories) | (top == -jnp.inf), -1, index)


def _argmax_by_blocks(
    axis: int, keep_index: bool, scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One vector pass over the scores, then a look into the first block that has it.

    On CPU a maximum over a whole row, and above all its index, are scalar loops in some
    versions of XLA; a maximum over windows is not.
    """
    size = _block_size(scores.shape[axis])
    if size == 1:
        top, index = _argmax(axis, scores)
        if not keep_index and scores.shape[axis] <= _READ:
            top = value_at(axis, scores, jnp.maximum(index, 0))
        return top, index
    num_categories = sizes.value(scores.shape[axis], jnp.int32)
    maxima = _block_maxima(axis, scores, size)
    top, block = _argmax(axis, maxima)
    members = jnp.expand_dims(jnp.arange(size, dtype=jnp.int32), _others(axis, top))
    # In the last block the last category may come more than once: harmless.
    category = jnp.minimum(block * size + members, num_categories - 1)
    inside = jnp.take_along_axis(
        scores, jnp.maximum(category, 0), axis=axis, mode="promise_in_bounds"
    )
    candidates = jnp.where(inside == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True)
    index = jnp.where(block == -1, -1, index)
    if keep_index:
        # Read there, so that nothing is made of the maximum before the index is found:
        # the scores would stand in memory beside that until it is.
        top = value_at(axis, scores, jnp.clip(index, 0, num_categories - 1))
    return top, index


def _others(axis: int, x: jax.Array) -> tuple[int, ...]:
    return tuple(i for i in range(x.ndim) if i != axis)


def _block_size(num_categories: Any) -> int:
    """A power of two near the square root: both levels are of a length."""
    if not sizes.is_known(num_categories):
        return _BLOCK
    if num_categories <= _ONE_LEVEL:
        return 1
    return 2 ** (num_categories.bit_length() // 2)


def _block_maxima(axis: int, scores: jax.Array, size: int) -> jax.Array:
    window = tuple(size if i == axis else 1 for i in range(scores.ndim))
    missing = -scores.shape[axis] % size
    padding = tuple((0, missing if i == axis else 0) for i in range(scores.ndim))
    lowest = np.asarray(-np.inf, scores.dtype)
    return jax.lax.reduce_window(
        scores, lowest, jax.lax.max, window, window, padding=padding
    )


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=("needs_index", "keep_index")
)
def leader(
    axis: int,
    scores: jax.Array,
    *,
    needs_index: bool = False,
    keep_index: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`argmax` that does not ask for NaN, which shows in what is made of the scores.

    Anything for a row with a NaN; the index is in bounds in every row. Where it is
    neither needed nor kept until a backward pass, finding it costs nothing if it is not
    used either.
    """
    scores = jax.lax.stop_gradient(scores)
    top, index = _platform_argmax(
        axis, scores, needs_index=needs_index, keep_index=keep_index
    )
    return top, jnp.maximum(index, 0)


def one_hot(
    axis: int, scores: jax.Array, winner: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """One-hot of the winner; rows of NaN and of all -inf become NaN and zeros."""
    top, index = winner
    hit = (at(axis, scores, index) & (top != -jnp.inf)).astype(scores.dtype)
    return jnp.where(_has_nan(axis, scores, top), jnp.nan, hit)


def at(axis: int, x: jax.Array, index: jax.Array) -> jax.Array:
    """Whether an element is the one of its row at the index."""
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, axis) == index


def value_at(axis: int, x: jax.Array, index: jax.Array) -> jax.Array:
    """The element of each row at an index in bounds."""
    return jnp.take_along_axis(x, index, axis=axis, mode="promise_in_bounds")
