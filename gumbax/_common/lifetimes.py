"""What is made of functions, remembered as long as they live.

JAX keeps what it compiled for a function until the function dies. What it compiled for
*arguments* that are functions it keeps for good, with all that they close over: a loop
over models would keep every model. So the functions are no arguments, but what is made
of them: of twins, which hold what the functions hold and not the functions themselves.
"""

import functools
import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

# Of what outlives its functions: those that are no plain functions are kept.
_MOST = 4096


class Memory:
    """Values made of functions, and of a key; each dies with the first of them."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}

    def once(
        self, functions: Sequence[Any], key: Hashable, make: Callable[..., Any]
    ) -> Any:
        """`make(twins)`, once for these functions and this key.

        Args:
            functions: with a hash; what is equal is one. Those that compare by what
                they hold, as methods do, are kept as they are.
            key: what else the value depends on.
            make: of the twins of the functions, which it may keep.
        """
        place = tuple(map(_reference, functions)), key
        try:
            found = self._values.get(place, self)
        except TypeError:
            # Without a hash: made each time.
            return make(tuple(functions))
        if found is not self:
            return found
        found = make(tuple(map(twin, functions)))
        while len(self._values) >= _MOST:
            self._values.pop(next(iter(self._values)))
        self._values[place] = found
        for function in filter(_is_mortal, functions):
            weakref.finalize(function, self._values.pop, place, None).atexit = False
        return found


def _is_mortal(function: Any) -> bool:
    """Whether it is equal to itself alone, and has a twin."""
    return isinstance(function, types.FunctionType | functools.partial)


def _reference(function: Any) -> Any:
    return weakref.ref(function) if _is_mortal(function) else function


def twin(function: Any) -> Any:
    """A function that does the same, and does not keep this one alive."""
    if isinstance(function, functools.partial):
        return functools.partial(function.func, *function.args, **function.keywords)
    if not isinstance(function, types.FunctionType):
        return function
    other = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    other.__kwdefaults__ = function.__kwdefaults__
    other.__dict__.update(function.__dict__)
    for name in ("__module__", "__qualname__", "__doc__"):
        setattr(other, name, getattr(function, name))
    return other
