"""The two forms of a group of edges: all candidates, or the operations that are kept.

A group is a set of edges of one choice whose operations have equal shapes. Both forms
take and return the list of a cell's nodes, and add each edge's output to its target in
the order of the edges: a derived network therefore does the sums of its supernet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common.versions import nnx_list
from gumbax.edge.cells import scan_edges
from gumbax.edge.mixed_op import Branch, PyTree
from gumbax.nnx.mixed_op import pure_branches
from gumbax.search.spaces.layers import Identity

Pair = tuple[int, int]
# (weights, branches, params, x, key=...) -> output, as `gumbax.single_path`.
Operation = Callable[..., Any]
# (name of a primitive, rngs) -> module
MakeModule = Callable[[str, nnx.Rngs], nnx.Module]
# (choice, rows of its logits, local pairs of nodes, make, rngs) -> module
MakeEdges = Callable[
    [str, Sequence[int], Sequence[Pair], MakeModule, nnx.Rngs], nnx.Module
]


@dataclass(frozen=True)
class Context:
    """What a forward pass is given beside its input.

    Attributes:
        weights: choice -> [E, K], for a network with all candidates.
        operation: how an edge uses its row of them.
        key: for operations that draw (`gumbax.subset`), and for dropped paths.
        drop_path: probability that a kept operation gives zeros for an example, the
            others being scaled up.
        training: return the auxiliary head's scores too.
    """

    weights: Mapping[str, jax.Array] | None = None
    operation: Operation | None = None
    key: jax.Array | None = None
    drop_path: jax.Array | None = None
    training: bool = False


PLAIN = Context()


class Candidates(nnx.Module):
    """All primitives of E edges, their parameters stacked: one of them is compiled.

    Attributes:
        modules: one module for each primitive, whose variables have E on their first
            axis.
    """

    def __init__(
        self,
        number: int,
        choice: str,
        rows: Sequence[int],
        pairs: Sequence[Pair],
        modules: Sequence[nnx.Module],
    ):
        self.number = number
        self.choice = choice
        self.rows = tuple(rows)
        self.pairs = tuple(pairs)
        self.modules = nnx_list(modules)

    def __call__(
        self,
        nodes: Sequence[jax.Array],
        context: Context,
        *,
        inputs: Sequence[jax.Array] | None = None,
    ) -> list[jax.Array]:
        branches, params = pure_branches(self.modules, batch_statistics=True)
        per_edge = self._weights(context), params, self._keys(context)

        def edge(own: Any, x: jax.Array) -> jax.Array:
            weights, params, key = own
            return _apply(context, branches, weights, params, key, x)

        found = scan_edges(
            edge,
            per_edge,
            jnp.stack(nodes),
            self.pairs,
            inputs=None if inputs is None else jnp.stack(inputs),
        )
        return list(found)

    def only(self, x: PyTree, context: Context) -> PyTree:
        """The output of a single edge, which may have another shape than x."""
        branches, params = pure_branches(self.modules, batch_statistics=True)
        per_edge = self._weights(context), params, self._keys(context)
        weights, params, key = jax.tree.map(lambda leaf: leaf[0], per_edge)
        return _apply(context, branches, weights, params, key, x)

    def _weights(self, context: Context) -> jax.Array:
        assert context.weights is not None
        return context.weights[self.choice][jnp.asarray(self.rows, jnp.int32)]

    def _keys(self, context: Context) -> jax.Array | None:
        if context.key is None:
            return None
        key = jax.random.fold_in(context.key, self.number)
        return jax.random.split(key, len(self.rows))

    def keep(self, kept: Mapping[int, tuple[str, int]]) -> "Kept":
        """The edges that are kept, row -> (name, index of the primitive), copied."""
        pairs, names, modules = [], [], []
        for i, row in enumerate(self.rows):
            if row not in kept:
                continue
            name, index = kept[row]
            graphdef, state = nnx.split(self.modules[index])
            state = jax.tree.map(lambda leaf, i=i: jnp.array(leaf[i]), state)
            pairs.append(self.pairs[i])
            names.append(name)
            modules.append(nnx.merge(graphdef, state))
        return Kept(self.number, pairs, names, modules)


def _apply(
    context: Context,
    branches: Sequence[Branch],
    weights: jax.Array,
    params: Sequence[PyTree],
    key: jax.Array | None,
    x: PyTree,
) -> PyTree:
    assert context.operation is not None
    return context.operation(weights, branches, params, x, key=key)


class Kept(nnx.Module):
    """One operation for each edge that is kept.

    Attributes:
        modules: the operations, in order.
        names: their primitives.
    """

    def __init__(
        self,
        number: int,
        pairs: Sequence[Pair],
        names: Sequence[str],
        modules: Sequence[nnx.Module],
    ):
        self.number = number
        self.pairs = tuple(pairs)
        self.names = tuple(names)
        self.modules = nnx_list(modules)

    def __call__(
        self,
        nodes: Sequence[jax.Array],
        context: Context,
        *,
        inputs: Sequence[jax.Array] | None = None,
    ) -> list[jax.Array]:
        nodes = list(nodes)
        for i, (source, target) in enumerate(self.pairs):
            if self.names[i] == "none":
                continue
            x = (nodes if inputs is None else inputs)[source]
            y = self._dropped(i, self.modules[i](x), context)
            nodes[target] = nodes[target] + y
        return nodes

    def only(self, x: PyTree, context: Context) -> PyTree:
        """The output of a single edge."""
        (module,) = self.modules
        return self._dropped(0, module(x), context)

    def _dropped(self, i: int, y: jax.Array, context: Context) -> jax.Array:
        """Zeros for some examples, except after an identity, as published."""
        if context.drop_path is None or isinstance(self.modules[i], Identity):
            return y
        assert context.key is not None
        key = jax.random.fold_in(jax.random.fold_in(context.key, self.number), i)
        keep = 1.0 - context.drop_path
        shape = (y.shape[0],) + (1,) * (y.ndim - 1)
        mask = jax.random.bernoulli(key, keep, shape)
        return jnp.where(mask, y / keep, 0.0)


class all_candidates:
    """Makes the edges of a supernet."""

    def __init__(self, primitives: Mapping[str, Sequence[str]]):
        self._primitives = primitives
        self._count = 0

    def __call__(
        self,
        choice: str,
        rows: Sequence[int],
        pairs: Sequence[Pair],
        make: MakeModule,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        modules = [
            _stacked(make, name, len(rows), rngs) for name in self._primitives[choice]
        ]
        self._count += 1
        return Candidates(self._count - 1, choice, rows, pairs, modules)


def _stacked(make: MakeModule, name: str, count: int, rngs: nnx.Rngs) -> nnx.Module:
    """A module whose variables hold those of `count` new ones."""

    def state(key: jax.Array) -> Any:
        return nnx.split(make(name, nnx.Rngs(key)))[1]

    keys = jax.random.split(rngs.params(), count)
    graphdef = nnx.split(make(name, nnx.Rngs(0)))[0]
    return nnx.merge(graphdef, jax.vmap(state)(keys))


class kept_edges:
    """Makes the edges of a derived network with new weights.

    Args:
        kept: choice -> row of its logits -> name of the primitive.
    """

    def __init__(self, kept: Mapping[str, Mapping[int, str]]):
        self._kept = kept
        self._count = 0

    def __call__(
        self,
        choice: str,
        rows: Sequence[int],
        pairs: Sequence[Pair],
        make: MakeModule,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        kept = self._kept[choice]
        found = [
            (pair, kept[row])
            for row, pair in zip(rows, pairs, strict=True)
            if row in kept
        ]
        self._count += 1
        modules = [make(name, rngs) for _, name in found]
        return Kept(
            self._count - 1,
            [pair for pair, _ in found],
            [name for _, name in found],
            modules,
        )
