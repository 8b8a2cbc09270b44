"""The rules of Gumbel-max, Gumbel-Softmax and straight-through samples.

Shapes: the result is [*sample_shape, ..., K] with the K categories on `axis`; logits
lack the axes of `sample_shape`; gumbels, mask and temperature have all axes and
broadcast. One choice is a row. The public functions and their checks are in
`relaxation.py`.
"""

import functools

import jax
import jax.numpy as jnp

from gumbax._common import keys, meshes
from gumbax._common.meshes import Kind
from gumbax._common.tangent import still, with_tangent_of
from gumbax.samplers import scores


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def index(key, logits, gumbels, where, *, axis, shape):
    """Index of the highest score of each row; -1 without one."""

    def of(key, logits, gumbels, where):
        perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
        return jnp.squeeze(scores.argmax(axis, perturbed)[1], axis)

    out = list(meshes.broadcast_spec(shape, logits, gumbels, where))
    del out[axis]
    return meshes.automatic(of, out, keys.consumed(key), logits, gumbels, where)


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def relaxed(key, logits, temperature, gumbels, where, *, axis, shape):
    rule = functools.partial(_relaxed, (axis, shape))
    return _sample(rule, shape, key, logits, temperature, gumbels, where)


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def log_relaxed(key, logits, temperature, gumbels, where, *, axis, shape):
    rule = functools.partial(_log_relaxed, (axis, shape))
    return _sample(rule, shape, key, logits, temperature, gumbels, where)


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def straight_through(key, logits, temperature, gumbels, where, *, axis, shape):
    rule = functools.partial(_straight_through, (axis, shape))
    return _sample(rule, shape, key, logits, temperature, gumbels, where)


def _sample(rule, shape, key, *operands):
    out = meshes.broadcast_spec(shape, *operands)
    return meshes.automatic(rule, out, keys.consumed(key), *operands)


def _cotangents(scores_bar, temperature_bar, temperature, logits, gumbels):
    """Of (key, logits, temperature, gumbels, where), from what they were broadcast to.

    The last three are the kinds of the operands.
    """
    return (
        None,
        logits.cotangent(scores_bar),
        temperature.cotangent(temperature_bar),
        None if gumbels is None else gumbels.cotangent(scores_bar),
        None,
    )


def _kinds(*operands):
    return tuple(None if x is None else Kind.of(x) for x in operands)


def _inner(axis: int, weighted: jax.Array) -> jax.Array:
    """Sum of each row; NaN, and never infinite, where the cotangent overflowed.

    The selection keeps a library that XLA on CPU hands reductions to from taking the
    arithmetic behind it too, which would materialise a temperature for each element.
    """
    summed = jnp.sum(weighted, axis=axis, keepdims=True)
    return jnp.where(jnp.isfinite(summed), summed, jnp.nan)


# Relaxed: the only residual of the size of the logits is the output itself.


def _relaxed_value(static, key, logits, temperature, gumbels, where):
    axis, shape = static
    perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
    return scores.softmax(axis, perturbed, temperature).astype(logits.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relaxed(static, key, logits, temperature, gumbels, where):
    return _relaxed_value(static, key, logits, temperature, gumbels, where)


def _relaxed_fwd(static, key, logits, temperature, gumbels, where):
    y = _relaxed_value(static, key, logits, temperature, gumbels, where)
    return y, (y, temperature, _kinds(temperature, logits, gumbels))


def _relaxed_bwd(static, residuals, cotangent):
    axis, _ = static
    y, temperature, kinds = residuals
    y = y.astype(temperature.dtype)
    # A category of weight 0 (masked, or underflowed) has no gradient, whatever the
    # loss is there: that of an entropy is infinite.
    weighted = jnp.where(y == 0, 0, y * cotangent.astype(temperature.dtype))
    centred = weighted - y * _inner(axis, weighted)
    log_y = jnp.log(jnp.where(y == 0, 1, y))
    along = jnp.sum(centred * log_y, axis=axis, keepdims=True)
    return _cotangents(centred / temperature, -along / temperature, *kinds)


_relaxed.defvjp(_relaxed_fwd, _relaxed_bwd)


# In log space: again the output is the residual.


def _log_relaxed_value(static, key, logits, temperature, gumbels, where):
    axis, shape = static
    perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
    return scores.log_softmax(axis, perturbed, temperature).astype(logits.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_relaxed(static, key, logits, temperature, gumbels, where):
    return _log_relaxed_value(static, key, logits, temperature, gumbels, where)


def _log_relaxed_fwd(static, key, logits, temperature, gumbels, where):
    log_y = _log_relaxed_value(static, key, logits, temperature, gumbels, where)
    return log_y, (log_y, temperature, _kinds(temperature, logits, gumbels))


def _log_relaxed_bwd(static, residuals, cotangent):
    axis, _ = static
    log_y, temperature, kinds = residuals
    log_y = log_y.astype(temperature.dtype)
    counts = log_y != -jnp.inf
    cotangent = jnp.where(counts, cotangent.astype(temperature.dtype), 0)
    inner = jnp.sum(cotangent, axis=axis, keepdims=True)
    centred = cotangent - jnp.exp(log_y) * inner
    along = jnp.sum(centred * jnp.where(counts, log_y, 0), axis=axis, keepdims=True)
    return _cotangents(centred / temperature, -along / temperature, *kinds)


_log_relaxed.defvjp(_log_relaxed_fwd, _log_relaxed_bwd)


# Straight-through: the noise is made again in the backward pass.


def _hard(axis: int, perturbed: jax.Array, temperature: jax.Array) -> jax.Array:
    """Hard value whose derivatives are those of the relaxed one.

    The forward rule must use this and not the plain one-hot, whose derivative is zero:
    second derivatives would run and be silently wrong.
    """
    value = scores.one_hot(axis, still(perturbed))
    relaxed = functools.partial(scores.softmax, axis)
    return with_tangent_of(relaxed, value, perturbed, temperature)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(static, key, logits, temperature, gumbels, where):
    del temperature
    axis, shape = static
    perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
    return scores.one_hot(axis, perturbed).astype(logits.dtype)


def _straight_through_fwd(static, key, logits, temperature, gumbels, where):
    axis, shape = static
    perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
    hard = _hard(axis, perturbed, temperature).astype(logits.dtype)
    top = scores.maximum(axis, perturbed)
    return hard, (key, logits, temperature, gumbels, where, top)


def _straight_through_bwd(static, residuals, cotangent):
    axis, shape = static
    key, logits, temperature, gumbels, where, top = residuals
    perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
    powers = scores.powers(perturbed, top, temperature)
    total = scores.total(axis, powers)
    weighted = jnp.where(powers == 0, 0, powers * cotangent.astype(temperature.dtype))
    inner = _inner(axis, weighted) / total
    centred = (weighted - powers * inner) / (total * temperature)
    log_powers = jnp.log(jnp.where(powers == 0, 1, powers))
    along = jnp.sum(centred * log_powers, axis=axis, keepdims=True)
    return _cotangents(centred, -along, *_kinds(temperature, logits, gumbels))


_straight_through.defvjp(_straight_through_fwd, _straight_through_bwd)
