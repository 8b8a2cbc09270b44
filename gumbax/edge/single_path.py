"""The rules of the single path.

With credits c(g, smooth) that are linear in the cotangent g, everything comes from one
scalar, S = sum_i weights[i] c_i: the output is dS/dg, the cotangent of the weights is
c = dS/dweights, that of the rest dS/dsmooth. Each rule computes its part sparsely, with
the chosen branch, and gives it the derivatives of the same part of S, in which all
branches run: these are the second derivatives of the operation.

Smooth are the parameters, states and inputs with gradients; rest are the others, typed
keys by their words: to run a branch again is no second use of them.

Branch i leaves state i new and the other states as they were, so that S has a part for
the states h with cotangents g: sum_i <g_i, h_i> + weights[i] <g_i, new h_i - h_i>.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import keys, meshes
from gumbax._common.meshes import Kind, Layout
from gumbax._common.tangent import still, with_tangent_of
from gumbax.edge.branches import Branch, PyTree, as_arrays, merge, partition
from gumbax.edge.logit_gradients import LogitGradient, Path


@dataclasses.dataclass(frozen=True)
class Edge:
    """The static part: the branches, and whether they carry state."""

    branches: tuple[Branch, ...]
    has_state: bool

    def split(self, params: tuple[PyTree, ...], x: PyTree) -> tuple[PyTree, PyTree]:
        """Parts (params, states, x) with and without gradient."""
        states: tuple[PyTree, ...] = (None,) * len(params)
        if self.has_state:
            params, states = tuple(zip(*params, strict=True))
        return partition(keys.hidden((params, states, x)))

    def run(self, i: int, smooth: PyTree, rest: PyTree) -> tuple[PyTree, PyTree]:
        """Output and new state of branch i."""
        own = keys.shown(merge(smooth[0][i], rest[0][i]))
        x = keys.shown(merge(smooth[2], rest[2]))
        if self.has_state:
            state = keys.shown(merge(smooth[1][i], rest[1][i]))
            y, state = self.branches[i]((own, state), x)
            return as_arrays(y), keys.hidden(as_arrays(state))
        return as_arrays(self.branches[i](own, x)), None

    def credit(self, i: int, smooth: PyTree, rest: PyTree, g: PyTree) -> jax.Array:
        """The derivative of S by weight i."""
        y, state = self.run(i, smooth, rest)
        after, _ = partition(state)
        return _credit(g, i, smooth[1], jax.tree.leaves(y), jax.tree.leaves(after))

    def all_credits(self, smooth: PyTree, rest: PyTree, g: PyTree) -> jax.Array:
        """Forward only, outside any switch, each output dropped at once."""
        count = len(self.branches)
        credits = [self.credit(i, smooth, rest, g) for i in range(count)]
        # Not stacked: JAX 0.8 and before cannot transpose the transpose of that under
        # `shard_map` where a credit has no cotangent.
        return _sum(
            [
                jnp.where(np.arange(count) == i, credit, jnp.zeros_like(credit))
                for i, credit in enumerate(credits)
            ]
        )


# A cotangent g is a list for the leaves of y and, for each branch, one for the smooth
# leaves of its state. None is a leaf without cotangent, which is no array of zeros: the
# gradient of a value that is only looked at may be infinite.


def _present(g: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """The leaves that have a cotangent, laid out on devices as it is."""
    pairs = zip(g, leaves, strict=True)
    return [Layout.of(jax.typeof(a)).place(b) for a, b in pairs if a is not None]


def _credit(
    g: PyTree, i: int, states: PyTree, y: Sequence[Any], after: Sequence[Any]
) -> jax.Array:
    before = jax.tree.leaves(states[i])
    steps = [_step(*pair) for pair in zip(before, after, strict=True)]
    return _of_one_type(inner([*g[0], *g[1][i]], [*y, *steps]), g)


def _of_one_type(credit: jax.Array, g: PyTree) -> jax.Array:
    """A credit as all are: the branches of a switch must agree in their types."""
    dtypes = [a.dtype for a in jax.tree.leaves(g)]
    dtype = functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))
    return meshes.vary(credit.astype(dtype), meshes.varying(g))


def _filled(values: PyTree, g: Sequence[jax.Array | None]) -> PyTree:
    """The cotangent as a tree of arrays, zeros where there is none."""
    leaves, treedef = jax.tree.flatten(values)
    pairs = zip(leaves, g, strict=True)
    full = [jnp.zeros_like(v) if a is None else a for v, a in pairs]
    return jax.tree.unflatten(treedef, full)


def _step(before: jax.Array, after: jax.Array) -> jax.Array:
    # A running maximum starts at -inf.
    step = after - before
    return jnp.where(jnp.isfinite(step), step, jnp.zeros_like(step))


def inner(g: Sequence[jax.Array | None], leaves: Sequence[jax.Array]) -> jax.Array:
    """<g, y> over all elements, at least in float32."""
    pairs = zip(g, leaves, strict=True)
    return _sum([jnp.sum(_wide(a) * _wide(b)) for a, b in pairs if a is not None])


def _sum(parts: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts) if parts else jnp.zeros(())


def _wide(a: jax.Array) -> jax.Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _total(g: Sequence[jax.Array | None]) -> jax.Array:
    return _sum([jnp.sum(_wide(a)) for a in g if a is not None])


def _scale(weight: jax.Array, y: jax.Array) -> jax.Array:
    # Zeros for weight 0, whatever y holds. A weight of 1 leaves y as it is.
    return jnp.where(weight == 0, jnp.zeros_like(y), weight.astype(y.dtype) * y)


def chosen_index(weights: jax.Array) -> jax.Array:
    return jnp.argmax(weights).astype(jnp.int32)


def _dense_credits(edge: Edge, record: LogitGradient, key, smooth, rest, index, g):
    """The same credits, as a function that can be differentiated: all branches run."""
    credits = edge.all_credits(smooth, rest, g)
    path = Path(
        index=index,
        chosen=credits[index],
        credit_of=lambda i: credits[i],
        all_credits=lambda: credits,
        cotangent_sum=_total(g[0]),
        num_branches=len(edge.branches),
        key=keys.shown(key),
    )
    return record.credits(path)


def _dense(edge: Edge, weights, smooth, rest, record, key, g):
    """S; `weights` have derivatives, the choice that they make has none."""
    index = chosen_index(jax.lax.stop_gradient(weights))
    credits = _dense_credits(edge, record, key, smooth, rest, index, g)
    chosen = jnp.sum(weights.astype(credits.dtype) * credits)
    of_states = [a for own in g[1] for a in own]
    kept = [(of_states, jax.tree.leaves(smooth[1]))] if jax.tree.leaves(g[1]) else []
    return _sum([chosen, *(inner(*pair) for pair in kept)])


# Output and states.


def _layouts(edge, weights, smooth, rest, states):
    """How the leaves of the output, and of the states of each branch, lie on devices.

    As in all branches together, and on devices that choose for themselves.
    """
    shared = meshes.varying(weights)

    def layout(kind) -> Layout:
        own = Layout.of(kind)
        return dataclasses.replace(own, varying=own.varying | shared)

    outputs, of_states = [], []
    for i, state in enumerate(states):
        run = jax.make_jaxpr(lambda *own, i=i: edge.run(i, *own))
        new = list(map(layout, run(smooth, rest).out_avals))
        old = [layout(jax.typeof(leaf)) for leaf in jax.tree.leaves(state)]
        count = len(new) - len(old)
        outputs.append(new[:count])
        pairs = zip(old, new[count:], strict=True)
        of_states.append([Layout.common(pair) for pair in pairs])
    leaves = zip(*outputs, strict=True)
    return [Layout.common(leaf) for leaf in leaves], of_states


def _placed(tree: PyTree, layouts: Sequence[Layout]) -> PyTree:
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(layouts, leaves, strict=True)
    return jax.tree.unflatten(treedef, [layout.place(leaf) for layout, leaf in pairs])


def _chosen(edge, weights, smooth, rest):
    index = chosen_index(weights)
    before = merge(smooth[1], rest[1])
    divided = meshes.is_divided((weights, smooth, rest))
    if divided:
        outputs, states = _layouts(edge, weights, smooth, rest, before)
        before = tuple(map(_placed, before, states))

    def branch(i, weight, smooth, rest):
        y, new = edge.run(i, smooth, rest)
        if divided:
            y, new = _placed(y, outputs), _placed(new, states[i])
        # A weight of 0 chooses no branch: all are masked.
        keep_old = functools.partial(jnp.where, weight == 0)
        after = list(before)
        after[i] = jax.tree.map(keep_old, before[i], new)
        # In the branch, where it costs no pass of its own over the output.
        scaled = jax.tree.map(functools.partial(_scale, weight), y)
        return scaled, tuple(after)

    runs = [functools.partial(branch, i) for i in range(len(edge.branches))]
    return jax.lax.switch(index, runs, weights[index], smooth, rest)


def _dense_output(edge, origin, weights, smooth, rest, record, key):
    def scalar(g, smooth):
        return _dense(edge, weights, smooth, rest, record, key, g)

    # Linear in g: the derivative is the same anywhere. That of `smooth`, not used,
    # takes the custom_vjp of a branch, which has no forward mode, in reverse.
    return jax.grad(scalar, (0, 1))(origin, smooth)[0]


def _value(edge, weights, smooth, rest, record, key):
    y, states = _chosen(edge, still(weights), still(smooth), rest)
    moving, others = partition(states)
    flat = jax.tree.leaves(y), [jax.tree.leaves(own) for own in moving]
    origin = jax.tree.map(jnp.zeros_like, still(flat))
    operands = (origin, weights, smooth, rest, record, key)
    dense = functools.partial(_dense_output, edge)
    y, moving = with_tangent_of(dense, (y, moving), *operands)
    return y, moving, others


# Cotangents of the weights and of what is smooth.


def _cotangents(edge, weights, smooth, rest, record, key, g):
    index = chosen_index(weights)
    num_branches = len(edge.branches)
    # Under `shard_map`, so that no sum over devices is inside the switch.
    shared, smooth = (
        smooth,
        meshes.vary(smooth, meshes.varying((weights, g))),
    )

    def pull_back(i, smooth, rest, g):
        params, states, x = smooth

        def run(own, state, x):
            every = list(params), list(states), x
            every[0][i], every[1][i] = own, state
            y, after = edge.run(i, every, rest)
            after, _ = partition(after)
            y, after = jax.tree.leaves(y), jax.tree.leaves(after)
            return _present(g[0], y), _present(g[1][i], after)

        (y, after), vjp = jax.vjp(run, params[i], states[i], x)
        # A weight of 0 leaves the state as it was.
        moves = functools.partial(jnp.where, weights[index] != 0)
        kept = list(g[1])
        kept[i] = [a if a is None else moves(jnp.zeros_like(a), a) for a in g[1][i]]
        of_y, of_state = (_present(own, own) for own in (g[0], g[1][i]))
        scaled = [_scale(weights[index], a) for a in of_y]
        moved = [moves(a, jnp.zeros_like(a)) for a in of_state]
        own_bar, state_bar, x_bar = vjp((scaled, moved))
        params_bar = list(jax.tree.map(jnp.zeros_like, params))
        params_bar[i] = own_bar
        states_bar = [_filled(*pair) for pair in zip(states, kept, strict=True)]
        states_bar[i] = jax.tree.map(jnp.add, states_bar[i], state_bar)
        before = _present(g[1][i], jax.tree.leaves(states[i]))
        credit = inner([*of_y, *of_state], [*y, *map(_step, before, after)])
        credit = _of_one_type(credit, g)
        return (tuple(params_bar), tuple(states_bar), x_bar), credit

    runs = [functools.partial(pull_back, i) for i in range(num_branches)]
    smooth_bar, chosen = jax.lax.switch(index, runs, smooth, rest, g)
    credits = [functools.partial(edge.credit, i) for i in range(num_branches)]
    path = Path(
        index=index,
        chosen=chosen,
        credit_of=lambda i: jax.lax.switch(i, credits, smooth, rest, g),
        all_credits=lambda: edge.all_credits(smooth, rest, g),
        cotangent_sum=_total(g[0]),
        num_branches=num_branches,
        key=keys.shown(key),
    )
    weights_bar = record.credits(path).astype(weights.dtype)
    return jax.tree.map(
        lambda primal, cotangent: Kind.of(primal).cast(cotangent),
        (weights, shared),
        (weights_bar, smooth_bar),
    )


def _dense_cotangents(edge, weights, smooth, rest, record, key, g):
    def scalar(weights, smooth):
        return _dense(edge, weights, smooth, rest, record, key, g)

    return jax.grad(scalar, (0, 1))(weights, smooth)


def _gradient(edge, weights, smooth, rest, record, key, g):
    fixed = still((weights, smooth, g))
    value = _cotangents(edge, fixed[0], fixed[1], rest, record, key, fixed[2])
    operands = (weights, smooth, rest, record, key, g)
    return with_tangent_of(functools.partial(_dense_cotangents, edge), value, *operands)


# The operation.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _single_path(edge, weights, smooth, rest, record, key):
    return _value(edge, weights, smooth, rest, record, key)


def _fwd(edge, *given):
    operands = jax.custom_derivatives.custom_vjp_primal_tree_values(given)
    return _value(edge, *operands), operands


def _bwd(edge, operands, cotangents):
    weights, smooth, rest, record, key = operands
    g = _leaves(cotangents[0]), [_leaves(own) for own in cotangents[1]]
    weights_bar, smooth_bar = _gradient(edge, weights, smooth, rest, record, key, g)
    return weights_bar, smooth_bar, None, None, None


def _leaves(cotangents: PyTree) -> list[jax.Array | None]:
    absent = jax.custom_derivatives.SymbolicZero
    leaves = jax.tree.leaves(cotangents)
    return [None if isinstance(a, absent) else a for a in leaves]


_single_path.defvjp(_fwd, _bwd, symbolic_zeros=True)


def apply_edge(edge, weights, smooth, rest, record, key):
    """(output, new states) of the branch that the weights choose."""
    y, moving, others = _single_path(edge, weights, smooth, rest, record, key)
    return y, keys.shown(merge(moving, others))
