"""Every method trains a step; a user's own is one more record."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax import gumbel_softmax
from gumbax.search.chain_space import mlp_space
from gumbax.search.data import Examples
from gumbax.search.fit import Search
from gumbax.search.methods import METHODS, Method, path
from gumbax.search.network import dense_operation

SPACE = mlp_space((8, 8, 8))


@pytest.fixture(scope="module")
def examples():
    x = jax.random.normal(jax.random.key(0), (64, 4))
    return Examples(inputs=x, labels=(x[:, 0] > 0).astype(jnp.int32))


def trained(method, examples):
    method = dataclasses.replace(method, warmup=0.0)
    search = Search(
        SPACE, method, examples, num_classes=2, num_epochs=2, batch_size=16, seed=0
    )
    before = search.init()
    after, metrics = search.epoch(before)
    assert all(np.isfinite(value) for value in metrics.values())
    moved = [
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(
            jax.tree.leaves(before.weights), jax.tree.leaves(after.weights), strict=True
        )
    ]
    assert any(moved)
    return before.arch["layers"], after.arch["layers"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name, examples):
    before, after = trained(METHODS[name], examples)
    assert (before != after).any() == (name != "random")


def test_published_values():
    darts = METHODS["darts"].as_published()
    assert (darts.weights.learning_rate, darts.weights.final) == (0.025, 0.001)
    assert (darts.arch.learning_rate, darts.arch.b1) == (3e-4, 0.5)
    assert darts.arch.weight_decay == 1e-3
    gdas = METHODS["gdas"].as_published()
    schedule = gdas.temperature(250, 4)
    np.testing.assert_allclose([schedule(0), schedule(999)], [10.0, 0.1], rtol=1e-5)
    assert gdas.weights.nesterov
    snas = METHODS["snas"].as_published()
    assert snas.init == (1.0, 0.01)


def dirichlet(key, logits, temperature):
    """DrNAS: weights from a Dirichlet distribution, by implicit reparametrisation."""
    del temperature
    return jax.random.dirichlet(key, jax.nn.elu(logits) + 1.0)


def two_path(key, logits, temperature):
    """ProxylessNAS: a pair without replacement, then a choice between the two."""
    pair_key, key = jax.random.split(key)
    noise = jax.random.gumbel(pair_key, logits.shape)
    kth = jnp.sort(jax.lax.stop_gradient(logits) + noise, axis=-1)[:, -2:-1]
    allowed = jax.lax.stop_gradient(logits) + noise >= kth
    return gumbel_softmax(
        key, logits, temperature=temperature, hard=True, where=allowed
    )


@pytest.mark.parametrize(
    ("sampler", "operation"), [(dirichlet, dense_operation), (two_path, path())]
)
def test_a_users_own_method_is_one_record(sampler, operation, examples):
    method = Method(
        name="mine",
        sampler=sampler,
        operation=operation,
        temperature=METHODS["gumbel"].temperature,
    )
    before, after = trained(method, examples)
    assert (before != after).any()
