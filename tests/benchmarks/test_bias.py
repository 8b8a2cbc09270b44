"""Why not `logits + jax.random.gumbel`? The bias of noise, measured and drawn.

    pytest tests/benchmarks/test_bias.py --benchmark-only -s

prints the numbers of the README and writes its picture where GUMBAX_PICTURE says.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import gumbax
from tests._noise import test_tails

DRAWS = 2**30
BLOCK = (2**7, 2**16)
PROBABILITIES = [1e-5, 1e-6, 1e-7, 1e-8]
NUM_CATEGORIES = 131_072
ROWS = 1024


def counts_above(draw, thresholds):
    """How many of DRAWS draws of noise are above each threshold."""
    thresholds = jnp.asarray(thresholds, jnp.float32)

    @jax.jit
    def block(key):
        noise = draw(key)
        return jnp.stack([jnp.sum(noise > t) for t in thresholds])

    keys = jax.random.split(jax.random.key(0), DRAWS // (BLOCK[0] * BLOCK[1]))
    return sum(np.asarray(block(key), np.int64) for key in keys)


def indices(sampler, dtype):
    logits = jnp.zeros((64, NUM_CATEGORIES), dtype)
    sampler = jax.jit(sampler)
    keys = jax.random.split(jax.random.key(1), ROWS // 64)
    return np.concatenate([np.asarray(sampler(key, logits)) for key in keys])


@pytest.fixture(scope="module")
def measured():
    thresholds = scipy.stats.gumbel_r.isf(PROBABILITIES)
    tails = {
        "jax.random": counts_above(lambda k: jax.random.gumbel(k, BLOCK), thresholds),
        "gumbax": counts_above(lambda k: gumbax.gumbel.sample(k, BLOCK), thresholds),
    }
    choices = {
        ("jax.random", "bfloat16"): indices(jax.random.categorical, jnp.bfloat16),
        ("jax.random", "float16"): indices(jax.random.categorical, jnp.float16),
        ("gumbax", "bfloat16"): indices(gumbax.gumbel_max, jnp.bfloat16),
        ("gumbax", "float16"): indices(gumbax.gumbel_max, jnp.float16),
    }
    return tails, choices


def test_noise_beyond_rare_thresholds(measured, benchmark):
    tails, _ = measured
    print(f"\n\nfloat32 noise above the quantile of p, in {DRAWS} draws:")
    print(
        "| p | expected | jax.random.gumbel | gumbax.gumbel.sample |\n|---|---|---|---|"
    )
    for i, p in enumerate(PROBABILITIES):
        expected = DRAWS * p
        stock, ours = tails["jax.random"][i], tails["gumbax"][i]
        print(f"| {p:.0e} | {expected:.0f} | {stock} | {ours} |")
        assert abs(ours - expected) < 6 * expected**0.5 + 1
    print("\nlaw of the argmax by enumeration, relative error of a category of p:")
    for p in test_tails.RARE:
        found, exact = test_tails.probability_of_rare(p)
        print(f"  {p:.0e}: {found / exact - 1:+.1e}")
    benchmark.pedantic(lambda: None, rounds=1)


def test_index_of_equal_narrow_logits(measured, benchmark):
    _, choices = measured
    print(f"\n\n{ROWS} draws from {NUM_CATEGORIES} equal logits:")
    print("| dtype | sampler | mean index / K | in the first 1 % |\n|---|---|---|---|")
    for (name, dtype), index in choices.items():
        mean, first = (
            index.mean() / NUM_CATEGORIES,
            (index < NUM_CATEGORIES / 100).mean(),
        )
        print(f"| {dtype} | {name} | {mean:.3f} | {first:.1%} |")
        if name == "gumbax":
            assert abs(mean - 0.5) < 6 * (1 / 12 / ROWS) ** 0.5
    benchmark.pedantic(lambda: None, rounds=1)


def test_draw_the_picture(measured, benchmark):
    path = os.environ.get("GUMBAX_PICTURE")
    benchmark.pedantic(lambda: None, rounds=1)
    if not path:
        print("\nset GUMBAX_PICTURE to a file to draw the picture")
        return
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    tails, choices = measured
    mpl.rcParams.update({"svg.hashsalt": "gumbax", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
    expected = DRAWS * np.array(PROBABILITIES)
    styles = {"jax.random": ("#c44e52", "o", "--"), "gumbax": ("#1f4e79", "s", "-")}
    for name, (color, marker, line) in styles.items():
        left.errorbar(
            PROBABILITIES,
            tails[name] / expected,
            yerr=2 / np.sqrt(expected),
            color=color,
            marker=marker,
            linestyle=line,
            capsize=3,
            label="jax.random.gumbel" if name == "jax.random" else "gumbax",
        )
        index = np.sort(choices[name, "bfloat16"]) / NUM_CATEGORIES
        right.plot(
            index,
            np.linspace(0, 1, len(index)),
            color=color,
            linestyle=line,
            label="jax.random.categorical" if name == "jax.random" else "gumbax",
        )
    left.set(
        xscale="log",
        xlabel="probability p of noise that large",
        ylabel="drawn / expected",
        title="float32: the upper tail",
        ylim=(-0.1, 1.9),
    )
    left.axhline(1, color="0.6", linewidth=0.8)
    left.invert_xaxis()
    right.set(
        xlabel="index / K",
        ylabel="share of draws below",
        title="bfloat16: 131,072 equal logits",
    )
    right.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    left.legend(frameon=False, loc="lower left")
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
