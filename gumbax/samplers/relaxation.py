"""Gumbel-max, Gumbel-Softmax and straight-through samples: the public functions.

Shapes: logits [..., K] with the K categories on `axis`; one temperature for each row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks
from gumbax.samplers import rules


def gumbel_max(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    gumbels: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
) -> jax.Array:
    """Draws the index of one category, argmax(logits + gumbels).

    The law is softmax(logits). For one key the index is that of
    `gumbel_softmax(..., hard=True)`. The words behind the noise are the same on every
    backend, its float values to rounding, and so indices but for near-ties.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `gumbels`.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with the scores,
            [*sample_shape, ..., K].
        gumbels: noise to use in place of a draw, broadcasts with the scores.
        sample_shape: leading axes of independent draws from the same logits. Static.

    Returns:
        int32 array: `sample_shape`, then the shape of `logits` without `axis`, and of
        axes that other arguments have in front of it or where it has length 1. -1 where
        the row has a NaN, or no category that is allowed and above -inf: `table[-1]` is
        the last row; look up with `table.at[index].get(mode="fill", fill_value=0,
        wrap_negative_indices=False)`, which gives zeros.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, or `key` not a key.
        ValueError: `axis`, `where`, `gumbels` or `sample_shape` does not fit.

    Example:
        >>> gumbel_max(jax.random.key(0), jnp.log(jnp.array([0.0, 1.0, 0.0]))).item()
        1

    References:
        Maddison, Tarlow, Minka, 2014. https://arxiv.org/abs/1411.0030
    """
    options = (axis, where, gumbels, sample_shape)
    given = operands("gumbel_max", key, logits, NONE, *options)
    return rules.index(
        given.key,
        given.logits,
        given.gumbels,
        given.where,
        axis=given.axis,
        shape=given.shape,
    )


def gumbel_softmax(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    hard: bool = False,
    axis: int = -1,
    where: ArrayLike | None = None,
    gumbels: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    dtype: Any = None,
) -> jax.Array:
    """Draws a relaxed one-hot vector, softmax((logits + gumbels) / temperature).

    With `hard=True` the value is exactly one-hot, a draw from softmax(logits) whatever
    the temperature, and the gradient is that of the relaxed vector (straight-through).
    That gradient is biased at every temperature, for linear losses too; as the
    temperature falls, variance replaces bias.

    Each row's gradient is right to rounding, however near to 1 its winner is; in
    bfloat16, whose sample is rounded, to 2**-6 of the row's largest entry, nearly
    always to 2**-7, in float16 to 2**-9. A learned temperature makes the noise again in
    the backward pass.

    Reverse mode is hand-written, for `logits`, `temperature` and `gumbels`, and can be
    differentiated again. Forward mode (`jax.jvp`) of the sampler itself is not there.
    The gradient of the sum of a sample is 0: it is always 1. The words behind the noise
    are the same on every backend, float values to rounding, one-hots but for near-ties.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `gumbels`.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        temperature: > 0, one value or one for each row: broadcasts with the sample, of
            length 1 on `axis`. Traced: annealing never recompiles. A traced value that
            is not above 0 gives NaN, in a hard sample NaN gradients.
        hard: straight-through. Static.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with the sample. Others
            get exactly 0, and a NaN there is ignored.
        gumbels: noise to use in place of a draw, broadcasts with the sample; 0.0 for
            none.
        sample_shape: leading axes of independent draws from the same logits. Static.
        dtype: of the result, a real floating type; that of `logits` if None. The draw
            does not depend on it. Static.

    Returns:
        Array of `sample_shape`, then the shape of `logits`, and of axes that other
        arguments have in front of it or where it has length 1; each row has a draw.
        A row with a NaN is all NaN; a row without an allowed category above -inf is all
        0, with zero gradient; a single +inf wins with certainty.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, or `key` not a key.
        ValueError: a Python `temperature` is not above 0, or `axis`, `temperature`,
            `where`, `gumbels` or `sample_shape` does not fit.

    Example:
        >>> y = gumbel_softmax(jax.random.key(0), jnp.zeros((2, 3)), hard=True)
        >>> y.sum(axis=-1).tolist()
        [1.0, 1.0]

    References:
        Jang, Gu, Poole, 2017. https://arxiv.org/abs/1611.01144
        Maddison, Mnih, Teh, 2017. https://arxiv.org/abs/1611.00712
    """
    name = "gumbel_softmax"
    options = (axis, where, gumbels, sample_shape)
    given = operands(name, key, logits, temperature, *options)
    hard = checks.flag(name, "hard", hard)
    form = rules.STRAIGHT_THROUGH if hard else rules.RELAXED
    return _relax(name, form, given, dtype)


def log_gumbel_softmax(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    gumbels: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    dtype: Any = None,
) -> jax.Array:
    """Draws the logarithm of a relaxed one-hot vector (an ExpConcrete sample).

    log_softmax((logits + gumbels) / temperature): nothing underflows at low
    temperature, and `gumbax.concrete.exp_log_prob` is its density. For the same key its
    exponential is `gumbel_softmax`. Derivatives are as there, but for a narrow type's
    share y of a loser, which is exp of a rounded logarithm: it is right to |log y|
    units of rounding. What is below the lowest float16 is held there. The words behind
    the noise are the same on every backend, float values to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `gumbels`.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        temperature: as for `gumbel_softmax`.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with the sample. Others
            get exactly -inf, and no gradient whatever the loss does with them.
        gumbels: noise to use in place of a draw, broadcasts with the sample.
        sample_shape: leading axes of independent draws from the same logits. Static.
        dtype: of the result, a real floating type; that of `logits` if None. The draw
            does not depend on it. Static.

    Returns:
        Array of `sample_shape`, then the shape of `logits`, and of axes that other
        arguments have in front of it or where it has length 1; each row has a draw.
        A row with a NaN is all NaN; a row without an allowed category above -inf is all
        -inf, with zero gradient; a single +inf wins with certainty.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, or `key` not a key.
        ValueError: a Python `temperature` is not above 0, or `axis`, `temperature`,
            `where`, `gumbels` or `sample_shape` does not fit.

    Example:
        >>> key, logits = jax.random.key(0), jnp.array([0.0, 1.0, 2.0])
        >>> log_y = log_gumbel_softmax(key, logits, temperature=1e-3)
        >>> bool(jnp.isfinite(log_y).all())
        True

    References:
        Maddison, Mnih, Teh, 2017, App. C.3. https://arxiv.org/abs/1611.00712
    """
    name = "log_gumbel_softmax"
    options = (axis, where, gumbels, sample_shape)
    given = operands(name, key, logits, temperature, *options)
    return _relax(name, rules.LOG_RELAXED, given, dtype)


# Of what has no temperature: a None that was given is refused.
NONE: Any = object()


class Operands(NamedTuple):
    """Checked arguments; all but the key broadcast to `shape`."""

    key: jax.Array | None
    logits: jax.Array
    temperature: jax.Array | None
    gumbels: jax.Array | None
    where: jax.Array | None
    axis: int
    shape: tuple[int, ...]


def operands(
    name, key, logits, temperature, axis, where, gumbels, sample_shape
) -> Operands:
    """The arguments of a sampler by this name, checked."""
    logits, axis = checks.logits_and_axis(name, logits, axis)
    shape = (*checks.sample_shape(name, sample_shape), *logits.shape)
    from_end = axis - logits.ndim
    shape = checks.extended(shape, from_end, temperature, where, gumbels)
    axis = len(shape) + from_end
    wide = _noise.computation_dtype(logits.dtype)
    if gumbels is None:
        key = checks.scalar_key(name, key)
    else:
        key = None
        gumbels = checks.noise(name, "gumbels", gumbels, shape, wide)
    if where is not None:
        where = checks.mask(name, where, shape)
    rows = None
    if temperature is not NONE:
        rows = checks.temperature(name, temperature, shape, axis, wide)
    return Operands(key, logits, rows, gumbels, where, axis, shape)


def _relax(name, form, given: Operands, dtype: Any) -> jax.Array:
    return rules.sample(
        form,
        given.key,
        given.logits,
        given.temperature,
        given.gumbels,
        given.where,
        axis=given.axis,
        shape=given.shape,
        dtype=checks.result_dtype(name, dtype, given.logits.dtype),
    )
