"""What differs between the versions of JAX and Flax that gumbax runs on.

All of it is here. Importing this module imports no flax.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax


def nnx_list(values: Iterable[Any]) -> Any:
    """An attribute of an NNX module that holds modules in order, a mutable sequence.

    Flax 0.12 refuses a list there, and Flax 0.11 has nothing else.
    """
    from flax import nnx

    return getattr(nnx, "List", list)(values)


def nnx_dict(values: Mapping[str, Any]) -> Any:
    """The same with names: a mutable mapping."""
    from flax import nnx

    return getattr(nnx, "Dict", dict)(values)


def nnx_static(value: Any) -> Any:
    """An attribute of an NNX module that is no part of its state.

    Flax 0.11 has no mark for it: there whatever holds no arrays is static.
    """
    from flax import nnx

    mark = getattr(nnx, "static", None)
    return value if mark is None else mark(value)


def varying_axes(kind: Any) -> frozenset[str]:
    """Axes of `jax.shard_map` on which arrays of this type may differ."""
    # The name of the axes in JAX before 0.10.
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


def vary(x: Any, axes: tuple[str, ...]) -> Any:
    """The same array, as a value that may differ on more axes of `jax.shard_map`."""
    lax: Any = jax.lax
    if hasattr(lax, "pcast"):
        return lax.pcast(x, axes, to="varying")
    # JAX before 0.8.
    return lax.pvary(x, axes)
