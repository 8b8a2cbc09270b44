"""Published counts, sizes and shapes."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gumbax.search.cell_space import CellSpace
from gumbax.search.chain_space import ChainSpace, dense
from gumbax.search.darts_space import DartsSpace
from gumbax.search.genotype import Genotype
from gumbax.search.network import Supernet, new_network, num_weights
from gumbax.search.spaces import SPACES, nasbench201


def abstract(make):
    return nnx.eval_shape(make)


def test_darts_supernet_has_the_published_weights_and_logits():
    net = abstract(lambda: Supernet(DartsSpace(), (32, 32, 3), 10, rngs=nnx.Rngs(0)))
    assert num_weights(net.network) == 1_930_618
    assert sum(p[...].size for p in net.arch.values()) == 224


@pytest.mark.parametrize(
    ("operations", "weights"),
    [
        ([4, 2, 1, 2, 1, 1], 129_306),
        ([3, 3, 4, 0, 3, 4], 802_426),
        ([1, 1, 1, 0, 2, 0], 101_306),
    ],
)
def test_nas_bench_201_networks_have_the_published_weights(operations, weights):
    space = nasbench201()
    choice = space.choices["cell"]
    edges = tuple(
        (choice.primitives[i], *edge)
        for i, edge in zip(operations, choice.edges, strict=True)
    )
    genotype = Genotype("nasbench201", {"cell": edges})
    net = abstract(
        lambda: new_network(space, genotype, (32, 32, 3), 10, rngs=nnx.Rngs(0))
    )
    assert num_weights(net) == weights


def test_sizes_of_the_spaces():
    assert nasbench201().num_architectures == 15_625
    # Pairs of inputs 1, 3, 6, 10; seven operations on each edge; two cells.
    assert DartsSpace().num_architectures == (1 * 3 * 6 * 10 * 7**8) ** 2
    assert CellSpace(name="a", primitives=("none",), num_nodes=2).num_architectures == 1


@pytest.mark.parametrize("name", SPACES)
def test_every_space_gives_class_scores_for_odd_images(name):
    space = SPACES[name]()
    shape = (7,) if name == "mlp" else (15, 15, 1)
    genotype = Genotype.random(jax.random.key(0), space)
    net = abstract(lambda: new_network(space, genotype, shape, 10, rngs=nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    assert nnx.eval_shape(lambda net, x: net(x), net, x).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CellSpace(name="a", primitives=()), "`primitives` must be names"),
        (lambda: CellSpace(name="a", primitives=("x",)), "got .*x.*Known: none"),
        (lambda: nasbench201(channels=6), "`channels` must be a positive multiple"),
        (lambda: nasbench201(cells_per_stage=0), "`cells_per_stage` must be at least"),
        (lambda: DartsSpace(num_cells=2), "`num_cells` must be at least 3"),
        (lambda: DartsSpace(channels=5), "`channels` must be positive and even"),
    ],
)
def test_impossible_spaces(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_own_modules_make_a_space():
    mine = ChainSpace(
        name="mine",
        primitives={
            "relu": functools.partial(dense, nnx.relu, 1),
            "tanh": functools.partial(dense, nnx.tanh, 1),
        },
        widths=(8, 8, 4),
        stem=functools.partial(dense, nnx.relu, 1),
    )
    net = Supernet(mine, (5,), 3, rngs=nnx.Rngs(0))
    assert net.logits()["layers"].shape == (2, 2)
