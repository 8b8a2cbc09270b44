"""Scores (logits + noise), their maximum and their softmax, right at the infinities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gumbax import _noise
from gumbax._common import sizes
from gumbax._common.tangent import still, with_tangent_of

# Categories in a block of the two-level maximum.
_BLOCK = 128


def perturb(
    axis: int,
    shape: tuple[int, ...],
    key: jax.Array | None,
    logits: jax.Array,
    gumbels: jax.Array | None,
    where: jax.Array | None,
) -> jax.Array:
    """Logits plus noise in the computation dtype, -inf where masked.

    The operands broadcast to `shape`.
    """
    wide = _noise.computation_dtype(logits.dtype)
    theta = _noise.expand(logits.astype(wide), shape)
    if where is not None:
        # Before the noise. A selection by an index that stands behind the hash in one
        # loop never compiles on CPU with JAX 0.8.0 to 0.10.2.
        theta = jnp.where(where, theta, -jnp.inf)
    if gumbels is None:
        assert key is not None
        gumbels = _noise.standard(key, shape, axis=axis, dtype=wide)
        scores = theta + gumbels
    else:
        scores = theta + gumbels
        if where is not None:
            # Of noise that is given, what is NaN or inf under the mask is ignored.
            undefined = jnp.where(where, jnp.asarray(jnp.nan, wide), -jnp.inf)
            scores = jnp.where(jnp.isnan(scores), undefined, scores)
    # Computed once: two fusions of the same sum may round it differently.
    return jax.lax.optimization_barrier(jnp.broadcast_to(scores, shape))


@functools.partial(jax.jit, static_argnums=0)
def argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum of each row and its lowest index, both kept as an axis of length 1.

    The maximum is NaN if there is one; the index is then -1, as for a row of -inf only.
    Neither has a gradient.
    """
    scores = jax.lax.stop_gradient(scores)
    top, index = _platform_argmax(axis, scores)
    # Asked for: on CPU the maximum of some versions of XLA passes over a NaN.
    undefined = jnp.any(jnp.isnan(scores), axis=axis, keepdims=True)
    return jnp.where(undefined, jnp.nan, top), jnp.where(undefined, -1, index)


def _platform_argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.lax.platform_dependent(
        scores,
        cpu=functools.partial(_argmax_by_blocks, axis),
        default=functools.partial(_argmax, axis),
    )


def _argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    num_categories = sizes.value(scores.shape[axis], jnp.int32)
    top = jnp.max(scores, axis=axis, keepdims=True, initial=-jnp.inf)
    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    candidates = jnp.where(scores == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True, initial=num_categories)
    return top, jnp.where((index == num_categories) | (top == -jnp.inf), -1, index)


def _argmax_by_blocks(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One vector pass over the scores, then a look into the first block that has it.

    On CPU a maximum over a whole row, and above all its index, are scalar loops in some
    versions of XLA; a maximum over windows is not.
    """
    known = sizes.is_known(scores.shape[axis])
    if known and scores.shape[axis] <= 2 * _BLOCK:
        return _argmax(axis, scores)
    num_categories = sizes.value(scores.shape[axis], jnp.int32)
    maxima = _block_maxima(axis, scores)
    top, block = _argmax(axis, maxima)
    members = jnp.expand_dims(jnp.arange(_BLOCK, dtype=jnp.int32), _others(axis, top))
    # In the last block the last category may come more than once: harmless.
    category = jnp.minimum(block * _BLOCK + members, num_categories - 1)
    inside = jnp.take_along_axis(
        scores, jnp.maximum(category, 0), axis=axis, mode="promise_in_bounds"
    )
    candidates = jnp.where(inside == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True)
    return top, jnp.where(block == -1, -1, index)


def _others(axis: int, x: jax.Array) -> tuple[int, ...]:
    return tuple(i for i in range(x.ndim) if i != axis)


def _block_maxima(axis: int, scores: jax.Array) -> jax.Array:
    window = tuple(_BLOCK if i == axis else 1 for i in range(scores.ndim))
    missing = -scores.shape[axis] % _BLOCK
    padding = tuple((0, missing if i == axis else 0) for i in range(scores.ndim))
    lowest = np.asarray(-np.inf, scores.dtype)
    return jax.lax.reduce_window(
        scores, lowest, jax.lax.max, window, window, padding=padding
    )


@functools.partial(jax.jit, static_argnums=0)
def maximum(axis: int, scores: jax.Array) -> jax.Array:
    """Maximum of each row, kept as an axis, without gradient.

    Anything for a row with a NaN, which shows in what is computed from the scores.
    """
    return _platform_argmax(axis, jax.lax.stop_gradient(scores))[0]


def one_hot(axis: int, scores: jax.Array) -> jax.Array:
    """One-hot of the maximum; rows of NaN and of all -inf become NaN and zeros."""
    top, index = argmax(axis, scores)
    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    hit = (category == index).astype(scores.dtype)
    return jnp.where(jnp.isnan(top), jnp.nan, hit)


def exponents(scores: jax.Array, top: jax.Array, temperature: jax.Array) -> jax.Array:
    """(scores - top) / temperature, at most 0, for any top.

    An infinite top is moved to the largest float on its side: all of a row without a
    category, and all but the +inf of a certain row, then have the exponent -inf.
    """
    largest = np.finfo(scores.dtype).max
    # Selected, not clipped. On CPU some versions of XLA hand a chain of plain float
    # operations around a reduction to a library, and would materialise all the
    # constants of the noise for it.
    finite_top = jnp.where(jnp.isinf(top), jnp.sign(top) * largest, top)
    below = scores - finite_top
    # A minimum could pass over a NaN.
    return jnp.where(below > 0, 0, below) / _noise.positive(temperature)


def powers(scores: jax.Array, top: jax.Array, temperature: jax.Array) -> jax.Array:
    """exp((scores - top) / temperature) with finite derivatives at infinities.

    `top` is a constant of the row: it has no derivative.
    """
    operands = (scores, top, temperature)
    value = jnp.exp(exponents(*still(operands)))
    return with_tangent_of(_smooth_powers, value, *operands)


def _counted(
    counts: jax.Array, scores: jax.Array, top: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Exponents, 0 for what does not count: weight 0, or certainty."""
    finite_top = jnp.where(jnp.isinf(top), 0, jax.lax.stop_gradient(top))
    return (jnp.where(counts, scores, finite_top) - finite_top) / temperature


def _smooth_powers(
    scores: jax.Array, top: jax.Array, temperature: jax.Array
) -> jax.Array:
    value = jnp.exp(exponents(*still((scores, top, temperature))))
    counts = (value != 0) & jnp.isfinite(scores)
    smooth = jnp.exp(_counted(counts, scores, top, temperature))
    return jnp.where(counts, smooth, value)


def total(axis: int, weights: jax.Array) -> jax.Array:
    """Sum of each row, kept as an axis; 1 for a row without any weight."""
    summed = jnp.sum(weights, axis=axis, keepdims=True)
    return jnp.where(summed == 0, 1, summed)


def softmax(axis: int, scores: jax.Array, temperature: jax.Array) -> jax.Array:
    """softmax(scores / temperature); zeros for a row that is all -inf."""
    weights = powers(scores, maximum(axis, scores), temperature)
    return weights / total(axis, weights)


def log_softmax(axis: int, scores: jax.Array, temperature: jax.Array) -> jax.Array:
    """log(softmax(scores / temperature)) without underflow."""
    value = _log_softmax_value(axis, *still((scores, temperature)))
    smooth = functools.partial(_smooth_log_softmax, axis)
    return with_tangent_of(smooth, value, scores, temperature)


def _log_softmax_value(
    axis: int, scores: jax.Array, temperature: jax.Array
) -> jax.Array:
    top = maximum(axis, scores)
    weights = powers(scores, top, temperature)
    value = exponents(scores, top, temperature) - jnp.log(total(axis, weights))
    return jnp.where((top == jnp.inf) & (scores < jnp.inf), -jnp.inf, value)


def _smooth_log_softmax(
    axis: int, scores: jax.Array, temperature: jax.Array
) -> jax.Array:
    value = _log_softmax_value(axis, *still((scores, temperature)))
    counts = (value != -jnp.inf) & jnp.isfinite(scores)
    shifted = _counted(counts, scores, maximum(axis, scores), temperature)
    weights = jnp.where(counts, jnp.exp(shifted), 0)
    return jnp.where(counts, shifted - jnp.log(total(axis, weights)), value)
