import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import NamedSharding, PartitionSpec

import gumbax
from gumbax import _noise, gumbel
from gumbax._noise import threefry
from tests import helpers
from tests.helpers import sweep

pytestmark = pytest.mark.usefixtures("strict_promotion")

SHAPE = (16, 24)
SPECS = pytest.mark.parametrize(
    "spec",
    sweep([("x", None), ("x", "y")], [((None, "x"),), (("y", "x"),)]),
)


@pytest.fixture
def key():
    return jax.random.key(7)


@pytest.fixture
def noise(key):
    return np.asarray(gumbel.sample(key, SHAPE))


def test_law_is_gumbel(key):
    n = 200_000
    samples = np.asarray(gumbel.sample(key, (n, 1)))[:, 0]
    edges = scipy.stats.gumbel_r.ppf(np.linspace(0, 1, 41))
    counts = np.histogram(samples, edges)[0]
    probs = np.full(40, 1 / 40)
    # The mirrored law, and one shifted by 0.05, must be told apart.
    for wrong in (
        np.diff(scipy.stats.gumbel_l.cdf(edges)),
        np.diff(scipy.stats.gumbel_r.cdf(edges, loc=0.05)),
    ):
        helpers.assert_law(counts, probs, against=wrong)


def test_mean_and_scale(key):
    samples = gumbel.sample(key, (100_000, 1), loc=2.0, scale=3.0)
    expected = scipy.stats.gumbel_r(loc=2.0, scale=3.0).mean()
    helpers.assert_mean(samples, expected, resolution=0.1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_end_points_are_finite_and_in_order(dtype, x64):
    words = jnp.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], jnp.uint32)
    high, low = jnp.meshgrid(words, words, indexing="ij")
    values = np.asarray(_noise.gumbel_from_words(high, low, dtype=dtype))
    assert np.isfinite(values).all()
    assert values.max() == values[0, 0] > 40  # v = 2**-65: the finest winning end
    assert (np.diff(values.ravel()) <= 0).all()


def test_winning_end_is_exact_in_float32():
    """P(g > -log(-log1p(-p))) = p: enumerated at the quantiles, without sampling."""
    high = jnp.array([2**32 // 10**k for k in range(3, 10)], jnp.uint32)
    with helpers.enable_x64():
        v = np.asarray(high, np.float64) * 2.0**-32
    values = _noise.gumbel_from_words(high, jnp.zeros_like(high), dtype=jnp.float32)
    np.testing.assert_allclose(values, -np.log(-np.log1p(-v)), rtol=3e-7)


def test_jitted_equals_eager(key, noise):
    jitted = jax.jit(lambda key: gumbel.sample(key, SHAPE))(key)
    np.testing.assert_array_equal(jitted, noise)
    with jax.disable_jit():
        words = threefry.random_words(key, (2, 3), axis=1)
    fused = jax.jit(lambda key: threefry.random_words(key, (2, 3), axis=1))(key)
    for a, b in zip(words, fused, strict=True):
        np.testing.assert_array_equal(a, b)


def test_vmap_over_keys_equals_a_loop(key):
    keys = jax.random.split(key, 5)
    mapped = jax.vmap(lambda key: gumbel.sample(key, (3, 7)))(keys)
    looped = np.stack([gumbel.sample(key, (3, 7)) for key in keys])
    np.testing.assert_array_equal(mapped, looped)


def test_scan_equals_a_loop(key):
    keys = jax.random.split(key, 5)
    _, scanned = jax.lax.scan(lambda c, k: (c, gumbel.sample(k, (3, 7))), 0, keys)
    looped = np.stack([gumbel.sample(key, (3, 7)) for key in keys])
    np.testing.assert_array_equal(scanned, looped)


@pytest.mark.eight_devices
@SPECS
def test_sharded_over_8_devices_equals_one_device(key, noise, spec):
    sizes = (8, 1) if "y" not in spec else (4, 2)
    devices = np.array(jax.devices()).reshape(sizes)
    assert devices.size == 8
    mesh = jax.sharding.Mesh(devices, ("x", "y"))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    draw = jax.jit(lambda key: gumbel.sample(key, SHAPE), out_shardings=sharding)
    sharded = draw(key)
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_array_equal(sharded, noise)


@pytest.mark.eight_devices
def test_shard_map_with_offset_equals_one_device(key, noise):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    block = (SHAPE[0] // 4, SHAPE[1] // 2)

    def local(key):
        place = jax.lax.axis_index("x"), jax.lax.axis_index("y")
        offset = place[0] * block[0], place[1] * block[1]
        return gumbel.sample(key, block, offset=offset)

    draw = jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec("x", "y"),
        )
    )
    np.testing.assert_array_equal(draw(key), noise)


def test_padded_categories_change_nothing(key, noise):
    padded = gumbel.sample(key, (SHAPE[0], SHAPE[1] + 9))
    np.testing.assert_array_equal(padded[:, : SHAPE[1]], noise)


def test_offset_continues_the_array(key, noise):
    part = gumbel.sample(key, (4, 5), offset=(3, 6))
    np.testing.assert_array_equal(part, noise[3:7, 6:11])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_count_over_all_other_axes(key, axis):
    shape = (2, 3, 4)
    last = gumbel.sample(key, (2, 3, 4) if axis == 2 else _moved(shape, axis))
    moved = gumbel.sample(key, shape, axis=axis)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(moved), axis, -1), last)


def _moved(shape, axis):
    return (*shape[:axis], *shape[axis + 1 :], shape[axis])


def test_x64_changes_nothing(key, noise):
    with helpers.enable_x64():
        again = gumbel.sample(key, SHAPE, dtype=jnp.float32)
    np.testing.assert_array_equal(again, noise)


@pytest.mark.parametrize("partitionable", [False, True])
def test_flags_of_jax_change_nothing(key, noise, partitionable):
    with jax.threefry_partitionable(partitionable):
        again = jax.jit(lambda key: gumbel.sample(key, SHAPE))(key)
    np.testing.assert_array_equal(again, noise)


@pytest.mark.parametrize(
    "impl",
    [
        "threefry2x32",
        "rbg",
        pytest.param("unsafe_rbg", marks=pytest.mark.exhaustive),
    ],
)
def test_keys_of_every_implementation(impl):
    key = jax.random.key(3, impl=impl)
    noise = np.asarray(gumbel.sample(key, SHAPE))
    # Derived once: not the stream of the implementation, whatever its flags, and
    # invariant to padding and to jit as for any other key.
    padded = jax.jit(lambda key: gumbel.sample(key, (SHAPE[0], 40)))(key)
    np.testing.assert_array_equal(padded[:, : SHAPE[1]], noise)
    keys = jax.random.split(key, 3)
    mapped = np.asarray(jax.vmap(lambda key: gumbel.sample(key, SHAPE))(keys))
    looped = np.stack([gumbel.sample(one, SHAPE) for one in keys])
    np.testing.assert_array_equal(mapped, looped)
    assert len(np.unique(np.append(mapped.ravel(), noise.ravel()))) > 4 * 380


@pytest.mark.parametrize("partitionable", [False, True])
def test_legacy_and_typed_keys_under_both_flags(partitionable):
    with jax.threefry_partitionable(partitionable), jax.legacy_prng_key("allow"):
        legacy = jax.random.PRNGKey(7)
        typed = jax.random.key(7)
        np.testing.assert_array_equal(
            gumbel.sample(legacy, SHAPE), gumbel.sample(typed, SHAPE)
        )


@functools.cache
def value_and_gradient(hard):
    sample = functools.partial(gumbax.gumbel_softmax, hard=hard)
    gradient = jax.grad(lambda key, x: (sample(key, x)[:, 0] ** 2).sum(), 1)
    return jax.jit(sample), jax.jit(gradient)


@pytest.mark.eight_devices
@SPECS
@pytest.mark.parametrize("hard", [False, True])
def test_words_of_a_sharded_step_are_those_of_one_device(key, spec, hard):
    """Samples of a jitted step whose logits are sharded on rows, categories or both."""
    devices = np.array(jax.devices()).reshape((4, 2) if "y" in spec else (8, 1))
    mesh = jax.sharding.Mesh(devices, ("x", "y"))
    # Far apart: a word that differs would change the choice, rounding does not.
    logits = jnp.zeros((16, 1024))
    sharded = jax.device_put(logits, NamedSharding(mesh, PartitionSpec(*spec)))
    sample, gradient = value_and_gradient(hard)
    np.testing.assert_allclose(sample(key, sharded), sample(key, logits), rtol=1e-5)
    np.testing.assert_allclose(gradient(key, sharded), gradient(key, logits), rtol=1e-4)


def test_is_the_noise_of_the_samplers(key):
    logits = jnp.zeros((4, 6, 5))
    injected = gumbel.sample(key, logits.shape, axis=1)
    for sampler in (
        functools.partial(gumbax.gumbel_softmax, axis=1, hard=True),
        functools.partial(gumbax.gumbel_max, axis=1),
    ):
        np.testing.assert_array_equal(
            sampler(key, logits), sampler(None, logits, gumbels=injected)
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_narrow_types_are_float32_rounded(key, noise, dtype):
    narrow = gumbel.sample(key, SHAPE, dtype=dtype)
    assert narrow.dtype == dtype
    np.testing.assert_array_equal(narrow, jnp.asarray(noise).astype(dtype))


def test_float64_has_its_own_resolution(key, x64):
    wide = gumbel.sample(key, SHAPE, dtype=jnp.float64)
    assert wide.dtype == jnp.float64
    narrow = gumbel.sample(key, SHAPE)
    np.testing.assert_allclose(wide, narrow, rtol=1e-4, atol=1e-5)
    assert (np.asarray(wide) != np.asarray(narrow, np.float64)).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None, (2,)), {}, "`key` must be one PRNG key, got None"),
        ((0, (2,)), {}, "`key` must be one PRNG key, got 0"),
        ((..., (2, 3)), {"axis": 2}, "`axis` must name one of the 2 axes"),
        ((..., (2,)), {"dtype": jnp.int32}, "`dtype` must be a real floating type"),
        ((..., (2,)), {"loc": jnp.zeros(3)}, r"`loc` must broadcast to \(2,\)"),
    ],
)
def test_bad_arguments(key, arguments, options, message):
    arguments = tuple(key if a is ... else a for a in arguments)
    with pytest.raises((TypeError, ValueError), match=message):
        gumbel.sample(*arguments, **options)


def test_batch_of_keys_is_refused_with_the_cure(key):
    with pytest.raises(TypeError, match=r"jax\.vmap"):
        gumbel.sample(jax.random.split(key, 3), (2,))


def test_shape_and_dtype_of_the_law():
    key, loc = jax.random.key(4), jnp.arange(6.0).reshape(2, 1, 3)
    drawn = gumbel.sample(key, loc=loc, scale=jnp.ones((4, 1)))
    np.testing.assert_array_equal(
        drawn, gumbel.sample(key, (2, 4, 3), loc=loc, scale=jnp.ones((4, 1)))
    )
    bounded = gumbel.sample_truncated(key, upper=loc)
    assert bounded.shape == loc.shape
    assert (bounded <= loc).all()
    assert gumbel.sample(key).shape == ()
    narrow = loc.astype(jnp.bfloat16)
    assert gumbel.sample(key, loc=narrow).dtype == jnp.float32
    assert gumbel.sample(key, loc=narrow, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_dtype_follows_the_promotion_of_jax(x64):
    key, wide = jax.random.key(4), np.array([0.0, 1.0])
    for law in ({"loc": wide}, {"scale": wide}, {"loc": jnp.asarray(wide)}):
        found = gumbel.sample(key, (2,), **law)
        assert found.dtype == jnp.float64
    assert gumbel.sample_truncated(key, upper=wide).dtype == jnp.float64
    np.testing.assert_array_equal(
        gumbel.sample(key, (2,), loc=wide),
        wide + gumbel.sample(key, (2,), dtype=jnp.float64),
    )
    # What is no array has no dtype of its own.
    assert gumbel.sample(key, (2,), loc=0.5, scale=2).dtype == jnp.float32
    assert gumbel.sample(key, loc=np.zeros(2, np.float32)).dtype == jnp.float32


def test_options_by_place():
    for function in (gumbel.sample, gumbel.sample_truncated):
        message = rf"`gumbel.{function.__name__}`: `dtype` must be given by name"
        with pytest.raises(TypeError, match=message):
            function(jax.random.key(0), (2,), jnp.float32)
