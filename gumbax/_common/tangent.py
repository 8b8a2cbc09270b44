"""A value whose derivatives are those of another function.

`jax.custom_jvp` says as much, but in JAX before 0.12 `jax.lax.scan` forgets its rule
when a derivative is differentiated again: the forward rule of a hard sample would have
the derivative 0 there, silently. A primitive is never taken apart.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

PyTree = Any

_with_tangent = Primitive("with_tangent_of")
_with_tangent.multiple_results = True


def with_tangent_of(
    function: Callable[..., PyTree], value: PyTree, *operands: PyTree
) -> PyTree:
    """`value`, with the derivatives of `function(*operands)`, which is like it.

    The function, which must not close over traced values, is called for derivatives
    only. The value's own derivatives are lost: compute it from `still` operands.
    """
    values, structure = jax.tree.flatten(value)
    leaves, treedef = jax.tree.flatten(operands)

    def flat(*leaves: jax.Array) -> list[jax.Array]:
        found = jax.tree.leaves(function(*jax.tree.unflatten(treedef, leaves)))
        return [y.astype(v) for y, v in zip(found, dtypes, strict=True)]

    dtypes = [v.dtype for v in values]
    attached = _with_tangent.bind(
        *values, *leaves, function=flat, num_values=len(values)
    )
    return jax.tree.unflatten(structure, attached)


def still(tree: PyTree) -> PyTree:
    """The same values, as constants of every derivative."""

    def stop(leaf: Any) -> Any:
        inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jax.lax.stop_gradient(leaf) if inexact else leaf

    return jax.tree.map(stop, tree)


@_with_tangent.def_impl
def _impl(*args, num_values, function):
    del function
    return list(args[:num_values])


@_with_tangent.def_abstract_eval
def _abstract_eval(*avals, num_values, function):
    del function
    return list(avals[:num_values])


mlir.register_lowering(
    _with_tangent, lambda ctx, *args, num_values, function: list(args[:num_values])
)


def _jvp(primals, tangents, *, num_values, function):
    values, operands = primals[:num_values], primals[num_values:]
    dots = tangents[num_values:]
    moving = [
        i
        for i, dot in enumerate(dots)
        if type(dot) is not ad.Zero and dot.dtype != jax.dtypes.float0
    ]

    def of_moving(*given):
        every = list(operands)
        for i, operand in zip(moving, given, strict=True):
            every[i] = operand
        return function(*every)

    attached = _with_tangent.bind(*primals, num_values=num_values, function=function)
    if not moving:
        return attached, [jnp.zeros_like(v) for v in values]
    _, tangent = jax.jvp(
        of_moving, [operands[i] for i in moving], [dots[i] for i in moving]
    )
    return attached, tangent


ad.primitive_jvps[_with_tangent] = _jvp


def _batch(args, dims, *, num_values, function):
    (size,) = {a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None}

    def first(a, d):
        if d is None:
            return jnp.broadcast_to(a, (size, *a.shape))
        return jnp.moveaxis(a, d, 0)

    pairs = list(zip(args, dims, strict=True))
    values = [first(*pair) for pair in pairs[:num_values]]
    axes = tuple(dims[num_values:])
    if all(d is None for d in axes):

        def mapped(*operands):
            return [first(y, None) for y in function(*operands)]

    else:
        mapped = jax.vmap(function, axes)
    attached = _with_tangent.bind(
        *values, *args[num_values:], num_values=num_values, function=mapped
    )
    return attached, [0] * num_values


batching.primitive_batchers[_with_tangent] = _batch
