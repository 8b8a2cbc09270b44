"""Methods, spaces, runs and schedules, as `multiprocessing` sends them to a process."""

import multiprocessing
import pickle

import jax
import numpy as np
import pytest

import gumbax
from gumbax import schedules
from gumbax.search import METHODS, SPACES, Search, from_arrays
from gumbax.search.data import Augmentation
from gumbax.search.genotype import Genotype
from gumbax.search.loops import Training, TrainingOptions
from gumbax.search.methods import threshold
from gumbax.search.spaces import mlp_space

LENGTHS = {"num_epochs": 6, "steps_per_epoch": 2}
SCHEDULES = {
    "constant": schedules.constant(0.5),
    "linear": schedules.linear(1.0, 0.1, 10),
    "exponential": schedules.exponential(1.0, 0.1, floor=0.1, every=2),
    "cosine": schedules.cosine(1.0, 0.1, 10),
    **{name: schedules.preset(name, **LENGTHS) for name in schedules.PRESETS},
}
X = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
DATA = from_arrays("mine", X, np.arange(32) % 4, X, np.arange(32) % 4)
SPACE = mlp_space((4, 4))


def again(value):
    return pickle.loads(pickle.dumps(value))


def test_records():
    methods = [*METHODS.values(), *(m.as_published() for m in METHODS.values())]
    records = [gumbax.exact, gumbax.subset(2), threshold(minimum=0.5)]
    rest = [TrainingOptions(num_epochs=3), Augmentation(flip=True)]
    for value in (*methods, *records, *rest):
        assert again(value) == value


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    found = again(SCHEDULES[name])
    for step in (0, 3, 11):
        assert found(step) == SCHEDULES[name](step)


@pytest.mark.parametrize("name", SPACES)
def test_spaces(name):
    space = SPACES[name]()
    found = again(space)
    assert (found.name, found.choices) == (space.name, space.choices)
    key = jax.random.key(0)
    assert Genotype.random(key, found) == Genotype.random(key, space)


def assert_equal(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on():
    search = Search(
        SPACE, METHODS["gumbel"], DATA.train, num_classes=4, num_epochs=2, batch_size=8
    )
    state, _ = search.epoch(search.init())
    other, found = again((search, state))
    assert_equal(other.epoch(found)[0], search.epoch(state)[0])


def test_a_training_goes_on():
    genotype = Genotype.random(jax.random.key(0), SPACE)
    options = TrainingOptions(num_epochs=2, batch_size=8)
    training = Training(
        SPACE, genotype, DATA.train, num_classes=4, options=options, seed=3
    )
    state, _ = training.epoch(training.init())
    other, found = again((training, state))
    assert_equal(other.epoch(found)[0], training.epoch(state)[0])


def found_there(method, space, schedule):
    return method.name, space.name, float(schedule(3))


def test_a_process_that_is_spawned_takes_them():
    given = (METHODS["gdas"], SPACES["nasbench201"](), SCHEDULES["gdas"])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(found_there, given) == found_there(*given)
