"""Tables of costs: against whole networks, published figures, and their files."""

import dataclasses
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gumbax.search.genotype.genotype import Genotype
from gumbax.search.network import costs
from gumbax.search.network.counting import multiply_adds, weights
from gumbax.search.network.derivation import new_network
from gumbax.search.network.latency import Latency
from gumbax.search.network.pricing import cost_tables
from gumbax.search.spaces.chain_space import mlp_space
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.edges import PLAIN
from gumbax.search.spaces.layers import Identity
from gumbax.search.spaces.named import nasbench201
from gumbax.search.spaces.space import Choice, Space
from tests.helpers import sweep
from tests.search.conftest import CHAIN

COUNTED = {"weights": weights, "multiply_adds": multiply_adds}


@pytest.fixture(scope="module")
def tables(space):
    return cost_tables(space, (8, 8, 1), 10, COUNTED)


# Rows 0, 11 and 284 of NAS-Bench-201, with the numbers of its metadata.
def test_nas_bench_201_has_the_published_costs():
    space = nasbench201()
    found = cost_tables(space, (32, 32, 3), 10, COUNTED)
    for operations, published in (
        ([4, 2, 1, 2, 1, 1], (129_306, 15_647_370)),
        ([3, 3, 4, 0, 3, 4], (802_426, 113_951_370)),
        ([1, 1, 1, 0, 2, 0], (101_306, 11_715_210)),
    ):
        o = [space.primitives[i] for i in operations]
        genotype = Genotype.from_nasbench201(
            f"|{o[0]}~0|+|{o[1]}~0|{o[2]}~1|+|{o[3]}~0|{o[4]}~1|{o[5]}~2|"
        )
        assert tuple(found[name].of(genotype).total for name in COUNTED) == published
    # A 3x3 convolution of the first stage, its five cells having six edges each.
    (one,) = (
        one
        for one in found["multiply_adds"].operations
        if (one.primitive, one.inputs) == ("nor_conv_3x3", ((32, 32, 16),))
    )
    assert one.cost == 32 * 32 * 9 * 16 * 16
    assert one.uses == 5 * 6


def darts_multiply_adds(primitive, channels, side, stride):
    """As AutoDL's counter has them, by hand: convolutions without bias alone."""
    size = int(primitive[-1]) if "conv" in primitive else 0
    after = (side // stride) ** 2 * (size**2 * channels + channels**2)
    if primitive.startswith("sep_conv"):
        return 2 * after
    if primitive.startswith("dil_conv"):
        return after
    if primitive == "skip_connect" and stride == 2:
        return (side // 2) ** 2 * channels**2
    return 0


@pytest.mark.exhaustive
def test_darts_has_the_published_costs():
    """The cell DARTS_V2, in the network of its evaluation."""
    space = DartsSpace(channels=36, num_cells=20)
    found = cost_tables(space, (32, 32, 3), 10, COUNTED)
    normal = (
        [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)] * 2
        + [("sep_conv_3x3", 1), ("skip_connect", 0)]
        + [("skip_connect", 0), ("dil_conv_3x3", 2)]
    )
    reduce = [("max_pool_3x3", i) for i in (0, 1)]
    reduce += [("skip_connect", 2), ("max_pool_3x3", 1)]
    reduce += [("max_pool_3x3", 0), ("skip_connect", 2)]
    reduce += [("skip_connect", 2), ("max_pool_3x3", 1)]
    genotype = Genotype.from_darts(
        f"Genotype(normal={normal}, normal_concat=range(2, 6), "
        f"reduce={reduce}, reduce_concat=range(2, 6))"
    )
    assert round(found["weights"].of(genotype).total / 1e6, 1) == 3.3
    stages = ((36, 32), (72, 16), (144, 8))  # of six normal cells each
    expected = sum(
        6 * darts_multiply_adds(primitive, *stage, 1)
        for primitive, _ in normal
        for stage in stages
    )
    of = found["multiply_adds"].of(genotype)
    # Its reduction cells keep no products.
    assert of.total - of.fixed == expected
    for one in found["multiply_adds"].operations:
        ((side, _, channels),), ((after, _, _),) = one.inputs, one.outputs
        stride = side // after
        by_hand = darts_multiply_adds(one.primitive, channels, side, stride)
        assert one.cost == by_hand, one


class Pair(nnx.Module):
    """A layer of pairs of arrays, one of which it makes wider."""

    def __init__(self, rngs):
        self.left = nnx.Linear(5, 7, rngs=rngs)

    def __call__(self, xs):
        return self.left(xs[0]), xs[1]


class PairNetwork(nnx.Module):
    def __init__(self, make_edges, num_classes, rngs):
        def make(name, rngs):
            return Pair(rngs)

        self.edge = make_edges("layers", [0], [(0, 1)], make, rngs)
        self.head = nnx.Linear(12, num_classes, rngs=rngs)

    def __call__(self, x, context=PLAIN):
        return self.head(jnp.concatenate(self.edge.only((x, x), context), axis=-1))


class PairSpace(Space):
    """A space of one's own, whose edge has more than one array."""

    name = "pairs"
    choices: ClassVar = {"layers": Choice(((0, 1),), ("left", "again"))}

    def build(self, make_edges, input_shape, num_classes, *, layers, rngs, **options):
        return PairNetwork(make_edges, num_classes, rngs)


@pytest.mark.parametrize(
    ("make", "input_shape"),
    sweep(
        [
            (None, (8, 8, 1)),
            (lambda: CHAIN, (5,)),
            (lambda: mlp_space((6, 8, 6)), (5,)),
            (PairSpace, (5,)),
        ],
        [
            (lambda: DartsSpace(channels=4, num_cells=3), (9, 9, 3)),
            (lambda: DartsSpace(channels=4, num_cells=4, num_nodes=2), (8, 8, 3)),
        ],
    ),
)
def test_costs_of_parts_add_up_to_those_of_the_network(make, input_shape, space):
    space = space if make is None else make()
    found = cost_tables(space, input_shape, 10, COUNTED)
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    for key in jax.random.split(jax.random.key(0), 4):
        genotype = Genotype.random(key, space)
        network = nnx.eval_shape(
            lambda g=genotype: new_network(space, g, input_shape, 10, rngs=nnx.Rngs(0))
        )
        for name, cost in COUNTED.items():
            of = found[name].of(genotype)
            assert of.total == cost(None, network, x)
            assert of.total == of.fixed + sum(of.primitives.values())
            one_hots = genotype.weights(space)
            np.testing.assert_allclose(
                found[name].expected(one_hots), of.total, rtol=1e-6
            )


def test_table_is_of_its_own_space(tables):
    with pytest.raises(ValueError, match="be an architecture of the space 'tiny'"):
        tables["weights"].of(Genotype("other", {"cell": ()}))


# Costs of one's own


def test_own_cost_is_asked_once_for_all_places_that_are_alike(space):
    asked = []

    def cost(primitive, module, x):
        asked.append((primitive, x.shape, type(module).__name__))
        return len(asked)

    deeper = dataclasses.replace(space, cells_per_stage=2)
    table = cost_tables(deeper, (8, 8, 1), 10, {"mine": cost})["mine"]
    places = [(one.primitive, one.inputs, one.cost) for one in table.operations]
    assert len(asked) == len(set(asked)) == len(places) + 1
    assert asked[-1] == (None, (1, 8, 8, 1), "CellNetwork")
    assert {name for name, _, _ in places} == set(space.primitives) - {"none"}
    assert {inputs for _, inputs, _ in places} == {((8, 8, 4),), ((4, 4, 8),)}
    column = space.primitives.index("max_pool_3x3")
    of_pool = [cost for name, _, cost in places if name == "max_pool_3x3"]
    assert table.costs["cell"][:, column].tolist() == [2 * sum(of_pool)] * 3
    assert (table.costs["cell"][:, space.primitives.index("none")] == 0).all()
    # Two layers that are made apart, and alike.
    asked.clear()
    chain = dataclasses.replace(CHAIN, widths=(6, 6, 6))
    cost_tables(chain, (5,), 10, {"mine": cost})
    assert [name for name, _, _ in asked] == [*CHAIN.primitives, None]


@pytest.mark.parametrize("found", [-1.0, float("nan"), float("inf"), None, "1"])
def test_cost_that_is_no_number_is_refused(found):
    with pytest.raises(ValueError, match=r"`costs\['mine'\]` must know a number, 0 or"):
        cost_tables(CHAIN, (5,), 3, {"mine": lambda primitive, module, x: found})


def test_primitive_that_a_table_does_not_know_is_named():
    known = {None: 0, "skip_connect": 0, "relu": 3}
    with pytest.raises(
        ValueError, match=r"for 'tanh' at inputs of \(\(6,\),\), got Key"
    ):
        cost_tables(CHAIN, (5,), 3, {"mine": lambda name, module, x: known[name]})


def test_latency_is_of_the_operation(optimised):
    """What is short is called thousands of times, so a busy machine does not matter."""
    x, wide = (jax.ShapeDtypeStruct((1, size), jnp.float32) for size in (8, 1024))
    heavy = nnx.eval_shape(lambda: nnx.Linear(1024, 4096, rngs=nnx.Rngs(0)))
    dropout = nnx.eval_shape(lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    most = Latency()("heavy", heavy, wide) / 10
    assert 0 <= Latency()("skip_connect", Identity(), x) < most
    assert 0 <= Latency()("dropout", dropout, x) < most


def test_latency_is_of_a_batch_in_evaluation():
    seen = []

    class Seen(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(8, rngs=nnx.Rngs(0))

        def __call__(self, x):
            seen.append((x.shape, self.norm.use_running_average))
            return x

    x = jax.ShapeDtypeStruct((1, 8), jnp.float32)
    Latency(batch_size=5)("seen", nnx.eval_shape(Seen), x)
    assert set(seen) == {((5, 8), True)}


# Files


def test_file_holds_the_tables(tables, tmp_path):
    assert costs.read(tmp_path) == {}
    costs.write(tmp_path, tables)
    again = costs.read(tmp_path)
    assert list(again) == list(tables)
    for name, table in tables.items():
        for field in ("name", "space", "fixed", "choices", "operations"):
            assert getattr(again[name], field) == getattr(table, field), field
        np.testing.assert_array_equal(again[name].costs["cell"], table.costs["cell"])
    text = (tmp_path / "costs.json").read_text()
    costs.write(tmp_path, again)
    assert (tmp_path / "costs.json").read_text() == text


def damaged(content, *path):
    *first, last = path
    inner = content
    for name in first:
        inner = inner[name]
    del inner[last]
    return json.dumps(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "",
        lambda content: "[]",
        lambda content: damaged(content, "choices", "cell", "edges"),
        lambda content: damaged(content, "costs", "weights", "edges", "cell"),
        lambda content: damaged(content, "costs", "weights", "edges", "cell", 0),
        lambda content: damaged(content, "costs", "weights", "operations", 0, "cost"),
    ],
)
def test_damaged_file_is_refused(tables, tmp_path, damage):
    costs.write(tmp_path, tables)
    path = tmp_path / "costs.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ValueError, match="which cannot be read"):
        costs.read(tmp_path)
