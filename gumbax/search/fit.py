"""The search itself: a first-order bilevel step, and the loop over it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gumbax._records import pytree
from gumbax.nnx import ArchParam
from gumbax.search import data
from gumbax.search.data import Examples
from gumbax.search.errors import SearchError
from gumbax.search.methods import Method
from gumbax.search.network import Supernet
from gumbax.search.space import CellSpace
from gumbax.search.training import (
    BATCH_SIZE,
    STEPS_PER_CALL,
    loss_and_accuracy,
    weight_optimizer,
)

PyTree = Any


@pytree
class SearchState:
    """All that changes in a search; keys and data order follow from (seed, step)."""

    step: jax.Array
    arch: PyTree
    weights: PyTree
    arch_opt: PyTree
    weight_opt: PyTree


class Metrics(NamedTuple):
    """Of one step, or the mean of several."""

    loss: jax.Array
    accuracy: jax.Array
    arch_loss: jax.Array
    arch_accuracy: jax.Array
    temperature: jax.Array
    entropy: jax.Array


class Search:
    """A search over one space with one method: initial state and jitted steps.

    Weights are trained on one half of the training set and architecture logits on the
    other (first order: each with the other held fixed), the logits from
    `method.warmup` of the steps on. The test set is not a parameter.

    Args:
        space: what is chosen.
        method: how.
        train: training examples.
        num_steps: length of the search; schedules end there.
        seed: of everything: halves, initial weights, order of the examples, draws.

    References:
        Liu, Simonyan, Yang, 2019, Algorithm 1, first order.
    """

    def __init__(
        self,
        space: CellSpace,
        method: Method,
        train: Examples,
        *,
        num_steps: int,
        seed: int,
    ):
        self.space = space
        self.method = method
        self.num_steps = num_steps
        self.weight_half, self.arch_half = data.split(train, train.size // 2, seed=seed)
        init_key, self.key = jax.random.split(jax.random.key(seed))
        channels = train.images.shape[-1]
        supernet = Supernet(space, channels, rngs=nnx.Rngs(init_key))
        split: tuple[Any, ...] = nnx.split(supernet, ArchParam, ...)
        self.graphdef, self._arch, self._weights = split
        self.temperature = method.temperature(num_steps)
        self._weight_optimizer = weight_optimizer(num_steps)
        warmup = method.warmup * num_steps
        self._arch_optimizer = optax.adam(
            lambda step: jnp.where(step < warmup, 0.0, method.arch_learning_rate),
            b1=0.5,
        )

    def init(self) -> SearchState:
        """The state before the first step."""
        return SearchState(
            step=jnp.zeros((), jnp.int32),
            arch=self._arch,
            weights=self._weights,
            arch_opt=self._arch_optimizer.init(self._arch),
            weight_opt=self._weight_optimizer.init(self._weights),
        )

    def supernet(self, state: SearchState) -> Supernet:
        """The supernet with the weights and logits of a state."""
        return nnx.merge(self.graphdef, state.arch, state.weights)

    def advance(self, state: SearchState, last: int) -> tuple[SearchState, Metrics]:
        """Runs the steps up to `last`; returns the new state and mean metrics."""
        halves = (self.weight_half, self.arch_half)
        return self._advance(state, halves, jnp.asarray(last, jnp.int32))

    @functools.cached_property
    def _advance(self):
        @jax.jit
        def advance(state, halves, last):
            def body(carry):
                state, total = carry
                state, metrics = self._step(state, *halves)
                return state, jax.tree.map(jnp.add, total, metrics)

            zeros = Metrics(*(jnp.zeros(()) for _ in Metrics._fields))
            first = state.step
            state, total = jax.lax.while_loop(
                lambda carry: carry[0].step < last, body, (state, zeros)
            )
            return state, jax.tree.map(lambda m: m / (last - first), total)

        return advance

    def _step(
        self, state: SearchState, weight_half: Examples, arch_half: Examples
    ) -> tuple[SearchState, Metrics]:
        step = state.step
        order_keys, draw_keys = (
            jax.random.split(key) for key in jax.random.split(self.key)
        )
        temperature = self.temperature(step)

        def loss(arch, weights, examples, draw_key):
            supernet = nnx.merge(self.graphdef, arch, weights)
            key = jax.random.fold_in(draw_key, step)
            choice = self.method.weights(key, supernet.arch_logits[...], temperature)
            class_scores = supernet(examples.images, choice, self.method.operation)
            return loss_and_accuracy(class_scores, examples.labels)

        examples = data.batch(arch_half, order_keys[0], step, BATCH_SIZE)
        (arch_loss, arch_accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.arch, state.weights, examples, draw_keys[0]
        )
        updates, arch_opt = self._arch_optimizer.update(gradient, state.arch_opt)
        arch = optax.apply_updates(state.arch, updates)

        examples = data.batch(weight_half, order_keys[1], step, BATCH_SIZE)
        (weight_loss, accuracy), gradient = jax.value_and_grad(loss, 1, has_aux=True)(
            arch, state.weights, examples, draw_keys[1]
        )
        updates, weight_opt = self._weight_optimizer.update(
            gradient, state.weight_opt, state.weights
        )
        new_state = SearchState(
            step=step + 1,
            arch=arch,
            weights=optax.apply_updates(state.weights, updates),
            arch_opt=arch_opt,
            weight_opt=weight_opt,
        )
        metrics = Metrics(
            loss=weight_loss,
            accuracy=accuracy,
            arch_loss=arch_loss,
            arch_accuracy=arch_accuracy,
            temperature=jnp.asarray(temperature, jnp.float32),
            entropy=entropy(jax.tree.leaves(arch)[0]),
        )
        return new_state, metrics


def entropy(arch_logits: jax.Array) -> jax.Array:
    """Mean over the edges of the entropy of the choice, in nats."""
    log_probs = jax.nn.log_softmax(arch_logits)
    return -jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))


def fit(
    search: Search,
    state: SearchState,
    on_advance: Callable[[SearchState, dict[str, float]], None],
) -> SearchState:
    """Runs a search from a state to its end.

    Args:
        search: the search.
        state: where to go on from: `search.init()` or a restored state.
        on_advance: called every 20 steps with the new state and the mean metrics of
            those steps, as numbers.

    Returns:
        The final state.

    Raises:
        SearchError: the loss is not finite. `on_advance` has not seen that state.
    """
    while (step := int(state.step)) < search.num_steps:
        last = min(step + STEPS_PER_CALL, search.num_steps)
        state, metrics = search.advance(state, last)
        row = {k: float(np.asarray(v)) for k, v in metrics._asdict().items()}
        if not np.isfinite([row["loss"], row["arch_loss"]]).all():
            raise SearchError(
                f"The loss became {row['loss']} (weights), {row['arch_loss']} "
                f"(architecture) between steps {step} and {last}. The last good "
                "checkpoint is kept. Lower the learning rates of the method."
            )
        on_advance(state, {"step": last} | row)
    return state
