import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gumbax
from gumbax.samplers import rules
from tests import helpers
from tests.helpers import sweep

PROBS = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
LOGITS = jnp.log(jnp.asarray(PROBS, jnp.float32))
MODES = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])


@pytest.fixture
def key():
    return jax.random.key(11)


def stop_gradient_form(logits, gumbels, temperature, *, hard):
    """The usual form, differentiated by JAX: the oracle for all derivatives."""
    relaxed = jax.nn.softmax((logits + gumbels) / temperature, axis=-1)
    if not hard:
        return relaxed
    index = jnp.argmax(logits + gumbels, axis=-1)
    one_hot = jax.nn.one_hot(index, logits.shape[-1], dtype=logits.dtype)
    return relaxed + jax.lax.stop_gradient(one_hot - relaxed)


def ours(logits, gumbels, temperature, *, hard):
    return gumbax.gumbel_softmax(
        None, logits, temperature=temperature, gumbels=gumbels, hard=hard
    )


def cube(form, hard):
    """A loss that is not linear in the sample."""
    costs = jnp.array([1.0, -2.0, 0.5, 3.0, -1.0])

    def loss(logits, gumbels, temperature):
        sample = form(logits, gumbels, temperature, hard=hard)
        return jnp.sum((sample @ costs.astype(sample.dtype)) ** 3)

    return loss


@functools.cache
def gradients(form, hard):
    return jax.jit(jax.grad(cube(form, hard), (0, 1, 2)))


@functools.cache
def jitted(hard):
    return jax.jit(functools.partial(gumbax.gumbel_softmax, hard=hard))


@pytest.fixture
def point(x64):
    logits, gumbels = jax.random.normal(jax.random.key(1), (2, 3, 5), jnp.float64)
    return logits, gumbels, jnp.array(0.7)


# Law


def draws(key, logits, n):
    index = jax.jit(gumbax.gumbel_max)(key, jnp.broadcast_to(logits, (n, len(logits))))
    return np.bincount(np.asarray(index), minlength=len(logits))


def test_index_has_the_law_of_the_logits(key):
    # A sign error reverses the order of the probabilities.
    helpers.assert_law(draws(key, LOGITS, 20_000), PROBS, against=PROBS[::-1])


def test_planted_sign_error_turns_the_law_red(key):
    logits = jnp.broadcast_to(LOGITS, (20_000, 5))
    gumbels = -gumbax.gumbel.sample(key, logits.shape)
    index = np.asarray(gumbax.gumbel_max(None, logits, gumbels=gumbels))
    with pytest.raises(AssertionError, match="chi-square"):
        helpers.assert_law(np.bincount(index, minlength=5), PROBS)


@pytest.mark.parametrize("dtype", sweep([jnp.bfloat16], [jnp.float16]))
def test_narrow_logits_have_the_law_of_their_values(key, dtype):
    k = 1000
    logits = jnp.linspace(-1, 1, k).astype(dtype)
    wide = np.asarray(logits, np.float64)
    probs = np.exp(wide) / np.exp(wide).sum()
    helpers.assert_law(draws(key, logits, 60_000), probs)


def test_noise_in_bfloat16_turns_that_law_red(key):
    logits = jnp.linspace(-1, 1, 1000).astype(jnp.bfloat16)
    wide = np.asarray(logits, np.float64)
    probs = np.exp(wide) / np.exp(wide).sum()
    # A third of the draws there: red already.
    batch = jnp.broadcast_to(logits, (20_000, 1000))
    index = np.asarray(jax.jit(jax.random.categorical)(key, batch))
    with pytest.raises(AssertionError, match="chi-square"):
        helpers.assert_law(np.bincount(index, minlength=1000), probs)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_temperature_does_not_change_the_law(key, temperature):
    logits = jnp.broadcast_to(LOGITS, (20_000, 5))
    sample = gumbax.gumbel_softmax(key, logits, temperature=temperature, hard=True)
    np.testing.assert_array_equal(sample.argmax(-1), gumbax.gumbel_max(key, logits))


def test_relaxed_sample_is_the_softmax_of_the_scores(key):
    logits = jax.random.normal(key, (6, 5))
    gumbels = gumbax.gumbel.sample(key, logits.shape)
    expected = jax.nn.softmax((logits + gumbels) / 0.3)
    sample = gumbax.gumbel_softmax(key, logits, temperature=0.3)
    np.testing.assert_allclose(sample, expected, rtol=1e-5, atol=1e-7)


def test_hard_sample_is_exactly_one_hot(key):
    logits = jax.random.normal(key, (4096, 8))
    sample = np.asarray(gumbax.gumbel_softmax(key, logits, temperature=0.7, hard=True))
    assert set(np.unique(sample)) == {0.0, 1.0}
    index = gumbax.gumbel_max(key, logits)
    np.testing.assert_array_equal(sample, jax.nn.one_hot(index, 8))


# Derivatives


@MODES
def test_gradients_are_those_of_the_stop_gradient_form(point, hard):
    found = gradients(ours, hard)(*point)
    expected = gradients(stop_gradient_form, hard)(*point)
    for a, b in zip(found, expected, strict=True):
        assert np.abs(b).max() > 1e-2
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@MODES
def test_gradient_is_the_closed_form(point, hard):
    logits, gumbels, temperature = point
    _, pull_back = jax.vjp(functools.partial(ours, hard=hard), *point)
    cotangent = jax.random.normal(jax.random.key(2), logits.shape, logits.dtype)
    q = np.asarray(jax.nn.softmax((logits + gumbels) / temperature))
    g = np.asarray(cotangent)
    centred = q * (g - (q * g).sum(-1, keepdims=True))
    logits_bar, gumbels_bar, temperature_bar = pull_back(cotangent)
    np.testing.assert_allclose(logits_bar, centred / temperature, rtol=1e-9)
    np.testing.assert_allclose(gumbels_bar, logits_bar)
    expected = -(centred * np.log(q)).sum() / temperature
    np.testing.assert_allclose(temperature_bar, expected, rtol=1e-9)


def in_both_orders(form, hard):
    """Second derivatives of (logits, temperature), reverse and forward over reverse."""
    gradient = jax.grad(cube(form, hard), (0, 2))
    return lambda *point: [
        derivative(gradient, (0, 2))(*point) for derivative in (jax.jacrev, jax.jacfwd)
    ]


@MODES
def test_second_derivatives_are_right_in_both_orders(point, hard):
    expected, _ = jax.jit(in_both_orders(stop_gradient_form, hard))(*point)
    for of_one in zip(*expected, strict=True):  # logits, then temperature
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_one)) > 1e-2
    for run in (in_both_orders(ours, hard), jax.jit(in_both_orders(ours, hard))):
        for found in run(*point):
            chex.assert_trees_all_close(found, expected, rtol=1e-8, atol=1e-10)


def test_relaxed_form_passes_the_numerical_check(point):
    f = functools.partial(ours, hard=False)
    jax.test_util.check_grads(f, point, order=2, modes=["rev"])


@MODES
def test_cotangents_of_a_row_sum_to_zero(key, hard):
    logits = jax.random.normal(key, (7, 5))
    gradient = gradients(ours, hard)(logits, jnp.ones_like(logits), 0.5)[0]
    np.testing.assert_allclose(gradient.sum(-1), np.zeros(7), atol=1e-4)


@MODES
def test_constant_added_to_the_logits_changes_nothing(key, hard):
    logits = jax.random.normal(key, (7, 5)).round(2)
    zeros = jnp.zeros_like(logits)
    gradient = gradients(ours, hard)(logits, zeros, 0.5)[0]
    shifted = gradients(ours, hard)(logits + 1024.0, zeros, 0.5)[0]
    np.testing.assert_allclose(gradient, shifted, rtol=1e-2, atol=1e-3)


def test_forward_mode_of_the_sampler_is_refused(key):
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: gumbax.gumbel_softmax(key, x), (LOGITS,), (LOGITS,))


# Transformations


@MODES
def test_vmap_over_keys_and_rows_equals_a_loop(key, hard):
    rows = jax.random.normal(key, (6, 5))
    keys = jax.random.split(key, 6)
    sample = functools.partial(gumbax.gumbel_softmax, temperature=0.5, hard=hard)
    looped = np.stack([sample(k, row) for k, row in zip(keys, rows, strict=True)])
    np.testing.assert_allclose(jax.vmap(sample)(keys, rows), looped, rtol=1e-6)


@MODES
@pytest.mark.exhaustive
def test_jit_scan_and_remat_equal_eager(key, hard):
    logits = jax.random.normal(key, (4, 5))
    sample = functools.partial(gumbax.gumbel_softmax, temperature=0.5, hard=hard)
    expected = sample(key, logits)
    np.testing.assert_allclose(jax.jit(sample)(key, logits), expected, rtol=1e-6)
    _, scanned = jax.lax.scan(lambda c, row: (c, sample(key, row)), 0, logits[:, None])
    np.testing.assert_allclose(scanned[0], expected[:1], rtol=1e-6)
    loss = lambda x: (sample(key, x) ** 3)[..., 0].sum()  # noqa: E731
    gradient = jax.grad(loss)(logits)
    remat = jax.jit(jax.grad(jax.checkpoint(loss)))
    np.testing.assert_allclose(remat(logits), gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.eight_devices
@MODES
@pytest.mark.parametrize("spec", [("x", None), (None, "x")])
def test_sharded_over_8_devices_equals_one_device(key, hard, spec):
    logits = jax.random.normal(key, (16, 24))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    sharded = jax.device_put(logits, NamedSharding(mesh, PartitionSpec(*spec)))
    expected = jitted(hard)(key, logits)
    np.testing.assert_allclose(jitted(hard)(key, sharded), expected, rtol=1e-5)
    index = jax.jit(gumbax.gumbel_max)
    np.testing.assert_array_equal(index(key, sharded), index(key, logits))


def test_one_trace_over_a_whole_annealing_schedule(key):
    schedule = gumbax.schedules.exponential(1.0, 0.05, floor=0.1)
    traced = chex.assert_max_traces(
        lambda temperature: gumbax.gumbel_softmax(key, LOGITS, temperature=temperature),
        n=1,
    )
    step = jax.jit(traced)
    for i in range(50):
        step(schedule(i))


@MODES
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_any_axis(key, hard, axis):
    logits = jax.random.normal(key, (3, 4, 5))
    sample = functools.partial(gumbax.gumbel_softmax, key, hard=hard)
    moved = sample(jnp.moveaxis(logits, axis, -1))
    np.testing.assert_allclose(
        jnp.moveaxis(sample(logits, axis=axis), axis, -1), moved, rtol=1e-5
    )
    np.testing.assert_array_equal(
        gumbax.gumbel_max(key, logits, axis=axis),
        gumbax.gumbel_max(key, jnp.moveaxis(logits, axis, -1)),
    )


@MODES
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "temperature",
    [0.5, np.float32(0.5), jnp.float32(0.5), jnp.full((3, 1), 0.5)],
    ids=["float", "numpy", "scalar", "rows"],
)
@pytest.mark.usefixtures("strict_promotion")
def test_dtype_of_the_logits_is_kept(key, hard, dtype, temperature):
    logits = jnp.zeros((3, 5), dtype)

    def sample(logits):
        return gumbax.gumbel_softmax(key, logits, temperature=temperature, hard=hard)

    assert (
        sample(logits).dtype == jax.eval_shape(jax.jit(sample), logits).dtype == dtype
    )
    gradient = jax.grad(lambda x: sample(x)[:, 0].astype(jnp.float32).sum())
    assert jax.eval_shape(gradient, logits).dtype == dtype


def test_temperature_per_row_equals_a_loop(key):
    logits = jax.random.normal(key, (3, 5))
    temperature = jnp.array([[0.1], [1.0], [10.0]])
    gumbels = gumbax.gumbel.sample(key, logits.shape)
    rows = gumbax.gumbel_softmax(key, logits, temperature=temperature)
    for i in range(3):
        one = ours(logits[i], gumbels[i], temperature[i, 0], hard=False)
        np.testing.assert_allclose(rows[i], one, rtol=1e-5)


# Edges


def entropy(sample):
    return -jnp.sum(jax.scipy.special.xlogy(sample, sample))


@MODES
def test_masked_categories_get_exactly_zero_and_finite_gradients(key, hard):
    logits = jnp.array([[1.0, jnp.nan, 0.5, -jnp.inf], [0.0, jnp.inf, 2.0, 1.0]])
    where = jnp.array([[True, False, True, True], [True, False, True, True]])
    assert not np.isfinite(logits[where == 0]).any()

    def loss(logits, temperature):
        sample = gumbax.gumbel_softmax(
            key, logits, temperature=temperature, where=where, hard=hard
        )
        return jnp.sum(sample @ jnp.arange(4.0)), sample

    derivatives = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    gradients, sample = derivatives(logits, jnp.array(0.5))
    assert (np.asarray(sample)[~np.asarray(where)] == 0).all()
    np.testing.assert_allclose(sample.sum(-1), [1, 1], rtol=1e-6)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    assert (np.asarray(gradients[0])[~np.asarray(where)] == 0).all()
    if not hard:
        of_entropy = jax.jit(jax.grad(lambda x: entropy(loss(x, 0.5)[1])))(logits)
        assert np.isfinite(np.asarray(of_entropy)[np.asarray(where)]).all()


@MODES
@pytest.mark.parametrize("how", ["masked", "-inf"])
def test_row_without_any_category_is_zeros(key, hard, how):
    logits = jnp.zeros((2, 3)) if how == "masked" else jnp.full((2, 3), -jnp.inf)
    where = jnp.zeros((2, 3), bool) if how == "masked" else None
    sample = functools.partial(gumbax.gumbel_softmax, key, where=where, hard=hard)
    np.testing.assert_array_equal(sample(logits), np.zeros((2, 3)))
    np.testing.assert_array_equal(gumbax.gumbel_max(key, logits, where=where), [-1, -1])
    gradient = jax.jit(jax.grad(lambda x: (sample(x) @ jnp.arange(3.0)).sum()))
    np.testing.assert_array_equal(gradient(logits), np.zeros((2, 3)))


@MODES
def test_nan_is_shown_and_stays_in_its_row(key, hard):
    logits = jnp.array([[0.0, jnp.nan, 1.0], [0.0, 0.0, 0.0]])
    sample = gumbax.gumbel_softmax(key, logits, hard=hard)
    assert np.isnan(sample[0]).all()
    assert np.isfinite(sample[1]).all()
    index = gumbax.gumbel_max(key, logits)
    assert index[0] == -1
    assert index[1] >= 0


FEW = [(4, 1), (4, 8), (4, 5001)]
MORE = itertools.product([4, 500], [1, 8, 100, 1000, 4096, 5001])
ROWS_AND_CATEGORIES = sweep(FEW, [shape for shape in MORE if shape not in FEW])


@pytest.mark.parametrize("position", [0, -1])
@pytest.mark.parametrize(("rows", "num_categories"), ROWS_AND_CATEGORIES)
def test_no_nan_is_lost(key, rows, num_categories, position):
    """The maximum of some versions of XLA on CPU loses it, for some shapes."""
    logits = np.zeros((rows, num_categories), np.float32)
    logits[:2, position] = [np.nan, -np.nan]
    expected = np.arange(rows) < 2
    for sampler in (
        gumbax.gumbel_softmax,
        gumbax.log_gumbel_softmax,
        functools.partial(gumbax.gumbel_softmax, hard=True),
    ):
        sample = np.isnan(sampler(key, logits))
        np.testing.assert_array_equal(sample.all(axis=1), expected)
        np.testing.assert_array_equal(sample.any(axis=1), expected)
    for sampler in (gumbax.gumbel_max, gumbax.categorical):
        np.testing.assert_array_equal(sampler(key, logits) == -1, expected)


@MODES
def test_plus_infinity_wins_with_certainty(key, hard):
    logits = jnp.broadcast_to(jnp.array([5.0, jnp.inf, 9.0]), (100, 3))
    sample = functools.partial(gumbax.gumbel_softmax, key, hard=hard)
    expected = np.broadcast_to([0.0, 1.0, 0.0], (100, 3))
    np.testing.assert_array_equal(sample(logits), expected)
    assert (gumbax.gumbel_max(key, logits) == 1).all()
    gradient = jax.jit(jax.grad(lambda x: sample(x)[..., 0].sum()))
    assert np.isfinite(gradient(logits)).all()


@MODES
@pytest.mark.parametrize("temperature", [1e-8, 1e-4, 1e4, 1e8])
def test_extreme_temperatures_are_finite(key, hard, temperature):
    logits = 10 * jax.random.normal(key, (64, 8))

    def loss(logits, temperature):
        sample = gumbax.gumbel_softmax(key, logits, temperature=temperature, hard=hard)
        return jnp.sum(sample @ jnp.arange(8.0)), sample

    gradients, sample = jax.grad(loss, (0, 1), has_aux=True)(logits, temperature)
    np.testing.assert_allclose(sample.sum(-1), np.ones(64), rtol=1e-5)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    if temperature == 1e-8:
        hardest = gumbax.gumbel_softmax(key, logits, hard=True)
        np.testing.assert_allclose(sample, hardest, atol=1e-6)


@MODES
@pytest.mark.parametrize("shape", [(4, 1), (0, 3), (2, 0), (1,)])
def test_small_shapes(key, hard, shape):
    sample = gumbax.gumbel_softmax(key, jnp.zeros(shape), hard=hard)
    assert sample.shape == shape
    if shape[-1] == 1:
        np.testing.assert_array_equal(sample, np.ones(shape))
    assert gumbax.gumbel_max(key, jnp.zeros(shape)).shape == shape[:-1]


def test_without_noise_it_is_the_softmax_and_the_argmax():
    logits = jnp.array([0.1, 0.7, 0.2])
    np.testing.assert_allclose(
        gumbax.gumbel_softmax(None, logits, gumbels=0.0), jax.nn.softmax(logits)
    )
    assert gumbax.gumbel_max(None, logits, gumbels=0.0) == 1


# Errors


@pytest.mark.parametrize("sampler", [gumbax.gumbel_softmax, gumbax.gumbel_max])
@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (np.zeros((2, 3), np.int32), {}, "`logits` must be a real floating array"),
        (np.zeros((2, 3), np.complex64), {}, "`logits` must be a real floating array"),
        (np.zeros((2, 3), np.float32), {"axis": 2}, "`axis` must name one of the 2"),
        (np.zeros((2, 3), np.float32), {"axis": -3}, "`axis` must name one of the 2"),
        (np.float32(0), {}, "`axis` must name one of the 0 axes"),
        (np.zeros(3, np.float32), {"where": np.ones(3)}, "`where` must be a boolean"),
        (
            np.zeros(3, np.float32),
            {"where": np.ones(2, bool)},
            "`where` must broadcast",
        ),
        (np.zeros(3, np.float32), {"gumbels": np.ones(2)}, "`gumbels` must broadcast"),
        (np.zeros(3, np.float32), {"gumbels": 1j}, "`gumbels` must be real noise"),
    ],
)
def test_bad_arguments(key, sampler, logits, options, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        sampler(key, logits, **options)
    assert str(caught.value).startswith(f"`{sampler.__name__}`: ")


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan"), float("inf")])
def test_python_temperature_must_be_positive(key, temperature):
    with pytest.raises(
        ValueError, match="`temperature` must be a finite number above 0"
    ):
        gumbax.gumbel_softmax(key, LOGITS, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_traced_temperature_that_is_not_positive_gives_nan(key, temperature):
    """Documented: traced values are not refused, and not passed over in silence."""
    traced = jnp.float32(temperature)
    for sampler in (gumbax.gumbel_softmax, gumbax.log_gumbel_softmax):
        assert np.isnan(sampler(key, LOGITS, temperature=traced)).all()
    assert np.isnan(gumbax.relaxed_bernoulli(key, LOGITS, temperature=traced)).all()
    for sampler in (gumbax.gumbel_softmax, gumbax.relaxed_bernoulli):

        def loss(logits, sampler=sampler):
            return jnp.sum(sampler(key, logits, temperature=traced, hard=True) ** 2)

        value, gradient = jax.value_and_grad(loss)(LOGITS)
        assert np.isfinite(value)
        assert np.isnan(gradient).all()


def test_temperature_per_category_is_refused(key):
    with pytest.raises(ValueError, match="change the law"):
        gumbax.gumbel_softmax(key, LOGITS, temperature=jnp.ones(5))


def test_missing_key(key):
    with pytest.raises(TypeError, match="`key` must be one PRNG key, got None"):
        gumbax.gumbel_softmax(None, LOGITS)


# The planted fault, at the end: it clears what the others have compiled.


def test_plain_forward_rule_would_turn_second_derivatives_red(point, monkeypatch):
    """A hard value has no derivative of its own."""
    expected = jax.jit(jax.jacrev(jax.grad(cube(stop_gradient_form, hard=True))))

    def plain(axis, scores, temperature, winner):
        del temperature
        return rules.maxima.one_hot(axis, scores, winner)

    form = rules.STRAIGHT_THROUGH._replace(output=plain)
    monkeypatch.setattr(rules, "STRAIGHT_THROUGH", form)
    jax.clear_caches()
    found = jax.jit(jax.jacrev(jax.grad(cube(ours, hard=True))))(*point)
    jax.clear_caches()
    assert np.abs(found - expected(*point)).max() > 1e-2
