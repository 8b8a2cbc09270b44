"""The rules of Gumbel-max, Gumbel-Softmax and straight-through samples.

Shapes: the result is [*sample_shape, ..., K] with the K categories on `axis`; logits
lack the axes of `sample_shape`; gumbels, mask and temperature have all axes and
broadcast. One choice is a row. The public functions and their checks are in
`relaxation.py`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import keys, meshes
from gumbax._common.meshes import Kind
from gumbax._common.rounding import is_zero
from gumbax._common.tangent import still, with_tangent_of
from gumbax.samplers import maxima, scores, softmaxes


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def index(key, logits, gumbels, where, *, axis, shape):
    """Index of the highest score of each row; -1 without one."""

    def of(key, logits, gumbels, where):
        perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
        return jnp.squeeze(maxima.argmax(axis, perturbed)[1], axis)

    out = list(meshes.broadcast_spec(shape, logits, gumbels, where))
    del out[axis]
    return meshes.automatic(of, out, keys.consumed(key), logits, gumbels, where)


# One rule for all forms. What it keeps are the weights y of the categories, where they
# are the output, and the index of each row's winner, at which cotangents are centred.
# Where the temperature has a gradient, which needs scores and not the logarithm of what
# was rounded, and behind a hard value, weights are made again from the key: nothing of
# the size of the logits is kept then. Either way that is one array at most.


class Form(NamedTuple):
    """A sample of a choice, and its gradient. Functions of an axis and scores.

    Attributes:
        output: the sample from (axis, scores, temperature, winner), with the
            derivatives of the weights: else second ones would be silently wrong.
        weights: in the form that `pull` takes, from the same.
        pull: the gradient, from (axis, weights, cotangent, index, temperature).
        none: what stands among the weights for a category without one.
        needs_index: the output is made of the winner's index, not of its score alone.
        keeps_output: the output is the weights.
    """

    output: Callable[..., jax.Array]
    weights: Callable[..., jax.Array]
    pull: Callable[..., jax.Array]
    none: float
    needs_index: bool
    keeps_output: bool


def _hard(axis, perturbed, temperature, winner):
    value = maxima.one_hot(axis, still(perturbed), winner)
    weights = functools.partial(_softmax_of, axis)
    return with_tangent_of(weights, value, perturbed, temperature, winner)


def _softmax_of(axis, perturbed, temperature, winner):
    return softmaxes.softmax(axis, perturbed, temperature, winner)


RELAXED = Form(
    output=softmaxes.softmax,
    weights=softmaxes.softmax,
    pull=softmaxes.pull,
    none=0,
    needs_index=False,
    keeps_output=True,
)
LOG_RELAXED = Form(
    output=softmaxes.log_softmax,
    weights=softmaxes.log_softmax,
    pull=softmaxes.log_pull,
    none=-np.inf,
    needs_index=True,
    keeps_output=True,
)
STRAIGHT_THROUGH = Form(
    output=_hard,
    weights=softmaxes.softmax,
    pull=softmaxes.pull,
    none=0,
    needs_index=True,
    keeps_output=False,
)


@functools.partial(jax.jit, static_argnames=("form", "axis", "shape", "dtype"))
def sample(form: Form, key, logits, temperature, gumbels, where, *, axis, shape, dtype):
    """One draw for each row."""
    rule = functools.partial(_sample, (form, axis, shape, dtype))
    operands = (logits, temperature, gumbels, where)
    out = meshes.broadcast_spec(shape, *operands)
    return meshes.automatic(rule, out, keys.consumed(key), *operands)


def _value(static, key, logits, temperature, gumbels, where, *, keep_index=False):
    form, axis, shape, dtype = static
    perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
    winner = maxima.leader(
        axis, perturbed, needs_index=form.needs_index, keep_index=keep_index
    )
    output = form.output(axis, perturbed, temperature, winner)
    return _rounded(output, dtype), winner


def _rounded(output, dtype):
    """In a dtype; what is finite stays finite."""
    if dtype != jnp.float16:
        return output.astype(dtype)
    lowest = np.asarray(np.finfo(np.float16).min, output.dtype)
    held = (output < lowest) & (output != -jnp.inf)
    return jnp.where(held, lowest, output).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sample(static, key, logits, temperature, gumbels, where):
    return _value(static, key, logits, temperature, gumbels, where)[0]


def _sample_fwd(static, *operands):
    form, *_ = static
    learned = operands[2].perturbed
    operands = jax.custom_derivatives.custom_vjp_primal_tree_values(operands)
    _, logits, temperature, gumbels, _ = operands
    output, (top, index) = _value(static, *operands, keep_index=True)
    kinds = _kinds(temperature, logits, gumbels)
    kept, again = output, (operands, top)
    if form.keeps_output and not learned:
        again = _absent(again)
    else:
        kept = _absent(kept)
    # Of one structure, learned or not: JAX before 0.12 remembers one for a function.
    mark = jnp.zeros((int(learned),))
    return output, (kept, again, index, temperature, mark, kinds)


def _sample_bwd(static, residuals, cotangent):
    form, axis, shape, _ = static
    output, again, index, temperature, mark, kinds = residuals
    learned = mark.size > 0
    if is_zero(cotangent):
        cotangent = jnp.zeros(cotangent.shape, cotangent.dtype)
    if form.keeps_output and not learned:
        weights = output.astype(temperature.dtype)
    else:
        (key, logits, _, gumbels, where), top = again
        perturbed = scores.perturb(axis, shape, key, logits, gumbels, where)
        weights = form.weights(axis, perturbed, temperature, (top, index))
    bar = form.pull(axis, weights, cotangent, index, temperature)
    if not learned:
        # Not None, for the same reason.
        temperature_bar = Kind.of(temperature).cast(jnp.zeros_like(temperature))
    else:
        counts = weights != form.none
        below = softmaxes.finite_exponents(counts, perturbed, temperature, top)
        temperature_bar = -jnp.sum(bar * below, axis=axis, keepdims=True)
        temperature_bar = kinds[0].cotangent(temperature_bar)
    return _cotangents(bar, temperature_bar, *kinds[1:])


_sample.defvjp(_sample_fwd, _sample_bwd, symbolic_zeros=True)


def _absent(tree):
    """The same structure, without arrays to speak of."""
    return jax.tree.map(lambda leaf: jnp.zeros(()), tree)


def _kinds(*operands):
    return tuple(None if x is None else Kind.of(x) for x in operands)


def _cotangents(scores_bar, temperature_bar, logits, gumbels):
    """Of (key, logits, temperature, gumbels, where), from what they were broadcast to.

    The last two are the kinds of the operands, None where there is none.
    """
    return (
        None,
        logits.cotangent(scores_bar),
        temperature_bar,
        None if gumbels is None else gumbels.cotangent(scores_bar),
        None,
    )
