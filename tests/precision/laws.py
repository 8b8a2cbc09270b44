"""What functions of single numbers are, to 60 digits, and where they are measured."""

import mpmath as mp

import gumbax
from gumbax import concrete, gumbel, schedules

mp.mp.dps = 100

# What underflows or overflows at scale 1 does so at every scale, derivatives too.
SPREAD = (-4.3, -2.8, -1, -1e-3, 1e-7, 0.3, 0.96, 1.35, 5, 20.5, 80)
ALL_OF_SPREAD = (-80, -10, *SPREAD, 86, 1e4)
SCALES = (1e-30, 1.0, 3e30)
TEMPERATURES = (0.01, 0.1, 1.0, 1000.0)


def softplus(x):
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def of_z(function):
    return lambda x, loc, scale: function((x - loc) / scale)


def vanishing(e):
    """exp(-e), and 0 where that is below any type: of a large number it is slow."""
    return mp.exp(-e) if e < 5000 else mp.mpf(0)


def log_survival(z):
    e = mp.exp(-z)
    return mp.log(-mp.expm1(-e)) if e < 5000 else mp.mpf(0)


def survival(z):
    e = mp.exp(-z)
    return -mp.expm1(-e) if e < 5000 else mp.mpf(1)


def kl_divergence(loc, scale, other_loc, other_scale):
    r, d = scale / other_scale, (other_loc - loc) / other_scale
    return mp.exp(d) * mp.gamma(1 + r) - 1 - d + mp.euler * (r - 1) - mp.log(r)


def binary_logit_log_prob(logit, logits, temperature):
    d = temperature * logit - logits
    return mp.log(temperature) - d - 2 * softplus(-d)


def binary_log_prob(x, logits, temperature):
    logit = mp.log(x) - mp.log1p(-x)
    density = binary_logit_log_prob(logit, logits, temperature)
    return density - mp.log(x) - mp.log1p(-x)


# The ends of a stretched gate, as static numbers of the type of the computation.
LOW, HIGH = mp.mpf(-0.1), mp.mpf(1.1)


def hard_log_prob(z, logits, temperature):
    if z == 0:
        return -softplus(logits - temperature * mp.log(-LOW / HIGH))
    if z == 1:
        return -softplus(temperature * mp.log((1 - LOW) / (HIGH - 1)) - logits)
    inside = (z - LOW) / (HIGH - LOW)
    return binary_log_prob(inside, logits, temperature) - mp.log(HIGH - LOW)


def stretched_cdf(s, logits, temperature):
    return sigmoid(temperature * (mp.log(s - LOW) - mp.log(HIGH - s)) - logits)


def cdf_of_binary(x, logits, temperature):
    return sigmoid(temperature * (mp.log(x) - mp.log1p(-x)) - logits)


def logarithm(function):
    """Of a distribution function whose complement is that of the other side."""
    return lambda *point: mp.log(function(*point))


def gate(relaxed):
    return min(max(relaxed * (HIGH - LOW) + LOW, mp.mpf(0)), mp.mpf(1))


def penalty(logits, temperature):
    return sigmoid(logits - temperature * mp.log(-LOW / HIGH))


def relaxed(logits, logistics, temperature):
    return sigmoid((logits + logistics) / temperature)


def sampler(function, **options):
    def sample(logits, logistics, temperature):
        noise = {"logistics": logistics, "temperature": temperature}
        return function(None, logits, **noise, **options)

    return sample


def at(schedule):
    return lambda step: schedule(step.astype(int))


def cosine(step):
    done = mp.mpf(step) / 10_000
    return mp.mpf(1e-3) + (10 - mp.mpf(1e-3)) * mp.cos(mp.pi / 2 * done) ** 2


STEPS = [(n,) for n in (0, 1, 100, 5000, 9900, 9990, 9999, 10_000)]
OF_LAW = ("x", "loc", "scale")
REAL = [
    (loc * scale + z * scale, loc * scale, scale)
    for scale in SCALES
    for loc in (0.0, 0.7)
    for z in (ALL_OF_SPREAD if scale == 1 else SPREAD)
]
MOMENTS = [(loc * s, s) for s in (1e-12, 0.3, 1.0, 1e12) for loc in (-0.5, 0.0, 2.0)]
PAIRS = [
    *((0.0, 1 + d, 0.0, 1.0) for d in (-0.7, -0.1, -1e-3, 1e-4, 0.01, 0.4, 2.0, 20.0)),
    *((0.0, s, 0.0, s) for s in (1e-20, 1e20)),
    *((d, 1.001, 0.0, 1.0) for d in (-3.0, -0.1, 1e-3, 5.0)),
    *((1e20, 1e20, 0.0, 1e20), (0.5e-20, 1e-20, 0.0, 2e-20)),
]
UNIT = (1e-30, 1e-3, 0.1, 0.3, 0.36787, 0.9, 0.9999, 1 - 1e-6)
POINTS = [
    (x, l, t) for x in (1e-15, 1e-3, 0.3, 0.5001, 0.97, 1 - 1e-6) for l in (-9.0, 0.4)
    for t in TEMPERATURES
]  # fmt: skip
LOGITS = [
    (x, l, t) for x in (-80.0, -3.0, 1e-3, 2.0, 30.0) for l in (-30.0, 0.4, 12.0)
    for t in TEMPERATURES
]  # fmt: skip
GATES = [(z, l, t) for z in (1e-6, 0.4, 0.99) for l in (-20.0, 0.3, 15.0)
         for t in (0.1, 2 / 3, 1.0)]  # fmt: skip
STRETCHED = [(z, l, t) for z in (-0.0999, -0.05, 1e-6, 0.4, 0.99, 1.05)
             for l in (-20.0, 0.3, 15.0) for t in (0.1, 2 / 3, 1.0)]  # fmt: skip
SCORES = [
    (l, noise, t) for l in (-12.0, -0.3, 1e-3, 0.5, 9.5) for noise in (-2.0, 0.25)
    for t in TEMPERATURES
]  # fmt: skip

# (function, call, reference, names of the arguments, points, highest derivative)
LAWS = {
    "gumbel.log_prob": (
        gumbel.log_prob, None,
        lambda x, l, s: -((x - l) / s + mp.exp(-(x - l) / s)) - mp.log(s),
        OF_LAW, REAL, 2),
    "gumbel.prob": (
        gumbel.prob, None,
        lambda x, l, s: vanishing((x - l) / s + mp.exp(-(x - l) / s)) / s,
        OF_LAW, REAL, 2),
    "gumbel.cdf": (
        gumbel.cdf, None, of_z(lambda z: vanishing(mp.exp(-z))), OF_LAW, REAL, 2),
    "gumbel.log_cdf": (
        gumbel.log_cdf, None, of_z(lambda z: -mp.exp(-z)), OF_LAW, REAL, 2),
    "gumbel.survival_function": (
        gumbel.survival_function, None, of_z(survival),
        OF_LAW, REAL, 2),
    "gumbel.log_survival_function": (
        gumbel.log_survival_function, None, of_z(log_survival), OF_LAW, REAL, 2),
    "gumbel.quantile": (
        gumbel.quantile, None, lambda q, l, s: l - s * mp.log(-mp.log(q)),
        ("q", "loc", "scale"), [(q, 0.3, s) for q in UNIT for s in SCALES], 2),
    "gumbel.kl_divergence": (
        gumbel.kl_divergence, None, kl_divergence,
        ("loc", "scale", "other_loc", "other_scale"), PAIRS, 2),
    "gumbel.mean": (
        gumbel.mean, None, lambda l, s: l + mp.euler * s, OF_LAW[1:], MOMENTS, 1),
    "gumbel.mode": (gumbel.mode, None, lambda l, s: l, OF_LAW[1:], MOMENTS, 1),
    "gumbel.median": (
        gumbel.median, None, lambda l, s: l - s * mp.log(mp.log(2)),
        OF_LAW[1:], MOMENTS, 1),
    "gumbel.variance": (
        gumbel.variance, None, lambda l, s: (mp.pi * s) ** 2 / 6,
        OF_LAW[1:], MOMENTS, 2),
    "gumbel.stddev": (
        gumbel.stddev, None, lambda l, s: mp.pi * s / mp.sqrt(6),
        OF_LAW[1:], MOMENTS, 1),
    "gumbel.entropy": (
        gumbel.entropy, None, lambda l, s: mp.log(s) + mp.euler + 1,
        OF_LAW[1:], MOMENTS, 2),
    "concrete.binary_log_prob": (
        concrete.binary_log_prob, None, binary_log_prob,
        ("x", "logits", "temperature"), POINTS, 2),
    "concrete.binary_logit_log_prob": (
        concrete.binary_logit_log_prob, None, binary_logit_log_prob,
        ("logit", "logits", "temperature"), LOGITS, 2),
    "concrete.hard_log_prob": (
        concrete.hard_log_prob, None, hard_log_prob,
        ("z", "logits", "temperature"), GATES, 2),
    **{
        f"concrete.hard_log_prob at {z}": (
            concrete.hard_log_prob,
            lambda l, t, z=z: concrete.hard_log_prob(z, l, temperature=t),
            lambda l, t, z=z: hard_log_prob(z, l, t), ("logits", "temperature"),
            [point[1:] for point in GATES], 2)
        for z in (0.0, 1.0)
    },
    **{
        f"concrete.{name}": (
            getattr(concrete, name), None, reference,
            (argument, "logits", "temperature"), points, 2)
        for argument, points, of, names in (
            ("x", POINTS, cdf_of_binary, ("binary_cdf", "binary_log_cdf")),
            ("s", STRETCHED, stretched_cdf, ("stretched_cdf", "stretched_log_cdf")),
            ("z", GATES, stretched_cdf, ("hard_cdf", "hard_log_cdf")),
        )
        for name, reference in zip(names, (of, logarithm(of)), strict=True)
    },
    "probs_to_logits": (
        gumbax.probs_to_logits, None, mp.log, ("probs",),
        [(p,) for p in (1e-15, 1e-6, 0.3, 0.9, 0.999999, 1.0)], 2),
    "hard_concrete_penalty": (
        gumbax.hard_concrete_penalty, None, penalty, ("logits", "temperature"),
        [(l, t) for l in (-30.0, -1.6, 0.0, 3.0, 13.0, 20.0) for t in (0.1, 2 / 3)], 2),
    "hard_concrete_gate": (
        gumbax.hard_concrete_gate, None, lambda l: gate(sigmoid(l)), ("logits",),
        [(l,) for l in (-30.0, -2.0, -1e-3, 0.7, 2.0, 9.0)], 2),
    "relaxed_bernoulli": (
        gumbax.relaxed_bernoulli, sampler(gumbax.relaxed_bernoulli), relaxed,
        ("logits", "logistics", "temperature"), SCORES, 2),
    "logit_relaxed_bernoulli": (
        gumbax.logit_relaxed_bernoulli, sampler(gumbax.logit_relaxed_bernoulli),
        lambda l, n, t: (l + n) / t,
        ("logits", "logistics", "temperature"), SCORES, 2),
    "hard_concrete": (
        gumbax.hard_concrete, sampler(gumbax.hard_concrete),
        lambda *point: gate(relaxed(*point)),
        ("logits", "logistics", "temperature"), SCORES, 2),
    "schedules.constant": (
        schedules.constant, lambda step: schedules.constant(0.5)(step) + 0 * step,
        lambda step: mp.mpf(0.5), ("step",), STEPS[:1], 0),
    "schedules.linear": (
        schedules.linear, at(schedules.linear(10.0, 0.1, 10_000)),
        lambda n: mp.mpf(10) + (mp.mpf(0.1) - 10) * n / 10_000, ("step",), STEPS, 0),
    "schedules.exponential": (
        schedules.exponential, at(schedules.exponential(2.0, 2**-10, floor=1e-4)),
        lambda n: max(mp.mpf(1e-4), 2 * mp.exp(-n * mp.mpf(2) ** -10)),
        ("step",), STEPS, 0),
    "schedules.cosine": (
        schedules.cosine, at(schedules.cosine(10.0, 1e-3, 10_000)), cosine,
        ("step",), STEPS, 0),
}  # fmt: skip
