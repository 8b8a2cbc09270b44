"""A reader of pickles that runs nothing: plain values and arrays of numbers.

numpy's own constructors can be made to misread memory by a crafted pickle; so its names
are answered by stand-ins, which only keep what is stored.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np


def load_plain(content: bytes) -> dict[str, Any]:
    """Reads a pickled dict, written by Python 2 or 3.

    Args:
        content: the pickle.

    Returns:
        Dict with texts as keys; values are plain, lists of these, or numpy arrays.

    Raises:
        pickle.UnpicklingError: it holds anything else, or no dict. Malformed pickles
            raise other exceptions too.

    Example:
        >>> load_plain(pickle.dumps({b"labels": [3, 1]}))
        {'labels': [3, 1]}
    """
    record = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(record, dict):
        raise pickle.UnpicklingError(f"a {type(record).__name__}, not a dict")
    return {
        key.decode() if isinstance(key, bytes) else key: _value(value)
        for key, value in record.items()
    }


def _value(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value


class _StandIn:
    """Keeps the arguments and the state that a pickle gives it.

    `__setstate__` is there for the classes too: a pickle cannot set attributes of them.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state)


class _DType(_StandIn):
    """numpy.dtype(code, align, copy), then (version, byte order, ...)."""

    @property
    def dtype(self) -> np.dtype:
        code = _text(self.arguments[0])
        if code[0] not in "biuf" or not code[1:].isdigit():
            raise pickle.UnpicklingError(f"an array of type {code!r}")
        order = _text(self.state[1]) if len(self.state) > 1 else "|"
        return np.dtype(order + code)


class _Array(_StandIn):
    """An array in two steps: empty, then (version, shape, dtype, order, raw)."""

    @property
    def array(self) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        return _array(raw, dtype, shape, "F" if fortran else "C")


class _Buffer(_Array):
    """An array in one step, as protocol 5 stores it: (raw, dtype, shape, order)."""

    @property
    def array(self) -> np.ndarray:
        return _array(*self.arguments)


class _Encode(_StandIn):
    """_codecs.encode(text, "latin1"): how protocol 2 stores bytes."""

    def __new__(cls, text: str, encoding: str = "latin1") -> Any:
        return text.encode("latin1")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not (isinstance(dtype, _DType) and isinstance(raw, bytes | bytearray)):
        raise pickle.UnpicklingError("an array of objects")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=_text(order))


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


_STAND_INS: Mapping[tuple[str, str], type[_StandIn]] = {
    ("numpy", "ndarray"): _StandIn,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("_codecs", "encode"): _Encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """Knows the stand-ins and no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise pickle.UnpicklingError(f"a foreign object, {module}.{name}")
