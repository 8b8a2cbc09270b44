"""Arguments by their kind: arrays, numbers, flags, lengths, functions, keys."""

import math
import numbers
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gumbax._common import sizes
from gumbax._common.checks.messages import message, shown


def array(
    function: str, argument: str, value: ArrayLike, must: str, cure: str
) -> jax.Array:
    """Returns `value` as an array, of any dtype."""
    if value is not None:  # which some versions of JAX take for a NaN
        try:
            return jnp.asarray(value)
        except (TypeError, ValueError):
            pass
    raise TypeError(message(function, argument, must, shown(value), cure))


def real(
    function: str,
    argument: str,
    value: ArrayLike,
    *,
    must: str = "be a real number or array",
    cure: str | None = None,
) -> jax.Array:
    """Returns `value` as an array if it is floating or integer."""
    given = array(function, argument, value, must, cure or conversion(value))
    if jnp.issubdtype(given.dtype, jnp.floating):
        return given
    if jnp.issubdtype(given.dtype, jnp.integer):
        return given
    own = value if isinstance(value, bool | complex) else given
    raise TypeError(
        message(function, argument, must, shown(own), cure or conversion(own))
    )


def conversion(value: Any) -> str:
    """How numbers come from a value that holds none."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return "Pass one array of numbers, or a number."
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return "Pass its real part, if that is what is meant."
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "The key is an argument of its own."
    return "Convert it, for example with `.astype(jnp.float32)`."


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


def finite(function: str, argument: str, value: Any, must: str, cure: str) -> Any:
    """Returns a finite Python number; what is static cannot be traced."""
    is_array = isinstance(value, np.ndarray | jax.Array) and not value.shape
    if is_array and not isinstance(value, jax.core.Tracer):
        value = value.item() if jnp.issubdtype(value.dtype, jnp.number) else value
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(message(function, argument, must, shown(value), cure))
    if not math.isfinite(value):
        raise ValueError(message(function, argument, must, value, cure))
    return value


def flag(function: str, argument: str, value: Any, cure: str = "") -> bool:
    """Returns a Python bool."""
    # 0 and 1 always were taken for flags.
    if isinstance(value, bool | np.bool_) or (
        isinstance(value, numbers.Integral) and int(value) in (0, 1)
    ):
        return bool(value)
    cure = cure or "It is static: under `jax.jit` fix it, or make it a static argument."
    got = shown(value)
    raise TypeError(message(function, argument, "be True or False", got, cure))


def count(function: str, argument: str, value: object, least: int, cure: str) -> int:
    """Returns a Python integer that is at least `least`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        got = shown(value)
        raise TypeError(message(function, argument, "be an integer", got, cure))
    if number < least:
        raise ValueError(
            message(function, argument, f"be at least {least}", value, cure)
        )
    return number


def lengths(
    function: str, argument: str, value: Iterable[int], cure: str
) -> tuple[int, ...]:
    """Returns the lengths of axes as a tuple; they may be symbols."""
    try:
        found = tuple(
            operator.index(length) if sizes.is_known(length) else length
            for length in value
        )
    except TypeError:
        found = (-1,)
    if any(sizes.is_known(length) and length < 0 for length in found):
        must = "be a sequence of lengths >= 0"
        raise ValueError(message(function, argument, must, shown(value), cure))
    return found


def sample_shape(function: str, value: Iterable[int]) -> tuple[int, ...]:
    """Returns the leading axes of independent draws as a tuple of lengths."""
    cure = "For n draws pass `sample_shape=(n,)`."
    return lengths(function, "sample_shape", value, cure)


def function(name: str, argument: str, value: Any, must: str, cure: str) -> None:
    """Refuses what cannot be called."""
    if not callable(value):
        raise TypeError(message(name, argument, must, shown(value), cure))


def sequence(
    function: str, argument: str, value: Any, must: str, cure: str
) -> tuple[Any, ...]:
    """Returns the members of a list, or of what is like one; a string is not."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        try:
            return tuple(value)
        except TypeError:
            pass  # an array without axes
    raise TypeError(message(function, argument, must, shown(value), cure))


def counters(function: str, offset: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the counters (row, category) of the first element of a block."""
    must = "be a pair of integers, (first row, first category)"
    cure = "Without an offset both are 0."
    pair = sequence(function, "offset", offset, must, cure)
    found = [array(function, "offset", number, must, cure) for number in pair]
    if len(found) != 2 or not all(
        jnp.issubdtype(number.dtype, jnp.integer) and number.ndim == 0
        for number in found
    ):
        raise TypeError(message(function, "offset", must, shown(offset), cure))
    return found[0], found[1]


def some_branches(name: str, branches: Any) -> tuple[Callable[..., Any], ...]:
    """Returns the branches of an operation, at least one, that all can be called."""
    must = "be a sequence of functions or modules"
    found = sequence(name, "branches", branches, must, "Put them into a list.")
    if not found:
        must, cure = "hold at least one branch", "Add one."
        raise ValueError(message(name, "branches", must, "none", cure))
    for i, branch in enumerate(found):
        must, got = "be functions or modules", f"{shown(branch)} as branch {i}"
        if not callable(branch):
            cure = "A branch is called: give a module a method `__call__`."
            raise TypeError(message(name, "branches", must, got, cure))
    return found


def tree(function: str, argument: str, value: Any) -> None:
    """Refuses leaves that are no arrays or numbers."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        try:
            jax.typeof(leaf)
        except TypeError:
            place = jax.tree_util.keystr(path)
            got = shown(leaf) + (f" at {place}" if place else "")
            cure = "Bind what is static to the branches, by `functools.partial`."
            must = "be a pytree of arrays"
            raise TypeError(message(function, argument, must, got, cure)) from None


def scalar_key(function: str, key: Any) -> jax.Array:
    """Returns `key` if it is one typed key or one legacy key, also of NumPy."""
    given = key
    if isinstance(key, np.ndarray) and key.dtype == np.uint32:
        # As it comes back from a checkpoint.
        given = jnp.asarray(key)
    if isinstance(given, jax.Array):
        rank = 0
        is_key = jnp.issubdtype(given.dtype, jax.dtypes.prng_key)
        if not is_key and given.dtype == jnp.uint32 and given.ndim:
            is_key, rank = given.shape[-1] in (2, 4), 1
        if is_key and given.ndim == rank:
            return given
        if is_key:
            cure = (
                "One key serves all rows of a call; to map over keys use "
                "`jax.vmap(f)(keys, rows)`."
            )
            got = f"a batch of keys, {shown(given)}"
            raise TypeError(message(function, "key", "be one PRNG key", got, cure))
    cure = "Make one with `jax.random.key(seed)`."
    if isinstance(key, int) and not isinstance(key, bool):
        cure = f"Make one of this seed with `jax.random.key({key})`."
    elif type(key).__module__.startswith("flax"):
        stream = type(key).__name__ == "RngStream"
        cure = f"Pass a key of it, `{'stream()' if stream else 'rngs.gumbel()'}`."
    raise TypeError(message(function, "key", "be one PRNG key", shown(key), cure))
