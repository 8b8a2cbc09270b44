import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.genotype import Genotype
from gumbax.search.space import SMALL_IMAGES, CellSpace
from tests import helpers

OPERATIONS = ("conv_3x3", "none", "skip_connect", "conv_1x1", "none", "avg_pool_3x3")


@pytest.fixture
def genotype():
    return Genotype(space="small_images", operations=OPERATIONS)


def test_json_round_trip(genotype, tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json())
    assert Genotype.load(path) == genotype


def test_text_is_that_of_nas_bench_201(genotype):
    expected = "|conv_3x3~0|+|none~0|skip_connect~1|+|conv_1x1~0|none~1|avg_pool_3x3~2|"
    assert str(genotype) == expected


def test_most_probable_takes_the_first_of_ties():
    logits = jnp.zeros((6, 7)).at[2, 4].set(1.0)
    found = Genotype.most_probable(logits, SMALL_IMAGES)
    assert found.indices(SMALL_IMAGES) == (0, 0, 4, 0, 0, 0)


def test_random_is_uniform():
    keys = jax.random.split(jax.random.key(0), 300)
    indices = [Genotype.random(key, SMALL_IMAGES).indices(SMALL_IMAGES) for key in keys]
    counts = np.bincount(np.ravel(indices), minlength=7)
    helpers.assert_law(counts, np.full(7, 1 / 7), against=[0.25] + [0.125] * 6)


@pytest.mark.parametrize("text", ["", "[1]", '{"space": "x"}', '{"operations": 3}'])
def test_text_that_is_no_genotype(text):
    with pytest.raises(ValueError, match=r"genotype\.json that a search wrote"):
        Genotype.from_json(text)


@pytest.mark.parametrize(
    ("space", "operations"),
    [
        ("other", OPERATIONS),
        ("small_images", OPERATIONS[:-1]),
        ("small_images", ("conv_7x7", *OPERATIONS[1:])),
    ],
)
def test_genotype_of_another_space_is_refused(space, operations):
    with pytest.raises(ValueError, match="Its primitives: none, skip_connect"):
        Genotype(space=space, operations=operations).check(SMALL_IMAGES)


def test_edges_are_listed_by_target():
    edges = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert SMALL_IMAGES.edges == edges
    assert SMALL_IMAGES.num_architectures == 7**6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"primitives": ("conv_9x9",)}, "Known: none, skip_connect"),
        ({"primitives": ()}, "Known: none, skip_connect"),
        ({"num_nodes": 1}, "`num_nodes` must be at least 2"),
        ({"channels": 6}, "`channels` must be a multiple of 4"),
        ({"cells_per_stage": 0}, "`cells_per_stage` must be at least 1"),
    ],
)
def test_impossible_space(options, message):
    fields = {"name": "x", "primitives": ("none",)} | options
    with pytest.raises(ValueError, match=message):
        CellSpace(**fields)
