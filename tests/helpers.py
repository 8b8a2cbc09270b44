"""Statistical assertions with a stated false-positive rate and power; float64."""

import jax
import numpy as np
import pytest
import scipy.stats

# The option of JAX by which the tests compile with little optimisation: compiling is
# three quarters of their time, and with this half of that.
NOT_OPTIMISED = "jax_disable_most_optimizations"

FALSE_POSITIVE_RATE = 1e-6  # per assertion, whatever the key

# Of a module: what others' code leaves behind is collected in the test that left it,
# and not complained of.
LEAVES_OBJECTS_BEHIND = (
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("collected"),
)


def sweep(always, further):
    """Parameters of a test, of which the further ones run with `--exhaustive` alone."""
    cases = [case if isinstance(case, tuple) else (case,) for case in further]
    marks = pytest.mark.exhaustive
    return [*always, *(pytest.param(*case, marks=marks) for case in cases)]


def enable_x64():
    """A context in which float64 exists; experimental in JAX before 0.8."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


def assert_mean(samples, expected, *, resolution):
    """Fails if E[samples] != expected, or if n is too small to see `resolution`."""
    samples = np.asarray(samples, np.float64)
    mean, n = samples.mean(axis=0), len(samples)
    standard_error = samples.std(axis=0, ddof=1) / np.sqrt(n)
    half_width = (
        scipy.stats.norm.isf(FALSE_POSITIVE_RATE / (2 * mean.size)) * standard_error
    )
    assert half_width.max() < resolution, f"n={n} resolves only {half_width.max():.1e}"
    np.testing.assert_array_less(np.abs(mean - expected), half_width)


def assert_law(counts, probs, *, against=None):
    """Chi-square test that `counts` are draws from `probs`.

    With `against`, a law that must be told apart, it also fails if the sample is too
    small for that: the non-central chi-square must give a power of 0.999.
    """
    counts = np.asarray(counts, np.float64)
    probs = np.asarray(probs, np.float64)
    n = counts.sum()
    expected = n * probs
    assert expected.min() > 5, f"smallest expected count {expected.min():.1f}"
    critical = scipy.stats.chi2.isf(FALSE_POSITIVE_RATE, len(probs) - 1)
    if against is not None:
        shift = n * np.sum((np.asarray(against, np.float64) - probs) ** 2 / probs)
        power = scipy.stats.ncx2.sf(critical, len(probs) - 1, shift)
        assert power > 0.999, f"n={n:.0f} gives a power of {power:.3f} only"
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < critical, f"chi-square {statistic:.1f} > {critical:.1f}"
