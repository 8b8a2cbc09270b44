"""Edges of a cell that share one compiled body."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import checks
from gumbax.edge.branches import as_arrays

PyTree = Any


def scan_edges(
    edge: Callable[[PyTree, jax.Array], Any],
    per_edge: PyTree,
    nodes: jax.Array,
    edges: Sequence[tuple[int, int]],
    *,
    inputs: jax.Array | None = None,
    has_aux: bool = False,
) -> Any:
    """Adds the output of each edge to its target node, edge after edge.

    The edges are the steps of one `jax.lax.scan`: whatever their number, one of them is
    compiled. Unrolled, a search network takes minutes to compile.

    Args:
        edge: (own, x) -> y, the same function for all edges, y with the shape and dtype
            of a node. `own` is one slice of `per_edge`: for example `(weights, params)`
            for `single_path(weights, branches, params, x)`.
        per_edge: pytree of arrays with E edges on their first axis.
        nodes: [num_nodes, ...], the inputs of the cell, and zeros for the other nodes.
        edges: E pairs (source, target), in the order in which they run: all edges into
            a node come before the edges that leave it.
        inputs: where the sources are, if not among the nodes: [num_inputs, ...], of any
            shape (the edges of a reduction cell that halve the image).
        has_aux: `edge` returns a pair (y, aux). Static.

    Returns:
        The nodes, [num_nodes, ...]. With `has_aux`, a pair of them and the aux values
        of the edges, stacked on their first axis.

    Raises:
        ValueError: an edge is out of range or comes too early, `per_edge` has another
            number of edges, or an output is not like a node.

    Example:
        >>> nodes = jnp.zeros((3, 2)).at[0].set(1.0)
        >>> scales = jnp.array([2.0, 3.0, 5.0])
        >>> edges = [(0, 1), (0, 2), (1, 2)]
        >>> scan_edges(lambda scale, x: scale * x, scales, nodes, edges)[2].tolist()
        [13.0, 13.0]

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Eq. 1. https://arxiv.org/abs/1806.09055
    """
    name = "scan_edges"
    must = "be a function of (own, x)"
    checks.function(name, "edge", edge, must, "It makes the output of one edge.")
    has_aux = checks.flag(name, "has_aux", has_aux)
    nodes = _stacked("nodes", nodes)
    apart = inputs is not None
    outside = nodes if inputs is None else _stacked("inputs", inputs)
    num_sources = outside.shape[0]
    edges = checks.sequence(
        name, "edges", edges, "be a sequence of pairs (source, target)", "List them."
    )
    checks.tree(name, "per_edge", per_edge)
    _check_edges(edges, num_sources, nodes.shape[0], apart=apart)
    for leaf in jax.tree.leaves(per_edge):
        if jnp.shape(leaf)[:1] != (len(edges),):
            raise ValueError(
                checks.message(
                    "scan_edges",
                    "per_edge",
                    f"hold arrays with {len(edges)} edges on their first axis",
                    f"shape {jnp.shape(leaf)}",
                    "Stack what belongs to each edge, in the order of `edges`.",
                )
            )
    if not edges:
        return (nodes, per_edge) if has_aux else nodes
    sources, targets = np.asarray(edges, np.int32).T

    def step(nodes: jax.Array, item: Any) -> tuple[jax.Array, Any]:
        source, target, own = item
        output = edge(own, (outside if apart else nodes)[source])
        y, aux = output if has_aux else (output, None)
        y = as_arrays(y)
        if (y.shape, y.dtype) != (nodes.shape[1:], nodes.dtype):
            raise ValueError(
                checks.message(
                    "scan_edges",
                    "edge",
                    f"return {nodes.dtype.name}{nodes.shape[1:]}, as a node is",
                    f"{y.dtype.name}{y.shape}",
                    "Give the nodes the shape and dtype of the outputs.",
                )
            )
        return nodes.at[target].add(y), aux

    nodes, aux = jax.lax.scan(step, nodes, (sources, targets, per_edge))
    return (nodes, aux) if has_aux else nodes


def _stacked(argument: str, value: Any) -> jax.Array:
    """Returns an array whose first axis is that of the nodes."""
    must, cure = "be an array [number, ...]", "Stack them on the first axis."
    found = checks.array("scan_edges", argument, value, must, cure)
    numeric = jnp.issubdtype(found.dtype, jnp.number)
    if not numeric or not found.ndim:
        error = ValueError if numeric else TypeError
        got = checks.shown(found)
        raise error(checks.message("scan_edges", argument, must, got, cure))
    return found


def _check_edges(
    edges: Sequence[tuple[int, int]], num_sources: int, num_nodes: int, *, apart: bool
) -> None:
    left: set[int] = set()
    for pair in edges:
        if not (isinstance(pair, Sequence | np.ndarray) and len(pair) == 2):
            must, got = "be pairs (source, target)", checks.shown(pair)
            cure = "An edge leads from one node to another."
            raise ValueError(checks.message("scan_edges", "edges", must, got, cure))
        source, target = pair
        if not (0 <= source < num_sources and 0 <= target < num_nodes):
            condition = (
                f"be pairs of a source below {num_sources} and a target below "
                f"{num_nodes}"
            )
        elif not apart and (target in left or source == target):
            condition = "have all edges into a node before those that leave it"
        else:
            left.add(source)
            continue
        raise ValueError(
            checks.message(
                "scan_edges", "edges", condition, (source, target), "Sort by target."
            )
        )
