"""Binary choices: relaxed Bernoulli samples, and the hard-concrete gate.

One logit for each choice: P(1) = sigmoid(logit). An element counts as (row, category)
of an array whose last axis is the category axis.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, keys, meshes
from gumbax._common.meshes import Kind
from gumbax._common.rounding import divide, logistic_prob, sigmoid
from gumbax._common.tangent import still, with_tangent_of
from gumbax.samplers.scores import computed_once


def logit_relaxed_bernoulli(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    logistics: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    dtype: Any = None,
) -> jax.Array:
    """Draws the logit of a relaxed Bernoulli sample, (logits + L) / temperature.

    L is standard logistic noise, exact in both tails. `jax.nn.sigmoid` of it is
    `relaxed_bernoulli` for the same key; here nothing rounds to 0 or 1, and
    `gumbax.concrete.binary_logit_log_prob` is its density. The words behind the noise
    are the same on every backend, float values to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `logistics`.
        logits: log-odds of 1, any shape.
        temperature: > 0, broadcasts with the sample. Traced; a traced value that is not
            above 0 gives NaN.
        logistics: logistic noise to use in place of a draw, broadcasts with the sample.
        sample_shape: leading axes of independent draws from the same logits. Static.
        dtype: of the result, a real floating type; that of `logits` if None. The draw
            does not depend on it. Static.

    Returns:
        Array of `sample_shape`, then the shape of `logits`, and of axes that other
        arguments have in front of it or where it has length 1.
        NaN where the logit is NaN, infinite where it is.

    Raises:
        TypeError: `logits` is not floating, or `key` not a key.
        ValueError: a Python `temperature` is not above 0, or `temperature`,
            `logistics` or `sample_shape` does not fit.

    Example:
        >>> l = logit_relaxed_bernoulli(jax.random.key(0), jnp.zeros(3))
        >>> x = relaxed_bernoulli(jax.random.key(0), jnp.zeros(3))
        >>> bool(jnp.allclose(jax.nn.sigmoid(l), x))
        True

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    name = "logit_relaxed_bernoulli"
    operands, shape = _operands(name, key, logits, temperature, logistics, sample_shape)
    dtype = checks.result_dtype(name, dtype, operands[1].dtype)
    return _logit(*operands, shape=shape, dtype=dtype)


def relaxed_bernoulli(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    hard: bool = False,
    logistics: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    dtype: Any = None,
) -> jax.Array:
    """Draws from the relaxed Bernoulli law, sigmoid((logits + L) / temperature).

    Also called binary Concrete; L is standard logistic noise, exact in both tails. With
    `hard=True` the value is exactly 0 or 1, a draw from Bernoulli(sigmoid(logits))
    whatever the temperature, and the gradient is that of the relaxed sample
    (straight-through), which is biased at every temperature.

    It is `gumbel_softmax` for two categories with `logits` = their difference, with a
    noise of its own, whose words are the same on every backend, float values to one
    unit, bits but for near-ties. Reverse mode is hand-written and can be differentiated
    again; forward mode of the sampler itself is not there. A slope y (1 - y) that is
    below the normal numbers counts as 0 in second derivatives, whatever the
    temperature.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `logistics`.
        logits: log-odds of 1, any shape.
        temperature: > 0, broadcasts with the sample. Traced; a traced value that is not
            above 0 gives NaN, in a hard sample NaN gradients.
        hard: straight-through. Static.
        logistics: logistic noise to use in place of a draw, broadcasts with the sample;
            0.0 for none. A hard sample is 1 where logits + logistics > 0.
        sample_shape: leading axes of independent draws from the same logits. Static.
        dtype: of the result, a real floating type; that of `logits` if None. The draw
            does not depend on it. Static.

    Returns:
        Array of `sample_shape`, then the shape of `logits`, and of axes that other
        arguments have in front of it or where it has length 1.
        NaN where the logit is NaN; 0 or 1, without gradient, where it is infinite.

    Raises:
        TypeError: `logits` is not floating, or `key` not a key.
        ValueError: a Python `temperature` is not above 0, or `temperature`,
            `logistics` or `sample_shape` does not fit.

    Example:
        >>> x = relaxed_bernoulli(jax.random.key(0), jnp.array([-jnp.inf, jnp.inf]))
        >>> x.tolist()
        [0.0, 1.0]

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    name = "relaxed_bernoulli"
    operands, shape = _operands(name, key, logits, temperature, logistics, sample_shape)
    hard = checks.flag(name, "hard", hard)
    dtype = checks.result_dtype(name, dtype, operands[1].dtype)
    return _sample(*operands, shape=shape, hard=hard, dtype=dtype)


def hard_concrete(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
    logistics: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    dtype: Any = None,
) -> jax.Array:
    """Draws a gate in [0, 1] that is exactly 0 or 1 with positive probability.

    A relaxed Bernoulli sample stretched to (low, high) and clipped to [0, 1]. The
    gradient is pathwise: none where the gate is clipped. The words behind the noise are
    the same on every backend, float values to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `logistics`.
        logits: log alpha, any shape.
        temperature: beta > 0, broadcasts with the sample. Traced; a traced value that
            is not above 0 gives NaN.
        low: gamma < 0, lower end of the stretched interval. Static.
        high: zeta > 1, upper end of the stretched interval. Static.
        logistics: logistic noise to use in place of a draw, broadcasts with the sample.
        sample_shape: leading axes of independent draws from the same logits. Static.
        dtype: of the result, a real floating type; that of `logits` if None. The draw
            does not depend on it. Static.

    Returns:
        Array of `sample_shape`, then the shape of `logits`, and of axes that other
        arguments have in front of it or where it has length 1.

    Raises:
        TypeError: `logits` is not floating, or `key` not a key.
        ValueError: `low` is not below 0 or `high` not above 1, a Python `temperature`
            is not above 0, or an argument does not fit.

    Example:
        >>> z = hard_concrete(jax.random.key(0), jnp.zeros(1000))
        >>> bool((z == 0).any() and (z == 1).any())
        True

    References:
        Louizos, Welling, Kingma, 2018. https://arxiv.org/abs/1712.01312
    """
    name = "hard_concrete"
    low, high = checks.stretch(name, low, high)
    operands, shape = _operands(name, key, logits, temperature, logistics, sample_shape)
    wide = _noise.computation_dtype(operands[1].dtype)
    relaxed = _sample(*operands, shape=shape, hard=False, dtype=wide)
    gate = _stretch_and_clip(relaxed, low=low, high=high)
    return gate.astype(checks.result_dtype(name, dtype, operands[1].dtype))


def hard_concrete_penalty(
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """P(gate != 0) of `hard_concrete`: its sum is the expected L0 norm of the gates.

    sigmoid(logits - temperature * log(-low / high)), smooth in both arguments.

    Args:
        logits: log alpha, any shape.
        temperature: beta > 0, broadcasts with `logits`. A traced value that is not
            above 0 gives NaN.
        low: gamma < 0, as for the gate. Static.
        high: zeta > 1, as for the gate. Static.

    Returns:
        Array of probabilities, one for each gate.

    Raises:
        TypeError: an argument is not real.
        ValueError: `low` is not below 0 or `high` not above 1, or a Python
            `temperature` is not above 0.

    Example:
        >>> round(hard_concrete_penalty(0.0).item(), 4)
        0.8318

    References:
        Louizos, Welling, Kingma, 2018, Eq. 12. https://arxiv.org/abs/1712.01312
    """
    name = "hard_concrete_penalty"
    low, high = checks.stretch(name, low, high)
    checks.positive(name, "temperature", temperature, "It is beta of the paper.")
    operands, dtype = checks.reals(name, logits=logits, temperature=temperature)
    logits, temperature = operands
    scores = logits - _noise.positive(temperature) * math.log(-low / high)
    return sigmoid(scores).astype(dtype)


def hard_concrete_gate(
    logits: ArrayLike, *, low: float = -0.1, high: float = 1.1
) -> jax.Array:
    """The published gate of test time: clip(stretch(sigmoid(logits)), 0, 1).

    Without noise and without temperature. It is not the mean of the random gate (at
    logit 0.5: 0.647, the mean is 0.608).

    Args:
        logits: log alpha, any shape.
        low: gamma < 0, as for the gate. Static.
        high: zeta > 1, as for the gate. Static.

    Returns:
        Array of gates in [0, 1] with the shape of `logits`.

    Raises:
        TypeError: `logits` is not real.
        ValueError: `low` is not below 0 or `high` not above 1.

    Example:
        >>> round(hard_concrete_gate(0.5).item(), 3)
        0.647

    References:
        Louizos, Welling, Kingma, 2018, Eq. 13. https://arxiv.org/abs/1712.01312
    """
    name = "hard_concrete_gate"
    low, high = checks.stretch(name, low, high)
    (logits,), dtype = checks.reals(name, logits=logits)
    return _stretch_and_clip(sigmoid(logits), low=low, high=high).astype(dtype)


def _operands(name, key, logits, temperature, logistics, sample_shape):
    logits = checks.floating_array(name, "logits", logits)
    shape = (*checks.sample_shape(name, sample_shape), *logits.shape)
    shape = checks.extended(shape, None, temperature, logistics)
    wide = _noise.computation_dtype(logits.dtype)
    checks.positive(name, "temperature", temperature, checks.TEMPERATURE_CURE)
    temperature = checks.broadcast(name, "temperature", temperature, shape)
    temperature = temperature.astype(wide)
    if logistics is None:
        key = checks.scalar_key(name, key)
    else:
        key = None
        logistics = checks.noise(name, "logistics", logistics, shape, wide)
    return (key, logits, temperature, logistics), shape


@functools.partial(jax.jit, static_argnames=("low", "high"))
def _stretch_and_clip(relaxed: jax.Array, *, low: float, high: float) -> jax.Array:
    return jnp.clip(relaxed * (high - low) + low, 0, 1)


def _scores(shape, key, logits, logistics):
    wide = _noise.computation_dtype(logits.dtype)
    if logistics is None:
        logistics = _noise.standard_logistic(key, shape, dtype=wide)
    scores = _noise.expand(logits.astype(wide), shape) + logistics
    return computed_once(jnp.broadcast_to(scores, shape))


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _logit(key, logits, temperature, logistics, *, shape, dtype):
    def of(key, logits, temperature, logistics):
        scores = _scores(shape, key, logits, logistics)
        return divide(scores, _noise.positive(temperature)).astype(dtype)

    out = meshes.broadcast_spec(shape, logits, temperature, logistics)
    key = keys.consumed(key)
    return meshes.automatic(of, out, key, logits, temperature, logistics)


@functools.partial(jax.jit, static_argnames=("shape", "hard", "dtype"))
def _sample(key, logits, temperature, logistics, *, shape, hard, dtype):
    rule = functools.partial(_gate, (shape, hard, dtype))
    out = meshes.broadcast_spec(shape, logits, temperature, logistics)
    key = keys.consumed(key)
    return meshes.automatic(rule, out, key, logits, temperature, logistics)


# One rule for both forms: the noise is made again in the backward pass, because from a
# sample that is close to 1 its distance to 1 is no longer known.


def _step(scores, temperature):
    """Hard value whose derivatives are those of the relaxed one, as in `rules.py`."""
    fixed = still(scores)
    value = jnp.where(jnp.isnan(fixed), jnp.nan, (fixed > 0).astype(scores.dtype))
    return with_tangent_of(_relaxed, value, scores, temperature)


def _exponent(scores, temperature):
    """scores / temperature, 0 where the choice is certain and has no gradient."""
    inside = jnp.where(jnp.isinf(scores), 0, scores)
    return divide(inside, _noise.positive(temperature))


def _relaxed(scores, temperature):
    """sigmoid(scores / temperature), flat at infinite scores."""
    inside = sigmoid(_exponent(scores, temperature))
    certain = jnp.where(temperature > 0, (scores > 0).astype(scores.dtype), jnp.nan)
    return jnp.where(jnp.isinf(scores), certain, inside)


def _value(static, key, logits, temperature, logistics):
    shape, hard, dtype = static
    scores = _scores(shape, key, logits, logistics)
    function = _step if hard else _relaxed
    return function(scores, temperature).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gate(static, key, logits, temperature, logistics):
    return _value(static, key, logits, temperature, logistics)


def _gate_fwd(static, key, logits, temperature, logistics):
    value = _value(static, key, logits, temperature, logistics)
    return value, (key, logits, temperature, logistics)


def _gate_bwd(static, residuals, cotangent):
    key, logits, temperature, logistics = residuals
    shape, _, _ = static
    scores = _scores(shape, key, logits, logistics)
    inside = _exponent(scores, temperature)
    certain = jnp.where(temperature > 0, jnp.zeros((), inside.dtype), jnp.nan)
    slope = jnp.where(jnp.isinf(scores), certain, logistic_prob(inside))
    bar = divide(slope * cotangent.astype(temperature.dtype), temperature)
    logistics_bar = None
    if logistics is not None:
        logistics_bar = Kind.of(logistics).cotangent(bar)
    return (
        None,
        Kind.of(logits).cotangent(bar),
        Kind.of(temperature).cotangent(-inside * bar),
        logistics_bar,
    )


_gate.defvjp(_gate_fwd, _gate_bwd)
