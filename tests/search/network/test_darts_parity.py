"""Equal numbers, on equal weights, with the formulas of the published DARTS."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gumbax.nnx
from gumbax.search.loops.evaluation import loss_and_accuracy
from gumbax.search.methods import bilevel
from gumbax.search.methods.bilevel import Problem
from gumbax.search.methods.optimizers import InnerStep
from gumbax.search.network.supernet import Supernet, dense_operation
from gumbax.search.spaces.darts_space import DARTS_PRIMITIVES, DartsCell, DartsSpace
from gumbax.search.spaces.edges import Context, all_candidates
from gumbax.search.spaces.layers import Layers
from gumbax.search.spaces.primitives import PRIMITIVES
from tests.helpers import sweep
from tests.search import published_darts
from tests.search.conftest import filled

LAYERS = Layers()
CHANNELS = 4


@pytest.fixture(autouse=True)
def _float64(x64):
    pass


def wide(tree):
    """In float64: differences are those of the formulas, not of the rounding."""
    return jax.tree.map(lambda a: a.astype(jnp.float64), tree)


def wide_module(make, seed=1):
    graphdef, state = nnx.split(filled(make, seed))
    return nnx.merge(graphdef, wide(state))


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def primitive(name, stride, seed=1):
    return wide_module(
        lambda: PRIMITIVES[name](
            CHANNELS, stride=stride, layers=LAYERS, rngs=nnx.Rngs(0)
        ),
        seed,
    )


def close(found, expected, tolerance=1e-9):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


LARGER = ("sep_conv_5x5", "dil_conv_5x5")


@pytest.mark.parametrize(
    "name", sweep([n for n in DARTS_PRIMITIVES if n not in LARGER], LARGER)
)
def test_primitives(name):
    x = normal(0, (3, 6, 6, CHANNELS))
    for stride in (1, 2):
        module = primitive(name, stride)
        expected = published_darts.OPERATIONS[name](
            published_darts.kernels_of(module), x, stride
        )
        found = module(x)
        assert found.shape == (3, 6 // stride, 6 // stride, CHANNELS)
        close(found, expected) if name != "none" else chex.assert_trees_all_equal(
            found, expected
        )


@pytest.mark.parametrize("stride", sweep([2], [1]))
def test_mixed_op(stride):
    modules = [primitive(n, stride, i) for i, n in enumerate(DARTS_PRIMITIVES)]
    branches, params = gumbax.nnx.pure_branches(modules, batch_statistics=True)
    x, logits = normal(0, (3, 6, 6, CHANNELS)), normal(1, len(DARTS_PRIMITIVES))
    weights = jax.nn.softmax(logits)
    expected = published_darts.mixed_op(
        weights,
        DARTS_PRIMITIVES,
        [published_darts.kernels_of(module) for module in modules],
        x,
        stride,
    )
    close(gumbax.mixed_op(weights, branches, params, x), expected)


def new_cell(space, *, reduction, after_reduction):
    primitives = dict.fromkeys(("normal", "reduce"), space.primitives)
    return wide_module(
        lambda: DartsCell(
            space,
            all_candidates(primitives),
            (6, 10, CHANNELS),
            reduction=reduction,
            after_reduction=after_reduction,
            layers=LAYERS,
            rngs=nnx.Rngs(0),
        )
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("reduction", "after_reduction"), [(False, True), (True, False)]
)
def test_cell(reduction, after_reduction):
    space = DartsSpace(channels=CHANNELS)
    options = {"reduction": reduction, "after_reduction": after_reduction}
    module = new_cell(space, **options)
    side = 8 if after_reduction else 4
    s0, s1 = normal(0, (2, side, side, 6)), normal(1, (2, 4, 4, 10))
    rows = jax.nn.softmax(normal(2, (14, 8)))
    name = "reduce" if reduction else "normal"
    context = Context(weights={name: rows}, operation=dense_operation)
    found = nnx.jit(lambda cell, s0, s1: cell(s0, s1, context))(module, s0, s1)
    expected = published_darts.cell(
        published_darts.params_of_cell(module),
        rows,
        DARTS_PRIMITIVES,
        s0,
        s1,
        reduction=reduction,
    )
    close(found, expected)


# Gradients of the architecture. Compiling them takes most of the time, so: few
# operations and nodes, and one cell where derivatives are nested.

WITHOUT_CONV = ("none", "max_pool_3x3", "skip_connect")
FEW = ("none", "skip_connect", "dil_conv_3x3")
LABELS = jnp.array([0, 2, 1, 2])


def parts(module):
    """Its weights, and a function that puts weights in."""
    graphdef, weights, rest = nnx.split(module, nnx.Param, ...)
    return weights, lambda weights: nnx.merge(graphdef, weights, rest, copy=True)


def probabilities(arch):
    return {name: jax.nn.softmax(a) for name, a in arch.items()}


@pytest.mark.exhaustive
def test_network_and_first_order_gradient():
    space = DartsSpace(
        channels=CHANNELS, num_cells=3, num_nodes=1, primitives=WITHOUT_CONV
    )
    net = wide_module(lambda: Supernet(space, (8, 8, 3), 3, rngs=nnx.Rngs(0)))
    weights, merge = parts(net.network)
    arch, x = net.logits(), normal(0, (4, 8, 8, 3))

    def ours(arch, weights):
        context = Context(weights=probabilities(arch), operation=dense_operation)
        return loss_and_accuracy(merge(weights)(x, context), LABELS)

    def published(arch, weights):
        params = published_darts.params_of(merge(weights))
        scores = published_darts.network(params, probabilities(arch), WITHOUT_CONV, x)
        return published_darts.cross_entropy(scores, LABELS)

    problem = Problem(train=ours, valid=ours)
    (loss, _), gradient = jax.jit(
        lambda arch, weights: bilevel.first_order(problem, arch, weights, None)
    )(arch, weights)
    expected, slope = jax.jit(jax.value_and_grad(published))(arch, weights)
    close(loss, expected)
    for name in ("normal", "reduce"):
        close(gradient[name], slope[name])
        assert np.abs(slope[name]).max() > 1e-3


# The rules are compared with each other in test_bilevel too.
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [(bilevel.unrolled, 1e-9), (bilevel.finite_difference, 1e-3)],
)
def test_second_order_gradients(rule, tolerance):
    """Equal to the derivative of the whole map: logits -> w' -> validation loss."""
    space = DartsSpace(channels=CHANNELS, num_nodes=1, primitives=FEW)
    weights, merge = parts(new_cell(space, reduction=False, after_reduction=False))
    arch = {"normal": normal(0, (2, len(FEW)))}
    batches = [(normal(i, (4, 4, 4, 6)), normal(i + 2, (4, 4, 4, 10))) for i in (1, 5)]
    rate, momentum, decay = 0.05, 0.9, 3e-4
    trace = jax.tree.map(lambda w: 0.1 * jnp.cos(w), weights)
    inner = InnerStep(jnp.float64(rate), momentum, decay, trace)

    def loss(y):
        return published_darts.cross_entropy((y**3).mean(axis=(1, 2)), LABELS)

    def ours(batch, arch, weights):
        context = Context(weights=probabilities(arch), operation=dense_operation)
        return loss(merge(weights)(*batch, context)), None

    def published(batch, arch, weights):
        params = published_darts.params_of_cell(merge(weights))
        rows = jax.nn.softmax(arch["normal"])
        return loss(published_darts.cell(params, rows, FEW, *batch, reduction=False))

    def whole(arch, weights):
        slope = jax.grad(published, 2)(batches[0], arch, weights)
        after = jax.tree.map(
            lambda w, m, g: w - rate * (momentum * m + g + decay * w),
            weights,
            trace,
            slope,
        )
        return published(batches[1], arch, after), after

    problem = Problem(*(functools.partial(ours, batch) for batch in batches))
    differentiated = jax.jit(jax.value_and_grad(whole, has_aux=True))
    (value, after), slope = differentiated(arch, weights)
    first = jax.jit(jax.grad(functools.partial(published, batches[1])))(arch, after)
    scale = np.abs(slope["normal"]).max()
    # The second-order term is there to be seen.
    assert np.abs(first["normal"] - slope["normal"]).max() > 0.03 * scale
    step = jax.jit(functools.partial(rule, problem, inner=inner))
    (loss_after, _), gradient = step(arch, weights)
    close(loss_after, value)
    close(gradient["normal"], slope["normal"], tolerance)
