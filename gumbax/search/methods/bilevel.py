"""Gradients of the architecture logits: how the weights answer is taken into account.

A rule is a function of (problem, arch, weights, inner step) that gives the validation
loss with its auxiliary value, and the gradient of the logits. `single_level` stands for
one gradient of the training loss for both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gumbax.search.methods.optimizers import InnerStep

PyTree = Any
Loss = Callable[[PyTree, PyTree], tuple[jax.Array, PyTree]]


class Problem(NamedTuple):
    """The losses of a step, (arch, weights) -> (loss, auxiliary value).

    Attributes:
        train: on the batch of the weights, with its draw.
        valid: on the batch of the architecture, with its draw.
    """

    train: Loss
    valid: Loss


Rule = Callable[
    [Problem, PyTree, PyTree, InnerStep], tuple[tuple[jax.Array, PyTree], PyTree]
]


def first_order(problem: Problem, arch: PyTree, weights: PyTree, inner: InnerStep):
    """The weights are held fixed.

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Sec. 2.3, xi = 0.
    """
    del inner
    return jax.value_and_grad(problem.valid, has_aux=True)(arch, weights)


def single_level(problem: Problem, arch: PyTree, weights: PyTree, inner: InnerStep):
    """Logits and weights descend the training loss together, on one batch.

    References:
        Xie et al., 2019 (SNAS). https://arxiv.org/abs/1812.09926
    """
    del inner
    return jax.value_and_grad(problem.train, has_aux=True)(arch, weights)


def _unrolled(problem: Problem, arch: PyTree, weights: PyTree, inner: InnerStep):
    """w', and the value and both gradients of the validation loss there."""

    def train_gradient(arch, weights):
        return jax.grad(lambda w: problem.train(arch, w)[0])(weights)

    def virtual(w, m, g):
        step = inner.momentum * m + g + inner.weight_decay * w
        return w - inner.learning_rate * step

    gradient = train_gradient(arch, weights)
    after = jax.tree.map(virtual, weights, inner.trace, gradient)
    value, (g_arch, v) = jax.value_and_grad(problem.valid, (0, 1), has_aux=True)(
        arch, after
    )
    return train_gradient, value, g_arch, v


def unrolled(problem: Problem, arch: PyTree, weights: PyTree, inner: InnerStep):
    """Second order, exact: the validation loss after one step of the weights.

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Eq. 7, by reverse over reverse.
    """
    train_gradient, value, g_arch, v = _unrolled(problem, arch, weights, inner)
    (mixed,) = jax.vjp(lambda a: train_gradient(a, weights), arch)[1](v)
    return value, _minus(g_arch, inner.learning_rate, mixed)


def finite_difference(
    problem: Problem, arch: PyTree, weights: PyTree, inner: InnerStep
):
    """Second order as published: the mixed derivative as a central difference.

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Eq. 8.
    """
    _, value, g_arch, v = _unrolled(problem, arch, weights, inner)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(d)) for d in jax.tree.leaves(v)))
    # Nothing to move along where v is 0, and no NaN.
    radius = 0.01 / jnp.maximum(norm, 1e-12)

    def arch_gradient(sign):
        moved = jax.tree.map(lambda w, d: w + sign * radius * d, weights, v)
        return jax.grad(lambda a: problem.train(a, moved)[0])(arch)

    mixed = jax.tree.map(
        lambda plus, minus: (plus - minus) / (2 * radius),
        arch_gradient(1.0),
        arch_gradient(-1.0),
    )
    return value, _minus(g_arch, inner.learning_rate, mixed)


def _minus(g: PyTree, learning_rate: jax.Array, mixed: PyTree) -> PyTree:
    def one(g, h):
        return g - jnp.asarray(learning_rate, g.dtype) * h

    return jax.tree.map(one, g, mixed)
