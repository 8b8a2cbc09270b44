"""Branches of a mixed operation: their checks, and their arrays that have gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.typing import ArrayLike

from gumbax._common import checks, meshes, versions

PyTree = Any
# (params, x) -> output; with state: ((params, state), x) -> (output, new state).
Branch = Callable[[PyTree, PyTree], PyTree]

_PER_EXAMPLE = (
    "One draw serves a whole batch. For a draw for each example give `mixed_op` "
    "weights [examples, branches], which evaluates all branches, or use `jax.lax.map`."
)


def operands(
    function: str, branches: Any, params: Any, x: PyTree, has_state: Any
) -> tuple[tuple[Branch, ...], tuple[PyTree, ...], bool]:
    """Branches, as many params, and the flag, of the kinds that they must be."""
    found = checks.some_branches(function, branches)
    must = f"be a sequence of {len(found)} pytrees, one for each branch"
    cure = "Use None for a branch without parameters."
    own = checks.sequence(function, "params", params, must, cure)
    if len(own) != len(found):
        raise ValueError(checks.message(function, "params", must, len(own), cure))
    checks.tree(function, "params", own)
    checks.tree(function, "x", x)
    return found, own, checks.flag(function, "has_state", has_state)


def checked_weights(
    function: str,
    argument: str,
    weights: ArrayLike,
    num_branches: int,
    *,
    per_example: bool,
) -> jax.Array:
    """Weights as an array [K], or [examples, K] where that is allowed."""
    must = "be a real floating array with one weight for each branch"
    cure = "An index becomes weights with `jax.nn.one_hot`."
    given = checks.array(function, argument, weights, must, cure)
    if not jnp.issubdtype(given.dtype, jnp.floating):
        got = checks.shown(given)
        raise TypeError(checks.message(function, argument, must, got, cure))
    ranks = (1, 2) if per_example else (1,)
    if given.ndim not in ranks or given.shape[-1] != num_branches:
        also = f" or (examples, {num_branches})" if per_example else ""
        raise ValueError(
            checks.message(
                function,
                argument,
                f"have shape ({num_branches},){also}, one weight for each branch",
                f"shape {given.shape}",
                "Give as many weights as branches."
                if given.ndim in ranks or per_example
                else _PER_EXAMPLE,
            )
        )
    return given


def name(branches: Sequence[Branch], index: int) -> str:
    """Name of a branch in messages."""
    branch = branches[index]
    return f"{index} ({getattr(branch, '__name__', type(branch).__name__)})"


class Traced:
    """A branch as it was traced: its arrays, without the function that it came from.

    Attributes:
        runs: axes of `jax.shard_map` on which each leaf of (params, x) may differ ->
            the program for these.
        structure: of the output.
    """

    def __init__(self, output: PyTree):
        self.runs: dict[tuple[frozenset[str], ...], Callable[..., Any]] = {}
        self.structure = jax.tree.structure(output)

    def add(self, operands: PyTree, jaxpr: ClosedJaxpr) -> None:
        """The program for operands of these types."""
        self.runs[self._place(operands)] = jaxpr_as_fun(jaxpr)

    def _place(self, operands: PyTree) -> tuple[frozenset[str], ...]:
        return tuple(map(meshes.varying, jax.tree.leaves(operands)))

    def __call__(self, params: PyTree, x: PyTree) -> PyTree:
        run = self.runs[self._place((params, x))]
        found = run(*jax.tree.leaves((params, x)))
        return jax.tree.unflatten(self.structure, found)


def traced(
    function: str,
    branches: tuple[Branch, ...],
    weights: jax.Array,
    params: tuple[PyTree, ...],
    x: PyTree,
    *,
    has_state: bool,
) -> tuple[Traced, ...]:
    """Traces branches; refuses those that disagree, or that would lose a gradient.

    Under `jax.shard_map` also with all real operands as values that may differ wherever
    one of them, or an output, does: as a backward pass has them.
    """
    num_examples = weights.shape[0] if weights.ndim == 2 else None
    if has_state:
        _check_pairs(function, branches, params)
    axes = meshes.varying((weights, params, x))
    first, found = None, []
    for i, (branch, own) in enumerate(zip(branches, params, strict=True)):
        jaxpr, output = jax.make_jaxpr(branch, return_shape=True)(own, x)
        one = Traced(output)
        one.add((own, x), jaxpr)
        found.append(one)
        axes |= frozenset().union(*map(versions.varying_axes, jaxpr.out_avals))
        if any(isinstance(value, jax.core.Tracer) for value in jaxpr.consts):
            raise TypeError(
                checks.message(
                    function,
                    "branches",
                    "be functions of (params, x) alone",
                    f"branch {name(branches, i)}, which closes over a traced value",
                    "Pass that value in `params` or `x`: its gradient would be lost.",
                )
            )
        if has_state:
            output = _without_state(function, name(branches, i), own, output)
        described = _describe(output)
        _check_output(function, name(branches, i), output, described, num_examples)
        if first is None:
            first = output
        elif _signature(output) != _signature(first):
            raise ValueError(
                checks.message(
                    function,
                    "branches",
                    "agree in the structure, shape and dtype of their outputs",
                    f"{_describe(first)} from branch {name(branches, 0)} and "
                    f"{described} from branch {name(branches, i)}",
                    "Give every branch the same number of channels, stride and dtype.",
                )
            )
    if axes:
        smooth, rest = partition((params, x))
        params, x = merge(meshes.vary(smooth, axes), rest)
        for branch, own, one in zip(branches, params, found, strict=True):
            one.add((own, x), jax.make_jaxpr(branch)(own, x))
    return tuple(found)


def _check_pairs(
    function: str, branches: tuple[Branch, ...], params: tuple[PyTree, ...]
) -> None:
    for i, own in enumerate(params):
        if not (isinstance(own, tuple) and len(own) == 2):
            raise ValueError(
                checks.message(
                    function,
                    "params",
                    "hold a pair (params, state) for each branch, with `has_state`",
                    f"{checks.shown(own)} for branch {name(branches, i)}",
                    "Use (params, None) for a branch without state.",
                )
            )


def _without_state(function: str, branch: str, own: PyTree, output: PyTree) -> PyTree:
    if not (isinstance(output, tuple) and len(output) == 2):
        raise ValueError(
            checks.message(
                function,
                "branches",
                "return a pair (output, new state), with `has_state`",
                f"{_describe(output)} from branch {branch}",
                "Return (output, state) with the state unchanged if it has none.",
            )
        )
    output, state = output
    if _signature(own[1]) != _signature(state):
        raise ValueError(
            checks.message(
                function,
                "branches",
                "keep the structure, shape and dtype of their state",
                f"{_describe(own[1])} before and {_describe(state)} after branch "
                f"{branch}",
                "Cast the new state to the dtypes of the old one.",
            )
        )
    return output


def _check_output(
    function: str,
    branch: str,
    output: PyTree,
    described: str,
    num_examples: int | None,
) -> None:
    leaves = list(map(_typed, jax.tree.leaves(output)))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise TypeError(
            checks.message(
                function,
                "branches",
                "return real floating arrays",
                f"{described} from branch {branch}",
                "Cast the output.",
            )
        )
    if num_examples is not None and not all(
        leaf.shape[:1] == (num_examples,) for leaf in leaves
    ):
        raise ValueError(
            checks.message(
                function,
                "branches",
                f"return arrays with {num_examples} examples on their first axis, as "
                "`weights` has",
                f"{described} from branch {branch}",
                "Give one row of weights for each example.",
            )
        )


def _signature(tree: PyTree) -> tuple[Any, list[tuple[Any, tuple[int, ...]]]]:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [(leaf.dtype, leaf.shape) for leaf in map(_typed, leaves)]


def _typed(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else jax.typeof(leaf)


def _describe(output: PyTree) -> str:
    def one(leaf) -> str:
        leaf = _typed(leaf)
        return f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]"

    described = jax.tree.map(one, output)
    return described if isinstance(described, str) else str(described)


def as_arrays(tree: PyTree) -> PyTree:
    """The same, with arrays in place of Python numbers."""

    def one(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return leaf
        return jnp.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(one, tree)


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into its real leaves and the others, None in place of a leaf."""

    def smooth(leaf: jax.Array) -> bool:
        return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)

    return (
        jax.tree.map(lambda leaf: leaf if smooth(leaf) else None, tree),
        jax.tree.map(lambda leaf: None if smooth(leaf) else leaf, tree),
    )


def merge(smooth: PyTree, rest: PyTree) -> PyTree:
    """Undoes `partition`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, smooth, rest, is_leaf=lambda v: v is None
    )
