"""The fastest exact sampler of an index: a block of categories, then one in it."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, keys, meshes
from gumbax.samplers.maxima import argmax, leader
from gumbax.samplers.scores import computed_once
from gumbax.samplers.softmaxes import exponents

# Categories in a block, each block drawn with one Gumbel.
_BLOCK = 512
# Up to here a Gumbel for each category is as fast on CPU.
_DIRECT = 4096
_CURE = "Its draws depend on the number: fix it, or use `gumbel_max`."
# Streams of the key, apart from the noise of `gumbel_max`.
_OF_BLOCKS, _INSIDE = 3, 4


def categorical(
    key: jax.Array,
    logits: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    block_size: int | None = None,
) -> jax.Array:
    """Draws the index of one category from softmax(logits), for many categories.

    The maximum of logits + noise over a block is logsumexp(block) + Gumbel: a block is
    drawn with one Gumbel, and then a category inside it. The law is exact and the cost
    is one exponential for each category in place of one hash and two logarithms; the
    logits are read once for all of `sample_shape`. No noise is attached to categories:
    the index is not that of `gumbel_max` for the same key and may change with padding.
    The words behind the noise are the same on every backend, its float values to one
    unit, and so indices but for near-ties.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with `logits`.
        sample_shape: leading axes of independent draws from the same logits. Static.
        block_size: categories in a block; the draw depends on it. If None, 512, and up
            to 4,096 categories none: each has a Gumbel, which is as fast on a CPU. On a
            GPU, which hashes slowly beside what it reads, the root of the number of
            categories is faster for many rows of some hundred or thousand. Static.

    Returns:
        int32 array: `sample_shape`, then the shape of `logits` without `axis`. -1 where
        the row has a NaN, or no category that is allowed and above -inf; see
        `gumbel_max` for how to look up with it.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, `key` not a key, or
            `block_size` not an integer.
        ValueError: `axis`, `where` or `sample_shape` does not fit, or `block_size` is
            below 1.

    Example:
        >>> logits = jnp.full(100_000, -jnp.inf).at[77_777].set(0.0)
        >>> categorical(jax.random.key(0), logits).item()
        77777

    References:
        Maddison, Tarlow, Minka, 2014, Sec. 2 (maxima of Gumbels).
        https://arxiv.org/abs/1411.0030
    """
    name = "categorical"
    key = checks.scalar_key(name, key)
    logits, axis = checks.logits_and_axis(name, logits, axis)
    checks.known_size(name, "logits", logits.shape[axis], _CURE)
    samples = checks.sample_shape(name, sample_shape)
    if block_size is not None:
        cure = "Pass the root of the number of categories."
        block_size = checks.count(name, "block_size", block_size, 1, cure)
    if where is not None:
        shape = checks.extended(logits.shape, axis - logits.ndim, where)
        where = checks.mask(name, where, shape)
        axis += len(shape) - logits.ndim
        logits = jnp.broadcast_to(logits, shape)
    if block_size is None and logits.shape[axis] > _DIRECT:
        block_size = _BLOCK
    static = {"axis": axis, "samples": samples, "block_size": block_size}
    return _draw(key, logits, where, **static)


@functools.partial(jax.jit, static_argnames=("axis", "samples", "block_size"))
def _draw(key, logits, where, *, axis, samples, block_size):
    draw = functools.partial(_index, axis, samples, block_size)
    out = list(meshes.broadcast_spec((*samples, *logits.shape), logits, where))
    del out[len(samples) + axis]
    return meshes.automatic(draw, out, keys.consumed(key), logits, where)


def _index(axis, samples, size, key, logits, where):
    wide = _noise.computation_dtype(logits.dtype)
    scores = logits.astype(wide)
    if where is not None:
        scores = jnp.where(where, scores, -jnp.inf)
    scores = jnp.expand_dims(scores, tuple(range(len(samples))))
    axis += len(samples)

    def draw(values, stream):
        shape = samples + values.shape[len(samples) :]
        noise = _noise.standard(key, shape, axis=axis, dtype=wide, stream=stream)
        return argmax(axis, computed_once(values + noise))[1]

    num_categories = scores.shape[axis]
    if size is None or size >= num_categories:
        return jnp.squeeze(draw(scores, _INSIDE), axis)
    block = draw(_log_sums(size, axis, scores), _OF_BLOCKS)
    members = jnp.expand_dims(
        jnp.arange(size, dtype=jnp.int32),
        tuple(i for i in range(scores.ndim) if i != axis),
    )
    category = jnp.maximum(block, 0) * size + members
    inside = jnp.take_along_axis(
        scores, jnp.minimum(category, num_categories - 1), axis=axis
    )
    inside = jnp.where(category < num_categories, inside, -jnp.inf)
    index = block * size + draw(inside, _INSIDE)
    return jnp.squeeze(jnp.where(block == -1, -1, index), axis)


def _log_sums(size: int, axis: int, scores: jax.Array) -> jax.Array:
    """logsumexp of each block, less the maximum of the row."""
    top, _ = leader(axis, scores)
    weights = jnp.exp(exponents(scores, top, jnp.ones_like(top)))
    missing = -scores.shape[axis] % size
    padding = [(0, missing if i == axis else 0) for i in range(scores.ndim)]
    weights = jnp.pad(weights, padding)
    blocks = weights.shape[axis] // size
    shape = (*scores.shape[:axis], blocks, size, *scores.shape[axis + 1 :])
    return jnp.log(jnp.sum(weights.reshape(shape), axis=axis + 1))
