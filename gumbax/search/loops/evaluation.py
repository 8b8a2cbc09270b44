"""Loss and accuracy, of batches and of whole sets."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gumbax.search.data.dataset import Examples
from gumbax.search.methods.methods import Soft, softened
from gumbax.search.network.supernet import dense_operation, path_operation
from gumbax.search.spaces.edges import Context, Operation

PyTree = Any


def loss_and_accuracy(
    class_scores: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean cross entropy in nats and accuracy (a fraction) of a batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(class_scores, labels)
    return losses.mean(), jnp.mean(class_scores.argmax(axis=-1) == labels)


@jax.jit
def all_finite(state: PyTree) -> jax.Array:
    """Whether every floating number of a state is finite."""
    leaves = jax.tree.leaves(state)
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


@functools.partial(jax.jit, static_argnames=("graphdef", "operation"))
def _predict(graphdef, operation, weights, params, rest, batches):
    context = Context(weights=weights, operation=operation)

    def classes(x: jax.Array) -> jax.Array:
        # Merged here: batch normalisation writes its statistics, which are dropped.
        network = nnx.merge(graphdef, params, rest, copy=True)
        return network(x, context).argmax(axis=-1)

    return jax.lax.map(classes, batches)


def predict(
    network: nnx.Module,
    x: jax.Array,
    *,
    weights: PyTree = None,
    operation: Operation | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Predicted classes.

    With batch normalisation by the statistics of the batch, as in a search, they depend
    on the batch, and so on `batch_size`. Batches are drawn, always alike: a set may be
    sorted by class. The last one is filled with examples of the one before.

    Args:
        network: (x, context) -> class scores.
        x: examples.
        weights: choice -> [E, K], for a supernet's network.
        operation: how an edge uses them.
        batch_size: examples in a batch.

    Returns:
        Class indices [n].
    """
    split: tuple[Any, ...] = nnx.split(network, nnx.Param, ...)
    graphdef, params, rest = split
    return _predict_all(graphdef, params, rest, x, weights, operation, batch_size)


def _predict_all(graphdef, params, rest, x, weights, operation, batch_size):
    size = min(batch_size, len(x))
    if not size:
        return np.zeros(0, np.int32)
    order = np.random.default_rng(0).permutation(len(x))
    x = jnp.asarray(x)[order]
    count = len(x) // size
    run = functools.partial(_predict, graphdef, operation, weights, params, rest)
    found = [np.asarray(run(x[: count * size].reshape(count, size, *x.shape[1:])))]
    left = len(x) - count * size
    classes = found[0].reshape(-1)
    if left:
        last = np.asarray(run(x[None, -size:]))[0, -left:]
        classes = np.concatenate([classes, last])
    in_place = np.empty_like(classes)
    in_place[order] = classes
    return in_place


def accuracy(predictions: Any, labels: Any) -> float:
    """Share of right predictions, in percent."""
    return 100 * float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def soft_weights(
    logits: PyTree, temperature: jax.Array, soft: Soft = softened
) -> PyTree:
    """The weights of the soft network, without noise, choice by choice."""
    return {name: soft(a, temperature) for name, a in logits.items()}


def network_accuracies(
    graphdef,
    params: PyTree,
    rest: PyTree,
    soft: PyTree,
    drawn: PyTree,
    kept: PyTree,
    examples: Examples,
    batch_size: int,
) -> dict[str, float]:
    """Accuracies, as fractions: with soft weights, those of a draw, what is kept."""
    found = {}
    cases = {
        "soft_accuracy": (soft, dense_operation),
        "drawn_accuracy": (drawn, path_operation),
        "argmax_accuracy": (kept, path_operation),
    }
    for name, (weights, operation) in cases.items():
        classes = _predict_all(
            graphdef, params, rest, examples.inputs, weights, operation, batch_size
        )
        found[name] = accuracy(classes, examples.labels) / 100
    return found
