import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from gumbax.search.genotype.genotype import Edge, Genotype
from gumbax.search.methods import derive_rules
from gumbax.search.spaces.space import Choice
from tests import helpers
from tests.search.small_spaces import (
    CHAIN,
    DARTS,
    NASBENCH201,
    SmallSpace,
    darts_choice,
)

TABLE = Path(__file__).parents[4] / "shared" / "data" / "nb201.npz"
SPACES = [DARTS, NASBENCH201, CHAIN]
by_space = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)

# As the DARTS code prints its second-order genotype.
DARTS_TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), "
    "('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
RESNET_TEXT = (
    "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
)


@pytest.fixture
def resnet():
    return Genotype.from_nasbench201(RESNET_TEXT)


@by_space
def test_json_round_trip(space, tmp_path):
    genotype = Genotype.random(jax.random.key(3), space)
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json())
    assert Genotype.load(path) == genotype
    assert json.loads(path.read_text())["text"] == str(genotype)
    assert hash(Genotype.load(path)) == hash(genotype)


def test_json_of_a_cell_without_edges():
    genotype = Genotype("mine", {"a": (), "b": (Edge('the "best"', 0, 1),)})
    assert Genotype.from_json(genotype.to_json()) == genotype


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "3",
        "[" * 100_000,
        '{"space": "x"}',
        '{"operations": 3}',
        '{"space": 1, "cells": {}}',
        '{"space": "x", "cells": "abc"}',
        '{"space": "x", "cells": [["a", 0, 1]]}',
        '{"space": "x", "cells": {"a": 3}}',
        '{"space": "x", "cells": {"a": [["conv", 0]]}}',
        '{"space": "x", "cells": {"a": [["conv", 0, 1.5]]}}',
        '{"space": "x", "cells": {"a": [["conv", false, true]]}}',
        '{"space": "x", "cells": {"a": [["conv", 2, 1]]}}',
        '{"space": "x", "cells": {"a": [[3, 0, 1]]}}',
    ],
)
def test_text_that_is_no_genotype(text):
    with pytest.raises(ValueError, match=r"genotype\.json that a search wrote"):
        Genotype.from_json(text)


def test_file_that_is_no_genotype_is_named(tmp_path):
    path = tmp_path / "picture.json"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"`path` must be JSON .* got .*picture\.json"):
        Genotype.load(path)
    with pytest.raises(FileNotFoundError):
        Genotype.load(tmp_path / "absent.json")


def test_darts_text_round_trip():
    genotype = Genotype.from_darts(DARTS_TEXT)
    genotype.check(DARTS)
    assert genotype.cells["normal"][5] == Edge("skip_connect", 0, 4)
    assert genotype.to_darts() == str(genotype) == DARTS_TEXT


def test_darts_text_as_published_in_files():
    text = DARTS_TEXT.replace("range(2, 6)", "[2, 3, 4, 5]").replace(", ", ",\n  ")
    assert Genotype.from_darts(f"\nDARTS_V2 = {text}\n").to_darts() == DARTS_TEXT


def test_darts_pairs_are_grouped_by_node():
    genotype = Genotype.from_darts(DARTS_TEXT)
    mixed = dict(genotype.cells)
    mixed["normal"] = mixed["normal"][::2] + mixed["normal"][1::2]
    assert Genotype("darts", mixed).to_darts() == DARTS_TEXT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Genotype(", "Phenotype("),
        ("Genotype(", "__import__('os').system("),
        ("('sep_conv_3x3', 0)", "('sep_conv_3x3', print())"),
        ("('sep_conv_3x3', 0)", "('sep_conv_3x3', 2)"),
        ("('sep_conv_3x3', 0)", "('sep_conv_3x3', -1)"),
        ("('sep_conv_3x3', 0)", "('sep_conv_3x3', 2, 0)"),
        ("('sep_conv_3x3', 0), ", ""),
        ("normal_concat=range(2, 6)", "normal_concat=range(3, 6)"),
        ("normal_concat=range(2, 6)", "normal_concat=range(2, 10**9)"),
        ("normal_concat=range(2, 6)", "normal_concat=range('2')"),
        ("normal_concat=range(2, 6)", "normal_concat=[4, 5]"),
        ("normal_concat=range(2, 6)", "normal_concat=6"),
        ("normal_concat=range(2, 6), ", ""),
        ("reduce_concat=range(2, 6)", "reduce_concat=range(2, 6), extra=[]"),
        ("reduce_concat=range(2, 6)", "**{}"),
        ("reduce_concat=range(2, 6))", ""),
        (DARTS_TEXT, ""),
        (DARTS_TEXT, RESNET_TEXT),
        (DARTS_TEXT, "Genotype(recurrent=[('sigmoid', 0)], concat=range(1, 9))"),
        (DARTS_TEXT, f"{DARTS_TEXT}; {DARTS_TEXT}"),
        (DARTS_TEXT, "\0"),
    ],
)
def test_text_that_is_no_darts_record(old, new):
    assert old in DARTS_TEXT
    with pytest.raises(ValueError, match="be the record of a DARTS cell"):
        Genotype.from_darts(DARTS_TEXT.replace(old, new, 1))


def test_a_node_with_one_input_has_no_darts_text():
    genotype = Genotype.from_darts(DARTS_TEXT)
    cells = {"normal": genotype.cells["normal"][1:], "reduce": genotype.cells["reduce"]}
    fewer = Genotype("darts", cells)
    with pytest.raises(ValueError, match="two inputs for each node"):
        fewer.to_darts()
    assert str(fewer).startswith("normal: sep_conv_3x3(1->2), sep_conv_3x3(0->3), ")


def test_nasbench201_string_round_trip(resnet):
    resnet.check(NASBENCH201)
    assert resnet.cells["cell"][2] == Edge("nor_conv_3x3", 1, 2)
    assert resnet.to_nasbench201() == str(resnet) == RESNET_TEXT
    shuffled = Genotype("nasbench201", {"cell": resnet.cells["cell"][::-1]})
    assert shuffled.to_nasbench201() == RESNET_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0",
        "|none~0|+",
        "|none~1|",
        "|none~0|+|none~0|",
        "|none~0|+|none~1|none~0|",
        "|none~0|+|none~0||none~1|",
        "|none~0|x+|none~0|none~1|",
        "none~0",
        DARTS_TEXT,
    ],
)
def test_text_that_is_no_nasbench201_string(text):
    with pytest.raises(ValueError, match="be an architecture string of NAS-Bench-201"):
        Genotype.from_nasbench201(text)


def test_a_missing_edge_has_no_nasbench201_string(resnet):
    fewer = Genotype("nasbench201", {"cell": resnet.cells["cell"][:-1]})
    with pytest.raises(ValueError, match="takes every node before it"):
        fewer.to_nasbench201()
    with pytest.raises(ValueError, match="nothing in 'cell'"):
        fewer.index(NASBENCH201)
    assert str(fewer).startswith("cell: nor_conv_3x3(0->1), none(0->2), ")


@pytest.fixture(scope="module")
def table():
    if not TABLE.exists():
        pytest.skip("the NAS-Bench-201 table is not here")
    with np.load(TABLE) as file:
        return file["edge_ops"], tuple(file["op_names"].tolist())


def test_every_row_of_the_table_round_trips(table):
    rows, names = table
    assert names == NASBENCH201.choices["cell"].primitives
    places = rows @ 5 ** np.arange(5, -1, -1)
    assert sorted(places) == list(range(5**6))
    for row, place in zip(rows, places, strict=True):
        genotype = Genotype.from_index(int(place), NASBENCH201)
        operations = [names.index(edge.primitive) for edge in genotype.cells["cell"]]
        assert operations == row.tolist()
        assert Genotype.from_nasbench201(str(genotype)) == genotype
        assert genotype.index(NASBENCH201) == place


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            0,
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+"
            "|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        ),
        (
            11,
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+"
            "|none~0|nor_conv_3x3~1|avg_pool_3x3~2|",
        ),
        (
            284,
            "|skip_connect~0|+|skip_connect~0|skip_connect~1|+"
            "|none~0|nor_conv_1x1~1|none~2|",
        ),
    ],
)
def test_strings_of_known_rows(table, row, text):
    names = NASBENCH201.choices["cell"].primitives
    operations = [
        names.index(e[0]) for e in Genotype.from_nasbench201(text).cells["cell"]
    ]
    assert operations == table[0][row].tolist()


def test_index_counts_the_last_edge_of_the_last_choice_fastest():
    choices = {
        "a": Choice(((0, 1),), ("x", "y")),
        "b": Choice(((0, 1), (0, 2)), ("p", "q", "r")),
    }
    space = SmallSpace("two", choices)
    all_of_them = [Genotype.from_index(i, space) for i in range(18)]
    listed = [
        tuple(edge.primitive for cell in g.cells.values() for edge in cell)
        for g in all_of_them
    ]
    assert listed == list(itertools.product("xy", "pqr", "pqr"))
    assert [g.index(space) for g in all_of_them] == list(range(18))


def test_index_of_a_space_of_many_layers():
    last = 3**9 - 1
    assert Genotype.from_index(last, CHAIN).index(CHAIN) == last


@pytest.mark.parametrize("index", [-1, 3**9])
def test_index_out_of_range(index):
    with pytest.raises(ValueError, match=r"has 19683 architectures"):
        Genotype.from_index(index, CHAIN)


def test_index_where_nodes_choose_their_inputs():
    """Each node: 2 of its inputs, and 2 of the primitives that connect on them."""
    edges = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    choice = Choice(edges, ("none", "conv", "pool"), num_inputs=2, outputs=(2, 3))
    space = SmallSpace("nodes", {"normal": choice}, 2)
    number = (1 * 2**2) * (3 * 2**2)
    every = [Genotype.from_index(i, space) for i in range(number)]
    assert len(set(every)) == number
    assert [g.index(space) for g in every] == list(range(number))
    with pytest.raises(ValueError, match=f"has {number} architectures"):
        Genotype.from_index(number, space)


def test_index_of_a_published_cell_comes_back():
    """Whatever the order in which its edges are listed."""
    genotype = Genotype.from_darts(DARTS_TEXT)
    again = Genotype.from_index(genotype.index(DARTS), DARTS)
    for name, cell in genotype.cells.items():
        assert set(again.cells[name]) == set(cell)


def test_architectures_with_fewer_edges_are_not_numbered():
    genotype = Genotype.from_darts(DARTS_TEXT)
    fewer = {name: cell[:-1] for name, cell in genotype.cells.items()}
    with pytest.raises(ValueError, match="`cells` must keep as many edges into every"):
        Genotype("darts", fewer).index(DARTS)
    chain = Genotype.from_index(5, CHAIN)
    with pytest.raises(ValueError, match="nothing in 'layers'"):
        Genotype("chain", {"layers": chain.cells["layers"][:-1]}).index(CHAIN)


@by_space
def test_weights_are_one_hot_on_kept_edges(space):
    genotype = Genotype.random(jax.random.key(5), space)
    weights = genotype.weights(space)
    assert list(weights) == list(space.choices)
    for name, choice in space.choices.items():
        rows = np.asarray(weights[name])
        assert rows.dtype == np.float32
        assert rows.shape == (len(choice.edges), len(choice.primitives))
        found = {
            Edge(choice.primitives[k], *choice.edges[e])
            for e, k in zip(*np.nonzero(rows), strict=True)
        }
        assert found == set(genotype.cells[name])
        assert rows.sum() == len(genotype.cells[name])
        assert rows.max() == 1.0


THREE = ("max_pool_3x3", "none", "skip_connect")


@pytest.mark.parametrize("rule", [None, derive_rules.top_two_edges])
def test_random_darts_cells_are_uniform(rule):
    choice = Choice(((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), THREE, num_inputs=2)
    space = SmallSpace("tiny", {"normal": choice}, inputs_per_node=2)
    keys = jax.random.split(jax.random.key(0), 400)
    draws = [Genotype.random(key, space, rule=rule) for key in keys]
    counts = np.zeros((3, 4))
    for genotype in draws:
        genotype.check(space)
        first, second = sorted(genotype.cells["normal"][2:])
        assert {edge.target for edge in genotype.cells["normal"][:2]} == {2}
        sources = frozenset((first.source, second.source))
        assert len(sources) == 2
        left_out = ({0, 1, 2} - sources).pop()
        by_source = sorted(genotype.cells["normal"][2:], key=lambda edge: edge.source)
        digits = [THREE.index(edge.primitive) // 2 for edge in by_source]
        counts[left_out, 2 * digits[0] + digits[1]] += 1
    uniform = np.full(12, 1 / 12)
    helpers.assert_law(counts.ravel(), uniform, against=[0.25] + [0.75 / 11] * 11)


def test_random_is_uniform_where_every_edge_is_kept():
    keys = jax.random.split(jax.random.key(0), 200)
    names = NASBENCH201.choices["cell"].primitives
    draws = [Genotype.random(key, NASBENCH201).cells["cell"] for key in keys]
    indices = [names.index(edge.primitive) for cell in draws for edge in cell]
    counts = np.bincount(indices, minlength=5)
    helpers.assert_law(counts, np.full(5, 1 / 5), against=[0.3] + [0.175] * 4)
    first = [names.index(cell[0].primitive) for cell in draws]
    last = [names.index(cell[5].primitive) for cell in draws]
    # Edges are drawn apart: five standard errors, and one for a draw that is shared.
    assert np.abs(np.corrcoef(first, last)[0, 1]) < 5 / np.sqrt(200)


def test_cells_of_a_random_genotype_differ():
    genotypes = [
        Genotype.random(key, DARTS) for key in jax.random.split(jax.random.key(1))
    ]
    assert genotypes[0] != genotypes[1]
    assert all(g.cells["normal"] != g.cells["reduce"] for g in genotypes)


def test_random_accepts_a_legacy_key_and_refuses_a_number():
    Genotype.random(jax.random.PRNGKey(0), CHAIN).check(CHAIN)
    with pytest.raises(TypeError, match="`key` must be one PRNG key"):
        Genotype.random(0, CHAIN)


def test_random_needs_a_primitive_that_connects():
    space = SmallSpace("void", {"normal": darts_choice(("none",))}, 2)
    with pytest.raises(ValueError, match="a primitive other than `none`"):
        Genotype.random(jax.random.key(0), space)


CELL = (Edge("none", 0, 1), Edge("none", 0, 2))


@pytest.mark.parametrize(
    ("space", "cells", "message"),
    [
        ("other", {"cell": CELL}, "got one of the space 'other'"),
        ("nasbench201", {"normal": CELL}, r"got cells \['normal'\] for choices"),
        ("nasbench201", {}, r"got cells \[\] for choices \['cell'\]"),
        ("nasbench201", {"cell": (Edge("conv", 0, 1),)}, "got 'conv' on the edge 0->1"),
        ("nasbench201", {"cell": (Edge("none", 0, 4),)}, "0->4 .* does not exist"),
        ("nasbench201", {"cell": CELL + CELL}, "got the edge 0->1 of 'cell' twice"),
    ],
)
def test_genotype_of_another_space_is_refused(space, cells, message):
    genotype = Genotype(space, cells)
    with pytest.raises(ValueError, match=message):
        genotype.check(NASBENCH201)
    with pytest.raises(ValueError, match="Its primitives: cell: none, skip_connect"):
        genotype.weights(NASBENCH201)


def test_plain_tuples_become_edges():
    assert Genotype("x", {"a": [["conv", 0, 1]]}) == Genotype(
        "x", {"a": (Edge("conv", 0, 1),)}
    )
