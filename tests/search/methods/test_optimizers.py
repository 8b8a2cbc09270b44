"""The optimisers against PyTorch's, written out in NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gumbax.search.methods.optimizers import AdamW, ArchAdam, Sgd, cosine_by_epoch

EPOCHS, STEPS = 4, 3


@pytest.fixture(autouse=True)
def _float64(x64):
    pass


def run(optimizer, weights, gradients):
    """The weights after every step, and the last state."""
    state, path = optimizer.init(weights), []
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        path.append(weights)
    return path, state


def problem(num_steps, scale=1.0):
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}
    gradients = [
        jax.tree.map(lambda w: scale * rng.normal(size=w.shape), weights)
        for _ in range(num_steps)
    ]
    return weights, gradients


def clipped(gradient, clip):
    """`clip_grad_norm_`."""
    norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
    factor = 1 if clip is None else min(1, clip / (norm + 1e-6))
    return {name: factor * g for name, g in gradient.items()}


def torch_sgd(options, weights, gradients):
    buffer = {name: np.zeros_like(w) for name, w in weights.items()}
    path = []
    for step, raw in enumerate(gradients):
        epoch = step // STEPS
        rate = (
            options.final
            + (options.learning_rate - options.final)
            * (1 + np.cos(np.pi * epoch / EPOCHS))
            / 2
        )
        gradient = clipped(raw, options.clip)
        weights = dict(weights)
        for name, g in gradient.items():
            decayed = g + options.weight_decay * weights[name]
            buffer[name] = options.momentum * buffer[name] + decayed
            move = buffer[name]
            if options.nesterov:
                move = decayed + options.momentum * buffer[name]
            weights[name] = weights[name] - rate * move
        path.append(weights)
    return path


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [None, 5.0])
def test_sgd_is_that_of_pytorch(nesterov, clip):
    options = Sgd(nesterov=nesterov, clip=clip, weight_decay=0.1)
    # Norms on both sides of the limit.
    weights, gradients = problem(EPOCHS * STEPS)
    gradients[1::2] = [jax.tree.map(lambda g: 9 * g, g) for g in gradients[1::2]]
    path, _ = run(options.make(EPOCHS, STEPS), weights, gradients)
    expected = torch_sgd(options, weights, gradients)
    for found, want in zip(path, expected, strict=True):
        chex.assert_trees_all_close(found, want, rtol=0, atol=1e-6)


def test_order_of_clipping_decay_and_momentum_matters_here():
    """The test above can see it: decay before clipping gives other weights."""
    options = Sgd(weight_decay=0.1)
    weights, gradients = problem(2, scale=9.0)
    path, _ = run(options.make(EPOCHS, STEPS), weights, gradients)
    other = optax.chain(
        optax.add_decayed_weights(0.1),
        optax.clip_by_global_norm(5.0),
        optax.sgd(0.025, momentum=0.9),
    )
    swapped, _ = run(other, weights, gradients)
    assert np.abs(path[-1]["a"] - swapped[-1]["a"]).max() > 1e-4


def test_inner_step_is_one_step_of_the_optimiser():
    """With clipping off, from the same state: momentum and decay are in it."""
    options = Sgd(clip=None, weight_decay=0.1)
    weights, gradients = problem(5)
    path, state = run(options.make(EPOCHS, STEPS), weights, gradients[:4])
    rate = options.schedule(EPOCHS, STEPS)(4)
    inner = options.inner_step(state, rate)
    found = jax.tree.map(
        lambda w, m, g: (
            w - inner.learning_rate * (inner.momentum * m + g + inner.weight_decay * w)
        ),
        path[-1],
        inner.trace,
        gradients[4],
    )
    path, _ = run(options.make(EPOCHS, STEPS), weights, gradients)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, path[-1]
    )
    assert np.abs(inner.trace["a"]).max() > 0.1


def test_momentum_is_zero_before_the_first_step():
    weights, _ = problem(0)
    inner = Sgd().inner_step(Sgd().make(EPOCHS, STEPS).init(weights), 0.025)
    assert {name: np.abs(m).max() for name, m in inner.trace.items()} == {
        "a": 0,
        "b": 0,
    }


@pytest.mark.parametrize("options", [Sgd(), AdamW()])
def test_weights_may_have_the_names_of_moments(options):
    weights = {"trace": jnp.ones(2), "mu": jnp.ones(3)}
    inner = options.inner_step(options.make(EPOCHS, STEPS).init(weights), 0.1)
    assert jax.tree.map(jnp.shape, inner.trace) == {"trace": (2,), "mu": (3,)}


def test_inner_step_of_adam_is_a_plain_gradient_step():
    weights, gradients = problem(1)
    _, state = run(AdamW().make(EPOCHS, STEPS), weights, gradients)
    inner = AdamW().inner_step(state, 0.1)
    assert inner[:3] == (0.1, 0.0, 0.0)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(inner.trace))


def torch_adam(options, weights, gradients):
    """With L2 decay, added to the gradient before the moments."""
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    path = []
    for step, raw in enumerate(gradients):
        t, gradient = step + 1, clipped(raw, options.clip)
        weights = dict(weights)
        for name, value in gradient.items():
            g = value + options.weight_decay * weights[name]
            first[name] = options.b1 * first[name] + (1 - options.b1) * g
            second[name] = options.b2 * second[name] + (1 - options.b2) * g**2
            scale = np.sqrt(second[name] / (1 - options.b2**t)) + 1e-8
            mean = first[name] / (1 - options.b1**t)
            weights[name] = weights[name] - options.learning_rate * mean / scale
        path.append(weights)
    return path


@pytest.mark.parametrize("clip", [None, 2.0])
def test_adam_of_the_logits_is_that_of_pytorch(clip):
    options = ArchAdam(weight_decay=0.1, clip=clip)
    weights, gradients = problem(6)
    path, _ = run(options.make(0, 6), weights, gradients)
    for found, want in zip(path, torch_adam(options, weights, gradients), strict=True):
        chex.assert_trees_all_close(found, want, rtol=0, atol=1e-6)


def test_logits_rest_in_the_warm_up():
    weights, gradients = problem(5)
    path, _ = run(ArchAdam().make(2.5, 5), weights, gradients)
    for name in weights:
        moved = [bool((p[name] != weights[name]).any()) for p in path]
        assert moved == [False, False, False, True, True]


@pytest.mark.parametrize("num_steps", [20, 2000])
def test_logits_settle_at_the_same_share_of_a_search_of_any_length(num_steps):
    """Adam moves what always has the same sign by its rate in each step."""
    adam = ArchAdam(learning_rate=1.0, travel=3.0).make(num_steps // 5, num_steps)
    gradients = [{"a": np.array([1.0, -2.0], np.float32)}] * num_steps
    path, _ = run(adam, {"a": np.zeros(2, np.float32)}, gradients)
    middle = path[3 * num_steps // 5 - 1]["a"]
    np.testing.assert_allclose(middle, [-1.5, 1.5], rtol=1e-3)
    np.testing.assert_allclose(path[-1]["a"], [-3.0, 3.0], rtol=1e-3)


def test_short_search_has_the_learning_rate_itself():
    adam = ArchAdam(learning_rate=0.03, travel=30.0)
    assert [adam.rate(0, n) for n in (1, 1000, 4000)] == [0.03, 0.03, 0.0075]
    assert adam.rate(3000, 4000) == 0.03
    assert ArchAdam(learning_rate=0.03).rate(0, 4000) == 0.03


def test_moments_begin_when_the_warm_up_ends():
    """The large gradients of the first steps do not shrink the later ones."""
    weights, gradients = problem(5)
    large = [jax.tree.map(lambda g: 1e3 * g, g) for g in gradients[:2]]
    path, _ = run(ArchAdam().make(2, 5), weights, large + gradients[2:])
    alone, _ = run(ArchAdam().make(0, 5), weights, gradients[2:])
    chex.assert_trees_all_equal(path[2:], alone)


def test_schedules_have_the_published_ends():
    """lr(t) = 0.001 + 0.024 (1 + cos(pi t / 50)) / 2, by the epoch t from 0."""
    schedule = Sgd().schedule(50, 10)
    np.testing.assert_allclose(schedule(0), 0.025, rtol=1e-6)
    np.testing.assert_allclose(schedule(9), 0.025, rtol=1e-6)
    np.testing.assert_allclose(schedule(250), 0.013, rtol=1e-6)
    last = 0.001 + 0.012 * (1 + np.cos(np.pi * 49 / 50))
    np.testing.assert_allclose(schedule(499), last, rtol=1e-6)
    np.testing.assert_allclose(schedule(500), 0.001, rtol=1e-6)
    by_steps = AdamW(learning_rate=0.01).schedule(5, 10)
    np.testing.assert_allclose([by_steps(0), by_steps(25)], [0.01, 0.005], rtol=1e-6)
    np.testing.assert_allclose(by_steps(50), 0.0, atol=1e-9)
    for n in (1, 7):
        ends = cosine_by_epoch(0.1, 0.0, n, 3)
        np.testing.assert_allclose([ends(0), ends(3 * n)], [0.1, 0], atol=1e-8)
