"""Log densities of the relaxed laws, finite at every sample."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax._common import checks, meshes, rounding
from gumbax.samplers import maxima, softmaxes
from gumbax.samplers.concrete import arguments


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

    A coordinate that is exactly 0, to which samples round, is read as the nearest
    number above it, and has no gradient: value and gradients are finite at every
    sample. A category with logit -inf does not exist: it must be 0, and K does not
    count it.

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
    ends = _ends(x, operands[0].dtype)
    return _log_prob(*operands, axis=axis, ends=ends).astype(dtype)


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

    Exactly 0 and 1, to which samples round, are read as the nearest numbers between
    them, and have no gradient: value and gradients are finite at every sample.

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
        >>> x = jnp.array([0.0, 0.25, 1.0])
        >>> bool(jnp.allclose(binary_log_prob(x, 0.0), 0.0, atol=1e-6))
        True

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    operands, dtype = arguments.binary(
        "concrete.binary_log_prob", "x", x, logits, temperature
    )
    ends = _ends(x, operands[0].dtype)
    return _binary_log_prob(*operands, ends=ends).astype(dtype)


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
    operands, dtype = arguments.binary(
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
    low, high = checks.stretch(name, low, high)
    operands, dtype = arguments.binary(name, "z", z, logits, temperature)
    return _hard_log_prob(*operands, low=low, high=high).astype(dtype)


def _categorical(name, argument, value, logits, temperature, axis):
    (value, logits), dtype = checks.reals(name, **{argument: value, "logits": logits})
    axis = checks.category_axis(name, value.shape, axis, argument)
    shape = checks.extended(value.shape, axis - value.ndim, temperature)
    axis += len(shape) - value.ndim
    value, logits = (jnp.broadcast_to(x, shape) for x in (value, logits))
    temperature = checks.temperature(name, temperature, shape, axis, value.dtype)
    return (value, logits, temperature), dtype, axis


# The nearest values to 0 and 1 between them, as the type of the samples knows them, and
# as a normal number in the type of the computation.
Ends = tuple[float, float]


def _ends(x: ArrayLike, wide: Any) -> Ends:
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = wide
    info = jnp.finfo(dtype)
    lowest = max(float(info.smallest_subnormal), float(jnp.finfo(wide).tiny))
    return lowest, 1 - float(info.epsneg)


def _stirling(count: jax.Array) -> jax.Array:
    """lgamma(n) - n log(n) + n, n >= 1: of the size of log(n), without a difference."""
    many = jnp.maximum(count, 16)
    series = 1 / 12 - (1 / 360 - 1 / 1260 / many**2) / many**2
    large = (math.log(2 * math.pi) - jnp.log(many)) / 2 + series / many
    few = jnp.minimum(count, 16)
    small = jax.scipy.special.gammaln(few) - few * jnp.log(few) + few
    return jnp.where(count < 16, small, large)


def _density(y, logits, use, count, temperature, *, axis, others=0.0):
    """lgamma(n) + (n - 1) log(t) + sum(log_softmax(logits - t y) + others) of n.

    The sum does not change with a constant added to y or to the logits: what is
    counted n times is small, as it is with n log(n) taken out of lgamma(n).
    """
    y, logits = (jnp.where(use, values, 0) for values in (y, logits))
    rough = jax.lax.stop_gradient(logits - temperature * y)
    winner = jnp.argmax(jnp.where(use, rough, -jnp.inf), axis, keepdims=True)
    y, logits = (
        jnp.where(use, values - maxima.value_at(axis, values, winner), 0)
        for values in (y, logits)
    )
    below = logits - temperature * y
    exponents = jnp.where(use, below, -jnp.inf)
    mean = jnp.sum(jnp.exp(jax.lax.stop_gradient(exponents)), axis, keepdims=True)
    middle = jnp.round(8 * jnp.log(jnp.where(mean == 0, 1, mean / count))) / 8
    rest = _log_mean(axis, exponents, middle, count, winner)
    log_temperature = jnp.log(temperature)
    each = (below - middle) - rest - 1 + log_temperature + others
    value = jnp.sum(jnp.where(use, each, 0), axis=axis)
    value = value - jnp.squeeze(log_temperature, axis)
    return value + _stirling(jnp.squeeze(count, axis))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_mean(axis, exponents, middle, count, winner):
    """log(mean(exp(exponents))) - middle, of n; 0 without any."""
    del winner
    mean = jnp.sum(jnp.exp(exponents), axis, keepdims=True) * jnp.exp(-middle) / count
    return jnp.log(jnp.where(mean == 0, 1, mean))


@_log_mean.defjvp
def _log_mean_jvp(axis, primals, tangents):
    exponents, _, _, winner = primals
    y = softmaxes.softmax_of_exponents(axis, exponents, winner)
    return _log_mean(axis, *primals), jnp.sum(y * tangents[0], axis, keepdims=True)


def _number(exists: jax.Array, dtype: Any, axis: int) -> jax.Array:
    return jnp.maximum(jnp.sum(exists, axis=axis, keepdims=True), 1).astype(dtype)


@functools.partial(jax.jit, static_argnames="axis")
@meshes.on_automatic_axes
@arguments.of_positive
def _exp_log_prob(y, logits, temperature, *, axis):
    exists = (logits != -jnp.inf) | ((y != -jnp.inf) & ~jnp.isnan(y))
    # A missing category that is there, or an existing one that is missing.
    impossible = exists & ((logits == -jnp.inf) | (y == -jnp.inf))
    use = exists & ~impossible
    count = _number(exists, y.dtype, axis)
    value = _density(y, logits, use, count, temperature, axis=axis)
    return jnp.where(jnp.any(impossible, axis=axis), -jnp.inf, value)


@functools.partial(jax.jit, static_argnames=("axis", "ends"))
@meshes.on_automatic_axes
@arguments.of_positive
def _log_prob(x, logits, temperature, *, axis, ends):
    exists = logits != -jnp.inf
    log_x = jnp.log(jnp.where(exists, jnp.where(x == 0, ends[0], x), 1))
    count = _number(exists, x.dtype, axis)
    options = {"axis": axis, "others": -log_x}
    value = _density(log_x, logits, exists, count, temperature, **options)
    return jnp.where(jnp.any(~exists & (x > 0), axis=axis), -jnp.inf, value)


@jax.jit
@meshes.on_automatic_axes
@arguments.of_positive
def _binary_logit_log_prob(logit, logits, temperature):
    far = jnp.isinf(logit) | jnp.isinf(logits)
    d = jnp.where(far, 0, temperature * logit - logits)
    value = jnp.log(temperature) + rounding.logistic_log_prob(d)
    value = jnp.where(far, -jnp.inf, value)
    return jnp.where(far & (logit == logits), jnp.inf, value)


@functools.partial(jax.jit, static_argnames="ends")
@meshes.on_automatic_axes
@arguments.of_positive
def _binary_log_prob(x, logits, temperature, *, ends):
    at_0, at_1 = x == 0, x == 1
    inside = jnp.where(at_0, ends[0], jnp.where(at_1, ends[1], x))
    log_x, log_rest = jnp.log(inside), jnp.log1p(-inside)
    value = _binary_logit_log_prob(log_x - log_rest, logits, temperature)
    value = value - log_x - log_rest
    point = jnp.where(at_1 == (logits > 0), jnp.inf, -jnp.inf)
    return jnp.where((at_0 | at_1) & jnp.isinf(logits), point, value)


@functools.partial(jax.jit, static_argnames=("low", "high"))
@meshes.on_automatic_axes
@arguments.of_positive
def _hard_log_prob(z, logits, temperature, *, low, high):
    at_0, at_1 = z == 0, z == 1
    inside = (z > 0) & (z < 1)
    stretched = (jnp.where(inside, z, 0.5) - low) / (high - low)
    # Strictly between 0 and 1: the ends are not met.
    value = _binary_log_prob(stretched, logits, temperature, ends=(0.0, 1.0))
    value = value - math.log(high - low)
    log_0 = rounding.log_sigmoid(temperature * math.log(-low / high) - logits)
    log_1 = rounding.log_sigmoid(
        logits - temperature * math.log((1 - low) / (high - 1))
    )
    value = jnp.where(at_0, log_0, jnp.where(at_1, log_1, value))
    outside = (z < 0) | (z > 1)
    return jnp.where(outside, -jnp.inf, jnp.where(jnp.isnan(z), jnp.nan, value))
