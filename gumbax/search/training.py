"""What the search and the training of one network have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gumbax.search import data
from gumbax.search.data import Examples
from gumbax.search.genotype import Genotype
from gumbax.search.network import DerivedNetwork
from gumbax.search.space import CellSpace

PyTree = Any
BATCH_SIZE = 64
LEARNING_RATE = 3e-3
STEPS_PER_CALL = 20


def weight_optimizer(num_steps: int) -> optax.GradientTransformation:
    """Adam with decoupled decay and a cosine schedule, gradients clipped to norm 5."""
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    return optax.chain(
        optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=1e-4)
    )


def loss_and_accuracy(
    class_scores: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean cross entropy and accuracy of a batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(class_scores, labels)
    return losses.mean(), jnp.mean(class_scores.argmax(axis=-1) == labels)


def accuracy(predictions: jax.Array, labels: jax.Array) -> float:
    """Share of right predictions, in percent."""
    return 100 * float(jnp.mean(predictions == labels))


@dataclass(frozen=True)
class TrainedNetwork:
    """A network trained from scratch, and its accuracy on the test set in percent."""

    network: DerivedNetwork
    test_accuracy: float


def train_from_scratch(
    space: CellSpace,
    genotype: Genotype,
    train: Examples,
    test: Examples,
    *,
    num_steps: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda step: None,
) -> TrainedNetwork:
    """Trains one architecture from new weights, and then measures it once.

    Args:
        space: the space of the genotype.
        genotype: the architecture.
        train: training examples, all of them used for the weights.
        test: test examples, seen after the last step only.
        num_steps: number of steps of 64 examples.
        seed: of the initial weights and of the order of the examples.
        on_progress: called with the number of steps done.

    Returns:
        The network and its test accuracy.
    """
    init_key, order_key = jax.random.split(jax.random.key(seed))
    image_channels = train.images.shape[-1]
    network = DerivedNetwork(space, genotype, image_channels, rngs=nnx.Rngs(init_key))
    graphdef, weights = nnx.split(network)
    optimizer = weight_optimizer(num_steps)

    def loss(weights: PyTree, examples: Examples) -> jax.Array:
        class_scores = nnx.merge(graphdef, weights)(examples.images)
        return loss_and_accuracy(class_scores, examples.labels)[0]

    @jax.jit
    def advance(weights, opt_state, train, first, last):
        def step(i, carry):
            weights, opt_state = carry
            examples = data.batch(train, order_key, i, BATCH_SIZE)
            gradient = jax.grad(loss)(weights, examples)
            updates, opt_state = optimizer.update(gradient, opt_state, weights)
            return optax.apply_updates(weights, updates), opt_state

        return jax.lax.fori_loop(first, last, step, (weights, opt_state))

    opt_state = optimizer.init(weights)
    for first in range(0, num_steps, STEPS_PER_CALL):
        last = min(first + STEPS_PER_CALL, num_steps)
        weights, opt_state = advance(weights, opt_state, train, first, last)
        on_progress(last)
    trained = nnx.merge(graphdef, weights)
    predictions = nnx.jit(lambda net, x: net(x).argmax(axis=-1))(trained, test.images)
    return TrainedNetwork(
        network=trained, test_accuracy=accuracy(predictions, test.labels)
    )
