import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.errors import SearchError
from gumbax.search.fit import Search, entropy, fit
from gumbax.search.methods import METHODS

from .conftest import NUM_STEPS


def logits(state):
    return np.asarray(jax.tree.leaves(state.arch)[0])


@pytest.fixture(scope="module")
def whole(search):
    """Final state and rows of an uninterrupted search, with its states on the way."""
    rows, states = [], []

    def on_advance(state, row):
        rows.append(row)
        states.append(state)

    return fit(search, search.init(), on_advance), rows, states


def test_halves_are_disjoint(search, digits):
    halves = [
        {np.asarray(image).tobytes() for image in half.images}
        for half in (search.weight_half, search.arch_half)
    ]
    assert not halves[0] & halves[1]
    assert len(halves[0]) + len(halves[1]) == digits.train.size


def test_logits_rest_in_the_warm_up_and_move_after_it(search, whole):
    _, _, states = whole
    np.testing.assert_array_equal(logits(states[0]), logits(search.init()))
    assert (logits(states[-1]) != logits(states[0])).any()


def test_loss_falls_and_metrics_are_complete(whole):
    _, rows, _ = whole
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert set(rows[0]) == {
        "step",
        "loss",
        "accuracy",
        "arch_loss",
        "arch_accuracy",
        "temperature",
        "entropy",
    }
    assert rows[0]["temperature"] > rows[-1]["temperature"] > 0


def test_search_goes_on_from_any_state_bit_for_bit(search, whole):
    final, rows, states = whole
    again = []
    resumed = fit(search, states[0], lambda state, row: again.append(row))
    chex.assert_trees_all_equal(resumed, final)
    assert again == rows[1:]


def test_length_of_a_call_changes_nothing(search, whole):
    final, _, _ = whole
    state, _ = search.advance(search.init(), NUM_STEPS)
    chex.assert_trees_all_equal(state, final)


def test_whole_annealing_schedule_is_one_trace(search, whole):
    assert len(whole[1]) == 3
    assert search._advance._cache_size() == 1


def test_seed_changes_the_search(space, digits, search):
    other = Search(space, search.method, digits.train, num_steps=NUM_STEPS, seed=4)
    np.testing.assert_array_equal(other.init().step, 0)
    leaves = zip(
        jax.tree.leaves(other.init().weights),
        jax.tree.leaves(search.init().weights),
        strict=True,
    )
    assert any((a != b).any() for a, b in leaves)
    assert (other.arch_half.labels != search.arch_half.labels).any()


def test_darts_learns_too(space, digits):
    search = Search(space, METHODS["darts"], digits.train, num_steps=40, seed=0)
    rows = []
    fit(search, search.init(), lambda state, row: rows.append(row))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {row["temperature"] for row in rows} == {1.0}


def test_loss_that_is_not_finite_stops_before_the_callback(search):
    state = search.init()
    broken = jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), state.weights)
    seen = []
    with pytest.raises(SearchError, match="last good checkpoint is kept"):
        fit(
            search,
            dataclasses.replace(state, weights=broken),
            lambda state, row: seen.append(row),
        )
    assert not seen


def test_entropy():
    np.testing.assert_allclose(entropy(jnp.zeros((3, 7))), np.log(7), rtol=1e-6)
    certain = entropy(jnp.array([[100.0, 0.0]]))
    assert 0 <= certain < 1e-6
