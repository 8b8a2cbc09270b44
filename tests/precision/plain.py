"""The same functions as one writes them in plain JAX, and as SciPy has them."""

import jax
import jax.numpy as jnp
import scipy.stats

from tests.precision import choices


def _standardised(function):
    return lambda x, loc, scale: function((x - loc) / scale, scale)


def _softmax(key, logits, *, temperature, gumbels):
    del key
    return jax.nn.softmax((logits + gumbels) / temperature)


def _log_softmax(key, logits, *, temperature, gumbels):
    del key
    return jax.nn.log_softmax((logits + gumbels) / temperature)


def _relaxed(logits, logistics, temperature):
    return jax.nn.sigmoid((logits + logistics) / temperature)


JAX = {
    "gumbel.log_prob": _standardised(lambda z, s: -(z + jnp.exp(-z)) - jnp.log(s)),
    "gumbel.prob": _standardised(lambda z, s: jnp.exp(-(z + jnp.exp(-z))) / s),
    "gumbel.cdf": _standardised(lambda z, s: jnp.exp(-jnp.exp(-z))),
    "gumbel.log_cdf": _standardised(lambda z, s: -jnp.exp(-z)),
    "gumbel.survival_function": _standardised(lambda z, s: -jnp.expm1(-jnp.exp(-z))),
    "gumbel.log_survival_function": _standardised(
        lambda z, s: jnp.log(-jnp.expm1(-jnp.exp(-z)))
    ),
    "gumbel.quantile": lambda q, loc, scale: loc - scale * jnp.log(-jnp.log(q)),
    "gumbel_softmax": lambda *point: choices.cost_of_sample(_softmax, *point),
    "log_gumbel_softmax": lambda *point: choices.cost_of_sample(_log_softmax, *point),
    "relaxed_bernoulli": _relaxed,
    "hard_concrete": lambda *point: jnp.clip(_relaxed(*point) * 1.2 - 0.1, 0, 1),
}
LAW = scipy.stats.gumbel_r
SCIPY = {
    "gumbel.log_prob": LAW.logpdf,
    "gumbel.prob": LAW.pdf,
    "gumbel.cdf": LAW.cdf,
    "gumbel.log_cdf": LAW.logcdf,
    "gumbel.survival_function": LAW.sf,
    "gumbel.log_survival_function": LAW.logsf,
    "gumbel.quantile": LAW.ppf,
}
