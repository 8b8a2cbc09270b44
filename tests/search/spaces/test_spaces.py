"""The spaces: published sizes, shapes, ranges, and spaces of one's own."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gumbax.nnx import ArchParam
from gumbax.search.genotype.genotype import Genotype, architectures
from gumbax.search.network.derivation import modules_of, new_network, num_weights
from gumbax.search.network.supernet import Supernet, dense_operation, path_operation
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.chain_space import (
    ChainSpace,
    macro_space,
    mlp_space,
)
from gumbax.search.spaces.darts_space import DARTS_PRIMITIVES, DartsSpace
from gumbax.search.spaces.edges import Candidates
from gumbax.search.spaces.layers import Layers, fan_in_uniform
from gumbax.search.spaces.named import SPACES, nasbench201, small_images
from gumbax.search.spaces.primitives import PRIMITIVES, Identity, NormedPool
from gumbax.search.spaces.sequence_space import sequence_space
from tests import helpers
from tests.helpers import sweep
from tests.search.conftest import filled

IMAGE = (32, 32, 3)


def abstract(space, shape=IMAGE, num_classes=10):
    """A supernet with shapes for values."""
    return nnx.eval_shape(lambda: Supernet(space, shape, num_classes, rngs=nnx.Rngs(0)))


def abstract_network(space, genotype, shape=IMAGE, **options):
    return nnx.eval_shape(
        lambda: new_network(space, genotype, shape, 10, rngs=nnx.Rngs(0), **options)
    )


def scores_shape(net, shape):
    """Of the supernet's output for two examples, by tracing alone."""

    def run(x):
        weights = {
            name: jax.nn.softmax(jnp.zeros(choice.shape))
            for name, choice in net.space.choices.items()
        }
        graphdef, state = nnx.split(net)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), state)
        return nnx.merge(graphdef, zeros)(x, weights, dense_operation)

    return jax.eval_shape(run, jax.ShapeDtypeStruct((2, *shape), jnp.float32)).shape


# Published sizes


@pytest.fixture(scope="module")
def darts():
    return abstract(DartsSpace())


@pytest.mark.exhaustive
def test_darts_supernet_has_the_published_number_of_weights(darts):
    assert num_weights(darts.network) == 1_930_618
    logits = jax.tree.leaves(nnx.state(darts, ArchParam))
    assert [leaf.shape for leaf in logits] == [(14, 8), (14, 8)]


@pytest.mark.exhaustive
def test_darts_cells_have_the_published_shapes(darts):
    shapes = []
    for cell in darts.network.cells:
        groups = [g for g in (cell.outer, cell.inner) if g is not None]
        assert all(isinstance(g, Candidates) for g in groups)
        assert sum(len(g.rows) for g in groups) == 14
        shapes.append(
            (cell.outer is not None, cell.second.conv.kernel.shape[-1], len(groups))
        )
    widths = [16, 16, 32, 32, 32, 64, 64, 64]
    reduction = [i in (2, 5) for i in range(8)]
    assert shapes == [(r, c, 1 + r) for r, c in zip(reduction, widths, strict=True)]
    # After a reduction cell, input 0 is the larger image: FactorizedReduce.
    after = [type(cell.first).__name__ for cell in darts.network.cells]
    assert [i for i, name in enumerate(after) if name == "FactorizedReduce"] == [3, 6]


# Rows 0, 11 and 284 of NAS-Bench-201, with the numbers of its metadata.
@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([4, 2, 1, 2, 1, 1], 129_306),
        ([3, 3, 4, 0, 3, 4], 802_426),
        ([1, 1, 1, 0, 2, 0], 101_306),
    ],
)
def test_nas_bench_201_networks_have_the_published_numbers_of_weights(
    operations, expected
):
    space = nasbench201()
    o = [space.primitives[i] for i in operations]
    text = f"|{o[0]}~0|+|{o[1]}~0|{o[2]}~1|+|{o[3]}~0|{o[4]}~1|{o[5]}~2|"
    genotype = Genotype.from_nasbench201(text)
    assert num_weights(abstract_network(space, genotype)) == expected


def test_nas_bench_201_supernet_has_15_cells():
    net = abstract(nasbench201())
    assert [len(stage) for stage in net.network.cells] == [5, 5, 5]
    # As published, 1,692,826, without the biases of convolutions: two on each of the
    # 6 edges of a cell.
    biases = 5 * 12 * (16 + 32 + 64)
    assert num_weights(net.network) == 1_692_826 - biases


# Edges and counts


def test_edges_are_ordered_by_target_then_source():
    assert nasbench201().choices["cell"].edges == (
        (0, 1),
        (0, 2),
        (1, 2),
        (0, 3),
        (1, 3),
        (2, 3),
    )
    normal, reduce = DartsSpace().choices.values()
    assert normal == reduce
    assert normal.edges[:5] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert normal.edges[9:] == tuple((j, 5) for j in range(5))
    assert (normal.num_inputs, normal.outputs) == (2, (2, 3, 4, 5))
    assert normal.primitives == DARTS_PRIMITIVES


def test_numbers_of_architectures():
    assert nasbench201().num_architectures == 5**6
    assert small_images().num_architectures == 7**6
    # Two of 2, 3, 4, 5 inputs, one of 7 operations on each; two cells.
    assert DartsSpace().num_architectures == (1 * 3 * 6 * 10 * 7**8) ** 2
    assert DartsSpace(inputs_per_node=None).num_architectures == 8**28
    assert macro_space().num_architectures == 3**7
    assert mlp_space().num_architectures == 4**3
    assert CellSpace("one", ("none",), 2).num_architectures == 1


def test_number_of_architectures_is_that_of_all_genotypes():
    space = CellSpace("few", ("none", "skip_connect", "nor_conv_1x1"), 3)
    every = set(architectures(space))
    assert len(every) == space.num_architectures == 27
    last = DartsSpace().num_architectures - 1
    genotype = Genotype.from_index(last, DartsSpace())
    genotype.check(DartsSpace())
    assert genotype.index(DartsSpace()) == last


def test_pooling_of_cell_spaces_is_not_normalised_and_that_of_darts_is():
    """NAS-Bench-201 has no normalisation after pooling, DARTS in its search."""

    def after_pooling(space):
        supernet = nnx.eval_shape(
            lambda: Supernet(space, (16, 16, 3), 10, rngs=nnx.Rngs(0))
        )
        modules = modules_of(supernet)
        return {m.norm is not None for m in modules if isinstance(m, NormedPool)}

    pools = ("max_pool_3x3", "avg_pool_3x3")
    darts = DartsSpace(channels=4, num_cells=3, num_nodes=1, primitives=pools)
    assert after_pooling(nasbench201(cells_per_stage=1)) == {False}
    assert after_pooling(darts) == {True}


def test_chain_needs_every_layer():
    layers = Genotype.random(jax.random.key(0), SPACES["mlp"]()).cells["layers"]
    with pytest.raises(ValueError, match="no edge 2->3 of 'layers'"):
        Genotype("mlp", {"layers": layers[:-1]}).check(SPACES["mlp"]())


# Shapes


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitive_halves_the_image_as_asked(name):
    layers = Layers(norm="group")
    for stride, side in itertools.product((1, 2), (7, 8)):
        make = functools.partial(PRIMITIVES[name], 4, stride=stride, layers=layers)
        module = nnx.eval_shape(lambda make=make: make(rngs=nnx.Rngs(0)))
        run = nnx.eval_shape(
            lambda m, x: m(x),
            module,
            jax.ShapeDtypeStruct((3, side, side, 4), jnp.float32),
        )
        expected = -(-side // stride)
        assert run.shape == (3, expected, expected, 4)
        assert run.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "side"),
    sweep([("nasbench201", 9)], [("small_images", 28), ("darts", 9), ("macro", 9)]),
)
def test_networks_take_images_of_any_size(name, side):
    space = SPACES[name]()
    if isinstance(space, DartsSpace):
        space = DartsSpace(channels=4, num_cells=3, num_nodes=2)
    elif isinstance(space, CellSpace):
        space = CellSpace(name, space.primitives, 3, 4, 1, 3, space.norm)
    else:
        space = macro_space((4, 4, 8, 8), (1, 2, 2))
    shape = (side, side, 1)
    assert scores_shape(abstract(space, shape, 7), shape) == (2, 7)
    genotype = Genotype.random(jax.random.key(0), space)
    derived = abstract_network(space, genotype, shape)
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    assert nnx.eval_shape(lambda net, x: net(x), derived, x).shape == (2, 10)


def test_images_of_odd_size_are_rounded_up():
    space = CellSpace("odd", ("none", "skip_connect"), 2, 4)
    net = abstract(space, (28, 28, 1))
    sizes = []

    def run(x):
        graphdef, state = nnx.split(net.network)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), state)
        network = nnx.merge(graphdef, zeros)
        x = network.stem(x)
        for block in network.reductions:
            x = block(x)
            sizes.append(x.shape[1:])
        return x

    jax.eval_shape(run, jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32))
    assert sizes == [(14, 14, 8), (7, 7, 16)]


def test_mlp_takes_features():
    space = mlp_space((8, 8, 6))
    assert scores_shape(abstract(space, (5,), 3), (5,)) == (2, 3)


def test_sequences_have_kernels_of_a_width():
    """What an operation sees reaches along the sequence, as far as its kernel."""
    space = sequence_space(2, 4)
    assert scores_shape(abstract(space, (12, 3), 5), (12, 3)) == (2, 5)
    reach = {"skip_connect": 0, "conv_1": 0, "conv_3": 1, "conv_5": 2}
    reach |= {f"dil_{rate}_conv_3": rate for rate in (2, 4, 8)}
    assert set(reach) == set(space.choices["layers"].primitives)
    x = jnp.ones((1, 1, 17, 4))
    for name, far in reach.items():
        module = space.primitives[name](
            *(4, 4), stride=1, layers=Layers(norm="batch"), rngs=nnx.Rngs(1)
        )
        if getattr(module, "norm", None) is not None:
            module.norm = lambda y: y  # which sees all
        seen = jax.jacobian(lambda x, m=module: m(x)[0, 0, 8].sum())(x)
        places = np.flatnonzero(np.abs(seen).sum((0, 1, 3))) - 8
        expected = range(-2, 3) if name == "conv_5" else {-far, 0, far}
        assert set(places) == set(expected), name


def test_sequence_space_says_what_it_cannot_be():
    with pytest.raises(ValueError, match="`channels` must be a multiple of 4, got 6"):
        sequence_space(channels=6)
    with pytest.raises(ValueError, match="`widths` must be positive"):
        sequence_space(0)


# Spaces of one's own


class Scale(nnx.Module):
    def __init__(self, channels, *, stride, layers, rngs):
        del layers, rngs
        self.stride = stride
        self.scale = nnx.Param(jnp.full(channels, 2.0))

    def __call__(self, x):
        scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
        return x[:, :: self.stride, :: self.stride] * scale


def test_a_primitive_of_ones_own_in_a_cell():
    space = CellSpace(
        name="mine",
        primitives=("none", "scale"),
        num_nodes=2,
        channels=4,
        num_stages=1,
        norm="group",
        known={**PRIMITIVES, "scale": Scale},
    )
    net = filled(lambda: Supernet(space, (4, 4, 1), 3, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    weights = Genotype.from_index(1, space).weights(space)
    network = net.network
    scale = network.cells[0][0].modules[1].scale[...][0]
    features = network.stem_norm(network.stem(x)) * scale.reshape(1, 1, 1, 4)
    expected = network.head(nnx.relu(network.norm(features)).mean(axis=(1, 2)))
    found = net(x, weights, path_operation)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def dense(activation, c_in, c_out, *, stride, layers, rngs):
    del stride, layers
    return nnx.Sequential(nnx.Linear(c_in, c_out, rngs=rngs), activation)


def test_modules_of_ones_own_in_a_chain():
    space = ChainSpace(
        name="mine",
        primitives={
            "relu": functools.partial(dense, nnx.relu),
            "tanh": functools.partial(dense, jnp.tanh),
        },
        widths=(4, 5, 3),
        stem=functools.partial(dense, nnx.relu),
    )
    net = filled(lambda: Supernet(space, (6,), 2, rngs=nnx.Rngs(0)))
    genotype = Genotype("mine", {"layers": (("tanh", 0, 1), ("relu", 1, 2))})
    x = jax.random.normal(jax.random.key(0), (3, 6))
    network, hidden = net.network, net.network.stem(x)
    for layer, index, activation in zip(
        network.chain, (1, 0), (jnp.tanh, nnx.relu), strict=True
    ):
        linear = layer.modules[index].layers[0]
        kernel, bias = linear.kernel[...][0], linear.bias[...][0]
        hidden = activation(hidden @ kernel + bias.reshape(1, -1))
    found = net(x, genotype.weights(space), path_operation)
    np.testing.assert_allclose(found, network.head(hidden), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", SPACES.values(), ids=SPACES)
def test_equal_spaces_are_equal_and_hash_alike(make):
    """A supernet keeps its space as a static part: jit needs both."""
    assert make() == make()
    assert hash(make()) == hash(make())


# Initial weights


def test_initial_kernels_are_uniform_within_the_fan_in():
    kernel = fan_in_uniform(jax.random.key(0), (3, 3, 16, 64), jnp.float32)
    scaled = np.asarray(kernel).ravel() * np.sqrt(3 * 3 * 16)
    assert np.abs(scaled).max() <= 1
    counts = np.histogram(scaled, np.linspace(-1, 1, 21))[0]
    helpers.assert_law(counts, np.full(20, 1 / 20))


def test_edges_start_with_weights_of_their_own():
    space = CellSpace("two", ("none", "nor_conv_1x1"), 3, 4, 1, 1)
    net = Supernet(space, (4, 4, 1), 3, rngs=nnx.Rngs(0))
    kernels = net.network.cells[0][0].modules[1].conv.kernel[...]
    assert kernels.shape == (3, 1, 1, 4, 4)
    assert len({k.tobytes() for k in np.asarray(kernels)}) == 3


# Errors


CELL = functools.partial(CellSpace, "mine", ("none", "nor_conv_1x1"))
CHAIN = functools.partial(ChainSpace, "mine", {"a": Identity}, stem=Identity)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CELL(num_nodes=1), "`num_nodes` must be at least 2, got 1"),
        (
            lambda: CELL(channels=6),
            "`channels` must be a positive multiple of 4, got 6",
        ),
        (lambda: CELL(channels=0), "`channels` must be a positive multiple of 4"),
        (lambda: CELL(cells_per_stage=0), "`cells_per_stage` must be at least 1"),
        (lambda: CELL(num_stages=0), "`num_stages` must be at least 1"),
        (lambda: CELL(norm="layer"), "`norm` must be a known one, got layer"),
        (lambda: CellSpace("mine", ()), "`primitives` must be names of known prim"),
        (lambda: CellSpace("mine", ("conv",)), r"got \['conv'\]. Known: none, skip"),
        (lambda: CellSpace("mine", ("none", "none")), "must be different"),
        (lambda: DartsSpace(channels=5), "`channels` must be positive and even, got 5"),
        (lambda: DartsSpace(num_cells=2), "`num_cells` must be at least 3, got 2"),
        (lambda: DartsSpace(num_nodes=0), "`num_nodes` must be at least 1, got 0"),
        (lambda: DartsSpace(inputs_per_node=3), "`inputs_per_node` must be 2, or None"),
        (lambda: DartsSpace(primitives=("x",)), "`DartsSpace`: `primitives` must be"),
        (lambda: CHAIN(widths=(4,)), r"`widths` must be positive, .* got \(4,\)"),
        (lambda: CHAIN(widths=()), "`widths` must be positive"),
        (lambda: CHAIN(widths=(4, 0)), "`widths` must be positive"),
        (lambda: CHAIN(widths=(4, 4), strides=(1, 2)), "one for each of 1 layers, got"),
        (lambda: CHAIN(widths=(4, 4), strides=(0,)), "`strides` must be positive"),
        (lambda: CHAIN(widths=(4, 4), norm="none"), "`norm` must be a known one"),
        (
            lambda: ChainSpace("mine", {}, (4, 4), stem=Identity),
            "`primitives` must hold a primitive",
        ),
    ],
)
def test_impossible_fields(make, message):
    with pytest.raises(ValueError, match=message):
        make()
