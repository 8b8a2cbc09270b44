"""Distribution functions of the relaxed Bernoulli law, stretched and clipped too."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax._common import checks, meshes, rounding
from gumbax.samplers.concrete import arguments


def binary_cdf(
    x: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """P(X <= x) of the binary Concrete law (relaxed Bernoulli).

    sigmoid(t log(x / (1 - x)) - logits); 0 below 0 and 1 above 1, without gradient
    there and at the ends.

    Args:
        x: any real numbers.
        logits: log-odds of 1, broadcasts with `x`. With an infinite one
            the law is a point.
        temperature: > 0, broadcasts with `x`. Traced; a traced value that is not above
            0 gives NaN.

    Returns:
        Array of the broadcast shape; NaN where an argument is.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not fit, or a Python `temperature` is not above 0.

    Example:
        >>> [binary_cdf(x, 0.0).item() for x in (-1.0, 0.5, 1.0)]
        [0.0, 0.5, 1.0]

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    name = "concrete.binary_cdf"
    operands, dtype = arguments.binary(name, "x", x, logits, temperature)
    return _stretched_cdf(*operands, low=0.0, high=1.0).astype(dtype)


def binary_log_cdf(
    x: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """log P(X <= x) of the binary Concrete law (relaxed Bernoulli).

    log_sigmoid(t log(x / (1 - x)) - logits): -inf below 0 and 0 above 1.

    Args:
        x: any real numbers.
        logits: log-odds of 1, broadcasts with `x`. With an infinite one
            the law is a point.
        temperature: > 0, broadcasts with `x`. Traced; a traced value that is not above
            0 gives NaN.

    Returns:
        Array of the broadcast shape; NaN where an argument is.

    Raises:
        TypeError: an argument is not real.
        ValueError: the arguments do not fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(binary_log_cdf(1e-30, 0.0).item(), 2)
        -69.08

    References:
        Maddison, Mnih, Teh, 2017, App. B. https://arxiv.org/abs/1611.00712
    """
    name = "concrete.binary_log_cdf"
    operands, dtype = arguments.binary(name, "x", x, logits, temperature)
    return _stretched_log_cdf(*operands, low=0.0, high=1.0).astype(dtype)


def stretched_cdf(
    s: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """P(S <= s) of the binary Concrete law stretched to (low, high).

    sigmoid(t log((s - low) / (high - s)) - logits): the law of the gate of
    `gumbax.hard_concrete` before it is clipped.

    Args:
        s: any real numbers.
        logits: log alpha, broadcasts with `s`. With an infinite one
            the law is a point.
        temperature: > 0, broadcasts with `s`. Traced; a traced value that is not above
            0 gives NaN.
        low: gamma < 0, as for `gumbax.hard_concrete`. Static.
        high: zeta > 1, as for `gumbax.hard_concrete`. Static.

    Returns:
        Array of the broadcast shape; NaN where an argument is.

    Raises:
        TypeError: an argument is not real.
        ValueError: `low` is not below 0 or `high` not above 1, the arguments do not
            fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(stretched_cdf(0.5, 0.0).item(), 4)
        0.5

    References:
        Louizos, Welling, Kingma, 2018, App. A. https://arxiv.org/abs/1712.01312
    """
    name = "concrete.stretched_cdf"
    low, high = checks.stretch(name, low, high)
    operands, dtype = arguments.binary(name, "s", s, logits, temperature)
    return _stretched_cdf(*operands, low=low, high=high).astype(dtype)


def stretched_log_cdf(
    s: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """log P(S <= s) of the binary Concrete law stretched to (low, high).

    log_sigmoid(t log((s - low) / (high - s)) - logits): the law of the gate of
    `gumbax.hard_concrete` before it is clipped.

    Args:
        s: any real numbers.
        logits: log alpha, broadcasts with `s`. With an infinite one
            the law is a point.
        temperature: > 0, broadcasts with `s`. Traced; a traced value that is not above
            0 gives NaN.
        low: gamma < 0, as for `gumbax.hard_concrete`. Static.
        high: zeta > 1, as for `gumbax.hard_concrete`. Static.

    Returns:
        Array of the broadcast shape; NaN where an argument is.

    Raises:
        TypeError: an argument is not real.
        ValueError: `low` is not below 0 or `high` not above 1, the arguments do not
            fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(stretched_log_cdf(0.5, 0.0).item(), 4)
        -0.6931

    References:
        Louizos, Welling, Kingma, 2018, App. A. https://arxiv.org/abs/1712.01312
    """
    name = "concrete.stretched_log_cdf"
    low, high = checks.stretch(name, low, high)
    operands, dtype = arguments.binary(name, "s", s, logits, temperature)
    return _stretched_log_cdf(*operands, low=low, high=high).astype(dtype)


def hard_cdf(
    z: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """P(Z <= z) of the hard-concrete gate, whose atoms 0 and 1 count.

    That of the stretched law on [0, 1), 1 from 1 on, 0 below 0; at 0 it is
    P(Z = 0), of which `gumbax.hard_concrete_penalty` is the rest.

    Args:
        z: any real numbers.
        logits: log alpha, broadcasts with `z`. With an infinite one
            the law is a point.
        temperature: > 0, broadcasts with `z`. Traced; a traced value that is not above
            0 gives NaN.
        low: gamma < 0, as for `gumbax.hard_concrete`. Static.
        high: zeta > 1, as for `gumbax.hard_concrete`. Static.

    Returns:
        Array of the broadcast shape; NaN where an argument is.

    Raises:
        TypeError: an argument is not real.
        ValueError: `low` is not below 0 or `high` not above 1, the arguments do not
            fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(hard_cdf(0.0, 0.0).item(), 4)
        0.1682

    References:
        Louizos, Welling, Kingma, 2018, App. A. https://arxiv.org/abs/1712.01312
    """
    name = "concrete.hard_cdf"
    low, high = checks.stretch(name, low, high)
    operands, dtype = arguments.binary(name, "z", z, logits, temperature)
    return _hard_cdf(*operands, low=low, high=high).astype(dtype)


def hard_log_cdf(
    z: ArrayLike,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 2 / 3,
    low: float = -0.1,
    high: float = 1.1,
) -> jax.Array:
    """log P(Z <= z) of the hard-concrete gate, whose atoms 0 and 1 count.

    That of the stretched law on [0, 1), 0 from 1 on, -inf below 0; at 0 it is
    log P(Z = 0), of which `gumbax.hard_concrete_penalty` is the rest.

    Args:
        z: any real numbers.
        logits: log alpha, broadcasts with `z`. With an infinite one
            the law is a point.
        temperature: > 0, broadcasts with `z`. Traced; a traced value that is not above
            0 gives NaN.
        low: gamma < 0, as for `gumbax.hard_concrete`. Static.
        high: zeta > 1, as for `gumbax.hard_concrete`. Static.

    Returns:
        Array of the broadcast shape; NaN where an argument is.

    Raises:
        TypeError: an argument is not real.
        ValueError: `low` is not below 0 or `high` not above 1, the arguments do not
            fit, or a Python `temperature` is not above 0.

    Example:
        >>> round(hard_log_cdf(0.0, 0.0).item(), 4)
        -1.7827

    References:
        Louizos, Welling, Kingma, 2018, App. A. https://arxiv.org/abs/1712.01312
    """
    name = "concrete.hard_log_cdf"
    low, high = checks.stretch(name, low, high)
    operands, dtype = arguments.binary(name, "z", z, logits, temperature)
    return _hard_log_cdf(*operands, low=low, high=high).astype(dtype)


# What the stretched logit is at and beyond the ends, where it
# has no derivative, is selected before it is made.


def _scores_of_stretched(s, logits, temperature, low, high):
    """t log((s - low) / (high - s)) - logits, infinite at and beyond the ends."""
    below, above = s <= low, s >= high
    inside = jnp.where(below | above, (low + high) / 2, s)
    far = jnp.isinf(logits)
    d = temperature * (jnp.log(inside - low) - jnp.log(high - inside))
    d = d - jnp.where(far, 0, logits)
    # A point at the end that an infinite logit says.
    d = jnp.where(far, -logits, d)
    d = jnp.where(above, jnp.inf, jnp.where(s < low, -jnp.inf, d))
    at_low = jnp.where(logits == -jnp.inf, jnp.inf, -jnp.inf)
    d = jnp.where(s == low, at_low.astype(d.dtype), d)
    return jnp.where(jnp.isnan(s) | jnp.isnan(logits), jnp.nan, d)


def _flat(function: Callable[[jax.Array], jax.Array], low: float, high: float):
    """A function of d, with its values and without derivatives at infinite d."""

    def of(d):
        end = jnp.isinf(d)
        inside = function(jnp.where(end, 0, d))
        ends = jnp.where(d > 0, high, low).astype(d.dtype)
        return jnp.where(end, ends, inside)

    return of


@functools.partial(jax.jit, static_argnames=("low", "high"))
@meshes.on_automatic_axes
@arguments.of_positive
def _stretched_cdf(s, logits, temperature, *, low, high):
    d = _scores_of_stretched(s, logits, temperature, low, high)
    return _flat(rounding.sigmoid, 0.0, 1.0)(d)


@functools.partial(jax.jit, static_argnames=("low", "high"))
@meshes.on_automatic_axes
@arguments.of_positive
def _stretched_log_cdf(s, logits, temperature, *, low, high):
    d = _scores_of_stretched(s, logits, temperature, low, high)
    return _flat(rounding.log_sigmoid, -math.inf, 0.0)(d)


@functools.partial(jax.jit, static_argnames=("low", "high"))
@meshes.on_automatic_axes
@arguments.of_positive
def _hard_cdf(z, logits, temperature, *, low, high):
    s = jnp.where(z < 0, -jnp.inf, jnp.where(z >= 1, high, z))
    return _stretched_cdf(s, logits, temperature, low=low, high=high)


@functools.partial(jax.jit, static_argnames=("low", "high"))
@meshes.on_automatic_axes
@arguments.of_positive
def _hard_log_cdf(z, logits, temperature, *, low, high):
    s = jnp.where(z < 0, -jnp.inf, jnp.where(z >= 1, high, z))
    return _stretched_log_cdf(s, logits, temperature, low=low, high=high)
