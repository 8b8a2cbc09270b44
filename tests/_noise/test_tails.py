"""The law that quantised noise really has, by enumeration of its words: no sampling.

Noise falls with the 64-bit integer of its words, so that the number of words above a
threshold is found by bisection, exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import gumbax
from gumbax import _noise

pytestmark = [
    pytest.mark.device,
    pytest.mark.usefixtures("optimised"),  # rounding is what they are about
]

NODES = 24
RARE = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9]


@jax.jit
def gumbel_of_words(high, low):
    return _noise.gumbel_from_words(high, low, dtype=jnp.dtype(jnp.float32))


def gumbel_of_integers(integers):
    """Noise of 64-bit integers, in float32."""
    integers = np.asarray(integers, np.uint64)
    high = (integers >> np.uint64(32)).astype(np.uint32)
    low = (integers & np.uint64(2**32 - 1)).astype(np.uint32)
    return np.asarray(gumbel_of_words(high, low))


def words_that_win(rare, rival):
    """How many of the 2**64 words let the rare category beat these rival scores."""
    low = np.zeros(len(rival), np.uint64)  # words below this one win
    high = np.full(len(rival), 2**64 - 1, np.uint64)
    for _ in range(64):
        middle = low + (high - low) // np.uint64(2)
        wins = rare + gumbel_of_integers(middle) > rival
        low = np.where(wins, middle + np.uint64(1), low)
        high = np.where(wins, high, middle)
    return low


def probability_of_rare(p):
    """P(argmax = rare category) of two, integrated over the noise of the rival."""
    logits = np.log(np.array([p, 1 - p])).astype(np.float32)
    # The rival's exponential at quadrature nodes, as the words that give it.
    nodes, weights = np.polynomial.laguerre.laggauss(NODES)
    uniform = -np.expm1(-nodes) * (1 - 2.0**-52)
    rival = logits[1] + gumbel_of_integers((uniform * 2.0**64).astype(np.uint64))
    won = words_that_win(logits[0], rival).astype(np.float64) * 2.0**-64
    return float(np.sum(weights * won)), float(
        scipy.special.expit(np.float64(logits[0]) - np.float64(logits[1]))
    )


@pytest.mark.parametrize("p", RARE)
def test_rare_category_is_as_frequent_as_it_should_be(p):
    found, exact = probability_of_rare(p)
    # Scores near 20 are 2e-6 apart in float32: that is the resolution of any law there.
    np.testing.assert_allclose(found, exact, rtol=3e-6)


def test_stock_noise_would_turn_that_red():
    """The planted fault: 23 random bits, as `jax.random.gumbel` uses by default."""
    k = np.arange(1, 2**23, dtype=np.float64) * 2.0**-23
    p, won = 1e-7, 0.0
    for node, weight in zip(*np.polynomial.laguerre.laggauss(NODES), strict=True):
        # The uniform that the rare category needs, next to 1.
        smallest = np.exp(-node * p / (1 - p))
        won += weight * np.mean(k > smallest)
    assert won < 0.7 * p


def test_noise_falls_with_its_words():
    """What the bisection rests on, at random pairs and at neighbours."""
    rng = np.random.default_rng(0)
    scale = 2.0 ** rng.uniform(0, 64, 200_000)
    integers = np.sort((scale * (1 - 1e-9)).astype(np.uint64))
    values = gumbel_of_integers(integers)
    assert (np.diff(values) <= 0).all()
    step = 2 ** rng.integers(0, 40, 200_000).astype(np.uint64)
    later = gumbel_of_integers(np.minimum(integers, np.uint64(2**63)) + step)
    assert (later <= gumbel_of_integers(np.minimum(integers, np.uint64(2**63)))).all()


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
@pytest.mark.parametrize("other", [0, 2**32 - 1])
def test_injected_end_points_never_force_nor_break_a_choice(bits, other):
    """FlashInfer and SGLang shipped infinite noise here, PyTorch NaN."""
    words = jnp.uint32([bits]), jnp.uint32([other])
    gumbels = _noise.gumbel_from_words(*words, dtype=jnp.dtype(jnp.float32))
    assert -5 < gumbels[0] < 46
    logits = jnp.array([0.0, 100.0])
    both = jnp.array([gumbels[0], 0.0])
    assert gumbax.gumbel_max(None, logits, gumbels=both) == 1
    for hard in (False, True):
        y = gumbax.gumbel_softmax(
            None, logits, gumbels=both, temperature=1e-8, hard=hard
        )
        np.testing.assert_array_equal(y, [0, 1])


def test_log1p_is_right_to_a_unit_and_a_half_and_the_same_wherever_it_stands():
    u = np.append(np.geomspace(1e-37, 1, 200_001), np.linspace(0, 1, 200_001))
    u = u.astype(np.float32)
    found = np.asarray(jax.jit(_noise.log1p_unit)(u))
    exact = np.log1p(u.astype(np.float64))
    units = np.abs(found - exact) / np.spacing(exact.astype(np.float32))
    assert units.max() < 1.5
    for part in (slice(150_000, 150_003), slice(300_000, 300_013), slice(-3, None)):
        alone = jax.jit(_noise.log1p_unit)(u[part])
        np.testing.assert_array_equal(alone, found[part])
