"""Density and distribution functions of the Gumbel distribution.

G = loc + scale * Z, P(Z <= z) = exp(-exp(-z)). Arguments broadcast together; narrow
types are computed in float32. Derivatives are those of z times a power of the scale:
where the density of z underflows they are 0, whatever the scale.
"""

import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks
from gumbax._common.rounding import divide, expm1, with_slope

POSITIVE_SCALE = "It is a width in the units of `loc`."
# exp(-e) and its derivatives are 0 from here on, in float32 and float64.
_VANISHED = 1000.0
# 1 - exp(-e) is e - e**2 / 2 to rounding where e = exp(-z) and z is above this.
_FAR = 20.0


def log_prob(
    x: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0
) -> jax.Array:
    """Log density, -(z + exp(-z)) - log(scale) with z = (x - loc) / scale.

    Args:
        x: values, any shape; -inf and inf are in the domain.
        loc: location, broadcasts with `x`.
        scale: scale > 0, broadcasts with `x`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> log_prob(0.0).item()
        -1.0

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_value("gumbel.log_prob", _log_prob, x, loc, scale)


def prob(x: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """Density, exp(log_prob(x)).

    Where it underflows at scale 1 its derivatives are 0, whatever the scale.

    Args:
        x: values, any shape.
        loc: location, broadcasts with `x`.
        scale: scale > 0, broadcasts with `x`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> round(prob(0.0).item(), 6)
        0.367879

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_value("gumbel.prob", _prob, x, loc, scale)


def cdf(x: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """P(G <= x) = exp(-exp(-z)), z = (x - loc) / scale.

    Where its density underflows at scale 1 its derivatives are 0, whatever the scale.

    Args:
        x: values, any shape.
        loc: location, broadcasts with `x`.
        scale: scale > 0, broadcasts with `x`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> [cdf(x).item() for x in (-jnp.inf, jnp.inf)]
        [0.0, 1.0]

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_value("gumbel.cdf", _cdf, x, loc, scale)


def log_cdf(x: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """log P(G <= x) = -exp(-z), z = (x - loc) / scale.

    Where exp(-z) underflows its derivatives are 0, whatever the scale.

    Args:
        x: values, any shape.
        loc: location, broadcasts with `x`.
        scale: scale > 0, broadcasts with `x`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> log_cdf(0.0).item()
        -1.0

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_value("gumbel.log_cdf", _log_cdf, x, loc, scale)


def survival_function(
    x: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0
) -> jax.Array:
    """P(G > x) = 1 - exp(-exp(-z)), exact in the upper tail.

    Where its density underflows at scale 1 its derivatives are 0, whatever the scale.

    Args:
        x: values, any shape.
        loc: location, broadcasts with `x`.
        scale: scale > 0, broadcasts with `x`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> 1e-18 < survival_function(40.0).item() < 1e-17
        True

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_value("gumbel.survival_function", _survival, x, loc, scale)


def log_survival_function(
    x: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0
) -> jax.Array:
    """log P(G > x), exact in both tails: about -z far up, -exp(-exp(-z)) far down.

    Args:
        x: values, any shape.
        loc: location, broadcasts with `x`.
        scale: scale > 0, broadcasts with `x`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> log_survival_function(200.0).item()
        -200.0

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_value("gumbel.log_survival_function", _log_survival, x, loc, scale)


def quantile(
    q: ArrayLike, *, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0
) -> jax.Array:
    """The inverse of the cdf, loc - scale * log(-log(q)).

    Args:
        q: probabilities in [0, 1]; others give NaN. 0 gives -inf, 1 gives inf.
        loc: location, broadcasts with `q`.
        scale: scale > 0, broadcasts with `q`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> abs(cdf(quantile(0.3)).item() - 0.3) < 1e-6
        True

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    (q, loc, scale), dtype = _arguments("gumbel.quantile", "q", q, loc, scale)
    return _quantile(q, loc, scale).astype(dtype)


def _arguments(name, argument, value, loc, scale):
    checks.positive(name, "scale", scale, POSITIVE_SCALE)
    values = {argument: value, "loc": loc, "scale": scale}
    return checks.reals(name, **values)


def _of_value(name: str, function: Callable, x, loc, scale) -> jax.Array:
    (x, loc, scale), dtype = _arguments(name, "x", x, loc, scale)
    return function(x, loc, scale).astype(dtype)


def _standardised(*flat: float) -> Callable:
    """Jits a function of (z, scale) as one of (x, loc, scale).

    Where z is one of the infinities in `flat` no argument has a derivative.
    """

    def decorate(function: Callable) -> Callable:
        @jax.jit
        @functools.wraps(function)
        def of_value(x, loc, scale):
            scale = _noise.positive(scale)
            z = (x - loc) / scale
            ends = (z == value for value in flat)
            end = functools.reduce(operator.or_, ends, False)
            # Selected before z is made: 0 * inf does not occur in its derivatives.
            inside = divide(jnp.where(end, 0, x - loc), scale)
            inside = jnp.where(end, jax.lax.stop_gradient(z), inside)
            return function(inside, scale)

        return of_value

    return decorate


def _exponential(z: jax.Array) -> jax.Array:
    """exp(-z), held where exp(-exp(-z)) and all its derivatives have vanished."""
    return jnp.exp(-jnp.maximum(z, -math.log(_VANISHED)))


# Functions of z, each with its derivative. Two factors share the exponent of a density,
# which is 0 where its products with another factor are not.


def _root_of_prob(z: jax.Array) -> jax.Array:
    """exp(-(z + exp(-z)) / 2), the root of the density at scale 1."""
    inside = jnp.maximum(z, -math.log(_VANISHED))
    return jnp.exp(-(inside + jnp.exp(-inside)) / 2)


def _second_slope_of_cdf(z: jax.Array) -> jax.Array:
    root, e = _root_of_prob(z), _exponential(z)
    return root * (jnp.square(jnp.expm1(-jnp.maximum(z, -10))) - e) * root


@with_slope(_second_slope_of_cdf)
def _slope_of_prob(z: jax.Array) -> jax.Array:
    root = _root_of_prob(z)
    return root * jnp.expm1(-jnp.maximum(z, -math.log(_VANISHED))) * root


@with_slope(_slope_of_prob)
def _standard_prob(z: jax.Array) -> jax.Array:
    # Held at the lowest z whose density is not 0, so that inf * 0 does not occur.
    inside = jnp.maximum(z, -math.log(_VANISHED))
    return jnp.exp(-(inside + jnp.exp(-inside)))


@with_slope(_standard_prob)
def _standard_cdf(z: jax.Array) -> jax.Array:
    return jnp.exp(-_exponential(z))


@with_slope(lambda z: -_standard_prob(z))
def _standard_survival(z: jax.Array) -> jax.Array:
    return -jnp.expm1(-_exponential(z))


def _hazard_times(e: jax.Array, factor: ArrayLike = 1.0) -> jax.Array:
    """u * factor, u = e / expm1(e): 1 at 0, and vanishing like e * exp(-e)."""
    some = jnp.where(e == 0, 1, e)
    root = jnp.exp(-some / 2)
    u = root * (some / -jnp.expm1(-some) * factor) * root
    return jnp.where(e == 0, factor, u)


def _slope_of_hazard(z: jax.Array) -> jax.Array:
    """u * (1 - e - u), e = exp(-z) and u = e / expm1(e), without the difference.

    1 - e - u = -e * u * (1/2 + 1/3 e + 1/8 e**2 + ...), (k + 1) / (k + 2)! for e**k.
    """
    e = _exponential(z)
    u = _hazard_times(e)
    near = e < 1
    small = jnp.where(near, e, 0)
    series = jnp.zeros_like(e)
    for k in reversed(range(20)):
        series = series * small + (k + 1) / math.factorial(k + 2)
    return _hazard_times(e, jnp.where(near, -u * e * series, 1 - e - u))


@with_slope(_slope_of_hazard)
def _minus_hazard(z: jax.Array) -> jax.Array:
    return -_hazard_times(_exponential(z))


@with_slope(_minus_hazard)
def _standard_log_survival(z: jax.Array) -> jax.Array:
    far = z > _FAR
    e = _exponential(jnp.where(far, 0, z))
    small = e < math.log(2)
    near = jnp.where(
        small,
        jnp.log(-jnp.expm1(-jnp.where(small, e, 1))),
        jnp.log1p(-jnp.exp(-jnp.where(small, 1, e))),
    )
    beyond = jnp.where(far, z, 0)
    return jnp.where(far, -beyond - jnp.exp(-beyond) / 2, near)


@with_slope(lambda z: expm1(-z))
def _standard_log_prob(z: jax.Array) -> jax.Array:
    lowest = z == -jnp.inf
    inside = jnp.where(lowest, 0, z)
    return jnp.where(lowest, -jnp.inf, -(inside + jnp.exp(-inside)))


@_standardised()
def _log_prob(z, scale):
    return _standard_log_prob(z) - jnp.log(scale)


@_standardised(-jnp.inf, jnp.inf)
def _prob(z, scale):
    return divide(_standard_prob(z), scale)


@_standardised(-jnp.inf, jnp.inf)
def _cdf(z, scale):
    del scale
    return _standard_cdf(z)


@_standardised(jnp.inf)
def _log_cdf(z, scale):
    del scale
    return -jnp.exp(-z)


@_standardised(-jnp.inf, jnp.inf)
def _survival(z, scale):
    del scale
    return _standard_survival(z)


@_standardised(-jnp.inf)
def _log_survival(z, scale):
    del scale
    return _standard_log_survival(z)


def _slope_of_quantile(q: jax.Array) -> jax.Array:
    return jnp.where(q == 0, jnp.inf, 1 / (q * -jnp.log(q)))


def _second_slope_of_quantile(q: jax.Array) -> jax.Array:
    rate = -jnp.log(q)
    slope = _slope_of_quantile(q)
    return jnp.where(q == 0, -jnp.inf, slope * ((1 - rate) / (q * rate)))


@with_slope(with_slope(_second_slope_of_quantile)(_slope_of_quantile))
def _standard_quantile(q: jax.Array) -> jax.Array:
    return -jnp.log(-jnp.log(q))


@jax.jit
def _quantile(q, loc, scale):
    return loc + _noise.positive(scale) * _standard_quantile(q)
