"""Axes of `jax.shard_map` on which values may differ."""

from typing import Any

import jax
from jax.typing import ArrayLike

PyTree = Any


def varying(tree: PyTree) -> frozenset[str]:
    """Axes of `jax.shard_map` on which an array of the tree may differ."""

    def axes(leaf: ArrayLike) -> frozenset[str]:
        kind: Any = jax.typeof(leaf)
        # The name of the axes in JAX before 0.10.
        if hasattr(kind, "vma"):
            return kind.vma
        return kind.manual_axis_type.varying

    nowhere: frozenset[str] = frozenset()
    return nowhere.union(*map(axes, jax.tree.leaves(tree)))


def vary(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The same arrays, as values that may differ on these axes of `jax.shard_map`."""

    def cast(leaf: ArrayLike) -> Any:
        missing = tuple(sorted(axes - varying(leaf)))
        if not missing:
            return leaf
        lax: Any = jax.lax
        if hasattr(lax, "pcast"):
            return lax.pcast(leaf, missing, to="varying")
        return lax.pvary(leaf, missing)

    return jax.tree.map(cast, tree)
