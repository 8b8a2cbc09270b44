"""What holds for every public function."""

import inspect
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import pytest

import gumbax
import gumbax.nnx
from gumbax import convolution, gumbel, pooling, schedules

SAMPLERS = [gumbax.gumbel_max, gumbax.gumbel_softmax, gumbel.sample]
PUBLIC = [
    *SAMPLERS,
    gumbax.mixed_op,
    gumbax.single_path,
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
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in others)


def test_import_brings_no_flax_and_no_extra():
    code = (
        "import sys, gumbax; "
        "heavy = {'flax', 'sklearn', 'matplotlib', 'rich', 'orbax'}; "
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def straight_through_gradient(key, logits):
    def loss(logits):
        return jnp.sum(gumbax.gumbel_softmax(key, logits, hard=True) ** 2)

    return jax.grad(loss)(logits)


def single_path_gradient(key, logits):
    branches = [lambda params, x: params * x, lambda params, x: jnp.sin(x)]

    def loss(logits):
        weights = gumbax.gumbel_softmax(key, logits[0, :2], hard=True)
        y = gumbax.single_path(weights, branches, [jnp.float32(2), None], logits)
        return jnp.sum(y)

    return jax.grad(loss)(logits)


@pytest.mark.parametrize(
    "function",
    [
        gumbax.gumbel_max,
        gumbax.gumbel_softmax,
        straight_through_gradient,
        single_path_gradient,
    ],
    ids=lambda f: f.__name__,
)
def test_lowers_for_cpu_cuda_and_tpu(function):
    exported = jax.export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"])
    module = exported(jax.random.key(0), jnp.zeros((4, 7)))
    assert module.platforms == ("cpu", "cuda", "tpu")
