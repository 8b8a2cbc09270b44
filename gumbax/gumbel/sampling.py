"""Gumbel noise, and draws of it under a condition."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, keys, meshes, tangent
from gumbax._common.rounding import divide, is_zero, log_sigmoid, sigmoid

Function = TypeVar("Function", bound=Callable[..., jax.Array])

# Apart from the unconditional noise of the same key, from which the index may be drawn.
_GIVEN_INDEX = 1


def _options_by_name(name: str) -> Callable[[Function], Function]:
    """Says so where options are given by place, as `jax.random.gumbel` takes them."""

    def decorate(function):
        @functools.wraps(function)
        def called(*args, **kwargs):
            if len(args) > 2:
                must = "be given by name"
                got = f"{checks.shown(args[2])} as the third argument"
                cure = "Write `dtype=...`; all options are."
                raise TypeError(checks.message(name, "dtype", must, got, cure))
            return function(*args, **kwargs)

        return called

    return decorate


@_options_by_name("gumbel.sample")
def sample(
    key: jax.Array,
    shape: Sequence[int] | None = None,
    *,
    loc: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    dtype: Any = None,
    axis: int = -1,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
) -> jax.Array:
    """Draws Gumbel noise, loc - scale * log(E) with E ~ Exponential(1).

    `sample(key, logits.shape, axis=axis)` is exactly the noise that the samplers draw
    for these logits. The random words of an element depend on (key, row, category) and
    on nothing else: not on the number of categories, padding, sharding under jit or
    JAX's random-number flags. The words are the same on every backend, and float values
    to rounding (3e-7, relative above 1). Both words of the hash are used, which makes
    categories of probability 1e-9 as frequent as they should be, and no draw is
    infinite.

    Under `jax.vmap` with one unbatched key every row draws the same noise: give each
    row a key. Inside `jax.shard_map` each shard counts from 0: give it its `offset`.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        shape: shape of the result; its category axis is `axis`. If None, that to which
            `loc` and `scale` broadcast. Static.
        loc: location, broadcasts to `shape`.
        scale: scale >= 0, broadcasts to `shape`; where it is 0 the result is `loc`. A
            traced scale < 0 gives NaN.
        dtype: of the result, a real floating type. Narrow types are drawn in float32
            and rounded. If None, float32, or float64 where `loc` or `scale` is an array
            of it.
        axis: the category axis. Static.
        offset: (first row, first category) of this block in a larger array.

    Returns:
        Array of `shape` and `dtype`.

    Raises:
        TypeError: `key` is not one key, `dtype` is not floating, or an option is not
            given by its name.
        ValueError: `axis`, `loc` or `scale` does not fit `shape`, or a Python `scale`
            is negative.

    Example:
        >>> whole = sample(jax.random.key(0), (4, 10))
        >>> part = sample(jax.random.key(0), (2, 5), offset=(2, 5))
        >>> bool((whole[2:, 5:] == part).all())
        True

    References:
        Gumbel, 1954; Salmon et al., 2011 (the hash). Measured beside others in
        tests/benchmarks/README.md, "Noise".
    """
    name = "gumbel.sample"
    return _draw(name, key, shape, None, loc, scale, dtype, axis, offset)


@_options_by_name("gumbel.sample_truncated")
def sample_truncated(
    key: jax.Array,
    shape: Sequence[int] | None = None,
    *,
    upper: ArrayLike,
    loc: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    dtype: Any = None,
    axis: int = -1,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
) -> jax.Array:
    """Draws Gumbel noise conditioned on being at most `upper`.

    -log(exp(-u) + E), u being `upper` in units of the scale: an exponential draw beyond
    a threshold is the threshold plus a fresh one. Exact however unlikely the condition
    is, and `sample` itself for the same key where `upper` is +inf. Differentiable in
    `upper`, `loc` and `scale`. The words behind the noise are the same on every
    backend, float values to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        shape: shape of the result, as in `sample`; `upper` counts too. Static.
        upper: largest value, broadcasts to `shape`; -inf gives -inf.
        loc: location, broadcasts to `shape`.
        scale: scale > 0, broadcasts to `shape`. A traced scale <= 0 gives NaN.
        dtype: of the result, a real floating type, as in `sample`; `upper` counts too.
        axis: the category axis. Static.
        offset: (first row, first category) of this block in a larger array.

    Returns:
        Array of `shape` and `dtype`, nowhere above `upper`.

    Raises:
        TypeError: `key` is not one key, or `dtype` is not floating.
        ValueError: `axis`, `upper`, `loc` or `scale` does not fit `shape`, or a Python
            `scale` is not above 0.

    Example:
        >>> x = sample_truncated(jax.random.key(0), (1000,), upper=-3.0)
        >>> bool((x <= -3.0).all())
        True

    References:
        Maddison, Tarlow, Minka, 2014, App. A. https://arxiv.org/abs/1411.0030
    """
    name = "gumbel.sample_truncated"
    upper = checks.real(name, "upper", upper)
    return _draw(name, key, shape, upper, loc, scale, dtype, axis, offset)


def _draw(name, key, shape, upper, loc, scale, dtype, axis, offset) -> jax.Array:
    key = checks.scalar_key(name, key)
    law = {"loc": checks.real(name, "loc", loc)}
    law["scale"] = checks.real(name, "scale", scale)
    if upper is not None:
        law["upper"] = checks.real(name, "upper", upper)
    if shape is None:
        shape = checks.common_shape(name, law)
    cure = "For n draws pass `shape=(n,)`."
    shape = checks.lengths(name, "shape", shape, cure)
    if dtype is None:
        wide = any(x.dtype == jnp.float64 and not x.weak_type for x in law.values())
        dtype = jnp.float64 if wide else jnp.float32
    dtype = checks.floating_dtype(name, dtype)
    # A scalar is one row of one category.
    axis = checks.category_axis(name, shape or (1,), axis)
    cure = "It multiplies the noise."
    checks.positive(name, "scale", scale, cure, or_zero=upper is None)
    loc = checks.broadcast(name, "loc", loc, shape)
    scale = checks.broadcast(name, "scale", scale, shape)
    if upper is not None:
        upper = checks.broadcast(name, "upper", upper, shape)
    offset = checks.counters(name, offset)
    return _sample(key, upper, loc, scale, offset, shape=shape, dtype=dtype, axis=axis)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "axis"))
def _sample(
    key: jax.Array,
    upper: jax.Array | None,
    loc: jax.Array,
    scale: jax.Array,
    offset: tuple[jax.Array, jax.Array],
    *,
    shape: tuple[int, ...],
    dtype: Any,
    axis: int,
) -> jax.Array:
    wide = _noise.computation_dtype(dtype)

    def draw(key, upper, loc, scale, offset):
        gumbels = _noise.standard(
            key, shape or (1,), axis=axis, dtype=wide, offset=offset
        )
        gumbels = gumbels.reshape(shape)
        loc = loc.astype(wide)
        scale = _noise.positive(scale.astype(wide), or_zero=upper is None)
        if upper is None:
            return (loc + scale * gumbels).astype(dtype)
        upper = jnp.broadcast_to(upper.astype(wide), shape)
        law = (upper, loc, scale, gumbels)
        value = tangent.with_tangent_of(_smooth, _truncated(*tangent.still(law)), *law)
        return _at_most(value, upper, dtype)

    out = meshes.broadcast_spec(shape, loc, scale, upper)
    key = keys.consumed(key)
    return meshes.automatic(draw, out, key, upper, loc, scale, offset)


def _truncated(upper, loc, scale, gumbels):
    """loc - scale * log(exp(-bound) + exp(-gumbels)), bound = (upper - loc) / scale."""
    return loc + scale * -jnp.logaddexp(-(upper - loc) / scale, -gumbels)


def _smooth(upper, loc, scale, gumbels):
    """The same from the nearer end, whose derivatives cancel nowhere."""
    bounded = jnp.isfinite(upper)
    bound = divide(jnp.where(bounded, upper - loc, 0), scale)
    excess = bound - gumbels
    low = upper + scale * log_sigmoid(-excess)
    high = loc + scale * (gumbels + log_sigmoid(excess))
    free = jnp.where(upper > 0, loc + scale * gumbels, upper)
    return jnp.where(bounded, jnp.where(excess < 0, low, high), free)


def _at_most(value: jax.Array, upper: jax.Array, dtype: Any) -> jax.Array:
    """Rounds to a dtype without going above the bound; gradients are those of value."""
    rounded = value.astype(dtype)
    fixed = jax.lax.stop_gradient(rounded)
    highest = jax.lax.stop_gradient(upper).astype(dtype)
    highest = jnp.where(
        highest.astype(upper.dtype) > upper,
        jnp.nextafter(highest, jnp.asarray(-jnp.inf, dtype)),
        highest,
    )
    excess = jnp.where(fixed > highest, fixed - highest, 0)
    return rounded - excess


def sample_given_index(
    key: jax.Array,
    logits: ArrayLike,
    index: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
) -> jax.Array:
    """Draws the scores (logits + noise) conditioned on their argmax being `index`.

    The top score is logsumexp(logits) + G, whichever category has it; the others are
    draws truncated at it. With `index` from `gumbel_max` the result has the law of
    unconditional scores; that is the second half of Gumbel-Rao and of REBAR. The noise
    is a stream of its own: the key may be the one that drew the index (for
    `jax.debug_key_reuse`, a `jax.random.clone` of it).

    Differentiable in `logits`, top score included: what REBAR needs. Gumbel-Rao takes
    the result under `jax.lax.stop_gradient`. The words behind the noise are the same on
    every backend, float values to rounding.

    Args:
        key: scalar key from `jax.random.key`. Consumed.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        index: integer array of the shape of `logits` without `axis`, or with the axes
            of `sample_shape` in front.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts to the result. Others get
            -inf.
        sample_shape: leading axes of independent draws from the same logits. Static.

    Returns:
        Array of `sample_shape`, then the shape of `logits`, with the dtype of `logits`,
        whose argmax is `index`: exactly in float32 and float64; in narrow types other
        scores may round to the same value. A row without a category above -inf is all
        -inf. A row with a NaN, or whose `index` is out of range or has the logit -inf,
        is all NaN.

    Raises:
        TypeError: `key` is not one key, `logits` not floating, `index` not integer or
            `where` not boolean.
        ValueError: `axis`, `index`, `where` or `sample_shape` does not fit `logits`.

    Example:
        >>> logits = jnp.array([0.0, 5.0, 1.0])
        >>> sample_given_index(jax.random.key(0), logits, 2).argmax().item()
        2

    References:
        Maddison, Tarlow, Minka, 2014. https://arxiv.org/abs/1411.0030
        Paulus, Maddison, Krause, 2021. https://arxiv.org/abs/2010.04838
    """
    name = "gumbel.sample_given_index"
    key = checks.scalar_key(name, key)
    logits, axis = checks.logits_and_axis(name, logits, axis)
    must, cure = "be an integer array", "Pass what `gumbel_max` returns."
    index = checks.array(name, "index", index, must, cure)
    rows = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(checks.message(name, "index", must, checks.shown(index), cure))
    samples = checks.sample_shape(name, sample_shape)
    if index.shape not in (rows, (*samples, *rows)):
        raise ValueError(
            checks.message(
                name,
                "index",
                f"have the shape of `logits` without its category axis, {rows}",
                f"shape {index.shape}",
                "Pass what `gumbel_max` returns, or broadcast one of the two.",
            )
        )
    shape = (*samples, *logits.shape)
    if where is not None:
        where = checks.mask(name, where, shape)
    logits = _noise.expand(logits, shape)
    index = _noise.expand(index, (*samples, *rows))
    axis += len(samples)
    return _sample_given_index(key, logits, index, where, axis=axis, shape=shape)


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def _sample_given_index(key, logits, index, where, *, axis, shape):
    draw = functools.partial(_given_index, axis, shape)
    index = jnp.expand_dims(index, axis)
    out = meshes.broadcast_spec(shape, logits, index, where)
    return meshes.automatic(draw, out, keys.consumed(key), logits, index, where)


def _given_index(axis, shape, key, logits, index, where):
    wide = _noise.computation_dtype(logits.dtype)
    theta = logits.astype(wide)
    if where is not None:
        theta = jnp.where(where, theta, -jnp.inf)
    theta = jnp.broadcast_to(theta, shape)
    index = index.astype(jnp.int32)
    hit = jax.lax.broadcasted_iota(jnp.int32, shape, axis) == index
    possible = jnp.any(hit & (theta != -jnp.inf), axis=axis, keepdims=True)
    total = jax.nn.logsumexp(theta, axis=axis, keepdims=True)
    stream = _GIVEN_INDEX
    gumbels = _noise.standard(key, shape, axis=axis, dtype=wide, stream=stream)
    gumbels = jax.lax.optimization_barrier(gumbels)
    place = jnp.clip(index, 0, shape[axis] - 1)
    top = total + jnp.take_along_axis(
        gumbels, place, axis=axis, mode="promise_in_bounds"
    )
    # Selected once more where nothing is allowed: a derivative of `total` is NaN there.
    top = jnp.where(possible, top, jnp.where(total == -jnp.inf, -jnp.inf, jnp.nan))
    # An infinite top bounds nothing, and its derivative is no number.
    bound = jnp.where(jnp.isinf(top), jnp.finfo(wide).max, top)
    below = jnp.nextafter(jax.lax.stop_gradient(bound), np.asarray(-np.inf, wide))
    # Of each row, and not again for each of its elements.
    top, bound, below = jax.lax.optimization_barrier((top, bound, below))
    # Nothing behind the noise is selected by an index: see `samplers/scores.py`.
    free = jnp.where(hit | (theta == -jnp.inf), -jnp.inf, theta) + gumbels
    others = _truncated_at(free, bound, below)
    return jnp.maximum(others, jnp.where(hit, top, -jnp.inf)).astype(logits.dtype)


@jax.custom_jvp
def _truncated_at(score, bound, below):
    """-log(exp(-score) + exp(-bound)), at most the number below the bound."""
    # The stock sum of logarithms is a scalar loop on CPU behind the noise, where the
    # number of categories is no multiple of a vector's length.
    excess = _noise.log1p_unit(jnp.exp(-jnp.abs(score - bound)))
    return jnp.minimum(jnp.minimum(score, bound) - excess, below)


def _truncated_at_jvp(primals, tangents):
    score, bound, below = primals
    shares = (sigmoid(bound - score), sigmoid(score - bound))
    terms = [s * d for s, d in zip(shares, tangents[:2], strict=True) if not is_zero(d)]
    # What cannot be drawn has no derivative, whatever a loss makes of -inf.
    change = jnp.where(score == -jnp.inf, 0, sum(terms))
    return _truncated_at(score, bound, below), change


_truncated_at.defjvp(_truncated_at_jvp, symbolic_zeros=True)
