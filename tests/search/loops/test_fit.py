"""The search loop: what it sees, draws, resumes and refuses."""

import dataclasses
import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.data.dataset import Examples
from gumbax.search.loops.evaluation import accuracy, predict, soft_weights
from gumbax.search.loops.fit import fit
from gumbax.search.loops.search import Search
from gumbax.search.methods import derive_rules
from gumbax.search.methods.bilevel import first_order
from gumbax.search.methods.methods import METHODS
from gumbax.search.methods.penalties import add_linear
from gumbax.search.network.counting import weights
from gumbax.search.network.derivation import derive
from gumbax.search.network.pricing import cost_tables
from gumbax.search.network.supernet import dense_operation
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.store.errors import SearchError
from tests.helpers import sweep
from tests.search.conftest import BATCH_SIZE, CHAIN, NUM_EPOCHS, poisoned

METRICS = {
    "epoch",
    "step",
    "loss",
    "accuracy",
    "arch_loss",
    "arch_accuracy",
    "temperature",
    "entropy",
    "effective_operations",
    "skip_fraction",
    "gradient_snr",
    "gradient_snr/cell",
    "soft_accuracy",
    "drawn_accuracy",
    "argmax_accuracy",
}


@pytest.fixture(scope="module")
def whole(search):
    """Final state and rows of an uninterrupted search, with its states on the way."""
    rows, states = [], []

    def on_epoch(state, row):
        rows.append(row)
        states.append(state)

    return fit(search, on_epoch=on_epoch), rows, states


def features(count, num_classes=3):
    x = np.random.default_rng(0).normal(size=(count, 5))
    return Examples(
        inputs=jnp.asarray(x, jnp.float32), labels=jnp.arange(count) % num_classes
    )


def small_search(count=16, batch_size=8, method=METHODS["gumbel"], **options):
    return Search(
        CHAIN,
        dataclasses.replace(method, warmup=0.0),
        features(count),
        num_classes=3,
        num_epochs=2,
        batch_size=batch_size,
        **options,
    )


# Data


def test_halves_are_disjoint_and_have_every_class(search, digits):
    halves = [
        {np.asarray(image).tobytes() for image in half.inputs}
        for half in (search.weight_half, search.arch_half)
    ]
    assert not halves[0] & halves[1]
    assert len(halves[0]) + len(halves[1]) == digits.train.size
    for half in (search.weight_half, search.arch_half):
        assert set(half.labels.tolist()) == set(range(10))


def test_search_takes_no_test_set():
    for function in (Search, fit, Search.epoch, Search.step, Search.gap):
        assert not [p for p in inspect.signature(function).parameters if "test" in p]


# The loop


def test_logits_rest_in_the_warm_up_and_move_after_it(search, whole):
    _, _, states = whole
    first = search.init().arch["cell"]
    moved = [bool((state.arch["cell"] != first).any()) for state in states]
    assert moved == [False, False, True, True]


@pytest.mark.parametrize(("name", "expected"), [("gumbel", 3), ("random", 0)])
def test_gradient_of_resting_logits_is_not_computed(name, expected):
    calls = []

    def counted(*given):
        jax.debug.callback(lambda: calls.append(None))
        return first_order(*given)

    method = dataclasses.replace(METHODS[name], bilevel=counted, warmup=0.25)
    given = {"num_classes": 3, "num_epochs": 2, "batch_size": 4}
    search = Search(CHAIN, method, features(16), **given)
    found = fit(search)
    jax.effects_barrier()
    assert (search.num_steps, len(calls)) == (4, expected)
    always = Search(CHAIN, method, features(16), **given)
    always._of_logits = lambda problem, state, inner: first_order(
        problem, state.arch, state.weights, inner
    )
    chex.assert_trees_all_close(found, fit(always), rtol=1e-5, atol=1e-6)


def test_loss_falls_and_metrics_are_complete(search, whole):
    _, rows, _ = whole
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {frozenset(row) for row in rows} == {frozenset(METRICS)}
    assert all(isinstance(v, int | float) for row in rows for v in row.values())
    temperatures = [row["temperature"] for row in rows]
    assert 2 > temperatures[0] > temperatures[-1] > 0.2
    assert search.num_steps == NUM_EPOCHS * 3


def test_metrics_of_the_gap_are_those_of_the_networks(search, whole):
    """Measured here on the supernet and on the derived network, in one batch each."""
    final, rows, _ = whole
    supernet, half = search.supernet(final), search.arch_half
    derived = derive(supernet, search.method.genotype(final.arch, search.space))
    soft = soft_weights(final.arch, search.temperature(final.step))
    classes = predict(
        supernet.network, half.inputs, weights=soft, operation=dense_operation
    )
    expected = accuracy(classes, half.labels) / 100
    assert rows[-1]["soft_accuracy"] == pytest.approx(expected, abs=0.01)
    expected = accuracy(predict(derived, half.inputs), half.labels) / 100
    assert rows[-1]["argmax_accuracy"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_search_goes_on_from_any_state_bit_for_bit(search, whole, epoch):
    final, rows, states = whole
    again = []
    resumed = fit(search, states[epoch], lambda state, row: again.append(row))
    chex.assert_trees_all_equal(resumed, final)
    assert again == rows[epoch + 1 :]


def test_whole_schedule_is_one_trace(search, whole):
    assert len(whole[1]) == NUM_EPOCHS
    assert search._epoch._cache_size() == 1


def test_seed_changes_the_search(digits, search):
    other = Search(
        search.space,
        search.method,
        digits.train,
        num_classes=10,
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
        seed=4,
    )
    leaves = zip(
        jax.tree.leaves(other.init().weights),
        jax.tree.leaves(search.init().weights),
        strict=True,
    )
    assert any((a != b).any() for a, b in leaves)
    assert (other.arch_half.labels != search.arch_half.labels).any()


@pytest.fixture(scope="module")
def uneven():
    """15 examples: halves of 8 and 7, which have two batches of 4 and one."""
    return small_search(15, batch_size=4)


@pytest.mark.exhaustive
def test_halves_whose_numbers_of_batches_differ(uneven):
    assert (uneven.weight_half.size, uneven.arch_half.size) == (8, 7)
    assert uneven.steps_per_epoch == 1
    state, _ = uneven.epoch(uneven.init())
    assert int(state.step) == 1


def test_batch_is_at_most_a_half():
    search = small_search(10, batch_size=64)
    assert (search.batch_size, search.steps_per_epoch) == (5, 1)


def test_class_that_cannot_be_in_both_halves_is_refused():
    with pytest.raises(SearchError, match="two examples of every class"):
        small_search(4)


def test_images_of_every_step_are_augmented():
    seen = []

    def augmentation(key, x):
        seen.append((key, x.shape))
        return x

    search = small_search(augmentation=augmentation)
    batch = Examples(inputs=jnp.ones((8, 5)), labels=jnp.zeros(8, int))
    jax.eval_shape(search.step, search.init(), search._rest, batch, batch)
    assert [shape for _, shape in seen] == [(8, 5), (8, 5)]
    assert seen[0][0] is not seen[1][0]


# Draws


@pytest.mark.exhaustive
def test_cells_share_a_draw_and_the_two_steps_do_not():
    names = ("skip_connect", "none", "max_pool_3x3")
    space = CellSpace("shared", names, 2, 4, cells_per_stage=2, num_stages=1)
    seen = []
    method = METHODS["gdas_sampled"]

    def operation(weights, branches, params, x, *, key=None):
        jax.debug.callback(lambda w: seen.append(np.asarray(w)), weights, ordered=True)
        return method.operation(weights, branches, params, x, key=key)

    x = np.random.default_rng(0).normal(size=(48, 4, 4, 1)).astype(np.float32)
    search = Search(
        space,
        dataclasses.replace(method, operation=operation),
        Examples(inputs=jnp.asarray(x), labels=jnp.arange(48) % 3),
        num_classes=3,
        num_epochs=1,
        batch_size=4,
    )
    jax.block_until_ready(search.epoch(search.init()))
    jax.effects_barrier()
    # [step, architecture or weights, cell, primitive]
    draws = np.stack(seen).reshape(6, 2, 2, 3)
    np.testing.assert_array_equal(draws[:, :, 0], draws[:, :, 1])
    assert np.isin(draws, (0, 1)).all()
    assert (draws[:, 0] != draws[:, 1]).any()
    assert (draws[1:] != draws[:-1]).any()


# Devices


@pytest.fixture(scope="module")
def mesh():
    # Its axes are explicit or automatic by the version of JAX.
    return jax.make_mesh((8,), ("data",))


@pytest.mark.eight_devices
def test_batch_is_shared_out_evenly(mesh):
    with pytest.raises(SearchError, match="be a multiple of the 8 devices of the mesh"):
        small_search(count=48, mesh=mesh, batch_size=12)


@pytest.mark.eight_devices
@pytest.mark.exhaustive
def test_eight_devices_draw_alike_and_give_the_metrics_of_one(digits, search, mesh):
    sharded = Search(
        search.space,
        search.method,
        digits.train,
        num_classes=10,
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
        seed=3,
        mesh=mesh,
    )
    key, open_choice = jax.random.key(7), {"cell": jnp.zeros((3, 4))}
    draws = [s._draw(key, open_choice, jnp.float32(1)) for s in (search, sharded)]
    chex.assert_trees_all_equal(*draws)
    state, metrics = search.epoch(search.init())
    found_state, found = sharded.epoch(sharded.init())
    chex.assert_trees_all_close(found_state.weights, state.weights, atol=2e-3)
    assert set(found) == set(metrics)
    for name, value in metrics.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, err_msg=name)

    # Which operations were drawn: the others have no moments.
    def touched(state):
        moments = state.weight_opt[1][0].mu["cells"]
        return jax.tree.map(
            lambda m: np.asarray(m != 0).reshape(len(m), -1).any(1), moments
        )

    expected = touched(state)
    chex.assert_trees_all_equal(touched(found_state), expected)
    assert {bool(t) for leaf in jax.tree.leaves(expected) for t in leaf} == {
        True,
        False,
    }


@pytest.mark.eight_devices
@pytest.mark.exhaustive
def test_eight_devices_have_the_gradients_of_one(mesh):
    batch = features(8)
    steps = []
    for options in ({}, {"mesh": mesh}):
        search = small_search(**options)
        step = jax.jit(search.step)
        steps.append(step(search.init(), search._rest, batch, batch))
    (state, (metrics, gradient)), (found_state, (found, found_gradient)) = steps
    scale = np.abs(gradient["layers"]).max()
    assert scale > 1e-3
    chex.assert_trees_all_close(found_gradient, gradient, rtol=0, atol=1e-5 * scale)
    chex.assert_trees_all_close(found, metrics, rtol=1e-5)
    chex.assert_trees_all_close(found_state.weights, state.weights, atol=1e-5)


# What is not finite


def test_loss_that_is_not_finite_stops_before_the_callback(search):
    state, seen = search.init(), []
    broken = dataclasses.replace(state, weights=poisoned(state.weights))
    with pytest.raises(SearchError, match="What was saved before is kept"):
        fit(search, broken, lambda state, row: seen.append(row))
    assert not seen


@pytest.mark.parametrize("part", ["weight_opt", "arch_opt"])
def test_weights_that_the_last_step_broke_stop_too(uneven, part):
    """The losses of an epoch with one step are those before the update."""
    assert uneven.steps_per_epoch == 1
    state, seen = uneven.init(), []
    broken = dataclasses.replace(state, **{part: poisoned(getattr(state, part))})
    with pytest.raises(SearchError, match="in epoch 1"):
        fit(uneven, broken, lambda state, row: seen.append(row))
    assert not seen


# Costs


@pytest.fixture(scope="module")
def table():
    return cost_tables(CHAIN, (5,), 3, {"weights": weights})["weights"]


@pytest.mark.parametrize("name", sweep(["gumbel", "snas"], ["darts", "darts_unrolled"]))
def test_penalty_adds_its_gradient_to_that_of_the_logits_alone(name, table):
    """On the batch and with the draw of the step, whatever the method."""
    method = dataclasses.replace(METHODS[name], init=(0.0, 1.0))
    penalty = add_linear(weight=0.5, reference=100.0)
    plain = small_search(method=method)
    taxed = small_search(method=method, cost=table, penalty=penalty)
    state = plain.init()
    batches = [jax.tree.map(lambda a: a[:8], half) for half in halves(plain)]

    def step(search):
        return jax.jit(search.step)(state, search._rest, *batches)

    (first, (found, without)), (second, (taxed_found, gradient)) = map(
        step, (plain, taxed)
    )
    probs = jax.nn.softmax(state.arch["layers"])
    costs = table.costs["layers"]
    excess = costs - np.sum(probs * costs, axis=-1, keepdims=True)
    added = gradient["layers"] - without["layers"]
    np.testing.assert_allclose(added, 0.5 / 100 * probs * excess, rtol=1e-4, atol=1e-6)
    paid = taxed_found["arch_loss"] - found["arch_loss"]
    assert 0.5 * table.fixed / 100 <= paid + 1e-5
    if name == "gumbel":  # that of an architecture, and not the expected one
        sums = np.array([sum(drawn) for drawn in itertools.product(*costs)])
        assert np.min(np.abs(0.5 * (table.fixed + sums) / 100 - paid)) < 1e-5
    if name == "snas":  # one level: the weights step where the logits stood
        jax.tree.map(np.testing.assert_array_equal, first.weights, second.weights)


def halves(search):
    return search.weight_half, search.arch_half


def test_derived_network_never_exceeds_the_budget(table):
    """Without weights there is the skip alone, whatever the logits say."""
    eager = dataclasses.replace(METHODS["darts"], init=(0.0, 2.0), warmup=0.0)
    plain = small_search(method=eager, seed=2)
    costly = plain.method.genotype(plain.init().arch, CHAIN)
    assert table.of(costly).total > table.fixed
    rows = []
    search = small_search(method=eager, seed=2, cost=table, budget=table.fixed)
    state = fit(search, on_epoch=lambda state, row: rows.append(row))
    kept = search.genotype(state.arch)
    assert [edge.primitive for edge in kept.cells["layers"]] == ["skip_connect"]
    assert [row["argmax_cost"] for row in rows] == [table.fixed] * 2
    probs = jax.nn.softmax(state.arch["layers"])
    expected = table.fixed + np.sum(probs * table.costs["layers"])
    assert rows[-1]["expected_cost"] == pytest.approx(expected)
    # What the gap is measured of, too.
    network = derive(search.supernet(state), kept)
    some = search.arch_half
    measured = accuracy(predict(network, some.inputs, batch_size=8), some.labels)
    assert search.gap(state)["argmax_accuracy"] == pytest.approx(measured / 100)


def test_costs_that_do_not_fit_are_refused(table):
    with pytest.raises(SearchError, match="`cost` must be given with `budget`, got no"):
        small_search(budget=1.0)
    with pytest.raises(
        SearchError, match="`cost` must be given with `penalty`, got no"
    ):
        small_search(penalty=add_linear(weight=1.0, reference=1.0))
    message = f"be at least {table.fixed:g} weights, the cost of the cheapest arch"
    with pytest.raises(SearchError, match=message):
        small_search(cost=table, budget=table.fixed - 1)
    other = dataclasses.replace(table, space="other")
    with pytest.raises(SearchError, match="be the table of the space 'chain', got one"):
        small_search(cost=other)
    fair = dataclasses.replace(METHODS["gumbel"], derive=derive_rules.threshold())
    with pytest.raises(SearchError, match="maximise a product of probabilities"):
        small_search(method=fair, cost=table, budget=table.fixed)
