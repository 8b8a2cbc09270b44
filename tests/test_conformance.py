"""What holds for every public function."""

import inspect

import jax
import jax.export
import jax.numpy as jnp
import pytest

import gumbax
import gumbax.nnx
from gumbax import concrete, convolution, gumbel, logistic, pooling, schedules

CATEGORICAL = [gumbax.gumbel_max, gumbax.gumbel_softmax, gumbax.log_gumbel_softmax]
BINARY = [
    gumbax.relaxed_bernoulli,
    gumbax.logit_relaxed_bernoulli,
    gumbax.hard_concrete,
]
SAMPLERS = [
    *CATEGORICAL,
    *BINARY,
    gumbax.categorical,
    gumbax.draw,
    logistic.sample,
    logistic.sample_given_bit,
    gumbel.sample,
    gumbel.sample_truncated,
    gumbel.sample_given_index,
]
LAW = [
    gumbel.log_prob,
    gumbel.prob,
    gumbel.cdf,
    gumbel.log_cdf,
    gumbel.survival_function,
    gumbel.log_survival_function,
    gumbel.quantile,
]
MOMENTS = [
    gumbel.mean,
    gumbel.mode,
    gumbel.median,
    gumbel.variance,
    gumbel.stddev,
    gumbel.entropy,
    gumbel.kl_divergence,
]
SIMPLEX_DENSITIES = [concrete.log_prob, concrete.exp_log_prob]
BINARY_DENSITIES = [
    concrete.binary_log_prob,
    concrete.binary_logit_log_prob,
    concrete.hard_log_prob,
]
BINARY_CDFS = [
    concrete.binary_cdf,
    concrete.binary_log_cdf,
    concrete.stretched_cdf,
    concrete.stretched_log_cdf,
    concrete.hard_cdf,
    concrete.hard_log_cdf,
]
PROBABILITIES = [
    gumbax.categorical_log_prob,
    gumbax.categorical_entropy,
    gumbax.probs_to_logits,
]
GATES = [gumbax.hard_concrete_penalty, gumbax.hard_concrete_gate]
PUBLIC = [
    *SAMPLERS,
    *LAW,
    *MOMENTS,
    *SIMPLEX_DENSITIES,
    *BINARY_DENSITIES,
    *BINARY_CDFS,
    *PROBABILITIES,
    *GATES,
    gumbax.mixed_op,
    gumbax.single_path,
    gumbax.subset,
    gumbax.draw_choices,
    gumbax.scan_edges,
    gumbax.nnx.pure_branches,
    convolution.conv_general_dilated,
    pooling.max_pool,
    pooling.avg_pool,
    schedules.constant,
    schedules.linear,
    schedules.exponential,
    schedules.cosine,
    schedules.preset,
]
named = pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__name__)


def test_every_public_name_is_in_the_list():
    modules = [gumbax, gumbel, concrete, logistic, convolution, pooling, schedules]
    found = {
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    found = {f for f in found if f.__module__.startswith("gumbax")}
    assert found <= set(PUBLIC), found - set(PUBLIC)


@named
def test_docstring_is_complete(function):
    text = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Raises:", "Example:", "References:"):
        assert section in text, f"{function.__name__} lacks {section}"
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}: " in text, f"{function.__name__} lacks {parameter}"


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda f: f.__name__)
def test_sampler_takes_the_key_first_and_options_by_name(sampler):
    first, second, *others = inspect.signature(sampler).parameters.values()
    assert first.name == "key"
    assert second.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    by_place = [p.name for p in others if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    condition = {
        gumbel.sample_given_index: ["index"],
        logistic.sample_given_bit: ["bit"],
    }
    assert by_place == condition.get(sampler, [])
    text = " ".join(inspect.getdoc(sampler).split())
    assert "the same on every backend" in text


@pytest.mark.parametrize(
    "function",
    # It has the signature of `jax.lax.conv_general_dilated`, whose place it takes.
    [f for f in PUBLIC if f is not convolution.conv_general_dilated],
    ids=lambda f: f.__name__,
)
def test_every_default_is_by_name(function):
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            # `shape=()` of the noise is the second operand, as in jax.random.
            by_name = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert by_name or parameter.name == "shape", parameter.name


KEY = jax.random.key(0)
X = jnp.full((4, 7), 0.5)


def gradient(sampler, **options):
    def loss(key, logits):
        return jnp.sum(sampler(key, logits, **options) ** 2)

    return jax.grad(loss, argnums=1)


def single_path_gradient(key, logits):
    branches = [lambda params, x: params * x, lambda params, x: jnp.sin(x)]

    def loss(logits):
        weights = gumbax.gumbel_softmax(key, logits[0, :2], hard=True)
        y = gumbax.single_path(weights, branches, [jnp.float32(2), None], logits)
        return jnp.sum(y)

    return jax.grad(loss)(logits)


def mixed_op(logits):
    branches = [lambda params, x: params * x, lambda params, x: jnp.sin(x)]
    return gumbax.mixed_op(logits[0, :2], branches, [jnp.float32(2), None], logits)


def cell_gradient(key, logits):
    """Two edges that draw from one record of choices; a random subset is credited."""
    branches = [lambda params, x: params * x, lambda params, x: jnp.sin(x)]
    draw_key, subset_key = jax.random.split(key)

    def loss(logits):
        choices = gumbax.draw_choices(draw_key, {"cell": logits[:2, :2]}, hard=True)
        params = [jnp.arange(1.0, 3.0), jnp.zeros((2, 0))]

        def edge(own, x):
            weights, *params = own
            return gumbax.single_path(
                weights,
                branches,
                params,
                x,
                logit_gradient=gumbax.subset(1),
                key=subset_key,
            )

        nodes = jnp.zeros((3, 5)).at[0].set(1.0)
        per_edge = (choices["cell"], *params)
        return jnp.sum(gumbax.scan_edges(edge, per_edge, nodes, [(0, 1), (1, 2)]))

    return jax.grad(loss)(logits)


def with_shape(sampler, **options):
    return lambda key: sampler(key, (4, 700), **options)


LOWERED = {
    **{f.__name__: (f, (KEY, X)) for f in CATEGORICAL + BINARY},
    **{f"d {f.__name__}": (gradient(f), (KEY, X)) for f in CATEGORICAL[1:] + BINARY},
    "d straight_through": (gradient(gumbax.gumbel_softmax, hard=True), (KEY, X)),
    "wide gumbel_max": (gumbax.gumbel_max, (KEY, jnp.zeros((2, 1000)))),
    "categorical": (gumbax.categorical, (KEY, jnp.zeros((2, 5000)))),
    "sample": (with_shape(gumbel.sample), (KEY,)),
    "sample_truncated": (with_shape(gumbel.sample_truncated, upper=1.0), (KEY,)),
    "sample_given_index": (gumbel.sample_given_index, (KEY, X, jnp.zeros(4, int))),
    **{f"gumbel.{f.__name__}": (f, (X,)) for f in LAW},
    **{
        f"gumbel.{f.__name__}": (lambda x, f=f: f(loc=x, scale=x), (X,))
        for f in MOMENTS
    },
    "draw": (gumbax.draw, (KEY, X)),
    "logistic": (with_shape(logistic.sample), (KEY,)),
    "sample_given_bit": (logistic.sample_given_bit, (KEY, X, X)),
    "log_prob of index": (gumbax.categorical_log_prob, (jnp.zeros(4, int), X)),
    **{f.__name__: (f, (X,)) for f in PROBABILITIES[1:]},
    **{f.__name__: (f, (X, X)) for f in BINARY_CDFS},
    **{f.__name__: (f, (X, X)) for f in SIMPLEX_DENSITIES + BINARY_DENSITIES},
    **{f.__name__: (f, (X,)) for f in GATES},
    "single_path": (single_path_gradient, (KEY, X)),
    "mixed_op": (mixed_op, (X,)),
    "subset, draw_choices, scan_edges": (cell_gradient, (KEY, X)),
    "conv_general_dilated": (
        lambda x, w: convolution.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4))),
    ),
    "max_pool": (
        lambda x: pooling.max_pool(x, (3, 3), padding="SAME"),
        (jnp.zeros((2, 8, 8, 3)),),
    ),
    "avg_pool": (
        lambda x: pooling.avg_pool(x, (3, 3), padding="SAME"),
        (jnp.zeros((2, 8, 8, 3)),),
    ),
    "schedule": (schedules.exponential(1.0, 0.1, floor=0.1), (jnp.zeros(()),)),
}


@pytest.mark.parametrize("name", LOWERED)
def test_lowers_for_cpu_cuda_and_tpu(name):
    function, operands = LOWERED[name]
    exported = jax.export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"])
    assert exported(*operands).platforms == ("cpu", "cuda", "tpu")
