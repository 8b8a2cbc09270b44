"""Residuals and temporaries of the reverse rules, and the rule in log space."""

import functools
import io
import re
from contextlib import redirect_stdout

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

import gumbax

SHAPE = (64, 512)
KEY = jax.random.key(2)
SOFT = gumbax.gumbel_softmax
HARD = functools.partial(gumbax.gumbel_softmax, hard=True)
LOG = gumbax.log_gumbel_softmax


def residuals(function, *operands):
    """JAX's own report: [(number of elements, where it comes from)]."""
    text = io.StringIO()
    with redirect_stdout(text):
        print_saved_residuals(function, *operands)
    lines = re.findall(r"^\w+(?:<\w+>)?\[([\d,]*)\] (.*)$", text.getvalue(), re.M)
    assert lines
    return [(np.prod([int(n) for n in d.split(",") if n]), w) for d, w in lines]


@pytest.mark.parametrize("sample_shape", [(), (3,)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("learned", [False, True], ids=["", "learned temperature"])
@pytest.mark.parametrize("sampler", [SOFT, LOG, HARD], ids=["soft", "log", "hard"])
def test_residuals_are_inputs_outputs_and_one_value_per_row(
    sampler, learned, masked, sample_shape
):
    """The output where that is the sample's weights; for a temperature's gradient, and
    behind a hard value, the logits: the noise is made again."""
    mask = jnp.arange(SHAPE[1]) % 2 == 0

    def sample(logits, temperature=0.5):
        return sampler(
            KEY,
            logits,
            temperature=temperature,
            where=mask if masked else None,
            sample_shape=sample_shape,
        )

    size = SHAPE[0] * SHAPE[1]
    operands = (jnp.zeros(SHAPE), 0.5) if learned else (jnp.zeros(SHAPE),)
    large = [(n, what) for n, what in residuals(sample, *operands) if n >= size]
    assert len(large) == 1, large
    elements, what = large[0]
    if sampler is HARD or learned:
        assert what.startswith("from the argument")
    else:
        assert what.startswith("output of")
        assert elements == size * np.prod(sample_shape, dtype=int)


def test_the_usual_form_keeps_more():
    """The measure can fail: the stop_gradient form under the same report."""

    def sample(logits):
        scores = logits + jax.random.gumbel(KEY, SHAPE)
        relaxed = jax.nn.softmax(scores / 0.5)
        hard = jax.nn.one_hot(scores.argmax(-1), SHAPE[1])
        return jnp.sum((relaxed + jax.lax.stop_gradient(hard - relaxed)) ** 2)

    large = [n for n, _ in residuals(sample, jnp.zeros(SHAPE)) if n >= SHAPE[0] * 512]
    assert len(large) > 1


def forward_and_backward(sampler, logits, cotangent):
    y, pull_back = jax.vjp(functools.partial(sampler, KEY, temperature=0.5), logits)
    return y, pull_back(cotangent)


def arrays_of_temporaries(function, *operands):
    compiled = jax.jit(function).lower(*operands).compile()
    size = operands[0].size * operands[0].dtype.itemsize
    return compiled.memory_analysis().temp_size_in_bytes / size


@pytest.mark.parametrize(
    ("sampler", "limit"), [(SOFT, 0.1), (HARD, 0.3), (gumbax.gumbel_max, 1.3)]
)
@pytest.mark.usefixtures("optimised")
def test_forward_pass_materialises_the_scores_once(sampler, limit):
    """In the place of the output, where that is as large; an index also asks for NaN,
    one byte for each score. A chain of fusions that goes wrong keeps each constant of
    the noise as an array."""
    found = arrays_of_temporaries(
        functools.partial(sampler, KEY), jnp.zeros((8, 2**16))
    )
    assert found < limit


# JAX 0.7.2 keeps scores beside weights in every rule for narrow types.
NARROW = 2.1 if jax.__version_info__ >= (0, 10) else 4.1


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1.1), ("bfloat16", NARROW)])
@pytest.mark.usefixtures("optimised")
def test_soft_forward_and_backward_take_one_array_at_most(dtype, limit):
    """Of float32: the scores are gone when the weights are there."""
    logits = jnp.zeros((8, 2**16), dtype)
    both = functools.partial(forward_and_backward, SOFT)
    assert arrays_of_temporaries(both, logits, logits) < limit


# Log space


@pytest.fixture
def point(x64):
    logits, gumbels = jax.random.normal(jax.random.key(1), (2, 3, 5), jnp.float64)
    return logits, gumbels, jnp.array(0.7)


def ours(logits, gumbels, temperature):
    return LOG(None, logits, gumbels=gumbels, temperature=temperature)


def plain(logits, gumbels, temperature):
    return jax.nn.log_softmax((logits + gumbels) / temperature)


def cube(form):
    costs = jnp.array([1.0, -2.0, 0.5, 3.0, -1.0])
    return lambda *point: jnp.sum((form(*point) @ costs) ** 3) / 100


def test_log_sample_is_the_logarithm_of_the_sample():
    logits = jax.random.normal(jax.random.key(3), (6, 5))
    log_y = LOG(KEY, logits, temperature=0.4)
    np.testing.assert_allclose(jnp.exp(log_y), SOFT(KEY, logits, temperature=0.4), 1e-5)


@pytest.mark.exhaustive
def test_first_and_second_derivatives_in_log_space(point):
    def gradient(form):
        return jax.grad(cube(form), (0, 1, 2))

    chex.assert_trees_all_close(
        gradient(ours)(*point), gradient(plain)(*point), rtol=1e-9, atol=1e-9
    )
    for outer in (0, 2):
        expected = jax.jacrev(gradient(plain), outer)(*point)
        for derivative in (jax.jacrev, jax.jacfwd):
            found = derivative(gradient(ours), outer)(*point)
            chex.assert_trees_all_close(found, expected, rtol=1e-8, atol=1e-8)
    jax.test_util.check_grads(ours, point, order=2, modes=["rev"])


@pytest.mark.parametrize("temperature", [1e-8, 1e-3, 1.0, 1e8])
def test_extremes_in_log_space(temperature):
    logits = jnp.array(
        [
            [1.0, -jnp.inf, 0.5, 300.0],
            [-jnp.inf, -jnp.inf, -jnp.inf, -jnp.inf],
            [0.0, jnp.inf, 3.0, 1.0],
            [0.0, 1.0, jnp.nan, 1.0],
        ]
    )

    def total(logits, temperature):
        log_y = LOG(KEY, logits, temperature=temperature)
        rows = log_y[:3]
        return jnp.sum(jnp.where(rows == -jnp.inf, 0, rows)), log_y

    gradients, log_y = jax.grad(total, (0, 1), has_aux=True)(logits, temperature)
    assert log_y[0, 1] == -np.inf
    assert np.isfinite(log_y[0, np.array([0, 2, 3])]).all()
    np.testing.assert_array_equal(log_y[1], np.full(4, -np.inf))
    np.testing.assert_array_equal(log_y[2], [-np.inf, 0, -np.inf, -np.inf])
    assert np.isnan(log_y[3]).all()
    assert np.isfinite(gradients[0][:3]).all()
    np.testing.assert_array_equal(gradients[0][1], np.zeros(4))


def test_masked_categories_in_log_space():
    logits = jnp.array([0.5, jnp.nan, 1.0])
    where = jnp.array([True, False, True])

    def entropy(logits, temperature):
        log_y = LOG(KEY, logits, where=where, temperature=temperature)
        return -jnp.sum(jnp.exp(log_y) * jnp.where(where, log_y, 0))

    value, gradients = jax.value_and_grad(entropy, (0, 1))(logits, 0.5)
    assert np.isfinite(value)
    assert np.isfinite(gradients[0]).all()
    assert np.isfinite(gradients[1])
    assert gradients[0][1] == 0


def test_entropy_and_its_gradients_are_finite_with_masks_and_underflow():
    logits = jnp.array([[0.0, 2000.0, 1.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
    where = jnp.array([[True, True, False, True], [False, True, False, False]])

    def entropy(logits, temperature):
        y = SOFT(KEY, logits, temperature=temperature, where=where)
        return -jnp.sum(y * jnp.log(y), where=y > 0)

    value, gradients = jax.value_and_grad(entropy, (0, 1))(logits, 0.1)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("num_categories", [1, 64, 65, 100, 127, 128, 257, 1000, 4096])
@pytest.mark.parametrize("axis", [0, 1])
def test_maximum_by_blocks_is_the_lowest_index_of_the_maximum(num_categories, axis):
    rows = np.random.default_rng(0).normal(size=(9, num_categories)).astype("float32")
    rows = rows.round(1)  # ties
    rows[1] = 0  # all equal: the lowest index
    rows[2] = -np.inf
    rows[3, -1] = np.inf
    rows[4, 0] = np.nan
    rows[5, -1] = np.nan
    rows[6, num_categories // 2 :] = 9  # several blocks have the maximum
    expected = rows.argmax(-1)
    expected[[2, 4, 5]] = -1
    given = rows if axis else rows.T
    index = gumbax.gumbel_max(None, given, gumbels=0.0, axis=axis)
    np.testing.assert_array_equal(index, expected)


@pytest.mark.eight_devices
@pytest.mark.usefixtures("optimised")
def test_sharded_logits_are_not_gathered():
    """argmax over sharded categories exchanges block maxima, never the logits."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    spec = jax.sharding.PartitionSpec(None, "x")
    sharding = jax.sharding.NamedSharding(mesh, spec)
    logits = jax.device_put(jnp.zeros((4, 8 * 4096)), sharding)
    text = jax.jit(gumbax.gumbel_max).lower(KEY, logits).compile().as_text()
    exchanged = re.findall(
        r"= \(?\w+\[([\d,]*)\][^=]* (?:all-gather|all-reduce|all-to-all|"
        r"collective-permute)\(",
        text,
    )
    assert exchanged
    largest = max(np.prod([int(n) for n in s.split(",") if n]) for s in exchanged)
    assert largest <= logits.size // 64


def test_derivatives_inside_a_jitted_function_after_those_outside_of_it():
    """JAX before 0.12 remembers one structure of what a reverse rule keeps."""

    def cost(logits, temperature):
        return SOFT(None, logits, temperature=temperature, gumbels=0.0)[0]

    def every(function):
        def of(*point):
            first = [jax.grad(function, i)(*point) for i in (0, 1)]
            second = [
                jax.grad(lambda *p, i=i: jax.grad(function, i)(*p).sum(), i)(*point)
                for i in (0, 1)
            ]
            return first, second

        return jax.jit(of)(jnp.array([0.1, 0.2, 0.4]), jnp.float32(0.5))

    outside = every(cost)
    chex.assert_trees_all_close(every(jax.jit(cost)), outside, rtol=1e-6)
