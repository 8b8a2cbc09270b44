"""Optimisers of weights and of logits, as records with the published values."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


class InnerStep(NamedTuple):
    """What an unrolled step of the weights needs: w - lr (mu m + gradient + decay w).

    Attributes:
        learning_rate: of this step.
        momentum: mu.
        weight_decay: decay.
        trace: m, like the weights.
    """

    learning_rate: jax.Array
    momentum: float
    weight_decay: float
    trace: PyTree


def cosine_by_epoch(
    first: float, last: float, num_epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Cosine from first to last that changes once an epoch, as in PyTorch's."""

    def schedule(step):
        epoch = step // steps_per_epoch
        return last + (first - last) * (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2

    return schedule


def _clipped(norm: float | None) -> optax.GradientTransformation:
    return optax.identity() if norm is None else optax.clip_by_global_norm(norm)


def _part(state: PyTree, kind: type) -> Any:
    """The one part of an optimiser's state that is of this kind.

    Not by a name in the tree, which a user's module can have too.
    """
    parts = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    (found,) = [part for part in parts if isinstance(part, kind)]
    return found


@dataclass(frozen=True)
class Sgd:
    """Momentum, L2 decay after clipping, a cosine by epochs: the weights of DARTS.

    Attributes:
        learning_rate: at the start.
        final: learning rate at the end.
        momentum: of the buffer.
        nesterov: Nesterov's form.
        weight_decay: added to the gradient, after clipping, before momentum.
        clip: largest global norm of the gradient; None for no limit.
    """

    learning_rate: float = 0.025
    final: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip: float | None = 5.0

    def make(
        self, num_epochs: int, steps_per_epoch: int
    ) -> optax.GradientTransformation:
        """The optimiser for a run of this length."""
        schedule = self.schedule(num_epochs, steps_per_epoch)
        return optax.chain(
            _clipped(self.clip),
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(schedule, momentum=self.momentum, nesterov=self.nesterov),
        )

    def schedule(self, num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
        """The learning rate by the step."""
        lengths = (num_epochs, steps_per_epoch)
        return cosine_by_epoch(self.learning_rate, self.final, *lengths)

    def inner_step(self, state: PyTree, learning_rate: jax.Array) -> InnerStep:
        """The step that second-order methods unroll.

        As published, clipping is left out of it, and so is Nesterov's look-ahead.
        """
        trace = _part(state, optax.TraceState).trace
        return InnerStep(learning_rate, self.momentum, self.weight_decay, trace)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled decay and a cosine by steps: for searches of few epochs.

    Attributes:
        learning_rate: at the start; 0 at the end.
        weight_decay: decoupled.
        clip: largest global norm of the gradient.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip: float = 5.0

    def make(
        self, num_epochs: int, steps_per_epoch: int
    ) -> optax.GradientTransformation:
        """The optimiser for a run of this length."""
        schedule = self.schedule(num_epochs, steps_per_epoch)
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(schedule, weight_decay=self.weight_decay),
        )

    def schedule(self, num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
        """The learning rate by the step."""
        length = num_epochs * steps_per_epoch
        return optax.cosine_decay_schedule(self.learning_rate, length)

    def inner_step(self, state: PyTree, learning_rate: jax.Array) -> InnerStep:
        """A plain gradient step of that learning rate: Adam's own is not unrolled."""
        mu = _part(state, optax.ScaleByAdamState).mu
        return InnerStep(learning_rate, 0.0, 0.0, jax.tree.map(jnp.zeros_like, mu))


@dataclass(frozen=True)
class ArchAdam:
    """Adam with PyTorch's decay, L2 added to the gradient: the logits of DARTS.

    Attributes:
        learning_rate: constant in a search.
        b1: decay of the first moment.
        b2: decay of the second moment.
        weight_decay: added to the gradient before the moments.
        clip: largest global norm of the gradient; None for no limit.
        travel: how far Adam may move a logit in a search, in nats; None for no limit.
            Where a search has many steps the learning rate is less by that, so that
            logits settle late in it, when the weights are worth comparing. With one
            rate they settle after as many steps in a long search as in a short one.
    """

    learning_rate: float = 3e-4
    b1: float = 0.5
    b2: float = 0.999
    weight_decay: float = 1e-3
    clip: float | None = None
    travel: float | None = None

    def rate(self, warmup_steps: float, num_steps: int) -> float:
        """The learning rate in a search of this length."""
        if self.travel is None:
            return self.learning_rate
        moving = max(num_steps - warmup_steps, 1.0)
        return min(self.learning_rate, self.travel / moving)

    def make(self, warmup_steps: float, num_steps: int) -> optax.GradientTransformation:
        """The optimiser for a search of this length, at rest for some steps.

        Its moments begin with the logits: in the first steps of a network gradients are
        so large that a second moment that had seen them would hold the logits fast.
        """
        adam = optax.chain(
            _clipped(self.clip),
            optax.add_decayed_weights(self.weight_decay),
            optax.adam(self.rate(warmup_steps, num_steps), b1=self.b1, b2=self.b2),
        )
        return optax.conditionally_mask(adam, lambda step: step >= warmup_steps)
