"""Arguments of samplers and laws: logits and their axis, what broadcasts to them."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax._common import sizes
from gumbax._common.checks.kinds import array, conversion, finite, positive, real
from gumbax._common.checks.messages import message, shown

TEMPERATURE_CURE = (
    "For a choice without relaxation use `hard=True` or `gumbel_max`; "
    "to anneal towards 0, stop at a small positive floor."
)


def logits_and_axis(
    function: str, logits: ArrayLike, axis: int
) -> tuple[jax.Array, int]:
    """Returns `logits` as an array and `axis` counted from the front."""
    given = floating_array(function, "logits", logits)
    return given, category_axis(function, given.shape, axis, "logits")


def floating_array(function: str, argument: str, value: ArrayLike) -> jax.Array:
    """Returns `value` as an array if it is real and floating."""
    must = "be a real floating array of unnormalised log-probabilities"
    given = array(function, argument, value, must, conversion(value))
    if jnp.issubdtype(given.dtype, jnp.floating):
        return given
    raise TypeError(message(function, argument, must, shown(given), conversion(given)))


def stretch(function: str, low: float, high: float) -> tuple[float, float]:
    """Returns the interval of the hard-concrete gate, which must contain [0, 1]."""
    cure = (
        "The gate is stretched beyond [0, 1] to be exactly 0 or 1 at times; the "
        "published interval is (-0.1, 1.1)."
    )
    must = "be a Python number below 0"
    low = finite(function, "low", low, must, cure)
    if not low < 0:
        raise ValueError(message(function, "low", must, low, cure))
    must = "be a Python number above 1"
    high = finite(function, "high", high, must, cure)
    if not high > 1:
        raise ValueError(message(function, "high", must, high, cure))
    return low, high


def category_axis(
    function: str, shape: Sequence[int], axis: int, argument: str = "shape"
) -> int:
    """Returns `axis` counted from the front, for an array of this shape."""
    rank = len(shape)
    try:
        place = operator.index(axis)
    except TypeError:
        place = None
    if place is None or isinstance(axis, bool):
        raise TypeError(
            message(
                function,
                "axis",
                "be an integer",
                shown(axis),
                "It names one axis, that of the categories; -1 is the last.",
            )
        )
    if not -rank <= place < rank:
        cure = "`logits` needs at least one axis, that of the categories."
        if rank:
            cure = "-1 is the last axis."
        raise ValueError(
            message(
                function,
                "axis",
                f"name one of the {rank} axes of `{argument}`",
                f"{place} for shape {tuple(shape)}",
                cure,
            )
        )
    return place % rank


def temperature(
    function: str, value: ArrayLike, shape: tuple[int, ...], axis: int, dtype: Any
) -> jax.Array:
    """Returns the temperature of every row: `shape` with length 1 on `axis`."""
    positive(function, "temperature", value, TEMPERATURE_CURE)
    given = real(function, "temperature", value)
    rows = (*shape[:axis], 1, *shape[axis + 1 :])
    padded = (1,) * (len(shape) - given.ndim) + given.shape
    fits = len(padded) == len(rows) and all(
        have in (1, want) for have, want in zip(padded, rows, strict=True)
    )
    if not fits:
        cure = (
            "A temperature that differs between categories would change the law of the "
            "choice; divide the logits instead."
        )
        if given.shape and given.shape == shape[:axis] + shape[axis + 1 :]:
            places = [":"] * given.ndim
            places.insert(axis, "None")
            cure = f"For one of each row pass `temperature[{', '.join(places)}]`."
        raise ValueError(
            message(
                function,
                "temperature",
                f"broadcast to {rows}, one value for each row of `logits`",
                f"shape {given.shape} for logits of shape {shape}, axis {axis}",
                cure,
            )
        )
    return jnp.broadcast_to(given.astype(dtype).reshape(padded), rows)


def reals(function: str, **values: ArrayLike) -> tuple[list[jax.Array], Any]:
    """Returns arguments broadcast together in a wide dtype, and their own dtype.

    Narrow types are computed in float32; the result should be rounded to the second
    value, the dtype to which the arguments promote.
    """
    arrays = [real(function, name, value) for name, value in values.items()]
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    shape = common_shape(function, dict(zip(values, arrays, strict=True)))
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    return [
        jnp.broadcast_to(
            array.astype(wide).reshape((1,) * (len(shape) - array.ndim) + array.shape),
            shape,
        )
        for array in arrays
    ], dtype


def common_shape(function: str, arrays: Mapping[str, jax.Array]) -> tuple[int, ...]:
    """Returns the shape to which arguments broadcast."""
    shapes = [array.shape for array in arrays.values()]
    try:
        return jnp.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            message(
                function,
                "`, `".join(arrays),
                "broadcast together",
                f"shapes {', '.join(map(str, shapes))}",
                "Add or move axes so that each one is 1 or equal.",
            )
        ) from None


def floating_dtype(function: str, dtype: Any) -> Any:
    """Returns the canonical form of a real floating dtype."""
    must, cure = "be a real floating type", "Pass for example `dtype=jnp.float32`."
    try:
        # NumPy takes None for float64, and an array for its own dtype.
        is_value = dtype is None or isinstance(dtype, jax.Array | np.ndarray)
        given = jnp.dtype("" if is_value else dtype)
    except (TypeError, ValueError):
        got = shown(dtype)
        raise TypeError(message(function, "dtype", must, got, cure)) from None
    if not jnp.issubdtype(given, jnp.floating):
        raise TypeError(message(function, "dtype", must, given.name, cure))
    return jax.dtypes.canonicalize_dtype(given)


def broadcast(
    function: str, argument: str, value: ArrayLike, shape: tuple[int, ...]
) -> jax.Array:
    """Returns real `value` with the rank of a shape to which it broadcasts."""
    return fitted(function, argument, real(function, argument, value), shape)


def fitted(
    function: str, argument: str, given: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Returns an array with the rank of a shape to which it broadcasts."""
    try:
        fits = jnp.broadcast_shapes(given.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            message(
                function,
                argument,
                f"broadcast to {shape}",
                f"shape {given.shape}",
                "Add or move axes so that each one is 1 or equal.",
            )
        )
    return given.reshape((1,) * (len(shape) - given.ndim) + given.shape)


def extended(shape: tuple[int, ...], axis: int | None, *values: Any) -> tuple[int, ...]:
    """The shape to which that of a sample and other arguments broadcast.

    An argument that does not fit, or would change the number of categories, does not
    count: it is refused by its own check.

    Args:
        shape: of the sample.
        axis: that of the categories, counted from the end; None without one.
        *values: arguments; None for one that was not given.
    """
    for value in values:
        try:
            both = jnp.broadcast_shapes(shape, np.shape(value))
        except (TypeError, ValueError):
            continue
        if axis is None or both[axis] == shape[axis]:
            shape = both
    return shape


def result_dtype(function: str, dtype: Any, own: Any) -> Any:
    """Returns the dtype that was asked for, or that of the logits."""
    return own if dtype is None else floating_dtype(function, dtype)


def mask(function: str, where: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Returns the mask of allowed categories, with the rank of the logits."""
    must, cure = "be a boolean mask, True for allowed categories", "Pass an array."
    given = array(function, "where", where, must, cure)
    if given.dtype != jnp.bool_:
        if jnp.issubdtype(given.dtype, jnp.number):
            cure = "Compare first, for example `where=mask != 0`."
        raise TypeError(message(function, "where", must, shown(given), cure))
    return fitted(function, "where", given, shape)


def noise(
    function: str, argument: str, value: ArrayLike, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    """Returns the injected noise in the dtype of the computation, as `broadcast`."""
    given = real(
        function,
        argument,
        value,
        must="be real noise to use in place of a draw",
        cure=f"Pass floats, or `{argument}=0.0` for no noise.",
    )
    return fitted(function, argument, given, shape).astype(dtype)


def known_size(function: str, argument: str, size: Any, cure: str) -> None:
    """Refuses a symbolic number of categories."""
    if not sizes.is_known(size):
        must = "have a fixed number of categories"
        raise ValueError(message(function, argument, must, f"the symbol {size}", cure))
