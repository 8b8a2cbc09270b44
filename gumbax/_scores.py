"""Scores (logits + noise), their maximum and their softmax, right at the infinities."""

import jax
import jax.numpy as jnp

from gumbax import gumbel


def perturb(
    axis: int,
    key: jax.Array | None,
    logits: jax.Array,
    gumbels: jax.Array | None,
    where: jax.Array | None,
) -> jax.Array:
    """Logits plus noise in the computation dtype, -inf where masked."""
    wide = gumbel.computation_dtype(logits.dtype)
    if gumbels is None:
        assert key is not None
        gumbels = gumbel.standard(key, logits.shape, axis=axis, dtype=wide)
    scores = logits.astype(wide) + gumbels
    if where is not None:
        scores = jnp.where(where, scores, -jnp.inf)
    # Computed once: two fusions of the same sum may round it differently.
    return jax.lax.optimization_barrier(scores)


def maximum(axis: int, scores: jax.Array) -> jax.Array:
    """Maximum of each row, kept as an axis, without gradient; NaN if there is one."""
    top = jnp.max(scores, axis=axis, keepdims=True, initial=-jnp.inf)
    return jax.lax.stop_gradient(top)


def argmax(axis: int, scores: jax.Array, top: jax.Array) -> jax.Array:
    """Lowest index of the maximum, kept as an axis; -1 for a NaN and for all -inf.

    Two vector passes: on CPU `jnp.argmax` is a scalar loop in some versions.
    """
    num_categories = scores.shape[axis]
    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    candidates = jnp.where(scores == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True, initial=num_categories)
    return jnp.where((index == num_categories) | (top == -jnp.inf), -1, index)


def one_hot(axis: int, scores: jax.Array) -> jax.Array:
    """One-hot of the maximum; rows of NaN and of all -inf become NaN and zeros."""
    top = maximum(axis, scores)
    index = argmax(axis, scores, top)
    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    hit = (category == index).astype(scores.dtype)
    return jnp.where(jnp.isnan(top), jnp.nan, hit)


def exponentials(
    scores: jax.Array, top: jax.Array, temperature: jax.Array
) -> jax.Array:
    """exp((scores - top) / temperature), with finite derivatives at infinities."""
    certain = top == jnp.inf
    finite_top = jnp.where(jnp.isinf(top), 0, top)
    shifted = jnp.where(jnp.isinf(scores), 0, scores) - finite_top
    powers = jnp.exp(jnp.where(certain, 0, shifted) / temperature)
    powers = jnp.where(certain, (scores == jnp.inf).astype(scores.dtype), powers)
    return jnp.where(scores == -jnp.inf, 0, powers)


def total(axis: int, powers: jax.Array) -> jax.Array:
    """Sum of each row, kept as an axis; 1 for a row without any weight."""
    summed = jnp.sum(powers, axis=axis, keepdims=True)
    return jnp.where(summed == 0, 1, summed)


def softmax(axis: int, scores: jax.Array, temperature: jax.Array) -> jax.Array:
    """softmax(scores / temperature); zeros for a row that is all -inf."""
    powers = exponentials(scores, maximum(axis, scores), temperature)
    return powers / total(axis, powers)
