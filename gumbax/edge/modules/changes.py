"""What a call leaves in the variables of a branch: changed ones, new and deleted ones.

A branch that did not run has left nothing. Where a variable was, it stays; where there
was none, zeros stand, which add nothing to a sum of losses.
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import checks, meshes, versions

PyTree = Any
KeyPath = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Changes:
    """How the variables after a call come from those before. Static.

    Attributes:
        treedef: of the variables afterwards.
        sources: for each leaf afterwards, the number of the leaf that was in its place.
        written: numbers of the leaves afterwards that are not those of before.
        types: types of the written leaves.
        paths: where they are.
        deleted: where leaves were whose place is gone.
        is_rebuilt: whether the structure afterwards is another one.
    """

    treedef: Any
    sources: tuple[int | None, ...]
    written: tuple[int, ...]
    types: tuple[Any, ...]
    paths: tuple[KeyPath, ...]
    deleted: tuple[KeyPath, ...]
    is_rebuilt: bool

    def __bool__(self) -> bool:
        return bool(self.written) or self.is_rebuilt

    def select(self, after: PyTree) -> list[Any]:
        """The written leaves."""
        leaves = jax.tree.leaves(after)
        return [leaves[i] for i in self.written]

    def unrun(self, before: Sequence[Any]) -> list[Any]:
        """What is in their place if the branch does not run."""
        olds = [self._old(before, i) for i in self.written]
        return [
            _placed(
                old if _fits(old, kind) else jnp.zeros(kind.shape, kind.dtype), kind
            )
            for old, kind in zip(olds, self.types, strict=True)
        ]

    def after(self, before: Sequence[Any], written: Sequence[Any]) -> PyTree:
        """The variables afterwards."""
        leaves = [self._old(before, i) for i in range(len(self.sources))]
        for i, leaf in zip(self.written, written, strict=True):
            leaves[i] = leaf
        return jax.tree.unflatten(self.treedef, leaves)

    def check_conditional(
        self, function: str, branch: str, before: Sequence[Any]
    ) -> None:
        """Refuses what cannot be left undone when another branch is chosen."""
        olds = [self._old(before, i) for i in self.written]
        triples = zip(olds, self.types, self.paths, strict=True)
        resized = [
            path
            for old, kind, path in triples
            if old is not None and not _fits(old, kind)
        ]
        for paths, does in (
            (self.deleted, "deletes"),
            (resized, "changes the shape or dtype of"),
        ):
            if paths:
                raise ValueError(
                    checks.message(
                        function,
                        "branches",
                        "keep the variables that they have, with `hard=True`",
                        f"branch {branch}, which {does} "
                        + ", ".join(map(path_name, paths)),
                        "Do it outside the call, or use `hard=False`, where every "
                        "branch runs.",
                    )
                )

    def _old(self, before: Sequence[Any], i: int) -> Any:
        source = self.sources[i]
        return None if source is None else before[source]


def _fits(old: Any, kind: Any) -> bool:
    return (
        old is not None
        and jnp.shape(old) == kind.shape
        and jnp.result_type(old) == kind.dtype
    )


def _placed(x: Any, kind: Any) -> Any:
    """x on devices as an array of this type is."""
    is_key = jnp.issubdtype(kind.dtype, jax.dtypes.prng_key)
    if is_key or not meshes.varying(x) <= versions.varying_axes(kind):
        return x
    return meshes.Kind(kind).cast(jnp.asarray(x))


def trace(
    function: str,
    branch: str,
    run: Callable[..., PyTree],
    before: PyTree,
    operands: PyTree,
) -> Changes:
    """The changes made by `run(before, operands)`, which returns the variables after.

    Args:
        function: name in messages.
        branch: name of the branch in messages.
        run: the call of the branch.
        before: variables before the call.
        operands: its other operands.
    """
    found: list[Any] = []

    def traced(before: PyTree, operands: PyTree) -> list[Any]:
        after = run(before, operands)
        check_arrays(function, branch, after)
        sources, written, deleted = _compare(before, after)
        left, treedef = jax.tree_util.tree_flatten_with_path(after)
        paths = tuple(left[i][0] for i in written)
        structure: Any = jax.tree.structure(before)
        rebuilt = bool(structure != treedef)
        found.extend([treedef, sources, written, paths, deleted, rebuilt])
        return [left[i][1] for i in written]

    jaxpr = jax.make_jaxpr(traced)(before, operands)
    treedef, sources, written, paths, deleted, rebuilt = found
    kinds = tuple(jaxpr.out_avals)
    return Changes(treedef, sources, written, kinds, paths, deleted, rebuilt)


def differences(before: PyTree, after: PyTree) -> list[KeyPath]:
    """Where leaves are that are others, new, or there no more."""
    _, written, deleted = _compare(before, after)
    left, _ = jax.tree_util.tree_flatten_with_path(after)
    return [*(left[i][0] for i in written), *deleted]


def _compare(
    before: PyTree, after: PyTree
) -> tuple[tuple[int | None, ...], tuple[int, ...], tuple[KeyPath, ...]]:
    """Sources, written and deleted leaves, as in `Changes`."""
    given, _ = jax.tree_util.tree_flatten_with_path(before)
    left, _ = jax.tree_util.tree_flatten_with_path(after)
    places = {path: i for i, (path, _) in enumerate(given)}
    sources = tuple(places.pop(path, None) for path, _ in left)
    written = tuple(
        i
        for i, (source, (_, leaf)) in enumerate(zip(sources, left, strict=True))
        if source is None or leaf is not given[source][1]
    )
    return sources, written, tuple(places)


def types(tree: PyTree) -> Hashable:
    """Structure and types of a tree: what a trace depends on."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple(map(jax.typeof, leaves))


def check_arrays(function: str, branch: str, variables: PyTree) -> None:
    """Refuses variables that hold strings, functions or other objects."""
    if all(map(_is_array, jax.tree.leaves(variables))):
        return
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if not _is_array(leaf):
            raise TypeError(
                checks.message(
                    function,
                    "branches",
                    "have variables that hold arrays",
                    f"{type(leaf).__name__} in {path_name(path)} of branch {branch}",
                    "Make it an attribute of the module.",
                )
            )


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind not in "OSUMm"
    numbers = jax.Array | np.generic | bool | int | float | complex
    return isinstance(leaf, numbers)


def path_name(path: KeyPath) -> str:
    """Name of a leaf in messages: batch_stats.norm.mean."""
    parts = []
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            # The value in an NNX variable.
            if key.name in ("value", "raw_value"):
                continue
            parts.append(key.name)
        else:
            parts.append(getattr(key, "key", getattr(key, "idx", key)))
    return ".".join(map(str, parts))
