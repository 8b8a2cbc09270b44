"""Moments, entropy and divergence of the Gumbel distribution."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, meshes
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
    ratio = scale / other_scale
    log_gamma = jax.scipy.special.gammaln(1 + ratio)
    t = (other_loc - loc) / other_scale + log_gamma
    of_scales = log_gamma + np.euler_gamma * (ratio - 1) - jnp.log(ratio)
    return _expm1_minus(t) + of_scales


def _expm1_minus(t: jax.Array) -> jax.Array:
    """exp(t) - 1 - t, without cancellation near 0."""
    near = jnp.abs(t) < 0.5
    small = jnp.where(near, t, 0)
    series = jnp.full_like(t, 1 / math.factorial(16))
    for n in reversed(range(2, 16)):
        series = series * small + 1 / math.factorial(n)
    large = jnp.where(near, 1, t)
    return jnp.where(near, series * small * small, jnp.expm1(large) - large)
