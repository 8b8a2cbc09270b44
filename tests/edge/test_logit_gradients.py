import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from tests import helpers
from tests.helpers import sweep

K = 4
TEMPERATURE = 0.7
KEY = jax.random.key(0)


def layer(params, x):
    return jnp.tanh(x @ params)


BRANCHES = (layer, lambda p, x: p * jnp.sin(x), lambda p, x: x * x, layer)


@pytest.fixture
def edge(x64):
    first, second = jax.random.normal(jax.random.key(1), (2, 3, 3), jnp.float64)
    x = jax.random.normal(jax.random.key(2), (5, 3), jnp.float64)
    logits = jnp.array([0.3, -0.4, 1.0, 0.2])
    return (first, jnp.float64(2.0), None, second), x, logits


@dataclasses.dataclass(frozen=True)
class Drawn(gumbax.logit_gradients.LogitGradient):
    """The one other branch that a test names, credited `scale` times."""

    other: jax.Array
    scale: jax.Array

    def credits(self, path):
        credits = jnp.where(path.is_chosen(), path.chosen, 0)
        return credits.at[self.other].set(self.scale * path.credit_of(self.other))


jax.tree_util.register_dataclass(Drawn, data_fields=["other", "scale"], meta_fields=[])

# Each form: the record, and what stands for the output of a branch i that was not
# chosen (k was) in the dense stop_gradient form.
FORMS = {
    "exact": (gumbax.exact, lambda i, k, y: y),
    "sampled": (gumbax.sampled, lambda i, k, y: 0 * y),
    "gdas": (gumbax.gdas, lambda i, k, y: 0 * y + 1),
    "a user's": (
        Drawn(other=jnp.int32(1), scale=jnp.float32(3)),
        lambda i, k, y: 3 * y if i == 1 else 0 * y,
    ),
}
forms = pytest.mark.parametrize(
    ("record", "stand_in"),
    sweep(
        [FORMS["exact"], FORMS["sampled"]],
        [FORMS["gdas"], FORMS["a user's"]],
    ),
    ids=FORMS.keys(),
)


def loss_of(y):
    return jnp.sum(y**3)


def ours(record, logits, params, x, key=None):
    weights = gumbax.gumbel_softmax(
        None, logits, temperature=TEMPERATURE, hard=True, gumbels=0.0
    )
    y = gumbax.single_path(weights, BRANCHES, params, x, logit_gradient=record, key=key)
    return loss_of(y)


def dense(slopes, shifts, k, logits, params, x):
    """The dense form; slope * y + shift stands for the output y of a branch."""
    q = jax.nn.softmax(logits / TEMPERATURE)
    h = q + jax.lax.stop_gradient(jax.nn.one_hot(k, K, dtype=q.dtype) - q)
    y = 0.0
    for i in range(K):
        output = BRANCHES[i](params[i], x)
        y += h[i] * (slopes[i] * output + shifts[i])
    return loss_of(y)


def in_both_orders(loss, *point):
    """First derivatives, and second ones by the logits and by x in both orders."""
    gradient = jax.grad(loss, (0, 1, 2))
    seconds = [d(gradient, (0, 2))(*point) for d in (jax.jacrev, jax.jacfwd)]
    return gradient(*point), seconds


@jax.jit
def our_derivatives(record, *point):
    return in_both_orders(functools.partial(ours, record), *point)


@jax.jit
def dense_derivatives(slopes, shifts, k, *point):
    return in_both_orders(functools.partial(dense, slopes, shifts, k), *point)


@forms
@pytest.mark.parametrize("chosen", [0, 2])
def test_first_and_second_derivatives_are_those_of_the_dense_form(
    edge, record, stand_in, chosen
):
    params, x, logits = edge
    point = (logits + 2 * jnp.eye(K)[chosen], params, x)
    found, found_seconds = our_derivatives(record, *point)
    at_0, at_1 = (
        np.array([y if i == chosen else stand_in(i, chosen, y) for i in range(K)])
        for y in (0.0, 1.0)
    )
    expected, expected_seconds = dense_derivatives(at_1 - at_0, at_0, chosen, *point)
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-11)
    assert np.abs(found[0]).max() > 1e-2
    chex.assert_trees_all_close(found_seconds, expected_seconds, rtol=1e-8, atol=1e-10)


@jax.jit
def credits_of(record, params, x, g, chosen, key=None):
    def output(one_hot):
        return jnp.vdot(
            g,
            gumbax.single_path(
                one_hot, BRANCHES, params, x, logit_gradient=record, key=key
            ),
        )

    return jax.grad(output)(jnp.eye(K, dtype=x.dtype)[chosen])


def closed_form(params, x, g):
    return jnp.array(
        [jnp.vdot(g, b(p, x)) for b, p in zip(BRANCHES, params, strict=True)]
    )


def test_no_form_has_the_structure_of_another():
    """Or a jit takes one for another, now and then: JAX 0.10.2 to 0.12 find those of
    two dataclasses equal."""
    forms = [gumbax.exact, gumbax.sampled, gumbax.gdas, *map(gumbax.subset, (1, 2))]
    structures = [jax.tree.structure(form) for form in forms]
    for i, structure in enumerate(structures):
        assert [other == structure for other in structures] == [
            i == j for j in range(len(forms))
        ]
    assert jax.tree.structure(gumbax.subset(2)) == structures[-1]


@pytest.mark.parametrize("chosen", range(K))
def test_closed_forms(edge, chosen):
    params, x, _ = edge
    g = jnp.cos(jnp.arange(15.0).reshape(5, 3))
    s = closed_form(params, x, g)
    is_chosen = np.arange(K) == chosen
    for record, expected in (
        (gumbax.exact, s),
        (gumbax.sampled, np.where(is_chosen, s, 0)),
        (gumbax.gdas, np.where(is_chosen, s, g.sum())),
    ):
        found = credits_of(record, params, x, g, chosen)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("num_others", [1, 2, 3])
def test_subset_draws_without_replacement_and_is_unbiased(edge, num_others):
    """Every subset, and no other, comes; all equally often; their mean is exact."""
    params, x, _ = edge
    g = jnp.ones((5, 3))
    s = np.asarray(closed_form(params, x, g))
    record, chosen, n = gumbax.subset(num_others), 1, 4000
    draw = functools.partial(credits_of, record, params, x, g, chosen)
    keys = jax.random.split(KEY, n)
    found = np.asarray(jax.jit(lambda keys: jax.lax.map(draw, keys))(keys))
    others = [i for i in range(K) if i != chosen]
    subsets = list(itertools.combinations(others, num_others))
    scaled = []
    for subset in subsets:
        expected = np.zeros(K)
        expected[list(subset)] = s[list(subset)] * (K - 1) / num_others
        expected[chosen] = s[chosen]
        scaled.append(expected)
    distance = np.abs(found[:, None] - np.stack(scaled)).max(axis=-1)
    assert distance.min(axis=1).max() < 1e-9 * np.abs(s).max()
    counts = np.bincount(distance.argmin(axis=1), minlength=len(subsets))
    if len(subsets) > 1:
        helpers.assert_law(counts, np.full(len(subsets), 1 / len(subsets)))
    np.testing.assert_allclose(np.mean(scaled, axis=0), s, rtol=1e-12)
    variance = np.where(np.arange(K) == chosen, 0, s**2 * ((K - 1) / num_others - 1))
    np.testing.assert_allclose(np.var(scaled, axis=0), variance, rtol=1e-9, atol=1e-12)


@pytest.mark.exhaustive
def test_second_derivatives_of_a_subset_are_those_of_its_own_draw(edge):
    params, x, logits = edge
    our = functools.partial(ours, gumbax.subset(1), params=params, key=KEY)
    gradient = jax.jit(jax.grad(lambda logits, x: our(logits, x=x)))
    first = gradient(logits, x)
    second = jax.jit(jax.jacrev(gradient, 1))(logits, x)

    def finite(direction, step=1e-6):
        ahead, behind = (
            gradient(logits, x + sign * step * direction) for sign in (1, -1)
        )
        return (ahead - behind) / (2 * step)

    direction = jnp.cos(jnp.arange(15.0).reshape(5, 3))
    assert np.abs(first).max() > 1e-3
    np.testing.assert_allclose(
        jnp.tensordot(second, direction, 2), finite(direction), rtol=1e-6, atol=1e-8
    )


def counted(branch, i, counts):
    def counting(params, x):
        jax.debug.callback(lambda: counts.__setitem__(i, counts[i] + 1))
        return branch(params, x)

    return counting


@pytest.mark.parametrize(
    ("record", "runs"),
    [
        # Forward; again in the backward pass, to be differentiated; other credits.
        (gumbax.sampled, 2),
        (gumbax.gdas, 2),
        (gumbax.subset(1), 3),
        (gumbax.subset(2), 4),
        (gumbax.exact, 2 + K),
    ],
)
def test_number_of_forward_passes(edge, record, runs):
    params, x, _ = edge
    counts = [0] * K
    branches = [counted(b, i, counts) for i, b in enumerate(BRANCHES)]

    @jax.jit
    def step(one_hot, x):
        def loss(one_hot, x):
            y = gumbax.single_path(
                one_hot, branches, params, x, logit_gradient=record, key=KEY
            )
            return jnp.sum(y**2)

        return jax.grad(loss, (0, 1))(one_hot, x)

    jax.block_until_ready(step(jnp.eye(K)[2], x))
    jax.effects_barrier()
    assert sum(counts) == runs


def test_score_function_sampler_with_sampled_is_dsnas(edge):
    """A further published method is a sampler and a record, no change to the rule."""
    params, x, logits = edge

    @jax.custom_vjp
    def score_function(logits, one_hot):
        return one_hot

    def fwd(logits, one_hot):
        return one_hot, (logits, one_hot)

    def bwd(residuals, credits):
        logits, one_hot = residuals
        p = jax.nn.softmax(logits)
        return jnp.sum(credits * one_hot) * (one_hot - p), None

    score_function.defvjp(fwd, bwd)

    def loss(logits, one_hot):
        y = gumbax.single_path(
            score_function(logits, one_hot),
            BRANCHES,
            params,
            x,
            logit_gradient=gumbax.sampled,
        )
        return jnp.sum(y)  # linear in y: the expected estimate is the gradient

    def expected_loss(logits):
        values = jnp.stack(
            [jnp.sum(b(p, x)) for b, p in zip(BRANCHES, params, strict=True)]
        )
        return jax.nn.softmax(logits) @ values

    estimates = jnp.stack([jax.grad(loss)(logits, choice) for choice in jnp.eye(K)])
    mean = jax.nn.softmax(logits) @ estimates
    np.testing.assert_allclose(mean, jax.grad(expected_loss)(logits), rtol=1e-9)


@pytest.mark.parametrize(
    "record", sweep([gumbax.subset(1)], [gumbax.sampled, gumbax.gdas])
)
def test_works_under_jit_scan_remat_and_map(edge, record):
    params, x, logits = edge

    def gradient(logits, key):
        return jax.grad(lambda a: ours(record, a, params, x, key))(logits)

    keys = jax.random.split(KEY, 3)
    expected = [gradient(logits, key) for key in keys]
    scanned = jax.lax.scan(lambda c, key: (c, gradient(logits, key)), 0, keys)[1]
    np.testing.assert_allclose(scanned, expected, rtol=1e-12)
    remat = jax.grad(jax.checkpoint(lambda a: ours(record, a, params, x, keys[0])))
    np.testing.assert_allclose(jax.jit(remat)(logits), expected[0], rtol=1e-12)
    mapped = jax.jit(jax.vmap(gradient, (None, 0)))(logits, keys)
    np.testing.assert_allclose(mapped, expected, rtol=1e-12)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logit_gradient": gumbax.subset}, "`logit_gradient` must be a LogitGradient"),
        ({"logit_gradient": "exact"}, "got 'exact'. Use `gumbax.exact`"),
        ({"logit_gradient": gumbax.subset(1)}, "`key` must be one PRNG key, got None"),
        (
            {"logit_gradient": gumbax.subset(4), "key": KEY},
            r"at most 3 of 3 other branches, got subset\(4\). Use `exact`",
        ),
    ],
)
def test_bad_arguments(edge, options, message):
    params, x, _ = edge
    run = functools.partial(gumbax.single_path, branches=BRANCHES, params=params, x=x)
    with pytest.raises((TypeError, ValueError), match=message):
        jax.grad(lambda w: jnp.sum(run(w, **options)))(jnp.eye(K)[0])


def test_too_large_a_subset_is_refused_before_any_gradient(edge):
    params, x, _ = edge
    message = r"at most 3 of 3 other branches, got subset\(4\)"
    with pytest.raises(ValueError, match=message):
        gumbax.single_path(
            jnp.eye(K)[0],
            BRANCHES,
            params,
            x,
            logit_gradient=gumbax.subset(4),
            key=KEY,
        )


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None])
def test_subset_takes_a_positive_integer(value):
    with pytest.raises((TypeError, ValueError), match="`subset`: `num_others` must be"):
        gumbax.subset(value)
