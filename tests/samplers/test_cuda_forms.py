"""The forms that NVIDIA GPUs have of some functions, run on any device and compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import gumbax

KEY = jax.random.key(9)
ROWS = np.random.default_rng(0).normal(size=(64, 300)).astype(np.float32)
INF, NAN = np.inf, np.nan
EDGES = np.float32(
    [
        [0, 1, 2, 3],
        [-INF, -INF, -INF, -INF],
        [INF, 0, INF, -INF],
        [NAN, 0, -INF, INF],
        [-INF, 5, -INF, NAN],
        [-INF, -INF, 2, -INF],
        [3e38, -3e38, 0, 3e38],
        [1e30, 1e30, -INF, 0],
    ]
)


@pytest.fixture
def on_cuda(monkeypatch):
    """Runs a function with every `cuda` branch in place of the one of this platform."""

    def chosen(*operands, default=None, **branches):
        return branches.get("cuda", default)(*operands)

    def run(function, *operands):
        jax.clear_caches()
        with monkeypatch.context() as patch:
            patch.setattr(jax.lax, "platform_dependent", chosen)
            found = jax.device_get(jax.jit(function)(*operands))
        jax.clear_caches()
        return found

    return run


def soft(x, temperature=0.5, **options):
    return gumbax.gumbel_softmax(KEY, x, temperature=temperature, **options)


def log(x, **options):
    return gumbax.log_gumbel_softmax(KEY, x, temperature=0.5, **options)


def with_gradient(sample, *, at_zero=INF):
    """A sample, and its pull-back of a row of numbers, of another where it is 0."""

    def run(x):
        y, pull_back = jax.vjp(sample, x)
        row = jnp.arange(y.shape[-1], dtype=y.dtype)[None]
        return y, pull_back(jnp.where(y == 0, at_zero, row))

    return run


def test_logarithms(on_cuda):
    expected = jax.device_get(gumbax.gumbel.sample(KEY, (4096, 8)))
    found = on_cuda(lambda key: gumbax.gumbel.sample(key, (4096, 8)), KEY)
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=3e-7)
    assert np.any(found != expected)


@pytest.mark.parametrize("x", [ROWS, EDGES], ids=["rows", "edges"])
@pytest.mark.parametrize(
    "sample",
    [
        functools.partial(gumbax.gumbel_max, KEY),
        functools.partial(soft, hard=True),
        lambda x: gumbax.gumbel_max(None, x, gumbels=0.0),
        lambda x: soft(x, hard=True, where=np.arange(x.shape[-1]) % 2 == 1),
        lambda x: gumbax.gumbel_max(KEY, x.astype(jnp.bfloat16), axis=0),
    ],
    ids=["index", "hard", "index without noise", "masked", "other axis"],
)
def test_choices_are_the_same(on_cuda, sample, x):
    np.testing.assert_array_equal(on_cuda(sample, x), jax.jit(sample)(x))


@pytest.mark.parametrize("x", [ROWS, EDGES], ids=["rows", "edges"])
@pytest.mark.parametrize(
    "sample",
    [
        soft,
        log,
        with_gradient(soft),
        with_gradient(log, at_zero=0),
        with_gradient(functools.partial(soft, hard=True), at_zero=-7),
        with_gradient(functools.partial(soft, hard=True)),
        with_gradient(functools.partial(soft, temperature=0.05)),
        with_gradient(lambda x: soft(x, where=np.arange(x.shape[-1]) % 2 == 1)),
        jax.grad(lambda x: soft(x, 2.0).dot(x[0]).sum()),
        lambda x: jax.grad(lambda t: (soft(x, t) ** 2).sum())(0.7),
        jax.grad(lambda x: (jax.grad(lambda x: (soft(x) ** 3).sum())(x) ** 2).sum()),
    ],
    ids=[
        *("soft", "log", "soft, both", "log, both", "hard, both", "infinite", "cold"),
        *("masked", "hot", "temperature", "second"),
    ],
)
def test_samples_and_gradients_are_the_same_to_rounding(on_cuda, sample, x):
    pairs = zip(
        jax.tree.leaves(on_cuda(sample, x)),
        jax.tree.leaves(jax.device_get(jax.jit(sample)(x))),
        strict=True,
    )
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=5e-5, atol=1e-5)


def test_a_tie_goes_to_the_lowest_index(on_cuda):
    x = np.zeros((5, 1000), np.float32)
    x[:, 700:] = np.arange(5)[:, None] % 2
    index = on_cuda(lambda x: gumbax.gumbel_max(None, x, gumbels=0.0), x)
    assert index.tolist() == [0, 700, 0, 700, 0]


def program(platform):
    lowered = jax.jit(functools.partial(gumbax.gumbel_max, KEY))
    return export.export(lowered, platforms=[platform])(ROWS).mlir_module()


def test_an_index_on_cuda_is_one_reduction_over_what_is_computed_there():
    text = program("cuda")
    assert text.count("stablehlo.reduce(") == 1
    assert "optimization_barrier" not in text
    assert "log_plus_one" in text


@pytest.mark.parametrize("platform", ["cpu", "tpu", "rocm"])
def test_elsewhere_the_noise_has_the_portable_logarithms(platform):
    text = program(platform)
    assert "optimization_barrier" in text
    assert "log_plus_one" not in text
