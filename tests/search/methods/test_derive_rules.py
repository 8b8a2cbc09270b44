import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gumbax.search.genotype.genotype import Edge, Genotype
from gumbax.search.methods import derive_rules
from gumbax.search.spaces.space import Choice
from tests.search.small_spaces import (
    CHAIN,
    DARTS,
    DARTS_PRIMITIVES,
    NASBENCH201,
    SmallSpace,
    darts_choice,
    dense_edges,
)


def random_logits(seed, space, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: scale * rng.standard_normal((len(c.edges), len(c.primitives)))
        for name, c in space.choices.items()
    }


def published_parse(probs, names, steps=4):
    """`_parse` of the DARTS search network, step by step."""
    none = names.index("none")
    gene = []
    start, n = 0, 2
    for i in range(steps):
        end = start + n
        rows = probs[start:end].copy()
        ranked = sorted(
            range(i + 2),
            key=lambda x: -max(rows[x][k] for k in range(len(rows[x])) if k != none),
        )
        for j in ranked[:2]:
            k_best = None
            for k in range(len(rows[j])):
                if k != none and (k_best is None or rows[j][k] > rows[j][k_best]):
                    k_best = k
            gene.append((names[k_best], j))
        start, n = end, n + 1
    return gene


@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0])
def test_top_two_edges_is_the_published_parse(scale):
    for seed in range(100):
        logits = random_logits(seed, DARTS, scale)
        genotype = derive_rules.top_two_edges(logits, DARTS)
        expected = {
            name: published_parse(
                scipy.special.softmax(rows, axis=-1), DARTS_PRIMITIVES
            )
            for name, rows in logits.items()
        }
        assert genotype.to_darts() == (
            f"Genotype(normal={expected['normal']}, normal_concat=range(2, 6), "
            f"reduce={expected['reduce']}, reduce_concat=range(2, 6))"
        )


def test_top_two_edges_of_equal_logits_takes_the_first():
    logits = {name: np.zeros((14, 8)) for name in DARTS.choices}
    genotype = derive_rules.top_two_edges(logits, DARTS)
    first = [Edge("max_pool_3x3", j, node) for node in range(2, 6) for j in (0, 1)]
    assert list(genotype.cells["normal"]) == first
    zeros = scipy.special.softmax(logits["normal"], axis=-1)
    assert published_parse(zeros, DARTS_PRIMITIVES) == [edge[:2] for edge in first]


def test_a_large_none_weakens_its_edge_and_is_not_kept():
    logits = {name: np.zeros((14, 8)) for name in DARTS.choices}
    logits["normal"][0] = [9.0, 0, 0, 0, 5.0, 0, 0, 0]
    logits["normal"][2] = [9.0, 0, 0, 0, 5.0, 0, 0, 0]  # of node 3, with three inputs
    cell = derive_rules.top_two_edges(logits, DARTS).cells["normal"]
    assert cell[:2] == (Edge("max_pool_3x3", 1, 2), Edge("sep_conv_3x3", 0, 2))
    assert [edge.source for edge in cell[2:4]] == [1, 2]


def test_strength_does_not_underflow():
    logits = {name: np.zeros((14, 8)) for name in DARTS.choices}
    logits["normal"][:, 0] = 2000.0
    logits["normal"][4, 7] = 1000.0
    cell = derive_rules.top_two_edges(logits, DARTS).cells["normal"]
    assert cell[2] == Edge("dil_conv_5x5", 2, 3)


@pytest.mark.parametrize(
    "rule", [derive_rules.top_two_edges, derive_rules.threshold(minimum=0.3)]
)
@pytest.mark.parametrize("seed", range(20))
def test_none_is_found_wherever_it_is(rule, seed):
    names = ("conv", "none", "pool", "skip")
    choices = {
        "first": darts_choice(("none", "conv", "pool", "skip")),
        "second": darts_choice(names),
        "last": darts_choice(("conv", "pool", "skip", "none")),
        "absent": darts_choice(("conv", "pool", "skip")),
    }
    space = SmallSpace("mixed", choices, 2)
    logits = random_logits(seed, SmallSpace("one", {"second": choices["second"]}))
    rows = logits["second"] + 3.0 * np.eye(4)[1]  # `none` is the most probable
    columns = {
        name: rows[:, [names.index(primitive) for primitive in choice.primitives]]
        for name, choice in choices.items()
    }
    genotype = rule(columns, space)
    genotype.check(space)
    first, second, last, absent = (genotype.cells[name] for name in choices)
    assert first == second == last
    assert len(absent) >= len(first) or rule is not derive_rules.top_two_edges
    for cell in genotype.cells.values():
        edges = [edge[1:] for edge in cell]
        assert len(set(edges)) == len(edges)
        assert all(edge.primitive != "none" for edge in cell)
        targets = [edge.target for edge in cell]
        assert targets == sorted(targets)
        counts = np.bincount(targets, minlength=6)
        assert counts.max() <= 2
        if rule is derive_rules.top_two_edges:
            assert counts[2:].tolist() == [2, 2, 2, 2]


def test_argmax_keeps_every_edge_with_none():
    logits = {"cell": np.zeros((6, 5))}
    logits["cell"][2, 3] = logits["cell"][2, 4] = 1.0
    logits["cell"][5] = [-np.inf, -5.0, -np.inf, -4.0, -np.inf]
    genotype = derive_rules.argmax_per_edge(logits, NASBENCH201)
    assert str(genotype) == (
        "|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
    )


def test_argmax_of_a_chain_and_shift_of_the_logits():
    logits = random_logits(0, CHAIN)
    genotype = derive_rules.argmax_per_edge(logits, CHAIN)
    shifted = {"layers": logits["layers"] + np.arange(9.0)[:, None]}
    assert derive_rules.argmax_per_edge(shifted, CHAIN) == genotype
    chosen = logits["layers"].argmax(axis=-1)
    names = CHAIN.choices["layers"].primitives
    assert [edge.primitive for edge in genotype.cells["layers"]] == [
        names[k] for k in chosen
    ]


def test_threshold_keeps_strong_inputs_only():
    edges = dense_edges(5, 2)
    space = SmallSpace(
        "fair", {"normal": Choice(edges, ("conv", "none", "pool"), 2, (2, 3, 4))}, 2
    )
    gates = np.full((9, 3), 0.1)
    gates[:, 1] = 0.99  # `none`
    gates[0] = [0.7, 0.99, 0.85]  # 0->2: at the minimum
    gates[1] = [0.84, 0.99, 0.1]  # 1->2: below
    gates[2:5, 0] = [0.86, 0.97, 0.9]  # three strong inputs of node 3
    logits = {"normal": scipy.special.logit(gates)}
    logits["normal"][0, 2] += 1e-9  # the logit is rounded
    cells = derive_rules.threshold()(logits, space).cells["normal"]
    assert cells == (Edge("pool", 0, 2), Edge("conv", 1, 3), Edge("conv", 2, 3))
    everything = derive_rules.threshold(minimum=0.0)(logits, space).cells["normal"]
    assert len(everything) == 6
    assert derive_rules.threshold(minimum=1.0)(logits, space).cells["normal"] == ()


@pytest.mark.parametrize("name", derive_rules.RULES)
def test_extreme_logits(name):
    logits = {name: np.full((14, 8), -1e30) for name in DARTS.choices}
    logits["reduce"][:, 3] = 1e30
    derive_rules.RULES[name](logits, DARTS).check(DARTS)


@pytest.mark.parametrize("minimum", [-0.1, 1.5, float("nan")])
def test_threshold_out_of_range(minimum):
    with pytest.raises(ValueError, match="`minimum` must be from 0 to 1"):
        derive_rules.threshold(minimum=minimum)


@pytest.mark.parametrize("name", derive_rules.RULES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_logits_of_every_dtype(name, dtype):
    rule = derive_rules.RULES[name]
    narrow = {k: jnp.asarray(v, dtype) for k, v in random_logits(1, DARTS).items()}
    wide = {k: np.asarray(v.astype(jnp.float32)) for k, v in narrow.items()}
    assert rule(narrow, DARTS) == rule(wide, DARTS)


@pytest.mark.parametrize("name", derive_rules.RULES)
def test_logits_that_do_not_fit(name):
    rule = derive_rules.RULES[name]
    good = random_logits(0, DARTS)
    with pytest.raises(ValueError, match=r"have the names \['normal', 'reduce'\]"):
        rule({"normal": good["normal"]}, DARTS)
    with pytest.raises(
        ValueError, match=r"\(14, 8\) for 'reduce', got shape \(8, 14\)"
    ):
        rule(good | {"reduce": good["reduce"].T}, DARTS)
    for value in (np.nan, np.inf):
        bad = good["normal"].copy()
        bad[3, 2] = value
        with pytest.raises(
            ValueError, match=r"edge \(1, 3\)\. The search has diverged"
        ):
            rule(good | {"normal": bad}, DARTS)
    bad = good["normal"].copy()
    bad[3] = -np.inf
    with pytest.raises(ValueError, match="one number at least in each row"):
        rule(good | {"normal": bad}, DARTS)


def test_a_choice_of_nothing_but_none():
    space = SmallSpace("void", {"normal": darts_choice(("none",))}, 2)
    logits = random_logits(0, space)
    with pytest.raises(ValueError, match="a primitive other than `none`"):
        derive_rules.top_two_edges(logits, space)
    assert len(derive_rules.argmax_per_edge(logits, space).cells["normal"]) == 14


def test_weights_of_the_argmax_are_the_one_hot_argmax():
    logits = random_logits(2, NASBENCH201)
    genotype = derive_rules.argmax_per_edge(logits, NASBENCH201)
    expected = jax.nn.one_hot(jnp.argmax(jnp.asarray(logits["cell"]), axis=-1), 5)
    np.testing.assert_array_equal(genotype.weights(NASBENCH201)["cell"], expected)


def test_rules_are_records():
    assert derive_rules.threshold(minimum=0.5) != derive_rules.threshold()
    assert hash(derive_rules.threshold()) == hash(derive_rules.RULES["threshold"])
    assert isinstance(
        derive_rules.RULES["top2"](random_logits(0, DARTS), DARTS), Genotype
    )
