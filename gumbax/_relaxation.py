"""Gumbel-max, Gumbel-Softmax and straight-through samples, with their reverse rules.

Shapes: logits [..., K] with the K categories on `axis`; one temperature for each row.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _checks, _scores, gumbel


def gumbel_max(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    gumbels: ArrayLike | None = None,
) -> jax.Array:
    """Draws the index of one category, argmax(logits + gumbels).

    The law is softmax(logits). For one key the index is that of
    `gumbel_softmax(..., hard=True)`.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `gumbels`.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        axis: the category axis. Static.
        where: boolean mask of allowed categories, broadcasts to `logits`.
        gumbels: noise to use in place of a draw, broadcasts to `logits`.

    Returns:
        int32 array with the shape of `logits` without `axis`. -1 where the row has a
        NaN, or no category that is allowed and above -inf.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, or `key` not a key.
        ValueError: `axis`, `where` or `gumbels` does not fit `logits`.

    Example:
        >>> gumbel_max(jax.random.key(0), jnp.log(jnp.array([0.0, 1.0, 0.0]))).item()
        1

    References:
        Maddison, Tarlow, Minka, 2014. https://arxiv.org/abs/1411.0030
    """
    name = "gumbel_max"
    logits, axis = _checks.logits_and_axis(name, logits, axis)
    key, where, gumbels = _noise_arguments(name, key, logits, where, gumbels)
    return _index(key, logits, where, gumbels, axis=axis)


def gumbel_softmax(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    hard: bool = False,
    axis: int = -1,
    where: ArrayLike | None = None,
    gumbels: ArrayLike | None = None,
) -> jax.Array:
    """Draws a relaxed one-hot vector, softmax((logits + gumbels) / temperature).

    With `hard=True` the value is exactly one-hot, a draw from softmax(logits) whatever
    the temperature, and the gradient is that of the relaxed vector (straight-through).
    That gradient is biased at every temperature, for linear losses too; as the
    temperature falls, variance replaces bias.

    Reverse mode is hand-written, for `logits`, `temperature` and `gumbels`, and can be
    differentiated again. Forward mode (`jax.jvp`) of the sampler itself is not there.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `gumbels`.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        temperature: > 0, one value or one for each row: broadcasts to `logits` with
            length 1 on `axis`. Traced: annealing never recompiles.
        hard: straight-through. Static.
        axis: the category axis. Static.
        where: boolean mask of allowed categories, broadcasts to `logits`. Others get
            exactly 0, and a NaN there is ignored.
        gumbels: noise to use in place of a draw, broadcasts to `logits`; 0.0 for none.

    Returns:
        Array with the shape and dtype of `logits`. A row with a NaN is all NaN; a row
        without an allowed category above -inf is all 0, with zero gradient; a single
        +inf wins with certainty.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, or `key` not a key.
        ValueError: a Python `temperature` is not above 0, or `axis`, `temperature`,
            `where` or `gumbels` does not fit `logits`.

    Example:
        >>> y = gumbel_softmax(jax.random.key(0), jnp.zeros((2, 3)), hard=True)
        >>> y.sum(axis=-1).tolist()
        [1.0, 1.0]

    References:
        Jang, Gu, Poole, 2017. https://arxiv.org/abs/1611.01144
        Maddison, Mnih, Teh, 2017. https://arxiv.org/abs/1611.00712
    """
    name = "gumbel_softmax"
    logits, axis = _checks.logits_and_axis(name, logits, axis)
    wide = gumbel.computation_dtype(logits.dtype)
    rows = _checks.temperature(name, temperature, logits.shape, axis, wide)
    key, where, gumbels = _noise_arguments(name, key, logits, where, gumbels)
    return _sample(key, logits, rows, gumbels, where, axis=axis, hard=hard)


def _noise_arguments(
    name: str,
    key: jax.Array | None,
    logits: jax.Array,
    where: ArrayLike | None,
    gumbels: ArrayLike | None,
) -> tuple[jax.Array | None, jax.Array | None, jax.Array | None]:
    if gumbels is None:
        key = _checks.scalar_key(name, key)
    else:
        key = None
        wide = gumbel.computation_dtype(logits.dtype)
        gumbels = _checks.noise(name, gumbels, logits.shape, wide)
    if where is not None:
        where = _checks.mask(name, where, logits.shape)
    return key, where, gumbels


@functools.partial(jax.jit, static_argnames="axis")
def _index(
    key: jax.Array | None,
    logits: jax.Array,
    where: jax.Array | None,
    gumbels: jax.Array | None,
    *,
    axis: int,
) -> jax.Array:
    scores = _scores.perturb(axis, key, logits, gumbels, where)
    index = _scores.argmax(axis, scores, _scores.maximum(axis, scores))
    return jnp.squeeze(index, axis)


@functools.partial(jax.jit, static_argnames=("axis", "hard"))
def _sample(
    key: jax.Array | None,
    logits: jax.Array,
    temperature: jax.Array,
    gumbels: jax.Array | None,
    where: jax.Array | None,
    *,
    axis: int,
    hard: bool,
) -> jax.Array:
    if gumbels is not None:
        gumbels = jnp.broadcast_to(gumbels, logits.shape)
    rule = _straight_through if hard else _relaxed
    return rule(axis, key, logits, temperature, gumbels, where)


def _pull_back(
    axis: int, relaxed: jax.Array, temperature: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cotangents of the scores and of the temperature from that of the sample."""
    relaxed = relaxed.astype(temperature.dtype)
    # A category of weight 0 (masked, or underflowed) has no gradient, whatever the
    # loss is there: that of an entropy is infinite.
    cotangent = jnp.where(relaxed == 0, 0, cotangent.astype(temperature.dtype))
    inner = jnp.sum(relaxed * cotangent, axis=axis, keepdims=True)
    centred = relaxed * (cotangent - inner)
    log_relaxed = jnp.log(jnp.where(relaxed == 0, 1, relaxed))
    along = jnp.sum(centred * log_relaxed, axis=axis, keepdims=True)
    return centred / temperature, -along / temperature


# Relaxed: the only residual of the size of the logits is the output itself.


def _relaxed_value(axis, key, logits, temperature, gumbels, where):
    scores = _scores.perturb(axis, key, logits, gumbels, where)
    return _scores.softmax(axis, scores, temperature).astype(logits.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relaxed(axis, key, logits, temperature, gumbels, where):
    return _relaxed_value(axis, key, logits, temperature, gumbels, where)


def _relaxed_fwd(axis, key, logits, temperature, gumbels, where):
    relaxed = _relaxed_value(axis, key, logits, temperature, gumbels, where)
    # An empty slice tells the backward rule whether there is noise to credit.
    injected = None if gumbels is None else gumbels[:0]
    return relaxed, (relaxed, temperature, injected)


def _relaxed_bwd(axis, residuals, cotangent):
    relaxed, temperature, injected = residuals
    scores_bar, temperature_bar = _pull_back(axis, relaxed, temperature, cotangent)
    gumbels_bar = None if injected is None else scores_bar
    return None, scores_bar.astype(relaxed.dtype), temperature_bar, gumbels_bar, None


_relaxed.defvjp(_relaxed_fwd, _relaxed_bwd)


# Straight-through: the noise is made again in the backward pass.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _hard_twin(axis, scores, temperature):
    """Hard value whose tangent is the relaxed one.

    The forward rule must use this and not the plain one-hot, whose derivative is zero:
    second derivatives would run and be silently wrong.
    """
    del temperature
    return _scores.one_hot(axis, scores)


@_hard_twin.defjvp
def _hard_twin_jvp(axis, primals, tangents):
    _, tangent = jax.jvp(functools.partial(_scores.softmax, axis), primals, tangents)
    return _hard_twin(axis, *primals), tangent


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(axis, key, logits, temperature, gumbels, where):
    del temperature
    scores = _scores.perturb(axis, key, logits, gumbels, where)
    return _scores.one_hot(axis, scores).astype(logits.dtype)


def _straight_through_fwd(axis, key, logits, temperature, gumbels, where):
    scores = _scores.perturb(axis, key, logits, gumbels, where)
    hard = _hard_twin(axis, scores, temperature).astype(logits.dtype)
    top = _scores.maximum(axis, scores)
    total = _scores.total(axis, _scores.exponentials(scores, top, temperature))
    return hard, (key, logits, temperature, gumbels, where, top, total)


def _straight_through_bwd(axis, residuals, cotangent):
    key, logits, temperature, gumbels, where, top, total = residuals
    scores = _scores.perturb(axis, key, logits, gumbels, where)
    relaxed = _scores.exponentials(scores, top, temperature) / total
    scores_bar, temperature_bar = _pull_back(axis, relaxed, temperature, cotangent)
    gumbels_bar = None if gumbels is None else scores_bar
    return None, scores_bar.astype(logits.dtype), temperature_bar, gumbels_bar, None


_straight_through.defvjp(_straight_through_fwd, _straight_through_bwd)
