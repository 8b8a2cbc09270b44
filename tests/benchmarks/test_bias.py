"""Why not `logits + jax.random.gumbel`? The bias of noise, measured and drawn.

    pytest tests/benchmarks/test_bias.py --benchmark-only -s

prints the numbers of README.md here and of the README, and writes the picture where
GUMBAX_PICTURE says.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import gumbax
from tests._noise import test_tails

from .compare import MODES

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


OURS = "gumbax"
NAMES = {mode: f'`jax.random`, `mode="{mode}"`' for mode in MODES} | {OURS: OURS}


def noise(name):
    if name == OURS:
        return lambda key: gumbax.gumbel.sample(key, BLOCK)
    return lambda key: jax.random.gumbel(key, BLOCK, mode=name)


def index(name):
    if name == OURS:
        return gumbax.gumbel_max
    return lambda key, logits: jax.random.categorical(key, logits, mode=name)


@pytest.fixture(scope="module")
def measured():
    """(draws above thresholds by name, indices by name and dtype)."""
    thresholds = scipy.stats.gumbel_r.isf(PROBABILITIES)
    tails = {name: counts_above(noise(name), thresholds) for name in NAMES}
    choices = {
        (name, dtype): indices(index(name), dtype)
        for name in NAMES
        for dtype in ("bfloat16", "float16")
    }
    return tails, choices


def test_noise_beyond_rare_thresholds(measured, benchmark):
    tails, _ = measured
    print(f"\n\nfloat32 noise above the quantile of p, in {DRAWS:,} draws:")
    print("| | " + " | ".join(f"p = {p:.0e}" for p in PROBABILITIES) + " |")
    print("|---" * (len(PROBABILITIES) + 1) + "|")
    expected = DRAWS * np.array(PROBABILITIES)
    for name, counts in {"expected": expected, **tails}.items():
        row = " | ".join(f"{count:.0f}" for count in counts)
        print(f"| {NAMES.get(name, name)} | {row} |")
    assert (abs(tails[OURS] - expected) < 6 * expected**0.5 + 1).all()
    print("\nlaw of the argmax by enumeration, relative error of a category of p:")
    for p in test_tails.RARE:
        found, exact = test_tails.probability_of_rare(p)
        print(f"  {p:.0e}: {found / exact - 1:+.1e}")
    benchmark.pedantic(lambda: None, rounds=1)


def test_index_of_equal_narrow_logits(measured, benchmark):
    _, choices = measured
    print(f"\n\n{ROWS} draws from {NUM_CATEGORIES:,} equal logits:")
    print("| dtype | | mean index / K | in the first 10 % | in the first 1 % |")
    print("|---|---|---|---|---|")
    for (name, dtype), drawn in choices.items():
        place = drawn / NUM_CATEGORIES
        shares = f"{(place < 0.1).mean():.1%} | {(place < 0.01).mean():.1%}"
        print(f"| {dtype} | {NAMES[name]} | {place.mean():.3f} | {shares} |")
        if name == OURS:
            assert abs(place.mean() - 0.5) < 6 * (1 / 12 / ROWS) ** 0.5
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
    styles = {
        "low": ("#c44e52", "o", "--"),
        "high": ("#dd8452", "^", ":"),
        "highest": ("#8c613c", "v", "-."),
        OURS: ("#1f4e79", "s", "-"),
    }
    for name in NAMES:
        color, marker, line = styles[name]
        label = name if name == OURS else f"jax.random, {name}"
        left.errorbar(
            PROBABILITIES,
            tails[name] / expected,
            yerr=2 / np.sqrt(expected),
            color=color,
            marker=marker,
            linestyle=line,
            capsize=3,
            label=label,
        )
        place = np.sort(choices[name, "bfloat16"]) / NUM_CATEGORIES
        below = np.linspace(0, 1, len(place))
        right.plot(place, below, color=color, linestyle=line, label=label)
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
