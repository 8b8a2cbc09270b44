"""A small space and a short search, compiled once for all tests."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gumbax.search import data
from gumbax.search.fit import Search
from gumbax.search.methods import METHODS
from gumbax.search.network import Supernet
from gumbax.search.space import CellSpace

NUM_STEPS = 60


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def space():
    names = ("none", "skip_connect", "conv_1x1", "max_pool_3x3")
    return CellSpace(name="tiny", primitives=names, num_nodes=3, channels=4)


@pytest.fixture(scope="session")
def search(space, digits):
    method = dataclasses.replace(METHODS["gumbel"], warmup=0.5)
    return Search(space, method, digits.train, num_steps=NUM_STEPS, seed=3)


@pytest.fixture
def supernet(space):
    """With architecture logits and normalisation away from their initial values."""
    net = Supernet(space, 1, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(net)
    leaves, treedef = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves))
