"""The softmax of scores, its logarithm, and their derivatives; right to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gumbax import _noise
from gumbax._common.rounding import divide, expm1
from gumbax._common.tangent import still, with_tangent_of
from gumbax.samplers.maxima import at, value_at


def exponents(scores: jax.Array, top: jax.Array, temperature: jax.Array) -> jax.Array:
    """(scores - top) / temperature, at most 0, for any top.

    All of a row without a category, and all but the +inf of a certain row, have the
    exponent -inf, or one whose exponential is 0.
    """
    below = jax.lax.platform_dependent(
        scores, top, cuda=_below_element, default=_below_finite
    )
    # A minimum could pass over a NaN.
    return jnp.where(below > 0, 0, below) / _noise.positive(temperature)


def _below_finite(scores: jax.Array, top: jax.Array) -> jax.Array:
    """scores - top, an infinite top moved to the largest float on its side."""
    largest = np.finfo(scores.dtype).max
    # Selected, not clipped. On CPU some versions of XLA hand a chain of plain float
    # operations around a reduction to a library, and would materialise all the
    # constants of the noise for it.
    return scores - jnp.where(jnp.isinf(top), jnp.sign(top) * largest, top)


def _below_element(scores: jax.Array, top: jax.Array) -> jax.Array:
    """The same without a step between the maximum and what it is subtracted from.

    XLA on a GPU makes one kernel of a softmax of some thousand categories then.
    """
    below = scores - top
    of_infinity = jnp.isnan(below) & jnp.isinf(scores)
    return jnp.where(of_infinity, jnp.minimum(scores, 0), below)


def total(axis: int, weights: jax.Array) -> jax.Array:
    """Sum of each row, kept as an axis; 1 for a row without any weight."""
    summed = jnp.sum(weights, axis=axis, keepdims=True)
    return jnp.where(summed == 0, 1, summed)


def _total_from_tiny(axis: int, weights: jax.Array) -> jax.Array:
    """The same of powers, of which the largest is 1, in the sum itself: one kernel."""
    tiny = np.finfo(weights.dtype).tiny
    return jnp.expand_dims(jax.lax.reduce(weights, tiny, jax.lax.add, (axis,)), axis)


def softmax(
    axis: int,
    scores: jax.Array,
    temperature: jax.Array,
    winner: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """softmax(scores / temperature); zeros for a row that is all -inf.

    `winner` is what `leader` finds; it has no derivative.
    """
    top, index = winner
    powers = jnp.exp(exponents(*still((scores, top, temperature))))
    value = jax.lax.platform_dependent(
        powers,
        cuda=lambda x: x / _total_from_tiny(axis, x),
        default=lambda x: x / total(axis, x),
    )
    smooth = functools.partial(_smooth, axis, softmax_of_exponents)
    return with_tangent_of(smooth, value, value != 0, scores, temperature, top, index)


def log_softmax(
    axis: int,
    scores: jax.Array,
    temperature: jax.Array,
    winner: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """log(softmax(scores / temperature)) without underflow, exact at the winner."""
    top, index = winner
    below = exponents(*still((scores, top, temperature)))
    others = jnp.where(at(axis, scores, index), 0, jnp.exp(below))
    rest = jnp.sum(others, axis=axis, keepdims=True)
    # Selected for the library, as in `pull`.
    value = below - jnp.log1p(jnp.where(jnp.isfinite(rest), rest, jnp.nan))
    excluded = (top == jnp.inf) & (scores < jnp.inf) & (temperature > 0)
    value = jnp.where(excluded, -jnp.inf, value)
    smooth = functools.partial(_smooth, axis, _log_softmax)
    counts = value != -jnp.inf
    return with_tangent_of(smooth, value, counts, scores, temperature, top, index)


# Their derivatives. With y the softmax, d a direction and u = d - d[winner], that of
# the logarithms is u - sum(y u), and y's is y times that: nothing is subtracted from a
# y near 1, nor is it in what reverse mode makes of it.


def finite_exponents(
    counts: jax.Array, scores: jax.Array, temperature: jax.Array, top: jax.Array
) -> jax.Array:
    """Exponents with derivatives, 0 for what does not count: weight 0, or certainty."""
    counts = counts & jnp.isfinite(scores)
    finite_top = jnp.where(jnp.isinf(top), 0, jax.lax.stop_gradient(top))
    below = jnp.where(counts, scores, finite_top) - finite_top
    return divide(below, _noise.positive(temperature))


def _smooth(axis, function, counts, scores, temperature, top, index):
    below = finite_exponents(counts, scores, temperature, top)
    # What has no weight, with the value that gives it none.
    below = jnp.where(counts, below, -jnp.inf)
    return function(axis, below, index)


def _centred(axis: int, counts: jax.Array, c: jax.Array, index: jax.Array) -> jax.Array:
    """c less its value at the index; 0 for what does not count, whatever c is there."""
    wide = _noise.computation_dtype(c.dtype)
    # Widened after it is looked up: what is looked up in stands in memory.
    at_winner = value_at(axis, c, index).astype(wide)
    return jnp.where(counts, c.astype(wide) - at_winner, 0)


def pull(
    axis: int, y: jax.Array, c: jax.Array, index: jax.Array, temperature: jax.Array
) -> jax.Array:
    """y (c - sum(y c)) / t: a cotangent through a softmax y and the temperature.

    Right to rounding in each row, however near to 1 the winner is and whatever offset c
    has: that of a constant is exactly 0. A category of weight 0 (masked, or
    underflowed) has none, whatever the loss is there: that of an entropy is infinite.
    """
    # Divided first: a weight that is small may be too small without that.
    weighted = y * divide(_centred(axis, y != 0, c, index), temperature)
    inner = jnp.sum(weighted, axis=axis, keepdims=True)
    # NaN, and never infinite, where c is too large.
    return jax.lax.platform_dependent(
        weighted, y, inner, cuda=_less_element, default=_less_finite
    )


def _less_finite(weighted: jax.Array, y: jax.Array, inner: jax.Array) -> jax.Array:
    # The selection keeps a library that XLA on CPU hands reductions to from taking the
    # arithmetic behind it too, which would materialise a temperature for each element.
    return weighted - y * jnp.where(jnp.isfinite(inner), inner, jnp.nan)


def _less_element(weighted: jax.Array, y: jax.Array, inner: jax.Array) -> jax.Array:
    """In one kernel, as `_below_element`."""
    pulled = weighted - y * inner
    return jnp.where(jnp.isinf(pulled), jnp.nan, pulled)


def log_pull(
    axis: int, log_y: jax.Array, c: jax.Array, index: jax.Array, temperature: jax.Array
) -> jax.Array:
    """(c - y sum(c)) / t: one through log y, the winner's with 1 - y = -expm1(log y).

    A category of weight 0 that is not possible has none.
    """
    log_top, c_top = (value_at(axis, x, index) for x in (log_y, c))
    c_top, c = (divide(x.astype(log_y.dtype), temperature) for x in (c_top, c))
    c = jnp.where(log_y == -jnp.inf, 0, c)
    winner = at(axis, c, index)
    others = jnp.sum(jnp.where(winner, 0, c), axis=axis, keepdims=True)
    of_winner = -expm1(log_top) * c_top - jnp.exp(log_top) * others
    of_winner = jnp.where(log_top == -jnp.inf, 0, of_winner)
    return jnp.where(winner, of_winner, c - jnp.exp(log_y) * (others + c_top))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def softmax_of_exponents(axis, below, index):
    """Softmax of exponents that are 0 at the winner, with derivatives as above."""
    del index
    powers = jnp.exp(below)
    return powers / total(axis, powers)


@softmax_of_exponents.defjvp
def _softmax_jvp(axis, primals, tangents):
    y = softmax_of_exponents(axis, *primals)
    slope = _slope_of_log(axis, y, y != 0, tangents[0], primals[1])
    return y, y * slope


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_softmax(axis, below, index):
    del index
    return below - jnp.log(total(axis, jnp.exp(below)))


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    below, index = primals
    y = softmax_of_exponents(axis, below, index)
    counts = below != -jnp.inf
    slope = _slope_of_log(axis, y, counts, tangents[0], index)
    return _log_softmax(axis, below, index), jnp.where(counts, slope, 0)


def _slope_of_log(axis, y, counts, direction, index):
    u = _centred(axis, counts, direction, index)
    return u - jnp.sum(y * u, axis=axis, keepdims=True)
