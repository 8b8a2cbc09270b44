"""The one place where argument errors are built, and the checks that samplers share."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax._common import sizes

TEMPERATURE_CURE = (
    "For a choice without relaxation use `hard=True` or `gumbel_max`; "
    "to anneal towards 0, stop at a small positive floor."
)


def message(function: str, argument: str, must: str, got: object, cure: str) -> str:
    """Formats "`function`: `argument` must ..., got ... . What to do."""
    return f"`{function}`: `{argument}` must {must}, got {got}. {cure}"


def logits_and_axis(
    function: str, logits: ArrayLike, axis: int
) -> tuple[jax.Array, int]:
    """Returns `logits` as an array and `axis` counted from the front."""
    given = floating_array(function, "logits", logits)
    return given, category_axis(function, given.shape, axis, "logits")


def floating_array(function: str, argument: str, value: ArrayLike) -> jax.Array:
    """Returns `value` as an array if it is real and floating."""
    given = jnp.asarray(value)
    if jnp.issubdtype(given.dtype, jnp.floating):
        return given
    raise TypeError(
        message(
            function,
            argument,
            "be a real floating array of unnormalised log-probabilities",
            f"dtype {given.dtype.name} with shape {given.shape}",
            "Convert it, for example with `.astype(jnp.float32)`.",
        )
    )


def stretch(function: str, low: float, high: float) -> None:
    """Refuses an interval of the hard-concrete gate that does not contain [0, 1]."""
    for argument, value, must, fits in (
        ("low", low, "be a number below 0", low < 0),
        ("high", high, "be a number above 1", high > 1),
    ):
        if not (fits and math.isfinite(value)):
            raise ValueError(
                message(
                    function,
                    argument,
                    must,
                    value,
                    "The gate is stretched beyond [0, 1] to be exactly 0 or 1 at "
                    "times; the published interval is (-0.1, 1.1).",
                )
            )


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
                repr(axis),
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
        raise ValueError(
            message(
                function,
                "temperature",
                f"broadcast to {rows}, one value for each row of `logits`",
                f"shape {given.shape} for logits of shape {shape}, axis {axis}",
                "A temperature that differs between categories would change the law "
                "of the choice; divide the logits instead.",
            )
        )
    return jnp.broadcast_to(given.astype(dtype).reshape(padded), rows)


def positive(
    function: str, argument: str, value: object, cure: str, *, or_zero: bool = False
) -> None:
    """Refuses a Python number that is not above 0; traced values are not looked at."""
    if not isinstance(value, int | float):
        return
    fits = value >= 0 if or_zero else value > 0
    if not (fits and math.isfinite(value)):
        must = "be a finite number " + (">= 0" if or_zero else "above 0")
        raise ValueError(message(function, argument, must, value, cure))


def real(
    function: str,
    argument: str,
    value: ArrayLike,
    *,
    must: str = "be a real number or array",
    cure: str = "Convert it, for example with `.astype(jnp.float32)`.",
) -> jax.Array:
    """Returns `value` as an array if it is floating or integer."""
    given = jnp.asarray(value)
    if jnp.issubdtype(given.dtype, jnp.floating):
        return given
    if jnp.issubdtype(given.dtype, jnp.integer):
        return given
    raise TypeError(
        message(function, argument, must, f"dtype {given.dtype.name}", cure)
    )


def reals(function: str, **values: ArrayLike) -> tuple[list[jax.Array], Any]:
    """Returns arguments broadcast together in a wide dtype, and their own dtype.

    Narrow types are computed in float32; the result should be rounded to the second
    value, the dtype to which the arguments promote.
    """
    arrays = [real(function, name, value) for name, value in values.items()]
    dtype = jnp.result_type(*values.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    try:
        shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        raise ValueError(
            message(
                function,
                "`, `".join(values),
                "broadcast together",
                f"shapes {', '.join(str(array.shape) for array in arrays)}",
                "Add or move axes so that each one is 1 or equal.",
            )
        ) from None
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    return [
        jnp.broadcast_to(
            array.astype(wide).reshape((1,) * (len(shape) - array.ndim) + array.shape),
            shape,
        )
        for array in arrays
    ], dtype


def floating_dtype(function: str, dtype: Any) -> Any:
    """Returns the canonical form of a real floating dtype."""
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(
            message(
                function,
                "dtype",
                "be a real floating type",
                jnp.dtype(dtype).name,
                "Pass for example `dtype=jnp.float32`.",
            )
        )
    return jax.dtypes.canonicalize_dtype(dtype)


def broadcast(
    function: str, argument: str, value: ArrayLike, shape: tuple[int, ...]
) -> jax.Array:
    """Returns `value` with the rank of the logits, to whose shape it broadcasts."""
    given = jnp.asarray(value)
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


def mask(function: str, where: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Returns the mask of allowed categories, with the rank of the logits."""
    given = jnp.asarray(where)
    if given.dtype != jnp.bool_:
        raise TypeError(
            message(
                function,
                "where",
                "be a boolean mask, True for allowed categories",
                f"dtype {given.dtype.name}",
                "Compare first, for example `where=mask != 0`.",
            )
        )
    return broadcast(function, "where", given, shape)


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
    return broadcast(function, argument, given, shape).astype(dtype)


def sample_shape(function: str, value: Sequence[int]) -> tuple[int, ...]:
    """Returns the leading axes of independent draws as a tuple of lengths."""
    try:
        lengths = tuple(
            operator.index(length) if sizes.is_known(length) else length
            for length in value
        )
    except TypeError:
        lengths = (-1,)
    if any(sizes.is_known(length) and length < 0 for length in lengths):
        raise ValueError(
            message(
                function,
                "sample_shape",
                "be a sequence of lengths >= 0",
                repr(value),
                "For n draws pass `sample_shape=(n,)`.",
            )
        )
    return lengths


def known_size(function: str, argument: str, size: Any, cure: str) -> None:
    """Refuses a symbolic number of categories."""
    if not sizes.is_known(size):
        must = "have a fixed number of categories"
        raise ValueError(message(function, argument, must, f"the symbol {size}", cure))


def some_branches(function: str, branches: Sequence[object]) -> None:
    """Refuses a module without branches."""
    if not branches:
        raise ValueError(
            message(
                function, "branches", "hold at least one branch", "none", "Add one."
            )
        )


def count(function: str, argument: str, value: object, least: int, cure: str) -> int:
    """Returns a Python integer that is at least `least`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(message(function, argument, "be an integer", repr(value), cure))
    if number < least:
        raise ValueError(
            message(function, argument, f"be at least {least}", value, cure)
        )
    return number


def scalar_key(function: str, key: object) -> jax.Array:
    """Returns `key` if it is one typed key or one legacy key, also of NumPy."""
    if isinstance(key, np.ndarray) and key.dtype == np.uint32:
        # As it comes back from a checkpoint.
        key = jnp.asarray(key)
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.ndim == 0:
                return key
        elif key.dtype == jnp.uint32 and key.ndim == 1 and key.shape[0] >= 2:
            return key
        got = f"dtype {key.dtype} with shape {key.shape}"
    else:
        got = repr(key)
    raise TypeError(
        message(
            function,
            "key",
            "be one PRNG key",
            got,
            "Make one with `jax.random.key(seed)`; for a batch of keys use "
            "`jax.vmap(f)(jax.random.split(key, n), rows)`.",
        )
    )
