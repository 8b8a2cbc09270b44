"""Small spaces and a short search, built and compiled once for all tests."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gumbax.search.data import dataset, datasets
from gumbax.search.loops.search import Search
from gumbax.search.methods.methods import METHODS
from gumbax.search.network.supernet import Supernet
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.chain_space import ChainSpace, skip

NUM_EPOCHS = 4
BATCH_SIZE = 64


def dense(activation, c_in, c_out, *, stride, layers, rngs):
    del stride, layers
    return nnx.Sequential(nnx.Linear(c_in, c_out, rngs=rngs), activation)


# One layer of three operations, two of them with weights of one shape.
CHAIN = ChainSpace(
    name="chain",
    primitives={
        "skip_connect": skip,
        "relu": functools.partial(dense, nnx.relu),
        "tanh": functools.partial(dense, jnp.tanh),
    },
    widths=(6, 6),
    stem=functools.partial(dense, jnp.sin),
)


@pytest.fixture(scope="session")
def digits():
    """8x8 images of ten digits; 384 to train with: three steps for each half."""
    whole = datasets.load("digits")
    train = dataset.split(whole.train, 6 * BATCH_SIZE, seed=0)[1]
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
    """Of one stage, which compiles faster; its logits rest for two epochs of four."""
    method = dataclasses.replace(METHODS["gumbel"], warmup=0.5)
    return Search(
        dataclasses.replace(space, channels=8, num_stages=1),
        method,
        digits.train,
        num_classes=digits.num_classes,
        num_epochs=NUM_EPOCHS,
        batch_size=BATCH_SIZE,
        seed=3,
    )


def filled(make, seed=1):
    """The module that `make` makes, with values away from those of its start.

    It is made abstractly: to compile its initialisers takes longer than the test.
    """
    graphdef, statistics, rest = nnx.split(nnx.eval_shape(make), nnx.BatchStat, ...)
    generator = np.random.default_rng(seed)

    def noise(leaf):
        return jnp.asarray(generator.normal(0, 0.5, leaf.shape), leaf.dtype)

    statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), statistics)
    return nnx.merge(graphdef, statistics, jax.tree.map(noise, rest))


@pytest.fixture(scope="session")
def supernet(space):
    """Of the tiny space. Shared: tests do not change it."""
    return filled(lambda: Supernet(space, (8, 8, 1), 10, rngs=nnx.Rngs(0)))


def poisoned(tree):
    """NaN in place of every floating number."""
    return jax.tree.map(
        lambda leaf: (
            jnp.full_like(leaf, jnp.nan)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
        ),
        tree,
    )
