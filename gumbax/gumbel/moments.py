"""Moments, entropy and divergence of the Gumbel distribution."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, meshes
from gumbax._common.rounding import divide, expm1, with_slope
from gumbax.gumbel.law import POSITIVE_SCALE


def mean(*, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """loc + scale * Euler's constant (0.5772...).

    Args:
        loc: location.
        scale: scale > 0, broadcasts with `loc`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> round(mean(loc=1.0).item(), 4)
        1.5772

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_law("gumbel.mean", lambda a, b: a + np.euler_gamma * b, loc, scale)


def mode(*, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """The most probable value, loc.

    Args:
        loc: location.
        scale: scale > 0, broadcasts with `loc`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> mode(loc=2.0, scale=3.0).item()
        2.0

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_law("gumbel.mode", lambda a, b: a + 0 * b, loc, scale)


def median(*, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """loc - scale * log(log(2)).

    Args:
        loc: location.
        scale: scale > 0, broadcasts with `loc`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> round(median().item(), 4)
        0.3665

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    middle = -math.log(math.log(2))
    return _of_law("gumbel.median", lambda a, b: a + middle * b, loc, scale)


def variance(*, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """(pi * scale)**2 / 6.

    Args:
        loc: location; it gives its shape only.
        scale: scale > 0, broadcasts with `loc`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> round(variance().item(), 4)
        1.6449

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_law("gumbel.variance", lambda a, b: math.pi**2 / 6 * b * b, loc, scale)


def stddev(*, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """pi * scale / sqrt(6).

    Args:
        loc: location; it gives its shape only.
        scale: scale > 0, broadcasts with `loc`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> round(stddev().item(), 4)
        1.2825

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    return _of_law("gumbel.stddev", lambda a, b: math.pi / 6**0.5 * b, loc, scale)


def entropy(*, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
    """Differential entropy in nats, log(scale) + Euler's constant + 1.

    Args:
        loc: location; it gives its shape only.
        scale: scale > 0, broadcasts with `loc`. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python `scale` is not above 0.

    Example:
        >>> round(entropy().item(), 4)
        1.5772

    References:
        Gumbel, 1954. https://en.wikipedia.org/wiki/Gumbel_distribution
    """
    constant = 1 + np.euler_gamma
    return _of_law("gumbel.entropy", lambda a, b: jnp.log(b) + constant, loc, scale)


def kl_divergence(
    *,
    loc: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    other_loc: ArrayLike = 0.0,
    other_scale: ArrayLike = 1.0,
) -> jax.Array:
    """KL(G || H) in nats, H having `other_loc` and `other_scale`.

    expm1(t) - t + lgamma(1 + r) + euler * (r - 1) - log(r), with r = scale /
    other_scale and t = (other_loc - loc) / other_scale + lgamma(1 + r).

    Args:
        loc: location of the first law.
        scale: scale > 0 of the first law.
        other_loc: location of the second law.
        other_scale: scale > 0 of the second law. A traced scale <= 0 gives NaN.

    Returns:
        Array of the broadcast shape, 0 where the laws are equal.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not broadcast, or a Python scale is not above 0.

    Example:
        >>> kl_divergence(loc=1.0, other_loc=1.0).item()
        0.0

    References:
        Bauckhage, 2014. https://arxiv.org/abs/1310.3713
    """
    name = "gumbel.kl_divergence"
    for argument, value in (("scale", scale), ("other_scale", other_scale)):
        checks.positive(name, argument, value, POSITIVE_SCALE)
    operands, dtype = checks.reals(
        name, loc=loc, scale=scale, other_loc=other_loc, other_scale=other_scale
    )
    return _kl_divergence(*operands).astype(dtype)


def _of_law(name: str, function: Callable, loc, scale) -> jax.Array:
    checks.positive(name, "scale", scale, POSITIVE_SCALE)
    (loc, scale), dtype = checks.reals(name, loc=loc, scale=scale)
    return function(loc, _noise.positive(scale)).astype(dtype)


@jax.jit
@meshes.on_automatic_axes
def _kl_divergence(loc, scale, other_loc, other_scale):
    scale, other_scale = _noise.positive(scale), _noise.positive(other_scale)
    # Of the differences, which are exact near equal laws.
    d = divide(other_loc - loc, other_scale)
    rho = divide(scale - other_scale, other_scale)
    ratio = divide(scale, other_scale)
    log_gamma, of_scales = _log_gamma(ratio, rho)
    return _expm1_minus(d + log_gamma) + of_scales


def _zeta_minus_1(k: int) -> float:
    """1 / 2**k + 1 / 3**k + ..., k >= 2, by the formula of Euler and Maclaurin."""
    n = 100.0
    head = math.fsum(i**-k for i in range(2, int(n)))
    tail = n ** (1 - k) / (k - 1) + n**-k / 2 + k * n ** (-k - 1) / 12
    tail -= k * (k + 1) * (k + 2) * n ** (-k - 3) / 720
    return head + tail + math.prod(range(k, k + 5)) * n ** (-k - 5) / 30240


# The Taylor series of lgamma at 2 and what is made of it.
_ZETA = tuple(map(_zeta_minus_1, range(2, 50)))


def _log_gamma(ratio: jax.Array, rho: jax.Array) -> tuple[jax.Array, jax.Array]:
    """lgamma(1 + r), and lgamma(1 + r) + euler * (r - 1) - log(r), r = 1 + rho.

    The second one is of second order in rho: near 0 both are series.
    """
    near = (rho > -0.5) & (rho < 1)
    small = jnp.where(near, rho, 0)
    series = jnp.zeros_like(small)
    for k, value in reversed(list(enumerate(_ZETA, start=2))):
        series = series * -small + value / k
    series = series * small * small
    far = jnp.where(near, 1, ratio)
    log_gamma = jax.scipy.special.gammaln(1 + far)
    of_scales = log_gamma + np.euler_gamma * (far - 1) - jnp.log(far)
    return (
        jnp.where(near, (1 - np.euler_gamma) * small + series, log_gamma),
        jnp.where(near, series + _minus_log1p(small), of_scales),
    )


@with_slope(lambda x: divide(x, 1 + x))
def _minus_log1p(x: jax.Array) -> jax.Array:
    """x - log1p(x), -1/2 <= x <= 1: x y - 2 y**3 / 3 - ... with y = x / (2 + x)."""
    y = x / (2 + x)
    square = y * y
    series = jnp.zeros_like(x)
    for k in reversed(range(1, 18)):
        series = series * square + 1 / (2 * k + 1)
    return y * (x - 2 * square * series)


@with_slope(expm1)
def _expm1_minus(t: jax.Array) -> jax.Array:
    """exp(t) - 1 - t, without cancellation near 0."""
    near = jnp.abs(t) < 0.5
    small = jnp.where(near, t, 0)
    series = jnp.full_like(t, 1 / math.factorial(16))
    for n in reversed(range(2, 16)):
        series = series * small + 1 / math.factorial(n)
    large = jnp.where(near, 1, t)
    return jnp.where(near, series * small * small, jnp.expm1(large) - large)
