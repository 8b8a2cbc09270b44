"""What the logits and their gradients say about a search, as numbers."""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gumbax.search.spaces.space import Space


def stable_hash(name: str) -> int:
    """The same in every process, where Python's is not."""
    return zlib.crc32(name.encode())


def probabilities(logits: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """softmax of the logits of every edge, choice -> [E, K]."""
    return {name: jax.nn.softmax(a) for name, a in logits.items()}


def entropy(logits: Mapping[str, jax.Array]) -> jax.Array:
    """Mean over all edges of the entropy of the choice, in nats."""
    return jnp.mean(_entropies(logits))


def _entropies(logits: Mapping[str, jax.Array]) -> jax.Array:
    found = []
    for a in logits.values():
        log_probs = jax.nn.log_softmax(a)
        # An operation that is ruled out, by -inf, adds nothing.
        terms = jnp.where(a == -jnp.inf, 0.0, jnp.exp(log_probs) * log_probs)
        found.append(-jnp.sum(terms, axis=-1))
    return jnp.concatenate(found)


def of_logits(logits: Mapping[str, jax.Array], space: Space) -> dict[str, jax.Array]:
    """Diagnostics of the choices as they stand.

    Args:
        logits: choice -> [E, K].
        space: their space.

    Returns:
        entropy: mean over the edges, in nats. effective_operations: mean of
        exp(entropy), from 1 to K. skip_fraction: probability of `skip_connect`, mean
        over the edges, where the space has it.

    Example:
        >>> from gumbax.search.spaces import small_images
        >>> found = of_logits({"cell": jnp.zeros((6, 7))}, small_images())
        >>> round(float(found["effective_operations"]), 4)
        7.0

    References:
        The collapse of DARTS to skip connections: Zela et al., 2020.
        https://arxiv.org/abs/1909.09656
    """
    entropies = _entropies(logits)
    found = {
        "entropy": jnp.mean(entropies),
        "effective_operations": jnp.mean(jnp.exp(entropies)),
    }
    skips = [
        probs[:, space.choices[name].primitives.index("skip_connect")]
        for name, probs in probabilities(logits).items()
        if "skip_connect" in space.choices[name].primitives
    ]
    if skips:
        found["skip_fraction"] = jnp.mean(jnp.concatenate(skips))
    return found


def of_gradients(gradients: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Signal-to-noise ratio of the gradient of each choice, over the steps of an epoch.

    Args:
        gradients: choice -> [steps, E, K].

    Returns:
        gradient_snr: |mean gradient| / standard deviation, both norms over the
        categories, mean over the edges; and gradient_snr/NAME for each choice. 0 where
        the logits rest.
    """
    found = {}
    for name, g in gradients.items():
        mean = jnp.linalg.norm(jnp.mean(g, axis=0), axis=-1)
        deviation = jnp.sqrt(jnp.sum(jnp.var(g, axis=0), axis=-1))
        # A gradient that never moves has no noise: 0 by convention, if it is 0.
        ratio = jnp.where(deviation > 0, mean / jnp.maximum(deviation, 1e-30), 0.0)
        found[f"gradient_snr/{name}"] = jnp.mean(ratio)
    found["gradient_snr"] = jnp.mean(jnp.stack(list(found.values())))
    return found
