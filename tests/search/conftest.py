"""Small spaces and a short search, built and compiled once for all tests."""

import dataclasses

import jax
import pytest
from flax import nnx

from gumbax.search import data, datasets
from gumbax.search.cell_space import CellSpace
from gumbax.search.fit import Search
from gumbax.search.methods import METHODS
from gumbax.search.network import Supernet

NUM_EPOCHS = 4
BATCH_SIZE = 64


@pytest.fixture(scope="session")
def digits():
    """8x8 images of ten digits; 384 to train with: three steps for each half."""
    whole = datasets.load("digits")
    train = data.split(whole.train, 6 * BATCH_SIZE, seed=0)[1]
    return dataclasses.replace(whole, train=train)


@pytest.fixture(scope="session")
def space():
    return CellSpace(
        name="tiny",
        primitives=("none", "skip_connect", "nor_conv_1x1", "max_pool_3x3"),
        num_nodes=3,
        channels=4,
        num_stages=2,
        norm="group",
    )


@pytest.fixture(scope="session")
def search(space, digits):
    """Its logits rest for two epochs of four."""
    method = dataclasses.replace(METHODS["gumbel"], warmup=0.5)
    return Search(
        space,
        method,
        digits.train,
        num_classes=digits.num_classes,
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
        seed=3,
    )


def unsettled(module, seed=1, scale=0.3):
    """Moves every variable away from its first value, logits and norms included."""
    graphdef, params, rest = nnx.split(module, nnx.Not(nnx.BatchStat), ...)
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    leaves = [
        leaf + scale * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves), rest)


@pytest.fixture(scope="session")
def supernet(space):
    """Of the tiny space. Shared: tests do not change it."""
    return unsettled(Supernet(space, (8, 8, 1), 10, rngs=nnx.Rngs(0)))
