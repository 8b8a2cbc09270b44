"""Methods: each moves what it should, with the gradients that were published."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gumbax
from gumbax.search.data.dataset import Examples
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops.search import Search
from gumbax.search.methods import derive_rules
from gumbax.search.methods.methods import METHODS
from gumbax.search.methods.optimizers import AdamW, ArchAdam, Sgd
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.layers import Layers
from gumbax.search.spaces.primitives import PRIMITIVES
from tests import helpers
from tests.helpers import sweep
from tests.search.conftest import CHAIN, filled
from tests.search.own_methods import OWN, partial_channels, pc_darts

ALL = {**METHODS, **OWN}
DENSE = {"darts", "darts_second_order", "darts_unrolled", "snas", "drnas"}
# The others' samplers, credits and rules have tests of their own, here or in
# test_bilevel.
FEW = ("gumbel", "darts", "random")


@pytest.fixture(scope="module")
def examples():
    x = jax.random.normal(jax.random.key(0), (24, 5))
    return Examples(inputs=x, labels=jnp.arange(24) % 3)


@pytest.mark.parametrize(
    "name",
    sweep(FEW, [name for name in ALL if name not in FEW]),
)
def test_one_step_moves_what_it_should(name, examples):
    method = dataclasses.replace(ALL[name], warmup=0.0, weights=AdamW(weight_decay=0.0))
    search = Search(CHAIN, method, examples, num_classes=3, num_epochs=1, batch_size=12)
    before = search.init()
    after, metrics = search.epoch(before)
    assert int(after.step) == 1
    assert all(np.isfinite(value) for value in metrics.values())
    moved = (after.arch["layers"] != before.arch["layers"]).any(axis=-1)
    assert moved.tolist() == [name != "random"]

    networks = [search.supernet(state).network for state in (before, after)]
    for old, new in zip(*(network.chain for network in networks), strict=True):
        kernels = [
            [m.layers[0].kernel[...] for m in e.modules[1:3]] for e in (old, new)
        ]
        changed = [bool((a != b).any()) for a, b in zip(*kernels, strict=True)]
        # A single path moves the weights of the one operation that it took.
        assert sum(changed) == 2 if name in DENSE else sum(changed) <= 1
    heads = [network.head.kernel[...] for network in networks]
    assert (heads[0] != heads[1]).any()


# Closed forms, reference section 2.1

K = 4
KEYS = [jax.random.key(i) for i in range(6)]
BRANCHES = (
    lambda p, x: p * x,
    lambda p, x: jnp.tanh(p * x),
    lambda p, x: x + p,
    lambda p, x: jnp.sin(p * x),
)
PARAMS = (2.0, 1.5, -0.3, 3.0)


@pytest.fixture(scope="module")
def edge():
    """Input, cotangent, logits of one edge, and the credits of its branches."""
    rng = np.random.default_rng(0)
    x, g = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    logits = jnp.array([[0.3, -0.5, 0.9, 0.1]])
    credits = np.array(
        [jnp.vdot(g, b(p, x)) for b, p in zip(BRANCHES, PARAMS, strict=True)]
    )
    return x, g, logits, credits


@functools.partial(jax.jit, static_argnums=0)
def gradient(method, x, g, logits, key, temperature):
    """The gradient of the logits for the loss <g, y>, and the weights of the edge."""

    def loss(logits):
        weights = method.sampler(key, logits, temperature)
        y = method.operation(weights[0], BRANCHES, PARAMS, x, key=None)
        return jnp.vdot(g, y), weights[0]

    return jax.grad(loss, has_aux=True)(logits)


def gradients_of(method, edge, temperature):
    """For each key: the weights of the edge, and the gradient of its logits."""
    x, g, logits, _ = edge
    for key in KEYS:
        slope, weights = gradient(method, x, g, logits, key, jnp.float32(temperature))
        yield key, np.asarray(weights), np.asarray(slope[0])


def closed_form(pi, temperature, credits):
    return pi / temperature * (credits - pi @ credits)


@pytest.mark.parametrize(
    ("name", "unchosen"),
    [
        ("gumbel", lambda s, total: s),
        ("gdas", lambda s, total: total),
        ("gdas_sampled", lambda s, total: 0 * s),
        ("snas", lambda s, total: s),
    ],
)
def test_gumbel_forms(edge, name, unchosen):
    temperature, seen = 0.7, set()
    _, g, logits, s = edge
    for key, weights, slope in gradients_of(METHODS[name], edge, temperature):
        q = np.asarray(gumbax.gumbel_softmax(key, logits, temperature=temperature)[0])
        k = int(q.argmax())
        seen.add(k)
        c = np.where(np.arange(K) == k, s, unchosen(s, float(g.sum())))
        expected = closed_form(q, temperature, c)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
        hard = np.eye(K)[k]
        np.testing.assert_allclose(weights, q if name == "snas" else hard, rtol=1e-6)
    assert len(seen) > 1


def test_forms_of_the_gumbel_gradient_differ(edge):
    slopes = [
        next(gradients_of(METHODS[name], edge, 0.7))[2]
        for name in ("gumbel", "gdas", "gdas_sampled")
    ]
    for i, first in enumerate(slopes):
        for second in slopes[i + 1 :]:
            assert np.abs(first - second).max() > 0.05


def test_darts_draws_nothing(edge):
    *_, logits, s = edge
    p = np.asarray(jax.nn.softmax(logits[0]))
    for _, weights, slope in gradients_of(METHODS["darts"], edge, 1.0):
        np.testing.assert_allclose(weights, p, rtol=1e-6)
        np.testing.assert_allclose(slope, closed_form(p, 1, s), rtol=1e-4, atol=1e-5)


def test_random_ignores_the_logits(edge):
    *_, logits, _ = edge
    sampler = METHODS["random"].sampler
    for key in KEYS:
        found = [sampler(key, scale * logits, 1.0) for scale in (1.0, 100.0)]
        np.testing.assert_array_equal(*found)
        assert sorted(found[0][0].tolist()) == [0, 0, 0, 1]


def test_score_function_is_that_of_dsnas(edge):
    *_, logits, s = edge
    p = np.asarray(jax.nn.softmax(logits[0]))
    for _, weights, slope in gradients_of(OWN["dsnas"], edge, 1.0):
        c = weights * s / p
        np.testing.assert_allclose(slope, closed_form(p, 1, c), rtol=1e-4, atol=1e-5)


def test_two_paths_are_those_of_proxylessnas(edge):
    *_, logits, s = edge
    pairs = set()
    for _, weights, slope in gradients_of(OWN["two_path"], edge, 1.0):
        a, b = int(weights.argmax()), int(weights.argmin())
        assert sorted(weights.tolist()) == [-1, 0, 0, 1]
        r = jax.nn.sigmoid(logits[0, a] - logits[0, b])
        expected = np.zeros(K)
        expected[[a, b]] = r * (1 - r) * (s[a] - s[b]) * np.array([1, -1])
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
        pairs.add(frozenset((a, b)))
    assert len(pairs) > 1


@pytest.mark.exhaustive
def test_dirichlet_weights_have_the_gradient_of_their_law(edge):
    """E[sum_i w_i s_i] = sum_i b_i s_i / sum(b), b = elu(logits) + 1."""
    *_, logits, s = edge
    s = jnp.asarray(s, jnp.float32)

    def estimate(key):
        return jax.grad(lambda a: OWN["drnas"].sampler(key, a, 1.0)[0] @ s)(logits)[0]

    keys = jax.random.split(jax.random.key(1), 4000)
    samples = jax.jit(jax.vmap(estimate))(keys)

    def mean(logits):
        concentration = jax.nn.elu(logits[0]) + 1
        return concentration @ s / concentration.sum()

    helpers.assert_mean(samples, jax.grad(mean)(logits)[0], resolution=0.1)


@pytest.mark.exhaustive
def test_partial_channels_and_edge_normalisation_are_those_of_pc_darts():
    names = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")
    space = DartsSpace(
        channels=8,
        num_cells=3,
        num_nodes=2,
        primitives=names,
        known=partial_channels(PRIMITIVES),
    )
    method = pc_darts(space)
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    weights = method.sampler(None, logits, 1.0)
    alpha, mean = np.asarray(jax.nn.softmax(logits)), np.asarray(logits.mean(axis=1))
    for edges in ([0, 1], [2, 3, 4]):
        beta = np.exp(mean[edges]) / np.exp(mean[edges]).sum()
        expected = beta[:, None] * alpha[edges]
        np.testing.assert_allclose(weights[jnp.array(edges)], expected, rtol=1e-5)

    liked = logits.at[2].add(5.0).at[4].add(3.0)  # betas alone: a softmax sees none
    found = method.genotype({"normal": liked, "reduce": liked}, space)
    kept = [edge.source for edge in found.cells["normal"] if edge.target == 3]
    assert kept == [0, 2]
    liked = logits.at[3].add(5.0).at[4].add(3.0)
    found = method.genotype({"normal": liked, "reduce": liked}, space)
    kept = [edge.source for edge in found.cells["normal"] if edge.target == 3]
    assert kept == [1, 2]
    np.testing.assert_array_equal(method.soft(logits, 1.0), weights)

    def make(name):
        make = partial_channels(PRIMITIVES)[name]
        return filled(lambda: make(8, stride=2, layers=Layers(), rngs=nnx.Rngs(0)))

    @jax.jit
    def mix(x):
        return sum(w * make(name)(x) for w, name in zip(alpha[0], names, strict=True))

    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    mixed = mix(x)
    passed = Layers().max_pool(2, stride=2)(x[..., 2:]).reshape(2, 2, 2, 3, 2)
    shuffled = mixed.reshape(2, 2, 2, 2, 4)
    np.testing.assert_allclose(
        jnp.swapaxes(shuffled, 3, 4)[..., 1:, :], passed, rtol=1e-5
    )


PARTIAL = {"channels": 8, "known": partial_channels(PRIMITIVES)}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "space",
    [
        CellSpace("cell", ("max_pool_3x3", "nor_conv_1x1"), 3, num_stages=1, **PARTIAL),
        DartsSpace(
            num_cells=3,
            num_nodes=2,
            primitives=("none", "max_pool_3x3", "nor_conv_1x1"),
            **PARTIAL,
        ),
    ],
    ids=["cell", "darts"],
)
def test_search_with_partial_channels_and_edge_normalisation(space):
    images = jax.random.normal(jax.random.key(2), (24, 8, 8, 3))
    examples = Examples(inputs=images, labels=jnp.arange(24) % 3)
    method = dataclasses.replace(pc_darts(space), warmup=0.0)
    search = Search(space, method, examples, num_classes=3, num_epochs=1, batch_size=12)
    before = search.init()
    after, metrics = search.epoch(before)
    assert np.isfinite(metrics["loss"])
    for name in space.choices:
        assert (after.arch[name] != before.arch[name]).any()
    plain = dataclasses.replace(space, known=PRIMITIVES)
    method.genotype(after.arch, space).check(plain)  # evaluated with all channels


# Presets, reference section 2.16

DARTS_WEIGHTS = Sgd(0.025, 0.001, 0.9, False, 3e-4, 5.0)
NAS_BENCH_WEIGHTS = Sgd(0.025, 0.001, 0.9, True, 5e-4, 5.0)
DARTS_ARCH = ArchAdam(3e-4, 0.5, 0.999, 1e-3)
SNAS_ARCH = ArchAdam(3e-4, 0.5, 0.999, 1e-3, clip=10.0)


@pytest.mark.parametrize(
    ("name", "weights", "arch", "init", "num_epochs", "temperatures"),
    [
        ("darts", DARTS_WEIGHTS, DARTS_ARCH, (0, 1e-3), 50, (1, 1)),
        ("darts_second_order", DARTS_WEIGHTS, DARTS_ARCH, (0, 1e-3), 50, (1, 1)),
        ("darts_unrolled", DARTS_WEIGHTS, DARTS_ARCH, (0, 1e-3), 50, (1, 1)),
        ("gdas", NAS_BENCH_WEIGHTS, DARTS_ARCH, (0, 1e-3), 250, (10, 0.1)),
        ("gdas_sampled", NAS_BENCH_WEIGHTS, DARTS_ARCH, (0, 1e-3), 250, (10, 0.1)),
        # 0.03 + 0.97 (1 - (n + 1) / 150)
        (
            "snas",
            DARTS_WEIGHTS,
            SNAS_ARCH,
            (1, 0.01),
            150,
            (0.03 + 0.97 * 149 / 150, 0.03),
        ),
        ("gumbel", NAS_BENCH_WEIGHTS, DARTS_ARCH, (0, 1e-3), 250, (10, 0.1)),
        ("random", NAS_BENCH_WEIGHTS, None, (0, 1), 250, (1, 1)),
    ],
)
def test_published_hyper_parameters(
    name, weights, arch, init, num_epochs, temperatures
):
    method = METHODS[name].as_published()
    assert method.weights == weights
    assert method.arch == arch
    assert (method.init, method.warmup) == (init, 0.0)
    assert method.preset.num_epochs == num_epochs
    schedule = method.temperature(num_epochs, 7)
    ends = [float(schedule(0)), float(schedule(7 * num_epochs - 1))]
    np.testing.assert_allclose(ends, temperatures, rtol=1e-5)
    # What makes the method is left as it is.
    for field in ("name", "sampler", "operation", "bilevel", "derive"):
        assert getattr(method, field) is getattr(METHODS[name], field)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_temperature_falls_over_the_whole_search_whatever_its_length(method):
    for num_epochs in (1, 3, 40):
        schedule = method.temperature(num_epochs, 5)
        first, last = float(schedule(0)), float(schedule(5 * num_epochs))
        assert 0 < last <= first
        np.testing.assert_allclose(
            (first, last),
            (1, 1) if method.temperature(1, 1)(0) == 1 else (2, 0.2),
            rtol=1e-5,
        )


# Derivation


def test_derive_rule_follows_the_space_or_the_record():
    space = CellSpace("cell", ("none", "nor_conv_1x1", "nor_conv_3x3"), num_nodes=3)
    logits = {"cell": jnp.array([[0.0, 2, 1], [3.0, 1, 2], [0.0, 1, 2]])}
    method = METHODS["gumbel"]
    found = method.genotype(logits, space)
    assert found == derive_rules.argmax_per_edge(logits, space)
    assert [edge.primitive for edge in found.cells["cell"]] == [
        "nor_conv_1x1",
        "none",
        "nor_conv_3x3",
    ]
    darts = DartsSpace()
    two = {name: jnp.zeros(c.shape) for name, c in darts.choices.items()}
    assert method.genotype(two, darts) == derive_rules.top_two_edges(two, darts)

    def nothing(logits, space):
        return Genotype(space.name, {"cell": ()})

    own = dataclasses.replace(method, derive=nothing)
    assert own.genotype(logits, space).cells["cell"] == ()
