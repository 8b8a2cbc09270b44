"""Second derivatives inside transformations: a rule that is lost there is silent."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from gumbax._common.tangent import still, with_tangent_of
from tests.helpers import sweep

KEY = jax.random.key(0)
ROWS, K = 3, 4


def hard_sample(logits):
    return gumbax.gumbel_softmax(None, logits, temperature=0.7, hard=True, gumbels=0.0)


def straight_through(scores):
    q = jax.nn.softmax(scores)
    one_hot = jax.nn.one_hot(scores.argmax(-1), K, dtype=q.dtype)
    return q + jax.lax.stop_gradient(one_hot - q)


def hard_plain(logits):
    return straight_through(logits / 0.7)


def gate_sample(logits):
    return gumbax.relaxed_bernoulli(
        None, logits, temperature=0.7, hard=True, logistics=0.0
    )


def gate_plain(logits):
    q = jax.nn.sigmoid(logits / 0.7)
    return q + jax.lax.stop_gradient((logits > 0) - q)


def soft_sample(logits):
    return gumbax.gumbel_softmax(None, logits, temperature=0.7, gumbels=0.0)


def soft_plain(logits):
    return jax.nn.softmax(logits / 0.7)


def log_sample(logits):
    return gumbax.log_gumbel_softmax(None, logits, temperature=0.7, gumbels=0.0)


def log_plain(logits):
    return jax.nn.log_softmax(logits / 0.7)


def branches():
    return [lambda p, x: p * jnp.sin(x), lambda p, x: x * x, lambda p, x: p - x]


def path_sample(row):
    return gumbax.single_path(hard_path(row), branches(), [row[3], None, row[3]], row)


def hard_path(row):
    return gumbax.gumbel_softmax(None, row[:3], hard=True, gumbels=0.0)


def path_plain(row):
    q = jax.nn.softmax(row[:3])
    h = q + jax.lax.stop_gradient(
        jax.nn.one_hot(row[:3].argmax(), 3, dtype=q.dtype) - q
    )
    pairs = zip(h, branches(), [row[3], None, row[3]], strict=True)
    return sum(w * b(p, row) for w, b, p in pairs)


def looped(f, rows):
    return jnp.stack([f(row) for row in rows])


def scanned(f, rows):
    return jax.lax.scan(lambda carry, row: (carry, f(row)), 0, rows)[1]


def carried(f, rows):
    """Through the carry, where a row depends on the sample before."""
    step = lambda c, row: (f(row + 0.1 * c), c)  # noqa: E731
    last, before = jax.lax.scan(step, jnp.zeros(K, rows.dtype), rows)
    return jnp.concatenate([before[1:], last[None]])


def carried_loop(f, rows):
    carry, out = jnp.zeros(K, rows.dtype), []
    for row in rows:
        carry = f(row + 0.1 * carry)
        out.append(carry)
    return jnp.stack(out)


def remat(f, rows):
    return looped(jax.checkpoint(f), rows)


def vmapped(f, rows):
    return jax.vmap(f)(rows)


def vmap_of_scan(f, rows):
    return jax.vmap(lambda row: scanned(f, row[None])[0])(rows)


def behind_a_condition(f, rows):
    return looped(lambda row: jax.lax.cond(row[0] > -9, f, jnp.sin, row), rows)


FORMS = {
    "hard": (hard_sample, hard_plain),
    "soft": (soft_sample, soft_plain),
    "log": (log_sample, log_plain),
    "gate": (gate_sample, gate_plain),
    "single path": (path_sample, path_plain),
}
# run -> reference
RUNS = {
    scanned: looped,
    carried: carried_loop,
    remat: looped,
    vmapped: looped,
    vmap_of_scan: looped,
    behind_a_condition: looped,
}
# Sweeps: where another form shows as much.
FURTHER = {
    "soft": (carried, remat, vmap_of_scan, behind_a_condition),
    "log": (carried, remat, vmap_of_scan, behind_a_condition),
    "gate": (carried, remat, vmap_of_scan, behind_a_condition),
    "hard": (remat, vmap_of_scan, behind_a_condition),
    "single path": (carried, remat, vmapped, behind_a_condition),
}
CASES = [
    pytest.param(
        *form,
        run,
        reference,
        id=f"{name}, {run.__name__}",
        marks=pytest.mark.exhaustive if run in FURTHER.get(name, ()) else (),
    )
    for name, form in FORMS.items()
    for run, reference in RUNS.items()
]


def gradient(run, f):
    def loss(rows):
        slopes = jnp.cos(jnp.arange(K, dtype=rows.dtype))[None]
        return jnp.sum(jnp.sum(run(f, rows) * slopes, 1) ** 3)

    return jax.grad(loss)


@functools.cache
def second_derivative(run, f):
    return jax.jit(jax.jacrev(gradient(run, f)))


@pytest.mark.parametrize(("ours", "plain", "run", "reference"), CASES)
def test_second_derivatives_are_those_of_the_stop_gradient_form(
    x64, ours, plain, run, reference
):
    rows = jax.random.normal(KEY, (ROWS, K), jnp.float64)
    expected = second_derivative(reference, plain)(rows)
    assert np.abs(expected).max() > 1e-2
    orders = [d(gradient(run, ours)) for d in (jax.jacrev, jax.jacfwd)]
    for found in jax.jit(lambda rows: [order(rows) for order in orders])(rows):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sample", [hard_sample, soft_sample, log_sample, gate_sample])
def test_masked_categories_keep_second_derivatives_finite_in_a_scan(x64, sample):
    rows = jax.random.normal(KEY, (ROWS, K), jnp.float64).at[:, 1].set(-jnp.inf)

    def loss(rows):
        y = scanned(sample, rows)
        return jnp.sum(jnp.where(jnp.isfinite(y), y, 0) ** 3)

    assert np.isfinite(jax.jit(jax.jacrev(jax.grad(loss)))(rows)).all()


LEARNED = {
    "soft": (gumbax.gumbel_softmax, jax.nn.softmax),
    "hard": (functools.partial(gumbax.gumbel_softmax, hard=True), straight_through),
    "log": (gumbax.log_gumbel_softmax, jax.nn.log_softmax),
}


@pytest.mark.parametrize("name", sweep(["hard"], ["soft", "log"]))
def test_learned_temperature_of_drawn_samples_in_a_scan(x64, name):
    """Noise that is made again behind second derivatives compiles, and is the same."""
    ours, plain = LEARNED[name]

    def loss(run, sample):
        def of(rows, temperature):
            y = run(lambda row: sample(row, temperature), rows)
            slopes = jnp.cos(jnp.arange(K, dtype=y.dtype))[None]
            return jnp.sum(jnp.sum(y * slopes, 1) ** 3)

        return jax.jacrev(jax.grad(of, (0, 1)), (0, 1))

    noise = gumbax.gumbel.sample(KEY, (K,), dtype=jnp.float64)
    point = jax.random.normal(KEY, (ROWS, K), jnp.float64), jnp.float64(0.7)
    drawn = loss(scanned, lambda row, t: ours(KEY, row, temperature=t))
    given = loss(looped, lambda row, t: plain((row + noise) / t))
    expected = jax.jit(given)(*point)
    assert all(np.abs(block).max() > 1e-2 for block in jax.tree.leaves(expected))
    chex.assert_trees_all_close(jax.jit(drawn)(*point), expected, rtol=1e-8, atol=1e-10)


def test_value_has_the_derivatives_of_the_function_alone():
    def f(x, scale, index):
        value = {"y": jnp.round(still(x))}
        return with_tangent_of(
            lambda x, scale, index: {"y": scale * x**2}, value, x, scale, index
        )["y"]

    point = jnp.array([0.6, 1.4]), jnp.float32(3), jnp.int32(7)
    np.testing.assert_array_equal(f(*point), [1.0, 1.0])
    found = jax.grad(lambda *a: f(*a).sum(), (0, 1))(*point)
    chex.assert_trees_all_close(found, (6 * point[0], jnp.sum(point[0] ** 2)))
    tangent = jax.jvp(lambda x: f(x, 3.0, point[2]), point[:1], (jnp.ones(2),))[1]
    np.testing.assert_allclose(tangent, 6 * point[0])


def test_function_is_not_called_without_a_derivative():
    def never(x):
        raise AssertionError

    run = lambda x: with_tangent_of(never, jnp.round(x), x)  # noqa: E731
    jax.jit(jax.vmap(run))(jnp.ones(3))
    gradient = jax.grad(lambda x, y: jnp.sum(run(x) * y), 1)
    gradient(jnp.ones(3), jnp.ones(3))


@pytest.mark.cpu_program
@pytest.mark.usefixtures("optimised")
def test_costs_nothing_when_it_runs():
    """The dead operands leave the compiled program."""
    x = jnp.ones((64, 64))

    def run(x):
        return with_tangent_of(lambda x, y: x @ y, jnp.sin(x), x, jnp.cos(x) @ x)

    text = jax.jit(run).lower(x).compile().as_text()
    assert "dot" not in text
    assert "sine" in text


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (1, 1)])
def test_batched_over_value_or_operands_alone(dims):
    value, x = jnp.ones((3, 3)), jnp.arange(9.0).reshape(3, 3)

    def f(value, x):
        return with_tangent_of(jnp.square, value, x)

    batched = jax.vmap(f, dims)
    primals = [
        a if d is not None else a[0] for a, d in zip((value, x), dims, strict=True)
    ]
    y, dot = jax.jvp(batched, primals, [jnp.ones_like(p) for p in primals])
    assert y.shape == dot.shape == (3, 3)
    expected = 2 * (x.T if dims[1] == 1 else jnp.broadcast_to(primals[1], (3, 3)))
    np.testing.assert_allclose(dot, expected)
