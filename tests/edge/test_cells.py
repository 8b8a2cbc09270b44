import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax

EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
BRANCHES = (
    lambda p, x: jnp.tanh(x @ p),
    lambda p, x: x,
    lambda p, x: jnp.zeros_like(x),
)


@pytest.fixture
def cell(x64):
    """Weights, parameters and input of a NAS-Bench-201 cell."""
    keys = jax.random.split(jax.random.key(0), 3)
    kernels = jax.random.normal(keys[0], (6, 4, 4), jnp.float64)
    logits = jax.random.normal(keys[1], (6, 3), jnp.float64)
    x = jax.random.normal(keys[2], (5, 4), jnp.float64)
    return logits, kernels, x


def weights_of(logits):
    return gumbax.gumbel_softmax(None, logits, temperature=0.7, hard=True, gumbels=0.0)


def edge(own, x):
    weights, kernel = own
    return gumbax.single_path(weights, BRANCHES, (kernel, None, None), x)


def scanned(logits, kernels, x):
    nodes = jnp.zeros((4, *x.shape), x.dtype).at[0].set(x)
    return gumbax.scan_edges(edge, (weights_of(logits), kernels), nodes, EDGES)[-1]


def unrolled(logits, kernels, x):
    nodes = [x, 0.0, 0.0, 0.0]
    owns = zip(weights_of(logits), kernels, strict=True)
    for (source, target), own in zip(EDGES, owns, strict=True):
        nodes[target] += edge(own, nodes[source])
    return nodes[-1]


@pytest.mark.exhaustive
def test_equals_the_unrolled_cell_in_value_and_all_derivatives(cell):
    np.testing.assert_allclose(scanned(*cell), unrolled(*cell), rtol=1e-12)
    gradients = [
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), (0, 1, 2))
        for f in (scanned, unrolled)
    ]
    found, expected = (g(*cell) for g in gradients)
    assert all(np.abs(g).max() > 1e-3 for g in expected)
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-12)
    second = [jax.jit(jax.jacrev(g, 0))(*cell) for g in gradients]
    chex.assert_trees_all_close(*second, rtol=1e-8, atol=1e-10)


def test_body_is_traced_once_whatever_the_number_of_edges(cell):
    logits, kernels, x = cell
    counted = chex.assert_max_traces(edge, n=2)  # the scan and its check
    nodes = jnp.zeros((4, *x.shape), x.dtype).at[0].set(x)
    jax.jit(lambda *own: gumbax.scan_edges(counted, own, nodes, EDGES))(
        weights_of(logits), kernels
    )


def test_sources_of_another_shape():
    """The edges of a reduction cell that come from its inputs."""
    inputs = jnp.arange(12.0).reshape(2, 6)
    nodes = gumbax.scan_edges(
        lambda scale, x: scale * x[::2],
        jnp.array([1.0, 10.0, 100.0]),
        jnp.zeros((2, 3)),
        [(0, 0), (1, 0), (1, 1)],
        inputs=inputs,
    )
    even = inputs[:, ::2]
    expected = jnp.stack([even[0] + 10 * even[1], 100 * even[1]])
    np.testing.assert_array_equal(nodes, expected)


def test_aux_values_are_stacked():
    nodes, aux = gumbax.scan_edges(
        lambda scale, x: (scale * x, scale + 1),
        jnp.array([2.0, 3.0]),
        jnp.ones((3, 2)),
        [(0, 1), (1, 2)],
        has_aux=True,
    )
    np.testing.assert_array_equal(aux, [3.0, 4.0])
    np.testing.assert_array_equal(nodes[2], [10.0, 10.0])


def test_no_edges():
    nodes = jnp.ones((2, 3))
    own = jnp.zeros((0, 4))
    found = gumbax.scan_edges(lambda own, x: x, own, nodes, [])
    np.testing.assert_array_equal(found, nodes)


@pytest.mark.parametrize(
    ("edges", "options", "message"),
    [
        ([(0, 3), (0, 1)], {}, r"a target below 3, got \(0, 3\)"),
        ([(-1, 1), (0, 1)], {}, r"a source below 3.*got \(-1, 1\)"),
        ([(1, 2), (0, 1)], {}, r"all edges into a node before.*got \(0, 1\). Sort"),
        ([(0, 1), (1, 1)], {}, r"before those that leave it, got \(1, 1\)"),
        ([(0, 1)], {}, r"`per_edge` must hold arrays with 1 edges"),
        (
            [(2, 1), (0, 1)],
            {"inputs": np.ones((2, 3))},
            r"a source below 2.*got \(2, 1\)",
        ),
    ],
)
def test_bad_edges(edges, options, message):
    run = functools.partial(gumbax.scan_edges, lambda own, x: own * x)
    with pytest.raises(ValueError, match=message):
        run(jnp.ones(2), jnp.ones((3, 3)), edges, **options)


def test_output_must_be_like_a_node():
    message = r"return float32\(3,\), as a node is, got float32\(\)"
    with pytest.raises(ValueError, match=message):
        gumbax.scan_edges(
            lambda own, x: own * x.sum(), jnp.ones(1), jnp.ones((2, 3)), [(0, 1)]
        )
