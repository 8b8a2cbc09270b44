"""Which temperature for how many categories? Error of one gradient, measured.

    pytest tests/benchmarks/test_temperature.py --benchmark-only -s

prints the table of the docs' page on how to choose: for K categories with logits from
a normal distribution, the error of the gradient of the logits against the exact one of
E[f(z)], as a share of the exact one's length, for one draw (what a step of training
has) and for the mean of 256 (what many steps or a large batch average to).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax

TEMPERATURES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
CATEGORIES = (2, 8, 64, 512, 4096)
PROBLEMS, DRAWS = 64, 2048
FORMS = {"relaxed": False, "straight-through": True}


def square(values, z):
    """A loss that is not linear: of the chosen value, and of how far it is from 1."""
    return (z @ values - 1.0) ** 2


@functools.partial(jax.jit, static_argnames=("hard",))
def errors(key, logits, values, temperature, *, hard):
    """(error of one draw, error of the mean of 256) as shares, for each problem."""

    def one(key, logits, values):
        truth = jax.grad(lambda s: jax.nn.softmax(s) @ (values - 1.0) ** 2)(logits)

        def gradient(key):
            return jax.grad(
                lambda s: square(
                    values,
                    gumbax.gumbel_softmax(key, s, temperature=temperature, hard=hard),
                )
            )(logits)

        def step(total, key):
            found = jax.lax.map(gradient, jax.random.split(key, 256), batch_size=256)
            mean = found.mean(axis=0)
            own = jnp.sum((found - truth[None]) ** 2, axis=-1).mean()
            return (total[0] + own, total[1] + jnp.sum((mean - truth) ** 2)), None

        rounds = DRAWS // 256
        total, _ = jax.lax.scan(step, (0.0, 0.0), jax.random.split(key, rounds))
        length = jnp.sum(truth**2)
        return tuple(part / rounds / length for part in total)

    return jax.lax.map(lambda args: one(*args), (key, logits, values))


@pytest.fixture(scope="module")
def measured():
    """(K, form, temperature) -> median root mean square errors over the problems."""
    found = {}
    for count in CATEGORIES:
        problems = PROBLEMS if count <= 512 else 16
        keys = jax.random.split(jax.random.key(count), 3)
        logits = jax.random.normal(keys[0], (problems, count))
        values = jax.random.normal(keys[1], (problems, count))
        draws = jax.random.split(keys[2], problems)
        for form, hard in FORMS.items():
            for temperature in TEMPERATURES:
                squares = errors(draws, logits, values, temperature, hard=hard)
                found[count, form, temperature] = np.sqrt(np.median(squares, axis=-1))
    return found


def test_error_by_temperature(measured, benchmark):
    print("\n\n| K | form | " + " | ".join(f"{t:g}" for t in TEMPERATURES) + " |")
    print("|---" * (len(TEMPERATURES) + 2) + "|")
    for count in CATEGORIES:
        for form in FORMS:
            cells = [measured[count, form, t] for t in TEMPERATURES]
            row = " | ".join(f"{one:.1f}, {many:.2f}" for one, many in cells)
            print(f"| {count} | {form} | {row} |")
    for count in CATEGORIES:
        # Variance is what is paid for less bias: one draw is worst when cold.
        one = [measured[count, "relaxed", t][0] for t in TEMPERATURES]
        assert one[0] == max(one)
    benchmark.pedantic(lambda: None, rounds=1)
