"""The supernet and what is derived from it."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gumbax import convolution, gumbel_softmax, mixed_op
from gumbax._common.versions import nnx_dict, nnx_list
from gumbax.nnx import ArchParam
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.methods import derive_rules
from gumbax.search.network.derivation import (
    derive,
    modules_of,
    new_network,
    num_weights,
    recalibrate,
)
from gumbax.search.network.export import export, with_stock_layers
from gumbax.search.network.supernet import Supernet, dense_operation, path_operation
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.chain_space import ChainSpace, macro_space, mlp_space
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.edges import PLAIN, Candidates, Context, Kept
from gumbax.search.spaces.layers import Pool
from tests.helpers import sweep
from tests.search.conftest import filled

TINY_DARTS = DartsSpace(
    channels=4,
    num_cells=3,
    num_nodes=2,
    primitives=("none", "skip_connect", "nor_conv_1x1"),
)
SPACES = {
    "cell": (None, (8, 8, 1), derive_rules.argmax_per_edge),
    "darts": (TINY_DARTS, (8, 8, 3), derive_rules.top_two_edges),
    "macro": (macro_space((4, 4, 8), (1, 2)), (8, 8, 1), derive_rules.argmax_per_edge),
    "mlp": (mlp_space((8, 8, 6)), (5,), derive_rules.argmax_per_edge),
}


@pytest.fixture(scope="module", params=sweep(["cell", "mlp"], ["darts", "macro"]))
def case(request, supernet):
    """A supernet, its genotype and inputs, for each kind of space."""
    space, shape, rule = SPACES[request.param]
    net = supernet
    if space is not None:
        net = filled(lambda: Supernet(space, shape, 10, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(3), (16, *shape))
    return net, rule(net.logits(), net.space), x


def new(space, genotype, shape, **options):
    return filled(
        lambda: new_network(space, genotype, shape, 10, rngs=nnx.Rngs(0), **options)
    )


# Derivation


def test_derived_network_is_the_argmax_of_the_supernet_to_the_last_bit(case):
    net, genotype, x = case
    weights = genotype.weights(net.space)
    with jax.disable_jit():
        expected = net(x[:2], weights, path_operation)
        np.testing.assert_array_equal(derive(net, genotype)(x[:2]), expected)
    assert np.ptp(expected) > 1e-3


def test_derived_network_agrees_when_compiled_and_in_every_class(case):
    net, genotype, x = case

    @nnx.jit
    def both(net, derived, x):
        return net(x, genotype.weights(net.space), path_operation), derived(x)

    expected, found = both(net, derive(net, genotype), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=-1), expected.argmax(axis=-1))


class Nested(ChainSpace):
    """A space of a user's own, whose network keeps its edges in containers."""

    def build(self, *args, **options):
        return NestedNetwork(super().build(*args, **options))


class NestedNetwork(nnx.Module):
    def __init__(self, network):
        self.parts = nnx_list([nnx_dict({"chain": network.chain})])
        self.head = network.head

    def __call__(self, x, context=PLAIN):
        for layer in self.parts[0]["chain"]:
            x = layer.only(x, context)
        return self.head(x)


def test_edges_are_found_in_lists_and_dicts():
    plain = mlp_space((6, 6, 6))
    space = Nested("nested", plain.primitives, plain.widths, plain.stem)
    net = filled(lambda: Supernet(space, (6,), 10, rngs=nnx.Rngs(0)))
    genotype = derive_rules.argmax_per_edge(net.logits(), space)
    derived = derive(net, genotype)
    kinds = [type(module) for module in modules_of(derived)]
    assert kinds.count(Kept) == 2
    assert Candidates not in kinds
    x = jax.random.normal(jax.random.key(3), (2, 6))
    with jax.disable_jit():
        expected = net(x, genotype.weights(space), path_operation)
        np.testing.assert_array_equal(derived(x), expected)


def test_stock_layers_are_equal_to_rounding(case):
    net, genotype, x = case
    derived = derive(net, genotype)
    stock = with_stock_layers(derived)
    found = nnx.jit(lambda a, b, x: (a(x), b(x)))(derived, stock, x)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    modules = modules_of(stock)
    assert all(
        m.conv_general_dilated is jax.lax.conv_general_dilated
        for m in modules
        if isinstance(m, nnx.Conv)
    )
    assert all(m.stock for m in modules if isinstance(m, Pool))


def test_stock_layers_leave_the_original_as_it_was(supernet):
    genotype = derive_rules.argmax_per_edge(supernet.logits(), supernet.space)
    derived = derive(supernet, genotype)
    with_stock_layers(derived)
    assert derived.stem.conv_general_dilated is convolution.conv_general_dilated


@pytest.mark.exhaustive
def test_dropped_edges_contribute_nothing(supernet, space):
    """An edge that is not kept is none, in both networks, whatever its weights."""
    x = jax.random.normal(jax.random.key(3), (2, 8, 8, 1))
    kept = (("nor_conv_1x1", 0, 1), ("max_pool_3x3", 1, 2))
    sparse = Genotype("tiny", {"cell": kept})
    full = Genotype("tiny", {"cell": (kept[0], ("none", 0, 2), kept[1])})
    weights = sparse.weights(space)
    assert weights["cell"].sum() == 2
    run = nnx.jit(lambda net, x, weights: net(x, weights, path_operation))
    expected = run(supernet, x, full.weights(space))
    np.testing.assert_array_equal(run(supernet, x, weights), expected)
    found = derive(supernet, sparse), derive(supernet, full)
    np.testing.assert_array_equal(found[0](x), found[1](x))
    np.testing.assert_allclose(found[0](x), expected, rtol=1e-4, atol=1e-5)

    # Infinite weights in the edge that is left out.
    broken = nnx.clone(supernet)
    poisoned = jax.tree.map(
        lambda leaf: leaf.at[1].set(jnp.inf), nnx.state(broken.network.cells)
    )
    nnx.update(broken.network.cells, poisoned)
    np.testing.assert_array_equal(run(broken, x, weights), expected)
    np.testing.assert_array_equal(derive(broken, sparse)(x), found[0](x))


def test_darts_keeps_two_inputs_of_every_node():
    net = filled(lambda: Supernet(TINY_DARTS, (8, 8, 3), 10, rngs=nnx.Rngs(0)))
    genotype = derive_rules.top_two_edges(net.logits(), TINY_DARTS)
    groups = modules_of(derive(net, genotype))
    kept = [group for group in groups if isinstance(group, Kept)]
    # Three cells, a reduction cell has two groups; two edges for each of two nodes.
    assert sum(len(group.modules) for group in kept) == 3 * 2 * 2
    assert "none" not in {name for group in kept for name in group.names}


def test_derived_network_owns_its_weights(supernet):
    genotype = derive_rules.argmax_per_edge(supernet.logits(), supernet.space)
    derived = derive(supernet, genotype)
    assert not jax.tree.leaves(nnx.state(derived, ArchParam))
    before = jax.tree.map(jnp.array, nnx.state(supernet))
    nnx.update(derived, jax.tree.map(jnp.zeros_like, nnx.state(derived)))
    assert float(jnp.abs(derived(jnp.ones((2, 8, 8, 1)))).max()) == 0
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(supernet))
    assert 0 < num_weights(derived) < num_weights(supernet.network)


def test_genotype_of_another_space_is_refused(supernet, space):
    other = CellSpace(name="other", primitives=space.primitives, num_nodes=3)
    genotype = Genotype.random(jax.random.key(0), other)
    message = "of the space 'tiny', got one of the space"
    with pytest.raises(ValueError, match=message):
        derive(supernet, genotype)
    with pytest.raises(ValueError, match=message):
        new_network(space, genotype, (8, 8, 1), 10, rngs=nnx.Rngs(0))


# Batch normalisation


def test_recalibration_is_the_mean_over_batches_of_their_statistics():
    net = nnx.Sequential(
        nnx.Linear(3, 2, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(2, momentum=0.9, rngs=nnx.Rngs(0)),
        nnx.relu,
        nnx.BatchNorm(2, momentum=0.8, rngs=nnx.Rngs(0)),
    )
    batches = np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32)
    batches *= np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1)
    before = jax.tree.map(np.array, nnx.state(net))
    calibrated = recalibrate(net, batches)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(net))

    kernel, bias = (
        np.asarray(v[...]) for v in (net.layers[0].kernel, net.layers[0].bias)
    )
    hidden = batches @ kernel + bias
    mean, var = hidden.mean(axis=1), hidden.var(axis=1)
    normed = (hidden - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    second = np.maximum(normed, 0)
    expected = (mean, var), (second.mean(axis=1), second.var(axis=1))
    for layer, values in zip(calibrated.layers[1::2], expected, strict=True):
        found = layer.mean[...], layer.var[...]
        for have, want in zip(found, values, strict=True):
            np.testing.assert_allclose(have, want.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert [m.momentum for m in calibrated.layers[1::2]] == [0.9, 0.8]

    # Evaluation mode: an example's scores do not depend on its batch.
    x = batches[0]
    np.testing.assert_allclose(calibrated(x)[:2], calibrated(x[:2]), rtol=1e-5)
    one = recalibrate(net, [x])
    np.testing.assert_allclose(one(x), net(x), rtol=1e-4, atol=1e-5)


def test_recalibration_needs_a_batch():
    net = nnx.Sequential(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="`batches` must hold a batch or more"):
        recalibrate(net, [])


# Gradients


def test_logits_get_the_dense_straight_through_gradient():
    names = ("none", "nor_conv_1x1", "avg_pool_3x3")
    small = CellSpace("small", names, 3, channels=4, num_stages=1, norm="group")
    net = filled(lambda: Supernet(small, (4, 4, 1), 3, rngs=nnx.Rngs(0)))
    x, key = jax.random.normal(jax.random.key(3), (8, 4, 4, 1)), jax.random.key(2)
    graphdef, arch, weights = nnx.split(net, ArchParam, ...)

    def gradient(operation):
        def loss(arch):
            net = nnx.merge(graphdef, arch, weights, copy=True)
            choice = {
                n: gumbel_softmax(key, a, hard=True) for n, a in net.logits().items()
            }
            return jnp.sum(net(x, choice, operation) ** 2)

        return jax.tree.leaves(jax.jit(jax.grad(loss))(arch))[0]

    expected = gradient(dense_operation)
    scale = np.abs(expected).max()
    assert scale > 1e-2
    np.testing.assert_allclose(
        gradient(path_operation), expected, rtol=1e-3, atol=1e-4 * scale
    )


@pytest.mark.exhaustive
@pytest.mark.usefixtures("optimised")
def test_weighted_sums_keep_their_inputs_alone():
    """Temporaries of a gradient through six edges grow by inputs, not by insides."""
    names = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    small = CellSpace("small", names, 4, channels=16, num_stages=1)
    net = filled(lambda: Supernet(small, (16, 16, 3), 3, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(3), (16, 16, 16, 3))
    rows = {"cell": jnp.full(small.choices["cell"].shape, 0.25)}
    graphdef, state = nnx.split(net)

    def kept(weights, branches, params, x, *, key=None):
        return mixed_op(weights, branches, params, x)

    def gradient(operation):
        def loss(state, rows):
            net = nnx.merge(graphdef, state, copy=True)
            return jnp.sum(net(x, rows, operation) ** 2)

        run = jax.jit(jax.grad(loss, (0, 1))).lower(state, rows).compile()
        return run.memory_analysis().temp_size_in_bytes, run(state, rows)

    (ours, found), (whole, expected) = gradient(dense_operation), gradient(kept)
    assert ours < 0.5 * whole
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)


# Options of a derived network


def test_dropped_paths_are_all_or_nothing_and_scaled_up(space):
    genotype = Genotype(
        "tiny", {"cell": (("nor_conv_1x1", 0, 1), ("max_pool_3x3", 1, 2))}
    )
    net = new(space, genotype, (8, 8, 1))
    cell = net.cells[0][0]
    x = jax.random.normal(jax.random.key(0), (64, 4, 4, 4))
    nodes = [x, jnp.zeros_like(x), jnp.zeros_like(x)]
    context = Context(key=jax.random.key(1), drop_path=jnp.float32(0.25))
    plain, found = nnx.jit(
        lambda cell, nodes: [cell(nodes, c)[1] for c in (Context(), context)]
    )(cell, nodes)
    dropped = np.asarray(jnp.all(found == 0, axis=(1, 2, 3)))
    assert 0 < dropped.sum() < 64
    np.testing.assert_allclose(found[~dropped], plain[~dropped] / 0.75, rtol=1e-6)


def test_identities_are_never_dropped(space):
    genotype = Genotype("tiny", {"cell": (("skip_connect", 0, 1),)})
    net = new(space, genotype, (8, 8, 1))
    x = jnp.ones((64, 4, 4, 4))
    nodes = [x, jnp.zeros_like(x), jnp.zeros_like(x)]
    context = Context(key=jax.random.key(1), drop_path=jnp.float32(0.5))
    np.testing.assert_array_equal(net.cells[0][0](nodes, context)[1], x)


def test_a_skip_that_halves_the_image_is_dropped_as_published():
    space = DartsSpace(channels=4, num_cells=3, num_nodes=1)
    edges = (("skip_connect", 0, 2), ("skip_connect", 1, 2))
    genotype = Genotype("darts", {"normal": edges, "reduce": edges})
    net = new(space, genotype, (8, 8, 3))
    halving = net.cells[1].outer
    x = jax.random.normal(jax.random.key(0), (64, 8, 8, 8))
    nodes = [jnp.zeros((64, 4, 4, 8))] * 3
    context = Context(key=jax.random.key(1), drop_path=jnp.float32(0.5))
    found = nnx.jit(
        lambda edges, x, nodes: edges(nodes, context, inputs=[x, jnp.zeros_like(x)])[2]
    )(halving, x, nodes)
    assert 0 < int(jnp.all(found == 0, axis=(1, 2, 3)).sum()) < 64


@pytest.mark.exhaustive
def test_auxiliary_head_pools_to_four_pixels_and_speaks_in_training_alone():
    space = DartsSpace(channels=4, num_cells=3, num_nodes=1)
    edges = (("skip_connect", 0, 2), ("skip_connect", 1, 2))
    genotype = Genotype("darts", {"normal": edges, "reduce": edges})
    for side in (32, 28, 16, 8):
        net = new(space, genotype, (side, side, 1), auxiliary=True)
        reduced = jnp.ones((1, side // 4, side // 4, 1))
        assert jax.eval_shape(net.auxiliary.pool, reduced).shape == (1, 2, 2, 1)
        if side == 32:
            assert net.auxiliary.pool.strides == (3, 3)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    (scores, extra), alone = nnx.jit(
        lambda net, x: (net(x, Context(training=True)), net(x))
    )(net, x)
    np.testing.assert_allclose(scores, alone, rtol=1e-5)
    assert scores.shape == extra.shape == (4, 10)
    assert np.isfinite(extra).all()
    assert np.ptp(extra) > 0
    with pytest.raises(ValueError, match="`auxiliary` must be False for images of"):
        new(space, genotype, (4, 4, 1), auxiliary=True)


# Export

READER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gumbax", "flax"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import jax.export, numpy as np
from pathlib import Path
call = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes())).call
x = np.load(sys.argv[2])
np.savez(sys.argv[3], *[call(x[:n]) for n in (1, 3, len(x))])
assert "gumbax" not in sys.modules and "flax" not in sys.modules
"""


def test_exported_network_runs_without_gumbax_and_flax(space, tmp_path):
    kept = (("nor_conv_1x1", 0, 1), ("max_pool_3x3", 0, 2), ("skip_connect", 1, 2))
    net = new(space, Genotype("tiny", {"cell": kept}), (8, 8, 1))
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    names = [str(tmp_path / name) for name in ("net.bin", "x.npy", "y.npz")]
    export(net, (8, 8, 1), tmp_path / "net.bin")
    np.save(names[1], x)
    subprocess.run(
        [sys.executable, "-c", READER, *names],
        check=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        timeout=120,
    )
    expected = nnx.jit(lambda net, x: net(x))(net, x)
    with np.load(names[2]) as found:
        for y, n in zip(found.values(), (1, 3, 5), strict=True):
            np.testing.assert_allclose(y, expected[:n], rtol=1e-4, atol=1e-5)
