"""How the types of arrays say that they lie on devices.

Two kinds of mesh axes are seen in types: *explicit* ones, which `jax.make_mesh` makes,
by the sharding of each array; and *manual* ones, those of `jax.shard_map`, by the axes
on which an array may differ from device to device. A rule of ours must give every
cotangent the type of its primal.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from gumbax._common import versions

PyTree = Any


def varying(tree: PyTree) -> frozenset[str]:
    """Axes of `jax.shard_map` on which an array of the tree may differ."""
    nowhere: frozenset[str] = frozenset()
    types = map(jax.typeof, jax.tree.leaves(tree))
    return nowhere.union(*map(versions.varying_axes, types))


def vary(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The same arrays, as values that may differ on these axes of `jax.shard_map`."""

    def cast(leaf: ArrayLike) -> Any:
        missing = tuple(sorted(axes - varying(leaf)))
        return versions.vary(leaf, missing) if missing else leaf

    return jax.tree.map(cast, tree)


def is_explicit(*trees: PyTree) -> bool:
    """Whether an array is divided on explicit mesh axes."""
    leaves = jax.tree.leaves(trees)
    return any(any(jax.typeof(leaf).sharding.spec) for leaf in leaves)


def is_divided(*trees: PyTree) -> bool:
    """Whether types say how an array lies on devices, in either way."""
    return is_explicit(*trees) or bool(varying(trees))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array lies on devices.

    Attributes:
        varying: axes of `jax.shard_map` on which it may differ.
        mesh: with explicit axes, or an empty one.
        spec: the explicit axes that divide each axis.
    """

    varying: frozenset[str]
    mesh: Any
    spec: tuple[Any, ...]

    @classmethod
    def of(cls, kind: Any) -> "Layout":
        """That of a type."""
        own = tuple(kind.sharding.spec)
        own += (None,) * (len(kind.shape) - len(own))
        return cls(versions.varying_axes(kind), kind.sharding.mesh, own)

    @classmethod
    def common(cls, layouts: Sequence["Layout"]) -> "Layout":
        """One that several arrays of a shape can take."""
        nowhere: frozenset[str] = frozenset()
        divided = [layout for layout in layouts if any(layout.spec)]
        return cls(
            nowhere.union(*(layout.varying for layout in layouts)),
            (divided or layouts)[0].mesh,
            joined(*(layout.spec for layout in layouts)),
        )

    def place(self, x: jax.Array) -> jax.Array:
        """The same array, laid out like this."""
        x = vary(x, self.varying)
        if self.mesh.empty or spec(x) == self.spec:
            return x
        sharding = NamedSharding(self.mesh, PartitionSpec(*self.spec))
        return jax.sharding.reshard(x, sharding)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kind:
    """The type of an array, to be kept in place of it: a pytree without leaves."""

    aval: Any

    @classmethod
    def of(cls, x: ArrayLike) -> "Kind":
        return cls(jax.typeof(x))

    def cast(self, x: jax.Array) -> jax.Array:
        """x, of this shape, as an array of this type: its dtype, and its layout.

        Where devices share what the type describes and each has a part of x, their sum.
        """
        x = x.astype(self.aval.dtype)
        layout = Layout.of(self.aval)
        parts = tuple(sorted(varying(x) - layout.varying))
        return layout.place(jax.lax.psum(x, parts) if parts else x)

    def cotangent(self, x: jax.Array) -> jax.Array:
        """Of an array of this type, from that of what it was broadcast to."""
        shape = self.aval.shape
        leading = x.ndim - len(shape)
        axes = tuple(i for i, n in enumerate(shape, leading) if n != x.shape[i])
        x = jnp.sum(x, axis=axes, keepdims=True) if axes else x
        x = jnp.sum(x, axis=tuple(range(leading))) if leading else x
        return self.cast(x)


def spec(x: ArrayLike) -> tuple[Any, ...]:
    """The explicit axes that divide each axis of an array."""
    return Layout.of(jax.typeof(x)).spec


def joined(*specs: Sequence[Any]) -> tuple[Any, ...]:
    """One division from several of a shape, the first ones' first: no axis twice."""
    found: list[Any] = [None] * len(specs[0])
    taken: set[str] = set()
    for own in specs:
        for i, axes in enumerate(own):
            names = {axes} if isinstance(axes, str) else set(axes or ())
            if names and found[i] is None and not names & taken:
                found[i] = axes
                taken |= names
    return tuple(found)


def broadcast_spec(shape: tuple[int, ...], *operands: Any) -> tuple[Any, ...]:
    """The explicit axes that divide what operands broadcast to.

    The operands may be trees, and hold None.
    """
    specs = [spec(operand) for operand in jax.tree.leaves(operands)]
    whole = [(None,) * (len(shape) - len(own)) + own for own in specs]
    return joined((None,) * len(shape), *whole)


def automatic(
    function: Callable[..., jax.Array], out: Sequence[Any], *operands: Any
) -> jax.Array:
    """function(*operands), where it need not know of explicit axes.

    It sees these axes as automatic ones, on which the compiler lays out what it makes,
    the noise above all, as the operands are.

    Args:
        function: of the operands, to one array.
        out: the explicit axes that divide each axis of the result.
        *operands: arrays, keys or None.
    """
    meshes = [
        jax.typeof(leaf).sharding.mesh
        for leaf in jax.tree.leaves(operands)
        if is_explicit(leaf)
    ]
    if not meshes:
        return function(*operands)
    return jax.sharding.auto_axes(
        function,
        axes=meshes[0].explicit_axes,
        out_sharding=NamedSharding(meshes[0], PartitionSpec(*out)),
    )(*operands)


def on_automatic_axes(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of arrays that broadcast together, under `automatic`.

    Its static arguments are given by name; `axis`, if there is one, is counted from the
    front and missing in the result.
    """

    @functools.wraps(function)
    def called(*operands: jax.Array, **static: Any) -> jax.Array:
        shape = jnp.broadcast_shapes(*(x.shape for x in operands))
        out = list(broadcast_spec(shape, *operands))
        if "axis" in static:
            del out[static["axis"]]
        return automatic(functools.partial(function, **static), out, *operands)

    return called
