import dataclasses
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from gumbax.search import diagnostics
from gumbax.search.errors import SearchError
from gumbax.search.fit import Search, fit

from .conftest import BATCH_SIZE, NUM_EPOCHS


@pytest.fixture(scope="module")
def whole(search):
    """Final state and rows of an uninterrupted search, with its states on the way."""
    rows, states = [], []

    def on_epoch(state, row):
        rows.append(row)
        states.append(state)

    return fit(search, None, on_epoch), rows, states


def test_a_search_takes_no_test_set():
    assert not [name for name in inspect.signature(Search).parameters if "test" in name]


def test_halves_are_disjoint(search, digits):
    halves = [
        {np.asarray(image).tobytes() for image in half.inputs}
        for half in (search.weight_half, search.arch_half)
    ]
    assert not halves[0] & halves[1]
    assert len(halves[0]) + len(halves[1]) == digits.train.size


def test_logits_rest_in_the_warm_up_and_move_after_it(search, whole):
    _, _, states = whole
    first = search.init().arch
    chex.assert_trees_all_equal(states[1].arch, first)
    assert (states[-1].arch["cell"] != first["cell"]).any()


def test_loss_falls_and_metrics_are_complete(whole):
    _, rows, _ = whole
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0]["temperature"] > rows[-1]["temperature"] > 0
    wanted = {"arch_loss", "arch_accuracy", "entropy", "effective_operations"}
    wanted |= {"skip_fraction", "gradient_snr", "soft_accuracy", "argmax_accuracy"}
    assert wanted <= set(rows[0])


def test_search_goes_on_from_any_state_bit_for_bit(search, whole):
    final, rows, states = whole
    again = []
    resumed = fit(search, states[1], lambda state, row: again.append(row))
    chex.assert_trees_all_equal(resumed, final)
    assert again == rows[2:]


def test_whole_search_is_one_trace(search, whole):
    assert len(whole[1]) == NUM_EPOCHS
    assert search._epoch._cache_size() == 1


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


def test_eight_devices_search_as_one_does(search, whole, space, digits):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    sharded = Search(
        space,
        search.method,
        digits.train,
        num_classes=10,
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
        seed=3,
        mesh=mesh,
    )
    key, ones = jax.random.key(7), {"cell": jnp.zeros((3, 4))}
    chex.assert_trees_all_equal(
        sharded._draw(key, ones, jnp.float32(1.0)),
        search._draw(key, ones, jnp.float32(1.0)),
    )
    state, metrics = sharded.epoch(sharded.init())
    _, rows, states = whole
    for name in ("loss", "arch_loss", "accuracy", "arch_accuracy"):
        np.testing.assert_allclose(metrics[name], rows[0][name], atol=1e-3)
    for a, b in zip(
        jax.tree.leaves(state.weights), jax.tree.leaves(states[0].weights), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_entropy_and_effective_operations(space):
    found = diagnostics.of_logits({"cell": jnp.zeros((3, 4))}, space)
    np.testing.assert_allclose(found["entropy"], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(found["effective_operations"], 4, rtol=1e-5)
    np.testing.assert_allclose(found["skip_fraction"], 0.25, rtol=1e-6)


def test_signal_to_noise_ratio():
    steady = jnp.ones((5, 2, 3))
    noisy = jnp.concatenate([jnp.ones((2, 2, 3)), jnp.zeros((2, 2, 3))])
    found = diagnostics.of_gradients({"a": noisy, "b": steady})
    np.testing.assert_allclose(found["gradient_snr/a"], 1.0, rtol=1e-6)
