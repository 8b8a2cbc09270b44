"""The sampler against plain JAX, and its cost relative to a softmax alone."""

import functools

import jax
import jax.numpy as jnp
import pytest

import gumbax

from . import compare

SHAPES = [(4096, 8), (1024, 1000), (64, 131072)]


def plain(key, logits, *, hard):
    """The usual form in JAX, at temperature 0.5."""
    scores = (logits + jax.random.gumbel(key, logits.shape, logits.dtype)) / 0.5
    relaxed = jax.nn.softmax(scores)
    if not hard:
        return relaxed
    one_hot = jax.nn.one_hot(scores.argmax(-1), scores.shape[-1], dtype=logits.dtype)
    return one_hot + relaxed - jax.lax.stop_gradient(relaxed)


def ours(key, logits, *, hard):
    return gumbax.gumbel_softmax(key, logits, temperature=0.5, hard=hard)


def forward_and_backward(sample, key, logits, cotangent):
    y, pull_back = jax.vjp(functools.partial(sample, key), logits)
    return y, pull_back(cotangent)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gumbel_softmax_against_plain_jax(shape, hard, backward, benchmark):
    key = jax.random.key(0)
    logits, cotangent = jax.random.normal(jax.random.key(1), (2, *shape))
    candidates = {}
    for name, sample in (("gumbax", ours), ("plain JAX", plain)):
        sampler = functools.partial(sample, hard=hard)
        if backward:
            step = jax.jit(functools.partial(forward_and_backward, sampler))
            operands = (key, logits, cotangent)
        else:
            step = jax.jit(sampler)
            operands = (key, logits)
        candidates[name] = functools.partial(step, *operands)
    candidates["softmax alone"] = functools.partial(jax.jit(jax.nn.softmax), logits)
    seconds = compare.medians(candidates)
    info = benchmark.extra_info
    info["ms"] = {name: round(1e3 * value, 2) for name, value in seconds.items()}
    info["times faster"] = round(seconds["plain JAX"] / seconds["gumbax"], 2)
    info["ns per element"] = round(1e9 * seconds["gumbax"] / logits.size, 2)
    print(
        shape, "hard" if hard else "soft", "both" if backward else "forward", dict(info)
    )
    benchmark.pedantic(candidates["gumbax"], rounds=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gumbel_max_against_categorical(shape, benchmark):
    key = jax.random.key(0)
    logits = jax.random.normal(jax.random.key(1), shape)
    seconds = compare.medians(
        {
            "gumbax": functools.partial(jax.jit(gumbax.gumbel_max), key, logits),
            "categorical": functools.partial(
                jax.jit(jax.random.categorical), key, logits
            ),
        }
    )
    info = benchmark.extra_info
    info["ms"] = {name: round(1e3 * value, 2) for name, value in seconds.items()}
    info["times faster"] = round(seconds["categorical"] / seconds["gumbax"], 2)
    print(shape, "index", dict(info))
    benchmark.pedantic(
        functools.partial(jax.jit(gumbax.gumbel_max), key, logits), rounds=1
    )


def test_noise_of_narrow_logits_is_exact(benchmark):
    """Quality beside time: the mean index of uniform bfloat16 logits."""
    logits = jnp.zeros((64, 131072), jnp.bfloat16)
    size = logits.shape[-1]
    index = jax.jit(gumbax.gumbel_max)(jax.random.key(0), logits)
    peer = jax.jit(jax.random.categorical)(jax.random.key(0), logits)
    info = benchmark.extra_info
    info["mean index / K"] = round(float(index.mean()) / size, 3)
    info["mean index / K of jax.random"] = round(float(peer.mean()) / size, 3)
    print("bfloat16", dict(info))
    benchmark.pedantic(
        functools.partial(jax.jit(gumbax.gumbel_max), jax.random.key(0), logits),
        rounds=1,
    )
    assert abs(info["mean index / K"] - 0.5) < 6 * (1 / 12 / 64) ** 0.5
