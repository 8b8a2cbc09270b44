"""Gradients of rows of many categories, against float64 without a difference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import gumbax

SAMPLERS = {
    "soft": gumbax.gumbel_softmax,
    "hard": functools.partial(gumbax.gumbel_softmax, hard=True),
}
ROWS = 8


def make(num_categories, temperature, lead, offset, dtype):
    """Logits, noise and cotangents of rows whose winner is that far ahead, scaled."""
    rng = np.random.default_rng(num_categories)
    shape = (ROWS, num_categories)
    logits, gumbels, cotangents = rng.normal(size=shape), *rng.normal(size=(2, *shape))
    rows, top = np.arange(ROWS), (logits + gumbels).argmax(-1)
    second = np.sort(logits + gumbels, -1)[:, -2]
    logits[rows, top] = second - gumbels[rows, top] + lead * temperature
    return (
        jnp.asarray(logits, dtype),
        gumbels.astype(np.float32),
        jnp.asarray(cotangents + offset, dtype),
    )


def gradient(logits, gumbels, cotangents, t):
    """Of the logits, and how far it goes when every input moves by half a unit of 1."""
    logits, gumbels, c = (
        np.asarray(a, np.float64) for a in (logits, gumbels, cotangents)
    )
    scores = logits + gumbels
    rows, top = np.arange(len(scores)), scores.argmax(-1)
    x = (scores - scores[rows, top][:, None]) / t
    y = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    d = c - c[rows, top][:, None]
    inner = (y * d).sum(-1, keepdims=True)
    pull = d - inner
    # A move of the temperature moves every exponent by as much of itself.
    size = (np.abs(logits) + np.abs(gumbels)) / t + np.abs(x)
    by_scores = np.abs(pull) * (size + (y * size).sum(-1, keepdims=True))
    by_scores += (y * np.abs(pull) * size).sum(-1, keepdims=True)
    weighted = y * np.abs(c)
    others = weighted.sum(-1, keepdims=True) - weighted
    others[rows, top] = np.where(
        np.arange(y.shape[1]) == top[:, None], 0, weighted
    ).sum(-1)
    rest = np.where(x == 0, (y - np.where(x == 0, y, 0)).sum(-1, keepdims=True), 1 - y)
    moved = y * (by_scores + rest * np.abs(c) + others) + np.abs(y * pull)
    return y * pull / t, moved / t / 2


def worst_row(sampler, num_categories, temperature, lead, offset, dtype):
    """Units of float32; of a narrow type, the part of the row's largest entry."""
    logits, gumbels, c = make(num_categories, temperature, lead, offset, dtype)
    sample = functools.partial(
        SAMPLERS[sampler], None, gumbels=gumbels, temperature=temperature
    )
    pull_back = jax.jit(lambda logits, c: jax.vjp(sample, logits)[1](c)[0])
    got = np.asarray(pull_back(logits, c).astype(jnp.float32), np.float64)
    true, moved = gradient(logits, gumbels, c, temperature)
    if dtype == jnp.float32:
        eps = float(np.finfo(np.float32).eps)
        # A weight that is below the normal numbers, as the sample has it, may be 0.
        below = float(np.finfo(np.float32).tiny) / min(temperature, 1) * 64
        return float(
            (np.abs(got - true) / (eps * (np.abs(true) + moved) + below)).max()
        )
    largest = np.abs(true).max(-1)
    # Rows whose numbers the type has: float16 has none below 6e-5.
    counted = largest > 64 * float(jnp.finfo(dtype).tiny)
    errors = np.abs(got - true).max(-1)[counted] / largest[counted]
    return float(errors.max(initial=0))
