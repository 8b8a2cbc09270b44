"""What is made of functions, remembered as long as they live.

JAX keeps what it compiled for a function until the function dies. What it compiled for
*arguments* that are functions it keeps for good, with all that they close over: a loop
over models would keep every model. So the functions are no arguments, but what is made
of them is given stand-ins, which call them while they live.
"""

import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

# Of what outlives its functions: those that have no weak references are kept.
_MOST = 4096


class Memory:
    """Values made of functions, and of a key; each dies with the first of them."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}

    def once(
        self, functions: Sequence[Any], key: Hashable, make: Callable[..., Any]
    ) -> Any:
        """`make(stand_ins)`, once for these functions and this key.

        Args:
            functions: with a hash; what is equal is one.
            key: what else the value depends on.
            make: of stand-ins for the functions, which may be called as long as these
                live, as during a call that was given them.
        """
        references = tuple(map(_reference, functions))
        place = references, key
        try:
            found = self._values.get(place, self)
        except TypeError:
            # Without a hash: made each time.
            return make(tuple(functions))
        if found is not self:
            return found
        found = make(tuple(map(_stand_in, functions, references)))
        while len(self._values) >= _MOST:
            self._values.pop(next(iter(self._values)))
        self._values[place] = found
        for function, reference in zip(functions, references, strict=True):
            if isinstance(reference, weakref.ref):
                owner = getattr(function, "__self__", function)
                weakref.finalize(owner, self._values.pop, place, None).atexit = False
        return found


class _Method(weakref.WeakMethod):
    """A method of an object, which is itself and no other, as for methods in Python."""

    __slots__ = ("_place",)

    def __init__(self, method: types.MethodType):
        self._place = id(method.__self__), id(method.__func__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Method) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)


def _reference(function: Any) -> Any:
    """A weak reference, where there may be one."""
    try:
        if isinstance(function, types.MethodType):
            return _Method(function)
        return weakref.ref(function)
    except TypeError:
        return function


def _stand_in(function: Any, reference: Any) -> Any:
    """A function that does the same, and does not keep this one alive."""
    if not isinstance(reference, weakref.ref):
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        alive: Any = reference()
        return alive(*args, **kwargs)

    call.__name__ = getattr(function, "__name__", type(function).__name__)
    return call
