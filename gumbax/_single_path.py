"""The rules of the single path.

With credits c(g, smooth) that are linear in the cotangent g, everything comes from one
scalar, S = sum_i weights[i] c_i: the output is dS/dg, the cotangent of the weights is
c = dS/dweights, that of the rest dS/dsmooth. Each rule computes its part sparsely, with
the chosen branch, and gives it the derivatives of the same part of S, in which all
branches run: these are the second derivatives of the operation.

Smooth are the parameters and inputs with gradients; rest are the others and the states.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from gumbax import _branches, _manual_axes
from gumbax._branches import Branch, PyTree
from gumbax._tangent import still, with_tangent_of
from gumbax.logit_gradients import LogitGradient, Path


@dataclasses.dataclass(frozen=True)
class Edge:
    """The static part: the branches, and whether they carry state."""

    branches: tuple[Branch, ...]
    has_state: bool

    def split(
        self, params: tuple[PyTree, ...], x: PyTree
    ) -> tuple[PyTree, tuple[PyTree, tuple[PyTree, ...]]]:
        """Parts with and without gradient. A state has none."""
        states: tuple[PyTree, ...] = (None,) * len(params)
        if self.has_state:
            params, states = tuple(zip(*params, strict=True))
        smooth, rest = _branches.partition((params, x))
        return smooth, (rest, states)

    def run(self, i: int, smooth: PyTree, rest: PyTree) -> tuple[PyTree, PyTree]:
        """Output and new state of branch i."""
        others, states = rest
        own = _branches.merge(smooth[0][i], others[0][i])
        x = _branches.merge(smooth[1], others[1])
        if self.has_state:
            return self.branches[i]((own, states[i]), x)
        return self.branches[i](own, x), None

    def credit(self, i: int, smooth: PyTree, rest: PyTree, g: PyTree) -> jax.Array:
        return inner(g, self.run(i, smooth, rest)[0])

    def all_credits(self, smooth: PyTree, rest: PyTree, g: PyTree) -> jax.Array:
        """Forward only, outside any switch, each output dropped at once."""
        return jnp.stack(
            [self.credit(i, smooth, rest, g) for i in range(len(self.branches))]
        )


def inner(g: PyTree, y: PyTree) -> jax.Array:
    """<g, y> over all elements, at least in float32."""
    parts = jax.tree.map(lambda a, b: jnp.sum(_wide(a) * _wide(b)), g, y)
    return jax.tree.reduce(jnp.add, parts)


def _wide(a: jax.Array) -> jax.Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _total(g: PyTree) -> jax.Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda a: jnp.sum(_wide(a)), g))


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
        cotangent_sum=_total(g),
        num_branches=len(edge.branches),
        key=key,
    )
    return record.credits(path)


def _dense(edge: Edge, weights, smooth, rest, record, key, g):
    """S; `weights` have derivatives, the choice that they make has none."""
    index = chosen_index(jax.lax.stop_gradient(weights))
    credits = _dense_credits(edge, record, key, smooth, rest, index, g)
    return jnp.sum(weights.astype(credits.dtype) * credits)


# Output and states.


def _chosen(edge, weights, smooth, rest):
    index = chosen_index(weights)

    def branch(i, weight, smooth, rest):
        y, state = edge.run(i, smooth, rest)
        states = list(rest[1])
        # A weight of 0 chooses no branch: all are masked.
        keep_old = functools.partial(jnp.where, weight == 0)
        states[i] = jax.tree.map(keep_old, states[i], state)
        # In the branch, where it costs no pass of its own over the output.
        scaled = jax.tree.map(functools.partial(_scale, weight), y)
        return scaled, tuple(states)

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
    origin = jax.tree.map(jnp.zeros_like, still(y))
    operands = (origin, weights, smooth, rest, record, key)
    dense = functools.partial(_dense_output, edge)
    return with_tangent_of(dense, y, *operands), states


# Cotangents of the weights and of what is smooth.


def _cotangents(edge, weights, smooth, rest, record, key, g):
    index = chosen_index(weights)
    num_branches = len(edge.branches)
    # Under `shard_map`, so that no sum over devices is inside the switch.
    shared, smooth = (
        smooth,
        _manual_axes.vary(smooth, _manual_axes.varying((weights, g))),
    )

    def pull_back(i, smooth, rest, g):
        def run(own_smooth, x_smooth):
            params = list(smooth[0])
            params[i] = own_smooth
            return edge.run(i, (tuple(params), x_smooth), rest)[0]

        y, vjp = jax.vjp(run, smooth[0][i], smooth[1])
        scaled = jax.tree.map(functools.partial(_scale, weights[index]), g)
        own_bar, x_bar = vjp(scaled)
        params_bar = list(jax.tree.map(jnp.zeros_like, smooth[0]))
        params_bar[i] = own_bar
        return (tuple(params_bar), x_bar), inner(g, y)

    runs = [functools.partial(pull_back, i) for i in range(num_branches)]
    smooth_bar, chosen = jax.lax.switch(index, runs, smooth, rest, g)
    credits = [functools.partial(edge.credit, i) for i in range(num_branches)]
    path = Path(
        index=index,
        chosen=chosen,
        credit_of=lambda i: jax.lax.switch(i, credits, smooth, rest, g),
        all_credits=lambda: edge.all_credits(smooth, rest, g),
        cotangent_sum=_total(g),
        num_branches=num_branches,
        key=key,
    )
    weights_bar = record.credits(path).astype(weights.dtype)
    return jax.tree.map(_over_devices, (weights, shared), (weights_bar, smooth_bar))


def _over_devices(primal: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Sum over the devices that share the primal: under `shard_map` each has a part."""
    axes = _manual_axes.varying(cotangent) - _manual_axes.varying(primal)
    return jax.lax.psum(cotangent, tuple(sorted(axes))) if axes else cotangent


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
def single_path(edge, weights, smooth, rest, record, key):
    """(output, new states) of the branch that the weights choose."""
    return _value(edge, weights, smooth, rest, record, key)


def _fwd(edge, weights, smooth, rest, record, key):
    operands = (weights, smooth, rest, record, key)
    return _value(edge, *operands), operands


def _bwd(edge, operands, cotangents):
    weights, smooth, rest, record, key = operands
    weights_bar, smooth_bar = _gradient(
        edge, weights, smooth, rest, record, key, cotangents[0]
    )
    return weights_bar, smooth_bar, None, None, None


single_path.defvjp(_fwd, _bwd)
