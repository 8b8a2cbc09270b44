"""What logits and their gradients say about a search."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.loops import diagnostics
from gumbax.search.spaces.chain_space import ChainSpace
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.layers import Identity
from gumbax.search.spaces.named import small_images

SMALL = small_images()


def two_choices(value):
    """Logits of the DARTS space, 14 edges of each of two names."""
    return {n: jnp.full(c.shape, value) for n, c in DartsSpace().choices.items()}


def test_entropy_is_the_mean_over_all_edges_in_nats():
    np.testing.assert_allclose(
        diagnostics.entropy({"cell": jnp.zeros((3, 7))}), math.log(7), rtol=1e-6
    )
    certain = diagnostics.entropy({"cell": jnp.array([[100.0, 0.0]])})
    assert 0 <= certain < 1e-6
    # Names with unequal numbers of edges: every edge counts alike.
    logits = {"a": jnp.zeros((3, 2)), "b": jnp.array([[50.0, 0.0]])}
    np.testing.assert_allclose(
        diagnostics.entropy(logits), 3 / 4 * math.log(2), rtol=1e-6
    )


def test_entropy_of_an_operation_that_is_ruled_out():
    logits = jnp.array([[0.0, 0.0, -jnp.inf]])
    np.testing.assert_allclose(
        diagnostics.entropy({"cell": logits}), math.log(2), rtol=1e-6
    )
    broken = diagnostics.entropy({"cell": jnp.array([[0.0, jnp.nan]])})
    assert np.isnan(broken)


def test_probabilities():
    logits = {"cell": jnp.log(jnp.array([[1.0, 3.0]]))}
    found = diagnostics.probabilities(logits)["cell"]
    np.testing.assert_allclose(found, [[0.25, 0.75]], rtol=1e-6)


def test_of_logits():
    found = diagnostics.of_logits(
        {"cell": jnp.zeros(SMALL.choices["cell"].shape)}, SMALL
    )
    assert set(found) == {"entropy", "effective_operations", "skip_fraction"}
    np.testing.assert_allclose(found["effective_operations"], 7, rtol=1e-6)
    np.testing.assert_allclose(found["skip_fraction"], 1 / 7, rtol=1e-6)
    # One edge is certain of its skip, five are open.
    row = SMALL.choices["cell"].primitives.index("skip_connect")
    logits = jnp.zeros((6, 7)).at[0, row].set(100.0)
    found = diagnostics.of_logits({"cell": logits}, SMALL)
    np.testing.assert_allclose(
        found["effective_operations"], (1 + 5 * 7) / 6, rtol=1e-5
    )
    np.testing.assert_allclose(found["skip_fraction"], (1 + 5 / 7) / 6, rtol=1e-5)


def test_skip_fraction_is_over_the_edges_of_every_name():
    logits = two_choices(0.0)
    logits["normal"] = logits["normal"].at[:, 3].set(100.0)
    found = diagnostics.of_logits(logits, DartsSpace())
    np.testing.assert_allclose(found["skip_fraction"], (1 + 1 / 8) / 2, rtol=1e-5)


def test_spaces_without_skips_have_no_skip_fraction():
    space = ChainSpace("mine", {"a": Identity, "b": Identity}, (4, 4), stem=Identity)
    found = diagnostics.of_logits({"layers": jnp.zeros((1, 2))}, space)
    assert set(found) == {"entropy", "effective_operations"}


def test_signal_to_noise_ratio():
    """|mean| / standard deviation, over the steps, by edge; then their mean."""
    g = np.random.default_rng(0).normal(size=(50, 2, 3))
    g += np.array([[1.0, 0, 0], [0, 5.0, 0]])
    mean = np.linalg.norm(g.mean(axis=0), axis=-1)
    expected = mean / np.sqrt(g.var(axis=0).sum(axis=-1))
    assert expected[0] < 1 < expected[1]
    found = jax.jit(diagnostics.of_gradients)({"a": g, "b": 3 * g[:, :1]})
    np.testing.assert_allclose(found["gradient_snr/a"], expected.mean(), rtol=1e-5)
    # Without a unit: a factor changes nothing.
    np.testing.assert_allclose(found["gradient_snr/b"], expected[0], rtol=1e-5)
    average = (expected.mean() + expected[0]) / 2
    np.testing.assert_allclose(found["gradient_snr"], average, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_signal_to_noise_ratio_of_no_gradient_and_of_one_step_is_a_number(steps):
    found = diagnostics.of_gradients({"a": jnp.zeros((steps, 2, 3))})
    assert {float(value) for value in found.values()} == {0.0}
    found = diagnostics.of_gradients({"a": jnp.ones((1, 2, 3))})
    assert all(np.isfinite(value) for value in found.values())


def test_hash_is_one_number_for_ever():
    """Saved searches depend on it; Python's differs from process to process."""
    assert diagnostics.stable_hash("cell") == 3414656994
    names = ("cell", "normal", "reduce", "layers")
    assert len({diagnostics.stable_hash(name) for name in names}) == 4
