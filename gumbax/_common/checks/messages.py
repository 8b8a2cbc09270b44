"""What an argument error says: function, argument, condition, value, cure."""

import inspect
from typing import Any

import jax
import numpy as np

# Of what a value is, in a message.
_LONGEST = 60


def message(function: str, argument: str, must: str, got: object, cure: str) -> str:
    """Formats "`function`: `argument` must ..., got ... . What to do."""
    return f"`{function}`: `{argument}` must {must}, got {got}. {cure}"


def shown(value: Any) -> str:
    """A value in a few words: arrays by dtype and shape, what is short as it is."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"dtype {value.dtype} with shape {tuple(value.shape)}"
    plain = value is None or isinstance(value, bool | int | float | complex | str)
    if isinstance(value, list | tuple | dict):
        leaves = jax.tree.leaves(value)
        plain = all(isinstance(leaf, bool | int | float | str) for leaf in leaves)
    if plain and len(repr(value)) <= _LONGEST:
        return repr(value)
    if isinstance(value, list | tuple | dict | str):
        return f"a {type(value).__name__} of length {len(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    return f"an object of type {type(value).__name__}"
