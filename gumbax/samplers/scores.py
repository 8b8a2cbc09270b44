"""Scores (logits + noise), their maximum and their softmax, right at the infinities."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gumbax import _noise
from gumbax._common import sizes
from gumbax._common.rounding import divide, expm1
from gumbax._common.tangent import still, with_tangent_of

# Up to here a maximum over two levels is no faster.
_ONE_LEVEL = 64
# Up to here the maximum is read at its index, with JAX before 0.12: a plain one goes
# into the loop of what is made of the scores, and they are hashed once more.
_READ = 32 if jax.__version_info__ < (0, 10) else 12
if jax.__version_info__ >= (0, 12):
    _READ = 0
# Categories in a block of the lower level, where their number is not known.
_BLOCK = 128


def perturb(
    axis: int,
    shape: tuple[int, ...],
    key: jax.Array | None,
    logits: jax.Array,
    gumbels: jax.Array | None,
    where: jax.Array | None,
) -> jax.Array:
    """Logits plus noise in the computation dtype, -inf where masked.

    The operands broadcast to `shape`.
    """
    wide = _noise.computation_dtype(logits.dtype)
    theta = _noise.expand(logits.astype(wide), shape)
    if where is not None:
        # Before the noise. A selection by an index that stands behind the hash in one
        # loop never compiles on CPU with JAX 0.8.0 to 0.10.2.
        theta = jnp.where(where, theta, -jnp.inf)
    if gumbels is None:
        assert key is not None
        gumbels = _noise.standard(key, shape, axis=axis, dtype=wide)
        scores = theta + gumbels
    else:
        scores = theta + gumbels
        if where is not None:
            # Of noise that is given, what is NaN or inf under the mask is ignored.
            undefined = jnp.where(where, jnp.asarray(jnp.nan, wide), -jnp.inf)
            scores = jnp.where(jnp.isnan(scores), undefined, scores)
    return computed_once(jnp.broadcast_to(scores, shape))


def computed_once(scores: jax.Array) -> jax.Array:
    """The same scores: two fusions of the same sum may round it differently.

    Not on NVIDIA GPUs, where a reduction takes the hash and the noise into its own
    loop, the sum is rounded as it is written, and scores may need no memory at all.
    """
    return jax.lax.platform_dependent(
        scores, cuda=lambda x: x, default=jax.lax.optimization_barrier
    )


@functools.partial(jax.jit, static_argnums=0)
def argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum of each row and its lowest index, both kept as an axis of length 1.

    The maximum is NaN if there is one; the index is then -1, as for a row of -inf only.
    Neither has a gradient.
    """
    scores = jax.lax.stop_gradient(scores)
    top, index = _platform_argmax(axis, scores, needs_index=True)
    undefined = _has_nan(axis, scores, top)
    return jnp.where(undefined, jnp.nan, top), jnp.where(undefined, -1, index)


def _platform_argmax(
    axis: int, scores: jax.Array, *, needs_index: bool, keep_index: bool = False
) -> tuple[jax.Array, jax.Array]:
    in_one = needs_index or keep_index
    return jax.lax.platform_dependent(
        scores,
        cpu=functools.partial(_argmax_by_blocks, axis, keep_index),
        default=functools.partial(_argmax_of_pairs if in_one else _argmax, axis),
    )


def _has_nan(axis: int, scores: jax.Array, top: jax.Array) -> jax.Array:
    """Whether the maximum of a row is NaN.

    Asked of the scores on CPU, where that of some versions of XLA passes over a NaN.
    """
    return jax.lax.platform_dependent(
        scores,
        top,
        cpu=lambda x, _: jnp.any(jnp.isnan(x), axis=axis, keepdims=True),
        default=lambda _, top: jnp.isnan(top),
    )


def _argmax_of_pairs(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One reduction over pairs of a score and its category."""

    def better(one, other):
        (x, i), (y, j) = one, other
        first = (x > y) | jnp.isnan(x) | ((x == y) & (i < j))
        return jnp.where(first, x, y), jnp.where(first, i, j)

    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    nothing = (np.asarray(-np.inf, scores.dtype), np.int32(np.iinfo(np.int32).max))
    found = jax.lax.reduce((scores, category), nothing, better, (axis,))
    top, index = (jnp.expand_dims(x, axis) for x in found)
    return top, jnp.where(top > -jnp.inf, index, -1)


def _argmax(axis: int, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    num_categories = sizes.value(scores.shape[axis], jnp.int32)
    top = jnp.max(scores, axis=axis, keepdims=True, initial=-jnp.inf)
    category = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    candidates = jnp.where(scores == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True, initial=num_categories)
    return top, jnp.where((index == num_categories) | (top == -jnp.inf), -1, index)


def _argmax_by_blocks(
    axis: int, keep_index: bool, scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One vector pass over the scores, then a look into the first block that has it.

    On CPU a maximum over a whole row, and above all its index, are scalar loops in some
    versions of XLA; a maximum over windows is not.
    """
    size = _block_size(scores.shape[axis])
    if size == 1:
        top, index = _argmax(axis, scores)
        if not keep_index and scores.shape[axis] <= _READ:
            top = value_at(axis, scores, jnp.maximum(index, 0))
        return top, index
    num_categories = sizes.value(scores.shape[axis], jnp.int32)
    maxima = _block_maxima(axis, scores, size)
    top, block = _argmax(axis, maxima)
    members = jnp.expand_dims(jnp.arange(size, dtype=jnp.int32), _others(axis, top))
    # In the last block the last category may come more than once: harmless.
    category = jnp.minimum(block * size + members, num_categories - 1)
    inside = jnp.take_along_axis(
        scores, jnp.maximum(category, 0), axis=axis, mode="promise_in_bounds"
    )
    candidates = jnp.where(inside == top, category, num_categories)
    index = jnp.min(candidates, axis=axis, keepdims=True)
    index = jnp.where(block == -1, -1, index)
    if keep_index:
        # Read there, so that nothing is made of the maximum before the index is found:
        # the scores would stand in memory beside that until it is.
        top = value_at(axis, scores, jnp.clip(index, 0, num_categories - 1))
    return top, index


def _others(axis: int, x: jax.Array) -> tuple[int, ...]:
    return tuple(i for i in range(x.ndim) if i != axis)


def _block_size(num_categories: Any) -> int:
    """A power of two near the square root: both levels are of a length."""
    if not sizes.is_known(num_categories):
        return _BLOCK
    if num_categories <= _ONE_LEVEL:
        return 1
    return 2 ** (num_categories.bit_length() // 2)


def _block_maxima(axis: int, scores: jax.Array, size: int) -> jax.Array:
    window = tuple(size if i == axis else 1 for i in range(scores.ndim))
    missing = -scores.shape[axis] % size
    padding = tuple((0, missing if i == axis else 0) for i in range(scores.ndim))
    lowest = np.asarray(-np.inf, scores.dtype)
    return jax.lax.reduce_window(
        scores, lowest, jax.lax.max, window, window, padding=padding
    )


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=("needs_index", "keep_index")
)
def leader(
    axis: int,
    scores: jax.Array,
    *,
    needs_index: bool = False,
    keep_index: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`argmax` that does not ask for NaN, which shows in what is made of the scores.

    Anything for a row with a NaN; the index is in bounds in every row. Where it is
    neither needed nor kept until a backward pass, finding it costs nothing if it is not
    used either.
    """
    scores = jax.lax.stop_gradient(scores)
    top, index = _platform_argmax(
        axis, scores, needs_index=needs_index, keep_index=keep_index
    )
    return top, jnp.maximum(index, 0)


def one_hot(
    axis: int, scores: jax.Array, winner: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """One-hot of the winner; rows of NaN and of all -inf become NaN and zeros."""
    top, index = winner
    hit = (_at(axis, scores, index) & (top != -jnp.inf)).astype(scores.dtype)
    return jnp.where(_has_nan(axis, scores, top), jnp.nan, hit)


def _at(axis: int, x: jax.Array, index: jax.Array) -> jax.Array:
    """Whether an element is the one of its row at the index."""
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, axis) == index


def value_at(axis: int, x: jax.Array, index: jax.Array) -> jax.Array:
    """The element of each row at an index in bounds."""
    return jnp.take_along_axis(x, index, axis=axis, mode="promise_in_bounds")


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
    others = jnp.where(_at(axis, scores, index), 0, jnp.exp(below))
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
    winner = _at(axis, c, index)
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
