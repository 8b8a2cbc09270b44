import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from gumbax import schedules

SCHEDULES = {
    "constant": schedules.constant(0.5),
    "linear": schedules.linear(10.0, 0.1, 99),
    "exponential": schedules.exponential(1.0, 1e-4, floor=0.5, every=500),
    "cosine": schedules.cosine(1.0, 0.5, 10),
    **{
        f"preset {name}": schedules.preset(name, num_epochs=50, steps_per_epoch=3)
        for name in schedules.PRESETS
    },
}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (schedules.constant(0.5), {0: 0.5, 7: 0.5}),
        (schedules.linear(10.0, 0.1, 99), {0: 10, 33: 6.7, 99: 0.1, 500: 0.1}),
        (schedules.cosine(1.0, 0.5, 10), {0: 1, 5: 0.75, 10: 0.5, 11: 0.5}),
        (
            schedules.exponential(2.0, 0.1, floor=0.5),
            {0: 2, 5: 2 * np.exp(-0.5), 99: 0.5},
        ),
        (
            schedules.exponential(1.0, 1e-3, floor=0.1, every=100),
            {99: 1, 100: np.exp(-0.1), 199: np.exp(-0.1), 200: np.exp(-0.2)},
        ),
    ],
)
def test_values(schedule, expected):
    for step, value in expected.items():
        np.testing.assert_allclose(schedule(step), value, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(schedule)(step), value, rtol=1e-6)


def test_integer_steps_under_strict_promotion():
    for name, schedule in SCHEDULES.items():
        expected = schedule(7)
        with jax.numpy_dtype_promotion("strict"):
            for step in (jnp.int32(7), np.int32(7), jnp.uint32(7), 7):
                assert schedule(step) == expected, name
            assert jax.jit(schedule)(jnp.int32(7)) == jax.jit(schedule)(7), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # As printed for epoch n of N in the sources of each system.
        ("gdas", lambda n, total: 10 - 9.9 * n / (total - 1)),
        ("snas", lambda n, total: max(0.03, 0.03 + 0.97 * (1 - (n + 1) / total))),
        ("fbnet", lambda n, total: 5 * np.exp(-0.045 * n)),
        ("nni", lambda n, total: 1 - 0.67 * n / (total - 1)),
        ("drnas_baselines", lambda n, total: 10 - 9 * n / 100),
        ("archai", lambda n, total: 1.0),
    ],
)
def test_presets_follow_their_sources(name, expected):
    total, steps = 60, 4
    schedule = schedules.preset(name, num_epochs=total, steps_per_epoch=steps)
    for epoch in (0, 1, 17, total - 1):
        for step in (epoch * steps, epoch * steps + steps - 1):
            np.testing.assert_allclose(
                schedule(step), expected(epoch, total), rtol=1e-5
            )


def test_preset_of_jang_counts_steps():
    schedule = schedules.preset("jang2017", num_epochs=1)
    np.testing.assert_allclose(schedule(999), np.exp(-0.05), rtol=1e-6)
    np.testing.assert_allclose(schedule(10**6), 0.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_is_positive_and_usable_in_a_scan_with_narrow_logits(name):
    schedule = SCHEDULES[name]

    def body(key, step):
        temperature = schedule(step)
        logits = jnp.zeros(3, jnp.bfloat16)
        y = gumbax.gumbel_softmax(key, logits, temperature=temperature)
        chex.assert_type(y, jnp.bfloat16)
        return key, temperature

    _, values = jax.lax.scan(body, jax.random.key(0), jnp.arange(200))
    assert (np.asarray(values) > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(0.0), "`value` must be a finite temperature"),
        (lambda: schedules.linear(1.0, 0.0, 5), "`end_value` must be a finite"),
        (
            lambda: schedules.linear(1.0, 0.5, 0),
            "`transition_steps` must be a number of at least 1",
        ),
        (lambda: schedules.cosine(-1.0, 0.5, 5), "`init_value` must be a finite"),
        (lambda: schedules.exponential(1.0, 0.1, floor=0.0), "`floor` must be"),
        (lambda: schedules.exponential(1.0, -0.1, floor=0.1), "`rate` must be"),
        (lambda: schedules.exponential(1.0, 0.1, floor=0.1, every=0), "`every` must"),
        (lambda: schedules.preset("dart", num_epochs=5), "Known: jang2017, gdas, snas"),
        (lambda: schedules.preset("gdas", num_epochs=0), "`num_epochs` must be"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
