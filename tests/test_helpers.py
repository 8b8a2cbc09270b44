"""The statistical assertions can fail, and pass where they should."""

import numpy as np
import pytest

from . import helpers

PROBS = np.array([0.6, 0.3, 0.1])


@pytest.fixture
def samples():
    return np.random.default_rng(0).normal(2.0, 1.0, 10_000)


def test_mean_passes_on_the_truth_and_fails_beside_it(samples):
    helpers.assert_mean(samples, 2.0, resolution=0.1)
    with pytest.raises(AssertionError):
        helpers.assert_mean(samples, 2.1, resolution=0.1)


def test_mean_fails_on_too_few_samples(samples):
    with pytest.raises(AssertionError, match="resolves only"):
        helpers.assert_mean(samples[:50], 2.0, resolution=0.1)


def test_law_passes_on_the_truth_and_fails_beside_it():
    counts = np.random.default_rng(0).multinomial(10_000, PROBS)
    helpers.assert_law(counts, PROBS, against=[0.55, 0.35, 0.1])
    with pytest.raises(AssertionError, match="chi-square"):
        helpers.assert_law(counts, [0.55, 0.35, 0.1])


def test_law_fails_on_too_few_samples():
    with pytest.raises(AssertionError, match="smallest expected count"):
        helpers.assert_law([6, 3, 1], PROBS)
    with pytest.raises(AssertionError, match="power"):
        helpers.assert_law([60, 30, 10], PROBS, against=[0.58, 0.32, 0.1])
