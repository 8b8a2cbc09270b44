"""The arguments of a call that its branches are given: arrays traced, the rest as is.

A flag such as `train=True` reaches a branch as the Python value that it is; arrays are
operands of the operation, with gradients.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gumbax._common import checks, lifetimes

_ARRAY = object()
_memory = lifetimes.Memory()


@dataclasses.dataclass(frozen=True)
class Frame:
    """Arguments without their arrays. Equal frames give branches one trace."""

    treedef: Any
    # Pairs of type and value: True is no 1.
    static: tuple[tuple[Hashable, Hashable], ...]

    def filled(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, positional and by name."""
        rest = iter(arrays)
        leaves = [next(rest) if v is _ARRAY else v for _, v in self.static]
        return jax.tree.unflatten(self.treedef, leaves)


def split(
    function: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], Frame]:
    """Returns the arrays in the arguments, and the rest of them."""
    given, treedef = jax.tree_util.tree_flatten_with_path((tuple(args), dict(kwargs)))
    arrays: list[Any] = []
    static: list[tuple[Hashable, Hashable]] = []
    for path, leaf in given:
        if isinstance(leaf, jax.Array | np.ndarray | np.generic):
            arrays.append(leaf)
            static.append((None, _ARRAY))
            continue
        try:
            hash(leaf)
        except TypeError:
            place = jax.tree_util.keystr(path[1:])
            raise TypeError(
                checks.message(
                    function,
                    "kwargs" if path[0].idx else "args",
                    "hold arrays and hashable values",
                    f"{type(leaf).__name__} at {place}",
                    "Pass an array, or a tuple in place of a set.",
                )
            ) from None
        # 0.0 is no -0.0.
        kind = leaf.hex() if isinstance(leaf, float) else None
        static.append(((type(leaf), kind), leaf))
    return arrays, Frame(treedef, tuple(static))


def together(
    function: str, kwargs: Mapping[str, Any], branch_kwargs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Keywords of the call, and those whose names the module takes for itself."""
    if not isinstance(branch_kwargs, Mapping | None):
        must, cure = "be a mapping of keywords", 'As in `{"deterministic": True}`.'
        got = checks.shown(branch_kwargs)
        raise TypeError(checks.message(function, "branch_kwargs", must, got, cure))
    twice = sorted(set(kwargs) & set(branch_kwargs or ()))
    if twice:
        raise ValueError(
            checks.message(
                function,
                "branch_kwargs",
                "have names that the call does not have",
                f"{', '.join(twice)} in both",
                "Leave one of the two out.",
            )
        )
    return {**kwargs, **(branch_kwargs or {})}


def taken(
    function: str,
    branches: Mapping[str, Callable[..., Any]],
    num_args: int,
    kwargs: Mapping[str, Any],
) -> list[tuple[str, ...]]:
    """Which of the keywords each branch takes, by its signature.

    Candidates differ: a convolution block has a `train` flag, a pooling has none.

    Args:
        function: name in messages.
        branches: name -> branch.
        num_args: number of positional arguments, x among them.
        kwargs: the keywords; one that no branch takes is an error.
    """
    called = [_called(branch) for branch in branches.values()]
    found = [tuple(k for k in kwargs if _takes(*own, k)) for own in called]
    lost = sorted(set(kwargs).difference(*found))
    if lost:
        raise TypeError(
            checks.message(
                function,
                "kwargs",
                "be keywords that a branch takes",
                f"{', '.join(lost)}, which none of {', '.join(branches)} does",
                "Correct the name, or let the branch take it.",
            )
        )
    for name, own, names in zip(branches, called, found, strict=True):
        problem = _problem(*own, num_args, names)
        if problem is not None:
            raise TypeError(
                checks.message(
                    function,
                    "branches",
                    f"take {num_args} positional arguments"
                    + (f" and {', '.join(names)}" if names else ""),
                    f"branch {name}: {problem}",
                    "Give all branches one signature.",
                )
            )
    return found


def _called(branch: Callable[..., Any]) -> tuple[Callable[..., Any], bool]:
    """What has the signature of a branch, and whether it is a method of it."""
    method = type(branch).__call__
    if isinstance(method, types.FunctionType) and "__wrapped__" not in getattr(
        branch, "__dict__", {}
    ):
        return method, True
    return branch, False


def _signature(called: Callable[..., Any], is_method: bool) -> inspect.Signature | None:
    def make(_: tuple[Any, ...]) -> inspect.Signature | None:
        try:
            signature = inspect.signature(called)
        except (TypeError, ValueError):
            # Of what is not written in Python.
            return None
        own = list(signature.parameters.values())
        has_self = is_method and own[0].kind is not inspect.Parameter.VAR_POSITIONAL
        return signature.replace(parameters=own[has_self:])

    return _memory.once((called,), is_method, make)


def _takes(called: Callable[..., Any], is_method: bool, keyword: str) -> bool:
    signature = _signature(called, is_method)
    if signature is None:
        return True
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(
        p.kind is inspect.Parameter.VAR_KEYWORD
        or (p.name == keyword and p.kind in by_name)
        for p in signature.parameters.values()
    )


def _problem(
    called: Callable[..., Any], is_method: bool, num_args: int, names: tuple[str, ...]
) -> str | None:
    """Why it cannot be called with so many arguments and these keywords."""
    signature = _signature(called, is_method)
    if signature is None:
        return None
    try:
        signature.bind(*(None,) * num_args, **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return None
