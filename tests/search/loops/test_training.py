"""Training from scratch: dropped paths, auxiliary head, augmentation, resumption."""

import dataclasses
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Examples, take
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops import training as training_module
from gumbax.search.loops.evaluation import accuracy, predict
from gumbax.search.loops.training import (
    Training,
    TrainingOptions,
    train,
    train_and_test,
)
from gumbax.search.spaces.chain_space import ChainSpace, skip
from gumbax.search.spaces.edges import PLAIN, Context, Kept
from gumbax.search.store.errors import SearchError
from tests.helpers import assert_mean
from tests.search.conftest import dense, poisoned

NUM_EPOCHS = 4
STEPS = 2  # in an epoch


def same(c_in, c_out, *, stride, layers, rngs):
    del c_in, c_out, stride, layers, rngs
    return nnx.Sequential(lambda x: x)


def tanh(*widths, **options):
    return dense(jnp.tanh, *widths, **options)


# One layer: an identity, a function that is one but is not known as one, a dense layer.
SPACE = ChainSpace(
    name="line",
    primitives={"skip_connect": skip, "same": same, "tanh": tanh},
    widths=(6, 6),
    stem=tanh,
)
TANH = Genotype("line", {"layers": (("tanh", 0, 1),)})
SKIP = Genotype("line", {"layers": (("skip_connect", 0, 1),)})


class TwoHeads(ChainSpace):
    """A space that has an auxiliary head, and batch normalisation."""

    def build(self, make_edges, input_shape, num_classes, **options):
        return TwoHeadsNetwork(
            super().build(make_edges, input_shape, num_classes, **options),
            nnx.BatchNorm(input_shape[-1], rngs=options["rngs"]),
            nnx.Linear(input_shape[-1], num_classes, rngs=options["rngs"])
            if options["auxiliary"]
            else None,
        )


class TwoHeadsNetwork(nnx.Module):
    def __init__(self, chain, norm, auxiliary):
        self.chain, self.norm, self.auxiliary = chain, norm, auxiliary

    def __call__(self, x, context=PLAIN):
        x = self.norm(x)
        scores = self.chain(x, context)
        if self.auxiliary is None or not context.training:
            return scores
        return scores, self.auxiliary(x)


def examples(count, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 5))
    labels = (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)
    return Examples(inputs=jnp.asarray(x, jnp.float32), labels=jnp.asarray(labels))


def make(genotype=TANH, space=SPACE, seed=0, data=None, shared=False, **options):
    data = examples(STEPS * 16) if data is None else data
    options = {"num_epochs": NUM_EPOCHS, "batch_size": 16} | options
    return Training(
        space,
        genotype,
        data,
        num_classes=int(data.labels.max()) + 1,
        options=TrainingOptions(**options),
        seed=seed,
        shared=shared,
    )


def first_loss(training):
    return float(training.epoch(training.init())[1])


def states_of(training, state=None):
    """Every state, the rows, and the final state."""
    states, rows = [], []

    def on_epoch(state, row):
        states.append(state)
        rows.append(row)

    final = train(training, state, on_epoch)
    return states, rows, final


@pytest.fixture(scope="module")
def plain():
    training = make()
    return training, *states_of(training)


@pytest.fixture(scope="module")
def dropping():
    training = make(drop_path=0.8)
    return training, *states_of(training)


# The loop


def test_every_epoch_is_told_and_the_loss_falls(plain):
    training, states, rows, final = plain
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [int(state.step) for state in states] == [2, 4, 6, 8]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert training.steps_per_epoch == STEPS
    chex.assert_trees_all_equal(states[-1], final)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_training_goes_on_from_any_state_bit_for_bit(dropping, epoch):
    training, states, rows, final = dropping
    _, again, resumed = states_of(training, states[epoch])
    chex.assert_trees_all_equal(resumed, final)
    assert again == rows[epoch + 1 :]


def test_another_process_would_resume_to_the_same_end(dropping):
    """A training made anew from the same options, as after a stop."""
    _, states, _, final = dropping
    restored = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), states[1])
    resumed = train(make(drop_path=0.8), restored)
    chex.assert_trees_all_equal(resumed, final)


def test_finished_training_is_left_as_it_is(plain):
    training, _, _, final = plain
    _, rows, again = states_of(training, final)
    assert rows == []
    chex.assert_trees_all_equal(again, final)


def test_seed_changes_the_first_weights(plain):
    training, *_ = plain
    first, other = training.init().weights, make(seed=1).init().weights
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), first, other)
    assert any(jax.tree.leaves(differ))


def test_whole_training_is_one_trace(plain):
    training, _, rows, _ = plain
    assert len(rows) == NUM_EPOCHS
    assert training._epoch._cache_size() == 1


# Dropped paths


def test_dropped_paths_keep_the_expected_value():
    edges = Kept(0, [(0, 1)], ["same"], [same(1, 1, stride=1, layers=None, rngs=None)])
    x = jnp.asarray([[2.0, -0.5]]).repeat(20_000, axis=0)
    context = Context(key=jax.random.key(0), drop_path=jnp.float32(0.3))
    found = edges([x, jnp.zeros_like(x)], context)[1]
    dropped = (found == 0).all(axis=1)
    assert_mean(dropped, 0.3, resolution=0.02)
    assert_mean(found, np.array([2.0, -0.5]), resolution=0.1)


@pytest.fixture(scope="module")
def recorded():
    """Of every step: the rate of dropped paths, and the key of the augmentation."""
    rates, keys = [], []

    def context(**fields):
        jax.debug.callback(
            lambda rate: rates.append(float(rate)), fields["drop_path"], ordered=True
        )
        return Context(**fields)

    def augmentation(key, x):
        jax.debug.callback(
            lambda data: keys.append(tuple(np.asarray(data).tolist())),
            jax.random.key_data(key),
            ordered=True,
        )
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_module, "Context", context)
        train(make(drop_path=0.8, augmentation=augmentation))
    jax.effects_barrier()
    return rates, keys


def test_rate_of_dropped_paths_grows_linearly_by_the_epoch(recorded):
    rates, _ = recorded
    expected = np.repeat([0.0, 0.2, 0.4, 0.6], STEPS)
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_dropped_paths_change_the_training_from_the_second_epoch_on(plain, dropping):
    """The rate of the first is zero."""
    _, states, rows, _ = plain
    _, found, found_rows, _ = dropping
    chex.assert_trees_all_close(found[0].weights, states[0].weights, atol=1e-6)
    assert found_rows[0]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-5)
    for epoch in (1, 2, 3):
        assert abs(found_rows[epoch]["loss"] - rows[epoch]["loss"]) > 1e-4


def test_identities_are_not_dropped_in_training():
    finals = [train(make(SKIP, drop_path=rate)) for rate in (0.0, 0.9)]
    chex.assert_trees_all_close(finals[1].weights, finals[0].weights, atol=1e-6)


def test_nothing_is_dropped_at_evaluation(plain, dropping):
    """With one state, the network is that of a training without dropped paths."""
    x = examples(40, seed=1).inputs
    state = dropping[-1]
    found, expected = (run[0].network(state)(x) for run in (dropping, plain))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found[:1], dropping[0].network(state)(x[:1]), rtol=1e-5)
    assert np.ptp(found) > 1e-2


# The auxiliary head


@pytest.fixture(scope="module")
def auxiliary():
    """One step for an epoch: its loss is that of the first weights."""
    data = examples(24)
    return make(space=TwoHeads(**vars(SPACE)), data=data, batch_size=24, auxiliary=0.4)


@pytest.mark.exhaustive
def test_auxiliary_head_adds_its_loss_by_its_weight(auxiliary):
    network = auxiliary.network(auxiliary.init())
    network.train()
    data = auxiliary.train
    scores, extra = nnx.jit(lambda net, x: net(x, Context(training=True)))(
        network, data.inputs
    )
    main, beside = (
        optax.softmax_cross_entropy_with_integer_labels(s, data.labels).mean()
        for s in (scores, extra)
    )
    _, loss = auxiliary.epoch(auxiliary.init())
    np.testing.assert_allclose(loss, main + 0.4 * beside, rtol=1e-4)
    assert 0.4 * beside > 0.1


def test_auxiliary_head_is_trained_and_silent_at_evaluation(auxiliary):
    first = auxiliary.init()
    state, _ = auxiliary.epoch(first)
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()),
        state.weights["auxiliary"],
        first.weights["auxiliary"],
    )
    assert all(jax.tree.leaves(moved))
    network = auxiliary.network(state)
    x = auxiliary.train.inputs[:6]
    scores = nnx.jit(lambda net, x: net(x))(network, x)
    assert scores.shape == (6, 3)


def test_evaluation_uses_the_statistics_that_training_tracked(auxiliary):
    """Scores of an example do not depend on the others of its batch."""
    first = auxiliary.init()
    state, _ = auxiliary.epoch(first)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.rest, first.rest)
    assert any(jax.tree.leaves(moved))
    run = nnx.jit(lambda net, x: net(x))
    x = auxiliary.train.inputs
    one = run(auxiliary.network(state), x[:6])
    other = run(auxiliary.network(state), x[:6].at[1:].set(0.0))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)


# Augmentation


@pytest.mark.exhaustive
def test_cutout_is_what_the_training_sees(digits):
    """Squares twice as large as the images leave nothing of them."""
    data = take(digits.train, np.arange(20))
    blank = dataclasses.replace(data, inputs=jnp.zeros_like(data.inputs))
    cutout = Augmentation(cutout=16)
    cut = first_loss(make(data=data, batch_size=20, augmentation=cutout))
    training = make(data=data, batch_size=20)
    whole = first_loss(training)
    training.train = blank  # compiled once for both
    expected = first_loss(training)
    assert cut == pytest.approx(expected, rel=1e-5)
    assert abs(cut - whole) > 1e-3


def test_every_step_augments_with_a_key_of_its_own(recorded):
    _, keys = recorded
    assert len(keys) == len(set(keys)) == NUM_EPOCHS * STEPS


# One program for all architectures

TWO = dataclasses.replace(SPACE, name="two", widths=(6, 6, 6))
BOTH = Genotype("two", {"layers": (("tanh", 0, 1), ("tanh", 1, 2))})
ONE = Genotype("two", {"layers": (("tanh", 0, 1), ("skip_connect", 1, 2))})


@pytest.fixture(scope="module")
def shared():
    first = make(BOTH, TWO, shared=True)
    return [(one, train(one)) for one in (first, first.of(ONE, seed=1))]


@pytest.mark.parametrize(("i", "genotype"), [(0, BOTH), (1, ONE)])
def test_shared_program_trains_the_architecture(shared, i, genotype):
    """As a program of its own does, from the same weights and with the same batches."""
    training, final = shared[i]
    alone = make(genotype, TWO, seed=i)
    graphdef, weights, rest = nnx.split(
        training.network(training.init()), nnx.Param, ...
    )
    start = dataclasses.replace(
        alone.init(), weights=weights, rest=rest, opt=alone._optimizer.init(weights)
    )
    expected = nnx.merge(graphdef, train(alone, start).weights, rest)
    found = training.network(final)
    pair = [nnx.state(one, nnx.Param) for one in (found, expected)]
    chex.assert_trees_all_close(*pair, rtol=1e-4, atol=1e-5)
    x = examples(50, seed=2).inputs
    np.testing.assert_array_equal(training.predict(final, x), predict(found, x))
    leaves = map(jax.tree.leaves, (pair[0], weights))
    moved = [a - b for a, b in zip(*leaves, strict=True)]
    assert max(abs(one).max() for one in moved) > 1e-2


def test_shared_program_is_compiled_once(shared):
    first, second = (training for training, _ in shared)
    assert first._epoch is second._epoch
    assert first._epoch._cache_size() == 1


@pytest.mark.parametrize("options", [{"drop_path": 0.2}, {"auxiliary": 0.4}, {}])
def test_what_an_architecture_alone_has_cannot_be_shared(options):
    space = SPACE if options else TwoHeads(**vars(SPACE))  # batch normalisation
    with pytest.raises(ValueError, match=r"`shared` must be False where .*program of"):
        make(space=space, shared=True, **options)


def test_program_of_an_architecture_alone_is_not_shared(plain):
    with pytest.raises(ValueError, match=r"`Training.of`: `shared` must be True"):
        plain[0].of(SKIP, seed=1)


# The test set


def test_accuracy_is_that_of_the_trained_network_on_the_test_set(plain):
    training, _, _, final = plain
    test = examples(50, seed=2)
    epochs = []
    found = train_and_test(make(), test, epochs.append)
    expected = accuracy(predict(training.network(final), test.inputs), test.labels)
    assert found == expected
    assert epochs == [1, 2, 3, 4]


def test_training_takes_no_test_set():
    for function in (Training, train, Training.epoch):
        assert not [p for p in inspect.signature(function).parameters if "test" in p]


# What is not finite


def refused(training, broken):
    """The message; the callback has not seen the epoch."""
    seen = []
    with pytest.raises(SearchError, match="Lower the learning rate") as caught:
        train(training, broken, lambda state, row: seen.append(row))
    assert not seen
    return str(caught.value)


def test_loss_that_is_not_finite_stops_before_the_callback(plain):
    training, states, _, _ = plain
    broken = dataclasses.replace(states[1], weights=poisoned(states[1].weights))
    message = refused(training, broken)
    assert "The loss became nan" in message
    assert "in epoch 3 of training" in message
    assert "What was saved before is kept" in message


def test_weights_that_the_last_step_broke_stop_too(auxiliary):
    """The loss of an epoch with one step is that before the update."""
    assert auxiliary.steps_per_epoch == 1
    state = auxiliary.init()
    broken = dataclasses.replace(state, opt=poisoned(state.opt))
    assert "in epoch 1 of training" in refused(auxiliary, broken)
