"""What samples of three categories and their densities are, to 60 digits."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath as mp

import gumbax
from gumbax import _noise, concrete, gumbel, logistic
from tests.precision.laws import TEMPERATURES, softplus

KEY = jax.random.key(5)
LEADS = (0.0, 2.0, 6.0, 14.0, 30.0)
COSTS = (1.0, -0.5, 0.375)
# Logits and temperature, and the cotangents, which are inputs too.
SAMPLED = ("a", "b", "c", "temperature", "of_a", "of_b", "of_c")
SAMPLES = [
    (lead * t, 0.0, -0.5 * t, t, *(cost + offset for cost in COSTS))
    for t in TEMPERATURES
    for lead in LEADS
    for offset in (0.0, 30.0)
]
# Of the winner alone: what its logarithm lacks is all of the gradient.
SAMPLES += [
    (lead * t, 0.0, -0.5 * t, t, 1.0, 0.0, 0.0) for t in TEMPERATURES for lead in LEADS
]
DENSITIES = [
    (*x, 0.3, -0.2, 1.0, t)
    for x in ((0.2, 0.3, 0.5), (1e-6, 0.1, 0.9), (1e-12, 1e-3, 0.999))
    for t in TEMPERATURES
]
BOUNDED = [
    (z * scale + 0.25, 0.25, scale)
    for z in (-60.0, -12.0, -1.0, 0.3, 2.0, 15.0, 60.0)
    for scale in (0.5, 3.0)
]


def cost_of_sample(sampler, *point, **options):
    logits, temperature, costs = point[:3], point[3], point[4:]
    y = sampler(
        None, jnp.stack(logits), temperature=temperature, gumbels=0.0, **options
    )
    # Added up from the end: each term is rounded once.
    return y[0] * costs[0] + (y[1] * costs[1] + y[2] * costs[2])


def hard_cost(*point):
    """With the value of the relaxed one: what counts are the derivatives."""
    point = (*point, *(cost + 30 for cost in COSTS))
    soft = cost_of_sample(gumbax.gumbel_softmax, *point)
    hard = cost_of_sample(gumbax.gumbel_softmax, *point, hard=True)
    return hard + jax.lax.stop_gradient(soft - hard)


def softmax(logits, temperature):
    powers = [mp.exp((x - max(logits)) / temperature) for x in logits]
    return [power / mp.fsum(powers) for power in powers]


def cost_of_softmax(*point):
    return mp.fdot(softmax(point[:3], point[3]), point[4:])


def cost_of_log_softmax(*point):
    logits, temperature, costs = point[:3], point[3], point[4:]
    total = mp.log(mp.fsum(mp.exp((x - logits[0]) / temperature) for x in logits))
    return mp.fsum(
        cost * ((x - logits[0]) / temperature - total)
        for x, cost in zip(logits, costs, strict=True)
    )


def density(function, *point):
    *numbers, temperature = point
    values, logits = jnp.stack(numbers[:3]), jnp.stack(numbers[3:])
    return function(values, logits, temperature=temperature)


def exp_log_prob(*point):
    *numbers, t = point
    scores = [l - t * y for y, l in zip(numbers[:3], numbers[3:], strict=True)]
    total = mp.log(mp.fsum(map(mp.exp, scores)))
    return mp.log(2) + 2 * mp.log(t) + mp.fsum(scores) - 3 * total


def log_prob(*point):
    logs = [mp.log(x) for x in point[:3]]
    return exp_log_prob(*logs, *point[3:]) - mp.fsum(logs)


def noise(dtype, shape=()):
    return gumbel.sample(KEY, shape, dtype=dtype)


def as_reference(x):
    return mp.mpf(float(x))


def sample_truncated(upper, loc, scale, gumbels):
    bound = (upper - loc) / scale
    return loc - scale * mp.log(mp.exp(-bound) + mp.exp(-gumbels))


def given_index(a, b, c, gumbels):
    """The sum of three scores whose highest is the second."""
    top = mp.log(mp.exp(a) + mp.exp(b) + mp.exp(c)) + gumbels[1]
    others = [
        -mp.log(mp.exp(-x - g) + mp.exp(-top))
        for x, g in ((a, gumbels[0]), (c, gumbels[2]))
    ]
    return top + 2 * others[0] - 3 * others[1]


def of_three(*logits):
    return softmax(logits, 1)


def entropy(*logits):
    return mp.fsum(-p * mp.log(p) for p in of_three(*logits))


def given_bit(logits, logistics, sign):
    return sign * softplus(softplus(sign * logits) + logistics)


THREE = [(lead, 0.0, -0.5) for lead in LEADS] + [(0.3, 1.1, -8.0), (-3.0, 0.7, 0.2)]


def entries(dtype):
    """As in `laws.LAWS`; the noise of a type is a constant of the reference."""
    g = as_reference(noise(dtype))
    row = _noise.standard(KEY, (3,), axis=0, dtype=jnp.dtype(dtype), stream=1)
    row = [as_reference(x) for x in row]
    weigh = jnp.array([2.0, 1.0, -3.0], dtype)

    def conditioned(*logits):
        index = jnp.array(1)
        scores = gumbel.sample_given_index(KEY, jnp.stack(logits), index)
        return jnp.sum(scores * weigh)

    logistics = as_reference(logistic.sample(KEY, dtype=dtype))
    conditional = as_reference(_noise.standard_logistic(
        KEY, (), dtype=jnp.dtype(dtype), stream=5))  # fmt: skip

    def drawn(*point):
        y = gumbax.draw(
            None, jnp.stack(point[:3]), temperature=point[3], gumbels=0.0
        ).relaxed
        return y[0] * COSTS[0] + (y[1] * COSTS[1] + y[2] * COSTS[2])

    soft = functools.partial(cost_of_sample, gumbax.gumbel_softmax)
    return {
        "gumbel_softmax": (
            gumbax.gumbel_softmax, soft, cost_of_softmax, SAMPLED, SAMPLES, 2),
        "gumbel_softmax, hard": (
            gumbax.gumbel_softmax, hard_cost,
            lambda *point: cost_of_softmax(*point, *(cost + 30 for cost in COSTS)),
            SAMPLED[:4], [point[:4] for point in SAMPLES[:40:2]], 2),
        "log_gumbel_softmax": (
            gumbax.log_gumbel_softmax,
            functools.partial(cost_of_sample, gumbax.log_gumbel_softmax),
            cost_of_log_softmax, SAMPLED, SAMPLES, 2),
        "concrete.log_prob": (
            concrete.log_prob, functools.partial(density, concrete.log_prob), log_prob,
            (*"xyz", *"abc", "temperature"), DENSITIES, 2),
        "concrete.exp_log_prob": (
            concrete.exp_log_prob, functools.partial(density, concrete.exp_log_prob),
            exp_log_prob, (*"xyz", *"abc", "temperature"),
            [(*map(math.log, point[:3]), *point[3:]) for point in DENSITIES], 2),
        "draw": (
            gumbax.draw, drawn, lambda *point: cost_of_softmax(*point, *COSTS),
            SAMPLED[:4], [point[:4] for point in SAMPLES[:40:2]], 2),
        **{
            f"categorical_log_prob of {i}": (
                gumbax.categorical_log_prob,
                lambda *logits, i=i: gumbax.categorical_log_prob(i, jnp.stack(logits)),
                lambda *logits, i=i: mp.log(of_three(*logits)[i]), ("a", "b", "c"),
                THREE, 2)
            for i in (0, 1)
        },
        "categorical_entropy": (
            gumbax.categorical_entropy,
            lambda *logits: gumbax.categorical_entropy(jnp.stack(logits)), entropy,
            ("a", "b", "c"), THREE, 2),
        "logistic.sample": (
            logistic.sample,
            lambda x: logistic.sample(KEY, dtype=x.dtype) + 0 * x,
            lambda x: logistics, ("x",), [(1.0,)], 0),
        "logistic.sample_given_bit": (
            logistic.sample_given_bit,
            lambda logits, bit: logistic.sample_given_bit(KEY, logits, bit > 0),
            lambda logits, bit: given_bit(logits, conditional, mp.sign(bit)),
            ("logits", "bit"),
            [(l, b) for l in (-30.0, -2.0, 0.3, 5.0, 40.0) for b in (1.0, -1.0)], 2),
        "gumbel.sample": (
            gumbel.sample,
            lambda loc, scale: gumbel.sample(
                KEY, loc=loc, scale=scale, dtype=loc.dtype),
            lambda loc, scale: loc + scale * g, ("loc", "scale"),
            [(0.3, 2.0), (-1e6, 1e-3), (0.0, 1e30)], 1),
        "gumbel.sample_truncated": (
            gumbel.sample_truncated,
            lambda upper, loc, scale: gumbel.sample_truncated(
                KEY, upper=upper, loc=loc, scale=scale, dtype=loc.dtype),
            lambda *point: sample_truncated(*point, g), ("upper", "loc", "scale"),
            BOUNDED, 2),
        "gumbel.sample_given_index": (
            gumbel.sample_given_index, conditioned,
            lambda *logits: given_index(*logits, row), ("a", "b", "c"),
            [(0.3, -0.2, 1.0), (8.0, 0.0, 1.0), (0.0, 9.0, 1.0), (50.0, 50.5, 49.0)],
            1),
    }  # fmt: skip
