"""Losses, predictions and accuracies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gumbax.search.data.dataset import Examples
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops import evaluation
from gumbax.search.network.derivation import derive, recalibrate
from gumbax.search.network.supernet import dense_operation, path_operation


class Normed(nnx.Module):
    """Scores that depend on the batch."""

    def __init__(self):
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        self.linear = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

    def __call__(self, x, context=None):
        return self.linear(self.norm(x))


@pytest.fixture(scope="module")
def network():
    return Normed()


@pytest.fixture(scope="module")
def inputs():
    x = np.random.default_rng(0).normal(size=(23, 3))
    return jnp.asarray(x * np.arange(1, 24)[:, None], jnp.float32)


def test_loss_and_accuracy():
    scores = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    labels = jnp.array([0, 1, 2])
    log_probs = np.asarray(scores) - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss, accuracy = evaluation.loss_and_accuracy(scores, labels)
    np.testing.assert_allclose(loss, -log_probs[np.arange(3), labels].mean(), rtol=1e-6)
    np.testing.assert_allclose(accuracy, 1 / 3, rtol=1e-6)
    assert evaluation.accuracy([1, 2, 3, 4], np.array([1, 2, 0, 0])) == 50.0


def by_batches(network, batches):
    return [np.asarray(network(x).argmax(axis=-1)) for x in batches]


@pytest.mark.parametrize("size", [23, 10, 7, 1])
def test_batches_are_mixed_and_the_last_is_whole(network, inputs, size):
    """The incomplete batch at the end is filled up from before it."""
    order = np.random.default_rng(0).permutation(23)
    mixed = inputs[order]
    full = [mixed[i : i + size] for i in range(0, 23 - size + 1, size)]
    expected = np.concatenate(by_batches(network, full))
    left = 23 - len(expected)
    if left:
        (last,) = by_batches(network, [mixed[-size:]])
        expected = np.concatenate([expected, last[-left:]])
    found = evaluation.predict(network, inputs, batch_size=size)
    np.testing.assert_array_equal(found[order], expected)
    assert len(found) == 23


def test_predictions_depend_on_the_batch_until_statistics_are_measured(network, inputs):
    small, large = (
        evaluation.predict(network, inputs, batch_size=size) for size in (4, 23)
    )
    assert (small != large).any()
    calibrated = recalibrate(network, [inputs])
    small, large = (
        evaluation.predict(calibrated, inputs, batch_size=size) for size in (4, 23)
    )
    np.testing.assert_array_equal(small, large)


def test_prediction_changes_nothing(network, inputs):
    before = jax.tree.map(np.asarray, nnx.state(network))
    evaluation.predict(network, inputs)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(network))


def test_no_examples_give_no_classes(network):
    assert evaluation.predict(network, jnp.zeros((0, 3))).shape == (0,)


def test_one_trace_for_equal_networks(network, inputs):
    evaluation.predict(network, inputs, batch_size=5)
    count = evaluation._predict._cache_size()
    evaluation.predict(Normed(), inputs + 1, batch_size=5)
    assert evaluation._predict._cache_size() == count


def test_soft_weights_are_probabilities_at_the_temperature():
    logits = {"cell": jnp.array([[0.0, 1.0]])}
    found = evaluation.soft_weights(logits, 0.5)["cell"]
    np.testing.assert_allclose(found, jax.nn.softmax(2 * logits["cell"]), rtol=1e-6)


def test_accuracies_are_those_of_the_soft_the_drawn_and_the_kept_network(
    supernet, space, digits
):
    """As fractions."""
    soft = evaluation.soft_weights(supernet.logits(), 1.0)
    genotype = Genotype.from_index(38, space)
    kept = genotype.weights(space)
    drawn = Genotype.from_index(21, space).weights(space)
    test = Examples(inputs=digits.test.inputs[:60], labels=digits.test.labels[:60])
    graphdef, params, rest = nnx.split(supernet.network, nnx.Param, ...)
    found = evaluation.network_accuracies(
        graphdef, params, rest, soft, drawn, kept, test, batch_size=20
    )
    for name, weights, operation in (
        ("soft_accuracy", soft, dense_operation),
        ("drawn_accuracy", drawn, path_operation),
        ("argmax_accuracy", kept, path_operation),
    ):
        classes = evaluation.predict(
            supernet.network,
            test.inputs,
            weights=weights,
            operation=operation,
            batch_size=20,
        )
        expected = evaluation.accuracy(classes, test.labels) / 100
        assert found[name] == pytest.approx(expected, abs=1e-6)
    derived = evaluation.predict(derive(supernet, genotype), test.inputs, batch_size=20)
    np.testing.assert_array_equal(derived, classes)
