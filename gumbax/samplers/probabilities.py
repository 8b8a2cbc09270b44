"""Probabilities of a choice without noise: log-probability, entropy, logits of them."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, meshes
from gumbax._common.rounding import with_slope
from gumbax._common.tangent import still, with_tangent_of
from gumbax.samplers import maxima, softmaxes


def categorical_log_prob(
    index: ArrayLike,
    logits: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Log probability of an index, log_softmax(logits)[index].

    Right to rounding, value and derivatives, also where it is near 0. A category that
    is masked, or whose logit is -inf, has the log probability -inf and never a
    gradient.

    Args:
        index: integers, what `gumbel_max` or `categorical` returns: broadcasts with
            the rows of `logits`, and may have more leading axes (`sample_shape`).
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with `logits`.

    Returns:
        Array of the shape of `index`, broadcast, with the dtype of `logits`. -inf,
        without gradient, where the index is no category, as the -1 of a row without
        one; NaN where the row has a NaN.

    Raises:
        TypeError: `logits` is not floating, `index` not integer, or `where` not
            boolean.
        ValueError: `axis`, `index` or `where` does not fit `logits`.

    Example:
        >>> logits, allowed = jnp.zeros(4), jnp.array([True, True, False, False])
        >>> round(categorical_log_prob(1, logits, where=allowed).item(), 4)
        -0.6931

    References:
        Huang, Ontanon, 2020 (masked policies). https://arxiv.org/abs/2006.14171
    """
    name = "categorical_log_prob"
    must, cure = "be an integer or an array of them", "Pass what `gumbel_max` returns."
    indices = checks.array(name, "index", index, must, cure)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        got = checks.shown(indices)
        raise TypeError(checks.message(name, "index", must, got, cure))
    values, mask, axis = _masked(name, logits, axis, where)
    rows = (*values.shape[:axis], *values.shape[axis + 1 :])
    try:
        shape = jnp.broadcast_shapes(rows, indices.shape)
    except ValueError:
        must = f"broadcast with the rows of `logits`, {rows}"
        got, cure = f"shape {indices.shape}", "Add or move axes."
        raise ValueError(checks.message(name, "index", must, got, cure)) from None
    axis += len(shape) - len(rows)
    indices = jnp.expand_dims(_noise.expand(indices, shape), axis)
    every = (*shape, 1)
    values, mask = (_noise.expand(x, every) for x in (values, mask))
    return _log_prob(indices, values, mask, axis=axis)


def categorical_entropy(
    logits: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> jax.Array:
    """Entropy of a choice, -sum_k p_k log(p_k) with p = softmax(logits), in nats.

    Right to rounding, value and derivatives, also where one category is nearly
    certain. What is masked, or has the logit -inf, counts nothing and has no gradient.

    Args:
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with `logits`.

    Returns:
        Array of the shape of `logits` without `axis`, with its dtype. 0 in a row
        without an allowed category; NaN where the row has a NaN.

    Raises:
        TypeError: `logits` is not floating, or `where` not boolean.
        ValueError: `axis` or `where` does not fit `logits`.

    Example:
        >>> round(categorical_entropy(jnp.array([0.0, 0.0, -jnp.inf])).item(), 4)
        0.6931

    References:
        Shannon, 1948. https://en.wikipedia.org/wiki/Entropy_(information_theory)
    """
    values, mask, axis = _masked("categorical_entropy", logits, axis, where)
    return _entropy(values, mask, axis=axis)


def probs_to_logits(probs: ArrayLike) -> jax.Array:
    """Logits of probabilities that may be 0, log(probs).

    A probability of exactly 0 gives the logit -inf: the category is never drawn, and
    has no gradient, where that of `jnp.log` is NaN behind a sampler.

    Args:
        probs: probabilities >= 0, any shape; they need not sum to 1.

    Returns:
        Array of the shape of `probs`, and of its dtype if that is floating; NaN where
        a probability is negative.

    Raises:
        TypeError: `probs` is not real.

    Example:
        >>> logits = probs_to_logits(jnp.array([0.0, 1.0, 0.0]))
        >>> gumbax.gumbel_max(jax.random.key(0), logits).item()
        1

    References:
        `probs_to_logits` of torch.distributions and NumPyro, which clip instead.
    """
    (probs,), dtype = checks.reals("probs_to_logits", probs=probs)
    return _logits_of(probs).astype(dtype)


def _masked(name, given, axis, where):
    logits, axis = checks.logits_and_axis(name, given, axis)
    shape = checks.extended(logits.shape, axis - logits.ndim, where)
    axis += len(shape) - logits.ndim
    mask = jnp.ones((1,) * len(shape), bool)
    if where is not None:
        mask = checks.mask(name, where, shape)
    return jnp.broadcast_to(logits, shape), mask, axis


def _allowed(logits, where):
    wide = _noise.computation_dtype(logits.dtype)
    return jnp.where(where, logits.astype(wide), -jnp.inf)


@functools.partial(jax.jit, static_argnames="axis")
@meshes.on_automatic_axes
def _log_prob(index, logits, where, *, axis):
    allowed = _allowed(logits, where)
    winner = maxima.leader(axis, allowed)
    one = jnp.ones_like(winner[0])
    each = softmaxes.log_softmax(axis, allowed, one, winner)
    num_categories = each.shape[axis]
    inside = (index >= 0) & (index < num_categories)
    found = jnp.take_along_axis(each, jnp.where(inside, index, 0), axis=axis)
    undefined = jnp.any(jnp.isnan(allowed), axis=axis, keepdims=True)
    found = jnp.where(inside, found, jnp.where(undefined, jnp.nan, -jnp.inf))
    return jnp.squeeze(found, axis).astype(logits.dtype)


@functools.partial(jax.jit, static_argnames="axis")
@meshes.on_automatic_axes
def _entropy(logits, where, *, axis):
    allowed = _allowed(logits, where)
    top, index = maxima.leader(axis, allowed)
    one = jnp.ones_like(top)
    fixed, fixed_top = still((allowed, top))
    below = softmaxes.exponents(fixed, fixed_top, one)
    value = _of_exponents(axis, below, index)
    smooth = functools.partial(_smooth, axis)
    counts = below != -jnp.inf
    value = with_tangent_of(smooth, value, counts, allowed, top, index)
    undefined = jnp.any(jnp.isnan(allowed), axis=axis)
    return jnp.where(undefined, jnp.nan, jnp.squeeze(value, axis)).astype(logits.dtype)


def _smooth(axis, counts, allowed, top, index):
    below = softmaxes.finite_exponents(counts, allowed, jnp.ones_like(top), top)
    return _of_exponents(axis, jnp.where(counts, below, -jnp.inf), index)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_exponents(axis, below, index):
    """log(sum) + sum(y d): no difference, with d >= 0 how far each is below the top."""
    powers = jnp.exp(below)
    winner = jax.lax.broadcasted_iota(jnp.int32, below.shape, axis) == index
    others = jnp.where(winner, 0, powers)
    rest = jnp.sum(others, axis=axis, keepdims=True)
    distance = jnp.where(others == 0, 0, -below)
    mean = jnp.sum(others * distance, axis=axis, keepdims=True) / (1 + rest)
    return jnp.log1p(rest) + mean


@_of_exponents.defjvp
def _of_exponents_jvp(axis, primals, tangents):
    # -y (log(y) + entropy) for each, with the logarithm of the sum gone from both.
    below, index = primals
    y = softmaxes.softmax_of_exponents(axis, below, index)
    # From the winner, so that in second derivatives nothing is taken from a y near 1.
    behind = maxima.value_at(axis, below, index) - below
    distance = jnp.where(below == -jnp.inf, 0, behind)
    mean = jnp.sum(y * distance, axis=axis, keepdims=True)
    slope = jnp.where(below == -jnp.inf, 0, tangents[0])
    dot = jnp.sum(y * (distance - mean) * slope, axis=axis, keepdims=True)
    return _of_exponents(axis, below, index), dot


def _slope_of_log(p: jax.Array) -> jax.Array:
    return jnp.where(p == 0, 0, 1 / jnp.where(p == 0, 1, p))


@jax.jit
@with_slope(_slope_of_log)
def _logits_of(p: jax.Array) -> jax.Array:
    return jnp.log(p)
