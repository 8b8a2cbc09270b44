"""Log densities of the relaxed distributions, finite and right up to the boundary.

A relaxed sample of `gumbel_softmax` has the Concrete law on the simplex, its logarithm
from `log_gumbel_softmax` the ExpConcrete law; `relaxed_bernoulli` and `hard_concrete`
have the binary ones. At low temperature samples round to the boundary
of the simplex, where the density is 0, infinite or in between: score samples in log
space (`exp_log_prob`, `binary_logit_log_prob`), where nothing rounds.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, meshes


def log_prob(
    x: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
) -> jax.Array:
    """Log density of the Concrete law (relaxed one-hot vectors) on the simplex.

    lgamma(K) + (K - 1) log(t) + sum_k (log_softmax(logits - t log(x)) - log(x))_k,
    with respect to the Lebesgue measure of the first K - 1 coordinates.

    Where m coordinates are exactly 0 this is the limit as they go to 0 together: inf,
    finite or -inf as t is below, at or above m / (K - m). A category with logit -inf
    does not exist: it must be 0, and K does not count it.

    Args:
        x: points of the simplex, [..., K]; that they sum to 1 is not checked.
        logits: unnormalised log-probabilities, [..., K], broadcasts with `x`.
        temperature: t > 0, one value or one for each row. Traced; a traced value that
            is not above 0 gives NaN.
        axis: the category axis of the broadcast arguments. Static.

    Returns:
        Array of the broadcast shape without `axis`. NaN where a coordinate is negative
        or NaN.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(log_prob(jnp.array([0.2, 0.3, 0.5]), jnp.zeros(3)).item(), 4)
        0.7001

    References:
        Maddison, Mnih, Teh, 2017, Eq. 10. https://arxiv.org/abs/1611.00712
    """
    operands, dtype, axis = _categorical(
        "concrete.log_prob", "x", x, logits, temperature, axis
    )
    return _log_prob(*operands, axis=axis).astype(dtype)


def exp_log_prob(
    y: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
) -> jax.Array:
    """Log density of the ExpConcrete law (logarithms of relaxed one-hot vectors).

    lgamma(K) + (K - 1) log(t) + sum_k log_softmax(logits - t y)_k, with respect to the
    Lebesgue measure of the K - 1 differences y_k - y_K. It does not change when a
    constant is added to y: (logits + gumbels) / t may be passed as it is.

    Args:
        y: logarithms of points of the simplex, [..., K].
        logits: unnormalised log-probabilities, [..., K], broadcasts with `y`. One that
            is -inf does not exist: its y must be -inf, and K does not count it.
        temperature: t > 0, one value or one for each row. Traced; a traced value that
            is not above 0 gives NaN.
        axis: the category axis of the broadcast arguments. Static.

    Returns:
        Array of the broadcast shape without `axis`; -inf where an existing category
        has y = -inf.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not fit, or a Python `temperature` is not above 0.

    Example:
        >>> key, logits = jax.random.key(0), jnp.zeros(1000)
        >>> y = gumbax.log_gumbel_softmax(key, logits, temperature=0.1)
        >>> bool(jnp.isfinite(exp_log_prob(y, logits, temperature=0.1)))
        True

    References:
        Maddison, Mnih, Teh, 2017, App. C.3. https://arxiv.org/abs/1611.00712
    """
    operands, dtype, axis = _categorical(
        "concrete.exp_log_prob", "y", y, logits, temperature, axis
    )
    return _exp_log_prob(*operands, axis=axis).astype(dtype)


def binary_log_prob(
    x: ArrayLike, logits: ArrayLike, *, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Log density of the binary Concrete law (relaxed Bernoulli) on [0, 1].

    At 0 and 1 it is the limit: inf, finite or -inf as the temperature is below, at or
    above 1.

    Args:
        x: points of [0, 1]; others give NaN.
        logits: log-odds of 1, broadcasts with `x`. With an infinite one the law is a
            point: inf there, -inf elsewhere.
        temperature: > 0, broadcasts with `x`. Traced; a traced value that is not above
            0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not fit, or a Python `temperature` is not above 0.

    Example:
        >>> binary_log_prob(jnp.array([0.0, 0.25, 1.0]), 0.0).tolist()
        [0.0, 0.0, 0.0]

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    operands, dtype = _binary("concrete.binary_log_prob", "x", x, logits, temperature)
    return _binary_log_prob(*operands).astype(dtype)


def binary_logit_log_prob(
    logit: ArrayLike, logits: ArrayLike, *, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Log density of the logit of a relaxed Bernoulli sample: a logistic law.

    log(t) - d - 2 softplus(-d) with d = t logit - logits: that of
    `gumbax.logit_relaxed_bernoulli`.

    Args:
        logit: log-odds of the sample, any real numbers.
        logits: log-odds of 1 of the law, broadcasts with `logit`.
        temperature: t > 0, broadcasts with `logit`. Traced; a traced value that is not
            above 0 gives NaN.

    Returns:
        Array of the broadcast shape; -inf at an infinite `logit`.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(binary_logit_log_prob(0.0, 0.0).item(), 4)
        -1.3863

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    operands, dtype = _binary(
        "concrete.binary_logit_log_prob", "logit", logit, logits, temperature
    )
    return _binary_logit_log_prob(*operands).astype(dtype)


def hard_log_prob(
    z: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """Log density of the hard-concrete gate: a mixed law on [0, 1].

    At exactly 0 and 1 the log probability of these atoms, between them the log density
    of the stretched binary Concrete law (it integrates to P(0 < z < 1)).

    Args:
        z: gates; outside of [0, 1] the result is -inf.
        logits: log alpha, broadcasts with `z`.
        temperature: beta > 0, broadcasts with `z`. Traced; a traced value that is not
            above 0 gives NaN.
        low: gamma < 0, as for `gumbax.hard_concrete`. Static.
        high: zeta > 1, as for `gumbax.hard_concrete`. Static.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: `low` is not below 0 or `high` not above 1, the arguments do not
            fit, or a Python `temperature` is not above 0.

    Example:
        >>> atoms = jnp.exp(hard_log_prob(jnp.array([0.0, 1.0]), 0.0))
        >>> [round(p, 4) for p in atoms.tolist()]
        [0.1682, 0.1682]

    References:
        Louizos, Welling, Kingma, 2018, App. A. https://arxiv.org/abs/1712.01312
    """
    name = "concrete.hard_log_prob"
    checks.stretch(name, low, high)
    operands, dtype = _binary(name, "z", z, logits, temperature)
    return _hard_log_prob(*operands, low=low, high=high).astype(dtype)


def _categorical(name, argument, value, logits, temperature, axis):
    (value, logits), dtype = checks.reals(name, **{argument: value, "logits": logits})
    axis = checks.category_axis(name, value.shape, axis, argument)
    temperature = checks.temperature(name, temperature, value.shape, axis, value.dtype)
    return (value, logits, temperature), dtype, axis


def _binary(name, argument, value, logits, temperature):
    checks.positive(name, "temperature", temperature, checks.TEMPERATURE_CURE)
    values = {argument: value, "logits": logits, "temperature": temperature}
    return checks.reals(name, **values)


def _of_positive(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A log density that is NaN where its temperature is not above 0."""

    @functools.wraps(function)
    def log_density(value, logits, temperature, **static):
        found = function(value, logits, _noise.positive(temperature), **static)
        if "axis" in static:
            temperature = jnp.squeeze(temperature, static["axis"])
        return _noise.defined(found, temperature)

    return log_density


def _constant(exists: jax.Array, temperature: jax.Array, axis: int) -> jax.Array:
    """lgamma(K) + (K - 1) log(t), K being the number of existing categories."""
    count = jnp.sum(exists, axis=axis).astype(temperature.dtype)
    count = jnp.maximum(count, 1)
    log_temperature = jnp.log(jnp.squeeze(temperature, axis))
    return jax.scipy.special.gammaln(count) + (count - 1) * log_temperature


@functools.partial(jax.jit, static_argnames="axis")
@meshes.on_automatic_axes
@_of_positive
def _exp_log_prob(y, logits, temperature, *, axis):
    exists = (logits != -jnp.inf) | ((y != -jnp.inf) & ~jnp.isnan(y))
    # A missing category that is there, or an existing one that is missing.
    impossible = exists & ((logits == -jnp.inf) | (y == -jnp.inf))
    use = exists & ~impossible
    scores = jnp.where(use, logits - temperature * jnp.where(use, y, 0), -jnp.inf)
    scores = jnp.where(jnp.any(use, axis=axis, keepdims=True), scores, 0)
    terms = jnp.where(use, jax.nn.log_softmax(scores, axis=axis), 0)
    value = jnp.sum(terms, axis=axis) + _constant(exists, temperature, axis)
    return jnp.where(jnp.any(impossible, axis=axis), -jnp.inf, value)


@functools.partial(jax.jit, static_argnames="axis")
@meshes.on_automatic_axes
@_of_positive
def _log_prob(x, logits, temperature, *, axis):
    exists = logits != -jnp.inf
    zero = exists & (x == 0)
    inside = exists & ~zero
    log_x = jnp.log(jnp.where(inside, x, 1))
    theta = jnp.where(exists, logits, 0)
    # With m zeros at x = exp(-L), L -> inf, the log density is
    # L (m - t (K - m)) + sum_k theta_k - (t + 1) sum_inside log_x - K total
    # where the total is that of the logits at zero, and of all scores if there is none.
    any_zero = jnp.any(zero, axis=axis, keepdims=True)
    leading = jnp.where(any_zero, zero, inside)
    scores = jnp.where(leading, theta - temperature * log_x, -jnp.inf)
    total = jax.nn.logsumexp(scores, axis=axis, keepdims=True)
    total = jnp.where(jnp.any(exists, axis=axis, keepdims=True), total, 0)
    each = theta - (temperature + 1) * log_x - total
    value = jnp.sum(jnp.where(exists, each, 0), axis=axis)
    value = value + _constant(exists, temperature, axis)
    m = jnp.sum(zero, axis=axis).astype(x.dtype)
    others = jnp.sum(inside, axis=axis).astype(x.dtype)
    power = m - jnp.squeeze(temperature, axis) * others
    balanced = jnp.abs(power) <= 4 * jnp.finfo(x.dtype).eps * m
    at_zero = jnp.where(balanced, value, jnp.where(power > 0, jnp.inf, -jnp.inf))
    value = jnp.where(jnp.squeeze(any_zero, axis) & ~jnp.isnan(value), at_zero, value)
    return jnp.where(jnp.any(~exists & (x > 0), axis=axis), -jnp.inf, value)


@jax.jit
@meshes.on_automatic_axes
@_of_positive
def _binary_logit_log_prob(logit, logits, temperature):
    far = jnp.isinf(logit) | jnp.isinf(logits)
    d = jnp.where(far, 0, temperature * logit - logits)
    value = jnp.log(temperature) - d - 2 * jax.nn.softplus(-d)
    value = jnp.where(far, -jnp.inf, value)
    return jnp.where(far & (logit == logits), jnp.inf, value)


@jax.jit
@meshes.on_automatic_axes
@_of_positive
def _binary_log_prob(x, logits, temperature):
    at_0, at_1 = x == 0, x == 1
    inside = jnp.where(at_0 | at_1, 0.5, x)
    log_x, log_rest = jnp.log(inside), jnp.log1p(-inside)
    value = _binary_logit_log_prob(log_x - log_rest, logits, temperature)
    value = value - log_x - log_rest
    # At an end the density is that of distance ** (temperature - 1).
    limit = jnp.log(temperature) + jnp.where(at_0, -logits, logits)
    infinite = jnp.where(temperature < 1, jnp.inf, -jnp.inf)
    limit = jnp.where(temperature == 1, limit, infinite)
    limit = jnp.where(
        jnp.isinf(logits), jnp.where(at_1 == (logits > 0), jnp.inf, -jnp.inf), limit
    )
    limit = jnp.where(jnp.isnan(logits), jnp.nan, limit)
    return jnp.where(at_0 | at_1, limit, value)


@functools.partial(jax.jit, static_argnames=("low", "high"))
@meshes.on_automatic_axes
@_of_positive
def _hard_log_prob(z, logits, temperature, *, low, high):
    at_0, at_1 = z == 0, z == 1
    inside = (z > 0) & (z < 1)
    stretched = (jnp.where(inside, z, 0.5) - low) / (high - low)
    value = _binary_log_prob(stretched, logits, temperature) - math.log(high - low)
    log_0 = jax.nn.log_sigmoid(temperature * math.log(-low / high) - logits)
    log_1 = jax.nn.log_sigmoid(logits - temperature * math.log((1 - low) / (high - 1)))
    value = jnp.where(at_0, log_0, jnp.where(at_1, log_1, value))
    outside = (z < 0) | (z > 1)
    return jnp.where(outside, -jnp.inf, jnp.where(jnp.isnan(z), jnp.nan, value))
