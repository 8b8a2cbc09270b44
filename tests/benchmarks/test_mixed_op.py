"""The forms of the mixed-op edge against each other, forward and backward.

    pytest tests/benchmarks/test_mixed_op.py --benchmark-only -s

prints the tables of README.md here.
"""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

import gumbax
from gumbax import convolution, pooling

from . import compare

LAYOUT = ("NHWC", "HWIO", "NHWC")
IMAGES = (64, 32, 32, 16)
KEY = jax.random.key(2)


def conv_branch(convolve):
    def branch(kernel, x):
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    return branch


def kernels(sizes):
    keys = jax.random.split(jax.random.key(0), len(sizes))
    channels = IMAGES[-1]
    return tuple(
        0.1 * jax.random.normal(key, (size, size, channels, channels))
        for key, size in zip(keys, sizes, strict=True)
    )


def convolutions(num_branches, convolve):
    """1x1, 3x3 and 5x5 convolutions in turn."""
    sizes = [(1, 3, 5)[i % 3] for i in range(num_branches)]
    return [conv_branch(convolve)] * num_branches, kernels(sizes)


def mixed(num_branches, convolve):
    """Half of them convolutions; pooling, skip and none."""
    others = [
        lambda params, x: pooling.avg_pool(x, (3, 3), padding="SAME"),
        lambda params, x: x,
        lambda params, x: jnp.zeros_like(x),
    ]
    convolved, params = convolutions(num_branches - 3, convolve)
    return convolved + others, (*params, None, None, None)


def dense_layers(num_branches, convolve):
    """Dense layers."""
    del convolve
    size = IMAGES[-1]
    layers = [lambda kernel, x: jnp.tanh(x @ kernel)] * num_branches
    keys = jax.random.split(jax.random.key(0), num_branches)
    return layers, tuple(jax.random.normal(key, (size, size)) for key in keys)


def path(logit_gradient):
    def operation(weights, branches, params, x):
        return gumbax.single_path(
            weights, branches, params, x, logit_gradient=logit_gradient, key=KEY
        )

    return operation


OURS, STOCK = convolution.conv_general_dilated, jax.lax.conv_general_dilated
FORMS = {
    "dense, stock convolutions": (gumbax.mixed_op, STOCK),
    "dense": (gumbax.mixed_op, OURS),
    "exact": (path(gumbax.exact), OURS),
    "subset(1)": (path(gumbax.subset(1)), OURS),
    "sampled": (path(gumbax.sampled), OURS),
}
# (edge, branches) -> form -> least speed over dense, and most of its memory.
LEAST = {
    (convolutions, 6): {"exact": (2.0, 0.5)},
    (dense_layers, 8): {"exact": (1.8, 0.25), "sampled": (4.0, 0.25)},
}
CASES = [
    *((edge, k) for k in (4, 6, 8, 16) for edge in (convolutions, dense_layers)),
    (mixed, 6),
]


def forward_and_backward(operation, branches, weights, params, x, cotangent):
    run = functools.partial(call, operation, branches)
    y, pull_back = jax.vjp(run, weights, params, x)
    return y, pull_back(cotangent)


def call(operation, branches, weights, params, x):
    return operation(weights, branches, params, x)


@pytest.fixture(scope="module")
def table():
    lines = []
    yield lines
    print("\n\n| edge | form | ms | over dense | memory, MB | share | compile, s |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        print("| " + " | ".join(line) + " |")


@pytest.mark.parametrize(
    ("edge", "num_branches"), CASES, ids=lambda v: getattr(v, "__name__", v)
)
def test_edge(edge, num_branches, table, benchmark):
    x, cotangent = jax.random.normal(jax.random.key(1), (2, *IMAGES))
    steps, memory, compiling = {}, {}, {}
    choices = jnp.eye(num_branches)
    for name, (operation, convolve) in FORMS.items():
        branches, params = edge(num_branches, convolve)
        step = functools.partial(forward_and_backward, operation, branches)
        operands = (choices[0], params, x, cotangent)
        _, compiling[name], memory[name] = compare.compiled(step, *operands)
        jitted = jax.jit(step)

        # Every branch is chosen once: their costs differ.
        def all_choices(jitted=jitted, params=params):
            return [
                jax.block_until_ready(jitted(c, params, x, cotangent)) for c in choices
            ]

        steps[name] = all_choices
    seconds = compare.medians(steps)
    dense = min(seconds["dense"], seconds["dense, stock convolutions"])
    least = min(memory["dense"], memory["dense, stock convolutions"])
    speed, share = {}, {}
    for name, value in seconds.items():
        speed[name], share[name] = dense / value, memory[name] / least
        table.append(
            (
                f"{num_branches} {edge.__name__.replace('_', ' ')}",
                name,
                f"{1e3 * value / num_branches:.1f}",
                f"{speed[name]:.1f}",
                f"{memory[name] / 2**20:.1f}",
                f"{share[name]:.2f}",
                f"{compiling[name]:.1f}",
            )
        )
    benchmark.extra_info.update(speed=speed, share=share)
    benchmark.pedantic(steps["exact"], rounds=1)
    print(f"\n{num_branches} {edge.__name__}: {table[-len(FORMS) :]}")
    for name, (fast, small) in LEAST.get((edge, num_branches), {}).items():
        compare.at_least({"cpu": fast}, speed[name], f"speed of {name} over dense")
        compare.at_most({"cpu": small}, share[name], f"memory of {name} over dense")


def test_variance_of_subsets_against_exact(benchmark):
    """Standard deviation of the logit gradient over draws, in units of its mean."""
    num_branches, draws = 8, 512
    branches, params = dense_layers(num_branches, None)
    x, cotangent = jax.random.normal(jax.random.key(1), (2, 16, IMAGES[-1]))
    logits = jax.random.normal(jax.random.key(3), (num_branches,))

    def gradient(logit_gradient, key):
        noise, credits = jax.random.split(key)

        def loss(logits):
            weights = gumbax.gumbel_softmax(noise, logits, temperature=0.5, hard=True)
            y = gumbax.single_path(
                weights,
                branches,
                params,
                x,
                logit_gradient=logit_gradient,
                key=credits,
            )
            return jnp.sum(y * cotangent)

        return jax.grad(loss)(logits)

    def spread(logit_gradient):
        keys = jax.random.split(KEY, draws)
        run = functools.partial(gradient, logit_gradient)
        found = jax.jit(functools.partial(jax.lax.map, run))(keys)
        return found.mean(axis=0), math.sqrt(found.var(axis=0).sum())

    mean, exact = spread(gumbax.exact)
    scale = float(jnp.linalg.norm(mean))
    print(f"\nexact: {exact / scale:.2f}")
    for m in (1, 2, 4, 6):
        estimate, deviation = spread(gumbax.subset(m))
        bias = float(jnp.linalg.norm(estimate - mean)) / scale
        print(f"subset({m}): {deviation / scale:.2f} (mean off by {bias:.2f})")
        benchmark.extra_info[f"subset({m}) over exact"] = deviation / exact
    benchmark.pedantic(spread, (gumbax.exact,), rounds=1)
