"""One output out of K branches: the weighted sum, and the single path.

A branch is a function of (params, x). Shapes: weights [K]; params, a sequence of K
pytrees, one for each branch; x and the branches' outputs, any pytrees of arrays.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax import _checks

PyTree = Any
Branch = Callable[[PyTree, PyTree], PyTree]


def mixed_op(
    weights: ArrayLike, branches: Sequence[Branch], params: Sequence[PyTree], x: PyTree
) -> PyTree:
    """Weighted sum of all branches, sum_i weights[i] * branches[i](params[i], x).

    Every branch is evaluated and differentiated. With weights softmax(logits) it is the
    mixed operation of DARTS.

    Args:
        weights: [K], any real weights.
        branches: K functions of (params, x) whose outputs have one structure, shape
            and dtype. They must not close over traced values.
        params: K pytrees, the parameters of each branch.
        x: the input, any pytree.

    Returns:
        Pytree with the structure, shapes and dtypes of one branch's output.

    Raises:
        TypeError: `weights` is not floating, or a branch closes over a traced value.
        ValueError: the numbers of weights, branches and params differ, or the outputs
            of two branches do.

    Example:
        >>> double, square = (lambda p, x: 2 * x), (lambda p, x: x**2)
        >>> mixed_op(jnp.array([0.5, 0.5]), [double, square], [None, None], 3.0).item()
        7.5

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Eq. 2. https://arxiv.org/abs/1806.09055
    """
    branches, params = tuple(branches), tuple(params)
    weights = _check_weights("mixed_op", "weights", weights, branches, params)
    return _mixed_op(branches, weights, params, x)


def single_path(
    one_hot: ArrayLike, branches: Sequence[Branch], params: Sequence[PyTree], x: PyTree
) -> PyTree:
    """Output of the one branch that `one_hot` selects, with the dense gradient.

    The value, and every gradient, are those of `mixed_op(one_hot, ...)`. The forward
    pass evaluates the chosen branch alone. The backward pass differentiates the chosen
    branch alone, and evaluates all branches for the credits
    d loss / d one_hot[i] = <cotangent, branches[i](params[i], x)>, dropping each output
    at once: the memory of one path. With `one_hot` from
    `gumbel_softmax(..., hard=True)` that is the exact straight-through gradient.

    Second derivatives are right too; they evaluate and differentiate all branches. A
    forward-mode derivative of the operation itself is not there. Under `jax.vmap` over
    `one_hot` all branches run (the conditional becomes a select): use `jax.lax.map`.

    On CPU the gradients of stock convolutions are slow inside the conditional: use
    `gumbax.convolution.conv_general_dilated` in the branches.

    Args:
        one_hot: [K], exactly one-hot; zeros give a zero output, NaN a NaN output.
        branches: K functions of (params, x) whose outputs have one structure, shape
            and dtype. They must not close over traced values.
        params: K pytrees, the parameters of each branch.
        x: the input, any pytree.

    Returns:
        Pytree with the structure, shapes and dtypes of one branch's output.

    Raises:
        TypeError: `one_hot` is not floating, or a branch closes over a traced value.
        ValueError: the numbers of weights, branches and params differ, or the outputs
            of two branches do.

    Example:
        >>> double, square = (lambda p, x: 2 * x), (lambda p, x: x**2)
        >>> choice = jnp.array([0.0, 1.0])
        >>> op = lambda w: single_path(w, [double, square], [None, None], 3.0)
        >>> op(choice).item(), jax.grad(op)(choice).tolist()
        (9.0, [6.0, 9.0])

    References:
        Cai, Zhu, Han, 2019 (ProxylessNAS), Sec. 3.2. https://arxiv.org/abs/1812.00332
        Jang, Gu, Poole, 2017, Sec. 2.2. https://arxiv.org/abs/1611.01144
    """
    branches, params = tuple(branches), tuple(params)
    weights = _check_weights("single_path", "one_hot", one_hot, branches, params)
    return _single_path_jit(branches, weights, params, x)


# Jitted with static branches: edges that share their branches share one trace.


@functools.partial(jax.jit, static_argnums=0)
def _mixed_op(branches, weights, params, x):
    _check_branches("mixed_op", branches, params, x)
    return _dense(branches, weights, params, x)


@functools.partial(jax.jit, static_argnums=0)
def _single_path_jit(branches, weights, params, x):
    _check_branches("single_path", branches, params, x)
    smooth, rest = _partition((params, x))
    return _single_path(branches, weights, smooth, rest)


# Checks


def _check_weights(
    function: str,
    argument: str,
    weights: ArrayLike,
    branches: tuple[Branch, ...],
    params: tuple[PyTree, ...],
) -> jax.Array:
    given = jnp.asarray(weights)
    if not jnp.issubdtype(given.dtype, jnp.floating):
        raise TypeError(
            _checks.message(
                function,
                argument,
                "be a real floating array with one weight for each branch",
                f"dtype {given.dtype.name}",
                "An index becomes weights with `jax.nn.one_hot`.",
            )
        )
    if not branches:
        raise ValueError(
            _checks.message(
                function, "branches", "hold at least one function", "none", "Add one."
            )
        )
    if given.shape != (len(branches),):
        raise ValueError(
            _checks.message(
                function,
                argument,
                f"have shape ({len(branches)},), one weight for each branch",
                f"shape {given.shape}",
                "For a choice per example use `mixed_op` under `jax.vmap`, which "
                "evaluates all branches, or `jax.lax.map`.",
            )
        )
    if len(params) != len(branches):
        raise ValueError(
            _checks.message(
                function,
                "params",
                f"hold {len(branches)} pytrees, one for each branch",
                len(params),
                "Use None for a branch without parameters.",
            )
        )
    return given


def branch_name(branches: Sequence[Branch], index: int) -> str:
    """Name of a branch in messages."""
    branch = branches[index]
    return f"{index} ({getattr(branch, '__name__', type(branch).__name__)})"


def _check_branches(
    function: str, branches: tuple[Branch, ...], params: tuple[PyTree, ...], x: PyTree
) -> None:
    first = None
    for i, (branch, own) in enumerate(zip(branches, params, strict=True)):
        jaxpr, output = jax.make_jaxpr(branch, return_shape=True)(own, x)
        if any(isinstance(value, jax.core.Tracer) for value in jaxpr.consts):
            raise TypeError(
                _checks.message(
                    function,
                    "branches",
                    "be functions of (params, x) alone",
                    f"branch {branch_name(branches, i)}, which closes over a traced "
                    "value",
                    "Pass that value in `params` or `x`: its gradient would be lost.",
                )
            )
        described = _describe(output)
        if first is None:
            first = described
        elif described != first:
            raise ValueError(
                _checks.message(
                    function,
                    "branches",
                    "agree in the structure, shape and dtype of their outputs",
                    f"{first} from branch {branch_name(branches, 0)} and {described} "
                    f"from branch {branch_name(branches, i)}",
                    "Give every branch the same number of channels, stride and dtype.",
                )
            )


def _describe(output: PyTree) -> str:
    def one(leaf) -> str:
        return f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]"

    if isinstance(output, jax.ShapeDtypeStruct):
        return one(output)
    return str(jax.tree.map(one, output))


# Values


def _dense(
    branches: tuple[Branch, ...],
    weights: jax.Array,
    params: tuple[PyTree, ...],
    x: PyTree,
) -> PyTree:
    total = None
    for weight, branch, own in zip(weights, branches, params, strict=True):
        term = jax.tree.map(lambda y, w=weight: w.astype(y.dtype) * y, branch(own, x))
        total = term if total is None else jax.tree.map(jnp.add, total, term)
    return total


def _chosen(
    branches: tuple[Branch, ...],
    weights: jax.Array,
    params: tuple[PyTree, ...],
    x: PyTree,
) -> PyTree:
    """The selected branch alone. A weight of 1 leaves its output as it is."""
    index = jnp.argmax(weights)
    runs = [
        lambda params, x, i=i: branches[i](params[i], x) for i in _indices(branches)
    ]
    output = jax.lax.switch(index, runs, params, x)
    return jax.tree.map(lambda y: _scale(weights[index], y), output)


def _scale(weight: jax.Array, y: jax.Array) -> jax.Array:
    # Zeros for weight 0, whatever y holds.
    return jnp.where(weight == 0, jnp.zeros_like(y), weight.astype(y.dtype) * y)


def _indices(branches: tuple[Branch, ...]) -> range:
    return range(len(branches))


def _credits(
    branches: tuple[Branch, ...],
    params: tuple[PyTree, ...],
    x: PyTree,
    cotangent: PyTree,
) -> list[jax.Array]:
    """<cotangent, output> of every branch, forward only."""
    credits = []
    for branch, own in zip(branches, params, strict=True):
        products = jax.tree.map(jnp.vdot, cotangent, branch(own, x))
        credits.append(jax.tree.reduce(jnp.add, products))
    return credits


def _partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into its real leaves and the others, None in place of a leaf."""

    def smooth(leaf: jax.Array) -> bool:
        return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)

    return (
        jax.tree.map(lambda leaf: leaf if smooth(leaf) else None, tree),
        jax.tree.map(lambda leaf: None if smooth(leaf) else leaf, tree),
    )


def _merge(smooth: PyTree, rest: PyTree) -> PyTree:
    return jax.tree.map(
        lambda a, b: b if a is None else a, smooth, rest, is_leaf=lambda v: v is None
    )


# The single path. Each rule has a twin: the sparse value with the tangent of the dense
# form. Derivatives of the rules, that is second derivatives, go through the twins.


def _dense_of(branches, rest):
    def dense(weights, smooth):
        return _dense(branches, weights, *_merge(smooth, rest))

    return dense


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(branches, weights, smooth, rest):
    return _chosen(branches, weights, *_merge(smooth, rest))


@_value.defjvp
def _value_jvp(branches, primals, tangents):
    *smooth_primals, rest = primals
    dense = _dense_of(branches, rest)
    _, tangent = jax.jvp(dense, tuple(smooth_primals), tuple(tangents[:-1]))
    return _value(branches, *primals), tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gradient(branches, weights, smooth, rest, cotangent):
    params, x = _merge(smooth, rest)
    index = jnp.argmax(weights)

    def pull_back(i, smooth, rest, cotangent):
        def run(own_smooth, x_smooth):
            own = _merge(own_smooth, rest[0][i])
            return branches[i](own, _merge(x_smooth, rest[1]))

        own, x = smooth[0][i], smooth[1]
        own_bar, x_bar = jax.vjp(run, own, x)[1](cotangent)
        params_bar = list(jax.tree.map(jnp.zeros_like, smooth[0]))
        params_bar[i] = own_bar
        return tuple(params_bar), x_bar

    scaled = jax.tree.map(lambda g: _scale(weights[index], g), cotangent)
    runs = [functools.partial(pull_back, i) for i in _indices(branches)]
    smooth_bar = jax.lax.switch(index, runs, smooth, rest, scaled)
    credits = jnp.stack(_credits(branches, params, x, cotangent))
    return credits.astype(weights.dtype), smooth_bar


@_gradient.defjvp
def _gradient_jvp(branches, primals, tangents):
    weights, smooth, rest, cotangent = primals

    def dense_gradient(weights, smooth, cotangent):
        return jax.vjp(_dense_of(branches, rest), weights, smooth)[1](cotangent)

    weights_dot, smooth_dot, _, cotangent_dot = tangents
    _, tangent = jax.jvp(
        dense_gradient,
        (weights, smooth, cotangent),
        (weights_dot, smooth_dot, cotangent_dot),
    )
    return _gradient(branches, *primals), tangent


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _single_path(branches, weights, smooth, rest):
    return _chosen(branches, weights, *_merge(smooth, rest))


def _single_path_fwd(branches, weights, smooth, rest):
    return _value(branches, weights, smooth, rest), (weights, smooth, rest)


def _single_path_bwd(branches, residuals, cotangent):
    weights, smooth, rest = residuals
    weights_bar, smooth_bar = _gradient(branches, weights, smooth, rest, cotangent)
    return weights_bar, smooth_bar, None


_single_path.defvjp(_single_path_fwd, _single_path_bwd)
