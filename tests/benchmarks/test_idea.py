"""A picture of the docs: one choice, molten and frozen.

    GUMBAX_PICTURE=.assets/idea.svg pytest tests/benchmarks/test_idea.py \
        --benchmark-only -s

draws it.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax

KEY = jax.random.key(0)
PROBS = np.array([0.5, 0.3, 0.2])
TEMPERATURES = (5.0, 1.0, 0.3, 0.05)
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
COLORS = ("#08306b", "#d95f02", "#8fc1de")
NAMES = "ABC"


@pytest.fixture(scope="module")
def drawn():
    """The relaxed draws at each temperature, [1500, 3], and the hard ones: one key."""
    logits = jnp.log(jnp.asarray(PROBS, jnp.float32))

    def draw(temperature, *, hard=False):
        return gumbax.gumbel_softmax(
            KEY, logits, temperature=temperature, hard=hard, sample_shape=(1500,)
        )

    return [np.asarray(draw(t)) for t in TEMPERATURES], np.asarray(draw(1.0, hard=True))


def test_temperature_melts_a_choice_and_keeps_its_winner(drawn, benchmark):
    relaxed, hard = drawn
    sizes = [y.max(-1).mean() for y in relaxed]
    assert sizes == sorted(sizes)
    for y in relaxed:
        np.testing.assert_array_equal(y.argmax(-1), hard.argmax(-1))
    benchmark.pedantic(lambda: None, rounds=1)


def test_draw_the_picture(drawn, benchmark):
    path = os.environ.get("GUMBAX_PICTURE")
    benchmark.pedantic(lambda: None, rounds=1)
    if not path:
        print("\nset GUMBAX_PICTURE to a file to draw the picture")
        return
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    relaxed, hard = drawn
    mpl.rcParams.update({"svg.hashsalt": "gumbax", "font.size": 10})
    figure, panels = plt.subplots(1, 5, figsize=(11, 2.9), layout="constrained")
    samples = [*relaxed, hard]
    titles = [f"temperature {t:g}" for t in TEMPERATURES] + ["hard"]
    for axes, y, title in zip(panels, samples, titles, strict=True):
        axes.plot(*CORNERS[[0, 1, 2, 0]].T, color="0.6", linewidth=1)
        points, winners = y @ CORNERS, hard.argmax(-1)
        for i, color in enumerate(COLORS):
            axes.scatter(
                *points[winners == i].T,
                s=6,
                color=color,
                alpha=0.45,
                linewidth=0,
                rasterized=True,
            )
        for i, (across, up) in enumerate(CORNERS):
            low = i < 2
            share = (winners == i).mean()
            text = NAMES[i] if title != "hard" else f"{NAMES[i]}: {share:.0%}"
            if title == "hard":
                axes.scatter([across], [up], s=900 * share, color=COLORS[i])
            axes.text(
                across,
                up + (-0.12 if low else 0.12),
                text,
                ha="center",
                va="top" if low else "bottom",
            )
        axes.set_title(title, pad=6)
        axes.set(aspect="equal", xlim=(-0.2, 1.2), ylim=(-0.32, 1.1))
        axes.axis("off")
    for axes, place, text in (
        (panels[1], 1.1, "what the gradient flows through"),
        (panels[4], 0.5, "what the forward pass takes"),
    ):
        note = axes.text(place, -0.1, text, transform=axes.transAxes, ha="center")
        note.set_in_layout(False)
    figure.savefig(path, dpi=160, metadata={"Date": None})
    plt.close(figure)
