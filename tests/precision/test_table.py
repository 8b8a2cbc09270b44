"""The bounds of every value and derivative, in units of rounding.

With `--exhaustive` the whole grid, in float32 and float64; else every seventh point, in
float32.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax.nnx
from gumbax import convolution, pooling, schedules
from gumbax.layers import windows
from gumbax.samplers import binary, rules
from tests.helpers import enable_x64, sweep
from tests.precision import choices, laws, rows, units
from tests.test_conformance import PUBLIC

pytestmark = pytest.mark.usefixtures("optimised")

# Of values, first and second derivatives.
BOUNDS = (4, 8, 32)
# A part of the row's largest entry.
NARROW = {jnp.bfloat16: 2**-6, jnp.float16: 2**-10}
# Where y (1 - y), which they are made of, is below the normal numbers.
EXCEPTIONS = {"relaxed_bernoulli": (4, 8, 48)}
NAMES = [*laws.LAWS, *choices.entries(np.float32)]


def entry(name, dtype):
    return laws.LAWS[name] if name in laws.LAWS else choices.entries(dtype)[name]


@pytest.mark.parametrize(
    ("name", "dtypes", "stride"),
    sweep(
        [(name, (np.float32,), 7) for name in NAMES],
        [(name, (np.float32, np.float64), 1) for name in NAMES],
    ),
)
def test_within_the_bounds(name, dtypes, stride):
    for dtype in dtypes:
        wide = dtype == np.float64
        with enable_x64() if wide else jax.numpy_dtype_promotion("standard"):
            found = units.worst(entry(name, dtype), dtype, stride)
        bounds = EXCEPTIONS.get(name, BOUNDS)
        for (error, point), bound in zip(found, bounds, strict=False):
            assert error <= bound, (dtype, error, point)


def test_every_public_function_of_numbers_is_in_the_table():
    measured = {entry(name, np.float32)[0] for name in NAMES}
    # Indices, which are right or wrong; what is made of branches; names.
    exact = {gumbax.gumbel_max, gumbax.categorical, schedules.preset}
    edges = {
        *(gumbax.single_path, gumbax.subset, gumbax.draw_choices, gumbax.scan_edges),
        gumbax.nnx.pure_branches,
    }
    below = {gumbax.mixed_op, pooling.max_pool, pooling.avg_pool}
    products = {convolution.conv_general_dilated}
    assert set(PUBLIC) - measured == exact | edges | below | products


# (temperature, lead of the winner, offset of the cotangent)
ALL_ROWS = list(itertools.product(laws.TEMPERATURES, choices.LEADS, (0.0, 30.0)))
FEW_ROWS = {
    ("soft", 16): [
        (0.1, 2.0, 0.0),
        (0.1, 2.0, 30.0),
        (0.1, 30.0, 0.0),
        (0.1, 30.0, 30.0),
    ],
    ("hard", 16): [(0.1, 14.0, 30.0)],
    ("soft", 4096): [(1.0, 6.0, 30.0)],
}


ALL = (jnp.float32, jnp.bfloat16, jnp.float16)


@pytest.mark.parametrize(
    ("sampler", "num_categories", "cases", "dtypes"),
    sweep(
        [(*of, cases, [dtype]) for of, cases in FEW_ROWS.items() for dtype in ALL],
        [(of, k, ALL_ROWS, ALL) for of in rows.SAMPLERS for k in (2, 16, 4096, 131072)],
    ),
)
def test_gradients_of_rows(sampler, num_categories, cases, dtypes):
    too_far = {}
    for dtype, case in itertools.product(dtypes, cases):
        found = rows.worst_row(sampler, num_categories, *case, dtype)
        if not found <= (BOUNDS[1] if dtype == jnp.float32 else NARROW[dtype]):
            too_far[jnp.dtype(dtype).name, case] = found
    assert too_far == {}


# Sums in narrow types: of equal numbers, whose mean is known.


def test_sums_accumulate_in_float32():
    ones = jnp.ones((1, 32, 32, 1), jnp.bfloat16)
    assert pooling.avg_pool(ones, (32, 32)).item() == 1
    spread = jax.grad(lambda x: pooling.max_pool(x, (24, 24)).sum(dtype=jnp.float32))
    peak = jnp.zeros((1, 47, 47, 1), jnp.bfloat16).at[0, 23, 23, 0].set(1)
    assert spread(peak)[0, 23, 23, 0] == 576
    branches = [lambda params, x: params * x] * 200
    weights, one = jnp.full(200, 1 / 200), jnp.ones((), jnp.bfloat16)
    assert gumbax.mixed_op(weights, branches, [one] * 200, one) == 1


# A planted fault for each cause.


def assert_red(name):
    found = units.worst(entry(name, np.float32), np.float32, 3)
    assert any(error > bound for (error, _), bound in zip(found, BOUNDS, strict=False))


def test_a_difference_of_nearly_equal_numbers_is_seen(monkeypatch):
    def pull(axis, y, c, index, temperature):
        del index
        return y * (c - jnp.sum(y * c, axis=axis, keepdims=True)) / temperature

    monkeypatch.setattr(rules, "RELAXED", rules.RELAXED._replace(pull=pull))
    assert_red("gumbel_softmax")


def test_a_rounded_result_in_place_of_its_complement_is_seen(monkeypatch):
    def pull(axis, log_y, c, index, temperature):
        del index
        total = jnp.sum(c, axis=axis, keepdims=True)
        return (c - jnp.exp(log_y) * total) / temperature

    monkeypatch.setattr(rules, "LOG_RELAXED", rules.LOG_RELAXED._replace(pull=pull))
    assert_red("log_gumbel_softmax")


def test_a_rule_of_jax_is_seen(monkeypatch):
    monkeypatch.setattr(binary, "sigmoid", jax.nn.sigmoid)
    assert_red("hard_concrete_penalty")


def test_a_sum_in_a_narrow_type_is_seen(monkeypatch):
    monkeypatch.setattr(windows, "wide", lambda x: x)
    with pytest.raises(AssertionError):
        test_sums_accumulate_in_float32()


def test_an_unknown_public_function_is_seen(monkeypatch):
    monkeypatch.setitem(
        globals(), "PUBLIC", [*PUBLIC, functools.partial(gumbax.gumbel_max)]
    )
    with pytest.raises(AssertionError):
        test_every_public_function_of_numbers_is_in_the_table()
