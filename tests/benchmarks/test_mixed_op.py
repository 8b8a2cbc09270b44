"""The single path against the dense mixed operation, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import pytest

import gumbax
from gumbax import convolution, pooling

from . import compare

LAYOUT = ("NHWC", "HWIO", "NHWC")
IMAGES = (64, 32, 32, 16)


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


def convolutions(convolve):
    """Six convolutions: 1x1, 3x3 and 5x5, two of each."""
    return [conv_branch(convolve)] * 6, kernels((1, 1, 3, 3, 5, 5))


def mixed(convolve):
    """Three convolutions, pooling, skip and none."""
    others = [
        lambda params, x: pooling.avg_pool(x, (3, 3), padding="SAME"),
        lambda params, x: x,
        lambda params, x: jnp.zeros_like(x),
    ]
    params = (*kernels((1, 3, 5)), None, None, None)
    return [conv_branch(convolve)] * 3 + others, params


def dense_layers(_):
    """Eight dense layers."""
    keys = jax.random.split(jax.random.key(0), 8)
    size = IMAGES[-1]
    layers = [lambda kernel, x: jnp.tanh(x @ kernel)] * 8
    return layers, tuple(jax.random.normal(key, (size, size)) for key in keys)


def forward_and_backward(operation, branches, weights, params, x, cotangent):
    run = functools.partial(call, operation, branches)
    y, pull_back = jax.vjp(run, weights, params, x)
    return y, pull_back(cotangent)


def call(operation, branches, weights, params, x):
    return operation(weights, branches, params, x)


@pytest.mark.parametrize("edge", [convolutions, mixed, dense_layers])
def test_single_path_against_dense(edge, benchmark):
    x, cotangent = jax.random.normal(jax.random.key(1), (2, *IMAGES))
    forms = {
        "single path": (gumbax.single_path, convolution.conv_general_dilated),
        "dense": (gumbax.mixed_op, convolution.conv_general_dilated),
        "dense, stock convolutions": (gumbax.mixed_op, jax.lax.conv_general_dilated),
    }
    steps, memory = {}, {}
    for name, (operation, convolve) in forms.items():
        branches, params = edge(convolve)
        step = functools.partial(forward_and_backward, operation, branches)
        choices = jnp.eye(len(branches))
        memory[name] = compare.temporary_bytes(step, choices[0], params, x, cotangent)
        jitted = jax.jit(step)

        # Every branch is chosen once: their costs differ.
        def all_choices(jitted=jitted, choices=choices, params=params):
            return [
                jax.block_until_ready(jitted(c, params, x, cotangent)) for c in choices
            ]

        steps[name] = all_choices
    seconds = compare.medians(steps)
    ours = seconds.pop("single path")
    benchmark.extra_info["ms per step"] = round(1e3 * ours / len(choices), 1)
    benchmark.extra_info["dense ms per step"] = {
        name: round(1e3 * value / len(choices), 1) for name, value in seconds.items()
    }
    benchmark.extra_info["times faster"] = round(min(seconds.values()) / ours, 2)
    least = min(memory["dense"], memory["dense, stock convolutions"])
    share = memory["single path"] / least
    benchmark.extra_info["share of its memory"] = round(share, 2)
    print(edge.__name__, dict(benchmark.extra_info))
    benchmark.pedantic(steps["single path"], rounds=1)
    if edge is convolutions:
        assert benchmark.extra_info["times faster"] >= 2
        assert share <= 0.5
