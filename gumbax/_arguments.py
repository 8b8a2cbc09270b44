"""The arguments of a call that its branches are given: arrays traced, the rest as is.

A flag such as `train=True` reaches a branch as the Python value that it is; arrays are
operands of the operation, with gradients.
"""

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gumbax import _checks

_ARRAY = object()


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
                _checks.message(
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
    twice = sorted(set(kwargs) & set(branch_kwargs or ()))
    if twice:
        raise ValueError(
            _checks.message(
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
    signatures = [_signature(branch) for branch in branches.values()]
    found = [
        tuple(k for k in kwargs if signature is None or _takes(signature, k))
        for signature in signatures
    ]
    lost = sorted(set(kwargs).difference(*found))
    if lost:
        raise TypeError(
            _checks.message(
                function,
                "kwargs",
                "be keywords that a branch takes",
                f"{', '.join(lost)}, which none of {', '.join(branches)} does",
                "Correct the name, or let the branch take it.",
            )
        )
    for name, signature, own in zip(branches, signatures, found, strict=True):
        if signature is None:
            continue
        try:
            signature.bind(*(None,) * num_args, **dict.fromkeys(own))
        except TypeError as error:
            named = f" and {', '.join(own)}" if own else ""
            raise TypeError(
                _checks.message(
                    function,
                    "branches",
                    f"take {num_args} positional arguments{named}",
                    f"branch {name}: {error}",
                    "Give all branches one signature.",
                )
            ) from None
    return found


def _signature(branch: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(branch)
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, keyword: str) -> bool:
    parameters = list(signature.parameters.values())
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(
        p.kind is inspect.Parameter.VAR_KEYWORD
        or (p.name == keyword and p.kind in by_name)
        for p in parameters
    )
