"""Logistic noise, that of the binary choices, and scores of a bit that is given."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, keys, meshes
from gumbax._common.rounding import log_sigmoid

# Apart from the noise of the same key, from which the bit may be drawn.
_GIVEN_BIT = 5


def sample(
    key: jax.Array,
    shape: Sequence[int] = (),
    *,
    dtype: Any = jnp.float32,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
) -> jax.Array:
    """Draws standard logistic noise, log(U) - log(1 - U) with U uniform.

    `sample(key, logits.shape)` is exactly the noise that `gumbax.relaxed_bernoulli` and
    its like draw for these logits, the difference of two Gumbel draws in law. Both
    tails are exact, and no draw is infinite. As for `gumbax.gumbel.sample`, the random
    words of an element depend on the key and on its place alone, the last axis
    counting as that of categories: they are the same on every backend, and float values
    to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        shape: shape of the result. Static.
        dtype: of the result, a real floating type. Narrow types are drawn in float32
            and rounded.
        offset: (first row, first place on the last axis) of this block in a larger
            array, as inside `jax.shard_map`.

    Returns:
        Array of `shape` and `dtype`.

    Raises:
        TypeError: `key` is not one key, `dtype` not floating, or `offset` no pair of
            integers.
        ValueError: `shape` is not a sequence of lengths.

    Example:
        >>> key, logits = jax.random.key(0), jnp.zeros(3)
        >>> noise = sample(key, logits.shape)
        >>> x = gumbax.relaxed_bernoulli(key, logits)
        >>> bool((x == gumbax.relaxed_bernoulli(None, logits, logistics=noise)).all())
        True

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    name = "logistic.sample"
    key = checks.scalar_key(name, key)
    cure = "For n draws pass `shape=(n,)`."
    lengths = checks.lengths(name, "shape", shape, cure)
    dtype = checks.floating_dtype(name, dtype)
    offset = checks.counters(name, offset)
    return _sample(key, offset, shape=lengths, dtype=dtype)


def sample_given_bit(
    key: jax.Array,
    logits: ArrayLike,
    bit: ArrayLike,
    *,
    sample_shape: Sequence[int] = (),
) -> jax.Array:
    """Draws scores, logits + logistic noise, given which of them are above 0.

    The binary counterpart of `gumbax.gumbel.sample_given_index`: with bits drawn from
    Bernoulli(sigmoid(logits)) the scores have the law of logits + noise, and a relaxed
    sample of them, `relaxed_bernoulli(None, 0.0, logistics=scores)`, is that of the
    control variate of REBAR. A score given 1 is softplus(softplus(logit) + L), given 0
    -softplus(softplus(-logit) + L): exact however improbable the bit is, and
    differentiable in `logits`. The words behind the noise are the same on every
    backend, float values to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed. The noise is apart from that
            of `relaxed_bernoulli` for the same key.
        logits: log-odds of 1, any shape.
        bit: booleans, or numbers of which 0 is the bit 0, as of
            `relaxed_bernoulli(..., hard=True)`; broadcasts with the result.
        sample_shape: leading axes of independent draws from the same logits. Static.

    Returns:
        Array of `sample_shape`, then the shape to which `logits` and `bit` broadcast,
        with the dtype of `logits`: above 0 where the bit is 1, else at most 0. NaN
        where an argument is NaN, or the bit is impossible.

    Raises:
        TypeError: `key` is not one key, `logits` not floating, or `bit` not of numbers.
        ValueError: `bit` or `sample_shape` does not fit `logits`.

    Example:
        >>> scores = sample_given_bit(jax.random.key(0), jnp.array([-9.0, 9.0]), 1)
        >>> (scores > 0).tolist()
        [True, True]

    References:
        Tucker et al., 2017 (REBAR), App. B. https://arxiv.org/abs/1703.07370
    """
    name = "logistic.sample_given_bit"
    key = checks.scalar_key(name, key)
    values = checks.floating_array(name, "logits", logits)
    must, cure = "be booleans or real numbers", "Pass a hard sample."
    bits = checks.array(name, "bit", bit, must, cure)
    if bits.dtype != jnp.bool_:
        bits = checks.real(name, "bit", bits, must=must)
    shape = (*checks.sample_shape(name, sample_shape), *values.shape)
    shape = checks.extended(shape, None, bits)
    bits = checks.fitted(name, "bit", bits, shape)
    return _given_bit(key, _noise.expand(values, shape), bits, shape=shape)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _sample(key, offset, *, shape, dtype):
    wide = _noise.computation_dtype(dtype)
    key = keys.consumed(key)
    logistics = _noise.standard_logistic(key, shape, dtype=wide, offset=offset)
    return logistics.astype(dtype)


@functools.partial(jax.jit, static_argnames="shape")
def _given_bit(key, logits, bits, *, shape):
    wide = _noise.computation_dtype(logits.dtype)

    def draw(key, logits, bits):
        logistics = _noise.standard_logistic(key, shape, dtype=wide, stream=_GIVEN_BIT)
        sign = jnp.where(bits == 0, -1, 1).astype(wide)
        towards = sign * logits.astype(wide)
        size = _softplus(_softplus(towards) + logistics).astype(logits.dtype)
        # What rounds to 0 in a narrow type is above 0 nevertheless.
        info = jnp.finfo(logits.dtype)
        least = max(float(info.smallest_subnormal), float(jnp.finfo(wide).tiny))
        size = jnp.where(size == 0, jnp.asarray(least, logits.dtype), size)
        impossible = jnp.isnan(bits) | (towards == -jnp.inf)
        return jnp.where(impossible, jnp.nan, sign.astype(logits.dtype) * size)

    out = meshes.broadcast_spec(shape, logits, bits)
    return meshes.automatic(draw, out, keys.consumed(key), logits, bits)


def _softplus(x: jax.Array) -> jax.Array:
    return -log_sigmoid(-x)
