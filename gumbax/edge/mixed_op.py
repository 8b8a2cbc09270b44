"""One output out of K branches: the weighted sum, and the single path.

A branch is a function of (params, x). Shapes: weights [K]; params, a sequence of K
pytrees, one for each branch; x and the branches' outputs, any pytrees of arrays.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax._common import checks, keys, lifetimes
from gumbax.edge import logit_gradients
from gumbax.edge.branches import (
    Branch,
    PyTree,
    as_arrays,
    checked_weights,
    operands,
    traced,
)
from gumbax.edge.logit_gradients import LogitGradient
from gumbax.edge.single_path import Edge, apply_edge


def mixed_op(
    weights: ArrayLike,
    branches: Sequence[Branch],
    params: Sequence[PyTree],
    x: PyTree,
    *,
    has_state: bool = False,
) -> PyTree:
    """Weighted sum of all branches, sum_i weights[i] * branches[i](params[i], x).

    Every branch is evaluated and differentiated. With weights softmax(logits) it is the
    mixed operation of DARTS. With a row of weights for each example, one-hot or not, it
    is a choice for each example, at the same cost.

    A call compiles anew for other functions than before (a lambda, a partial or a
    function that is defined in a loop is another one each time), and for other shapes,
    dtypes or structures. What was compiled for functions is released with them, for
    methods and callable objects with their objects.

    The sum accumulates at least in float32, and so does the gradient of the weights.
    That of x is added up over the branches in the type of x, as JAX does for an input
    that is used several times: for float32 sums, let the branches narrow a wide x.

    The backward pass keeps the insides of all branches. Where they are large, put the
    call into `jax.checkpoint`: its operands alone are kept, and the branches run again.

    Args:
        weights: [K], any real weights; or [N, K] for outputs with N examples on their
            first axis.
        branches: K functions of (params, x) whose outputs have one structure, shape
            and real floating dtype. They must not close over traced values.
        params: K pytrees, the parameters of each branch.
        x: the input, any pytree.
        has_state: the branches carry state: each element of `params` is a pair
            (params, state) and each branch returns (output, new state). Static.

    Returns:
        Pytree with the structure, shapes and dtypes of one branch's output. With
        `has_state`, a pair of it and the K new states, not weighted.

    Raises:
        TypeError: `weights` or an output is not floating, or a branch closes over a
            traced value.
        ValueError: the numbers of weights, branches and params differ, the outputs of
            two branches do, or the state of one before and after.

    Example:
        >>> double, square = (lambda p, x: 2 * x), (lambda p, x: x**2)
        >>> mixed_op(jnp.array([0.5, 0.5]), [double, square], [None, None], 3.0).item()
        7.5

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Eq. 2. https://arxiv.org/abs/1806.09055
    """
    branches, params, has_state = operands("mixed_op", branches, params, x, has_state)
    weights = checked_weights(
        "mixed_op", "weights", weights, len(branches), per_example=True
    )
    make = functools.partial(_mixed_op_of, has_state)
    run = _compiled.once(branches, ("mixed_op", has_state), make)
    return run(weights, params, x)


def single_path(
    one_hot: ArrayLike,
    branches: Sequence[Branch],
    params: Sequence[PyTree],
    x: PyTree,
    *,
    logit_gradient: LogitGradient = logit_gradients.exact,
    key: jax.Array | None = None,
    has_state: bool = False,
) -> PyTree:
    """Output of the one branch that `one_hot` selects.

    The forward pass evaluates the chosen branch alone, the backward pass differentiates
    it alone: the gradients of its parameters and of x are those of
    `mixed_op(one_hot, ...)`, at the memory of one path. The gradient of `one_hot` has
    the credit c_i = <cotangent, branches[i](params[i], x)> of each branch; which of
    them are computed, `logit_gradient` says:

    - `gumbax.exact`: all, forward only. With `one_hot` from
      `gumbel_softmax(..., hard=True)` the exact straight-through gradient.
    - `gumbax.sampled`: the chosen one, at no cost. 0 for the others.
    - `gumbax.subset(m)`: the chosen one and an unbiased sample of m others.
    - `gumbax.gdas`: as published, sum(cotangent) for the others.
    - a `gumbax.logit_gradients.LogitGradient` of your own.

    Second derivatives are those of the same estimator in the dense `stop_gradient`
    form; they evaluate and differentiate all branches. A forward-mode derivative of
    the operation itself is not there. Under `jax.vmap` over `one_hot` all branches run
    (the conditional becomes a select): use `jax.lax.map`.

    A call compiles anew for other functions than before (a lambda, a partial or a
    function that is defined in a loop is another one each time), for another
    `logit_gradient`, and for other shapes, dtypes or structures. What was compiled for
    functions is released with them, for methods and callable objects with their
    objects. `jax.debug_key_reuse` does not see what branches do with keys in `params`
    and `x`.

    On CPU the gradients of stock convolutions are slow inside the conditional: use
    `gumbax.convolution.conv_general_dilated` in the branches. On a GPU the host waits
    for the index and launches the branch, some 0.3 ms forward and backward (an H100):
    where all branches together take less, `mixed_op` is faster.

    Args:
        one_hot: [K], exactly one-hot; zeros give a zero output, NaN a NaN output.
        branches: K functions of (params, x) whose outputs have one structure, shape
            and real floating dtype. They must not close over traced values.
        params: K pytrees, the parameters of each branch.
        x: the input, any pytree.
        logit_gradient: which credits are computed.
        key: scalar key for a logit gradient that draws, which consumes it.
        has_state: the branches carry state: each element of `params` is a pair
            (params, state) and each branch returns (output, new state). Static.

    Returns:
        Pytree with the structure, shapes and dtypes of one branch's output. With
        `has_state`, a pair of it and the K states: the new one of the chosen branch,
        the others as they were; zeros choose none. A loss may read them: `one_hot` and
        the chosen branch then have the gradients of old + one_hot[i] * (new - old).

    Raises:
        TypeError: `one_hot` or an output is not floating, a branch closes over a
            traced value, `logit_gradient` is not a record, or it needs a key.
        ValueError: the numbers of weights, branches and params differ, the outputs of
            two branches do, or the state of one before and after; or `logit_gradient`
            draws more branches than there are.

    Example:
        >>> double, square = (lambda p, x: 2 * x), (lambda p, x: x**2)
        >>> choice = jnp.array([0.0, 1.0])
        >>> op = lambda w: single_path(w, [double, square], [None, None], 3.0)
        >>> op(choice).item(), jax.grad(op)(choice).tolist()
        (9.0, [6.0, 9.0])

    References:
        Cai, Zhu, Han, 2019 (ProxylessNAS), Sec. 3.2. https://arxiv.org/abs/1812.00332
        Dong, Yang, 2019 (GDAS). https://arxiv.org/abs/1910.04465
        Jang, Gu, Poole, 2017, Sec. 2.2. https://arxiv.org/abs/1611.01144
    """
    name = "single_path"
    branches, params, has_state = operands(name, branches, params, x, has_state)
    weights = checked_weights(
        name, "one_hot", one_hot, len(branches), per_example=False
    )
    logit_gradients.check_record(name, logit_gradient)
    logit_gradient.check(len(branches))
    needs_key = logit_gradient.needs_key
    key = checks.scalar_key(name, key) if needs_key else None
    make = functools.partial(_single_path_of, has_state)
    run = _compiled.once(branches, ("single_path", has_state), make)
    return run(weights, params, x, logit_gradient, key)


# Jitted for the branches: edges that share them share one trace, which dies with them.
_compiled = lifetimes.Memory()


def _mixed_op_of(has_state, branches):
    @jax.jit
    def _mixed_op_jit(weights, params, x):
        kept = traced("mixed_op", branches, weights, params, x, has_state=has_state)
        total, states = None, []
        for i, branch in enumerate(kept):
            y = as_arrays(branch(params[i], x))
            if has_state:
                y, state = y
                states.append(state)
            term = jax.tree.map(functools.partial(_weigh, weights[..., i]), y)
            total = term if total is None else jax.tree.map(jnp.add, total, term)
        total = jax.tree.map(lambda t, y: t.astype(y.dtype), total, y)
        return (total, tuple(states)) if has_state else total

    return _mixed_op_jit


def _weigh(weight: jax.Array, y: jax.Array) -> jax.Array:
    # At least in float32, for the sum of the branches, and for that over y that is the
    # gradient of the weight.
    dtype = jnp.promote_types(y.dtype, jnp.float32)
    weight = weight.reshape(weight.shape + (1,) * (y.ndim - weight.ndim))
    return weight.astype(dtype) * y.astype(dtype)


def _single_path_of(has_state, branches):
    @jax.jit
    def _single_path_jit(weights, params, x, logit_gradient, key):
        kept = traced("single_path", branches, weights, params, x, has_state=has_state)
        edge = Edge(kept, has_state)
        smooth, rest = edge.split(params, x)
        # Consumed here, though the backward pass alone draws.
        hidden = keys.hidden(key, consume=True)
        output = apply_edge(edge, weights, smooth, rest, logit_gradient, hidden)
        return output if has_state else output[0]

    return _single_path_jit
