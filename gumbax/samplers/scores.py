"""Scores: logits + noise, right at the infinities."""

import jax
import jax.numpy as jnp

from gumbax import _noise


def perturb(
    axis: int,
    shape: tuple[int, ...],
    key: jax.Array | None,
    logits: jax.Array,
    gumbels: jax.Array | None,
    where: jax.Array | None,
) -> jax.Array:
    """Logits plus noise in the computation dtype, -inf where masked.

    The operands broadcast to `shape`.
    """
    wide = _noise.computation_dtype(logits.dtype)
    theta = _noise.expand(logits.astype(wide), shape)
    if where is not None:
        # Before the noise. A selection by an index that stands behind the hash in one
        # loop never compiles on CPU with JAX 0.8.0 to 0.10.2.
        theta = jnp.where(where, theta, -jnp.inf)
    if gumbels is None:
        assert key is not None
        gumbels = _noise.standard(key, shape, axis=axis, dtype=wide)
        scores = theta + gumbels
    else:
        scores = theta + gumbels
        if where is not None:
            # Of noise that is given, what is NaN or inf under the mask is ignored.
            undefined = jnp.where(where, jnp.asarray(jnp.nan, wide), -jnp.inf)
            scores = jnp.where(jnp.isnan(scores), undefined, scores)
    return computed_once(jnp.broadcast_to(scores, shape))


def computed_once(scores: jax.Array) -> jax.Array:
    """The same scores: two fusions of the same sum may round it differently.

    Not on NVIDIA GPUs, where a reduction takes the hash and the noise into its own
    loop, the sum is rounded as it is written, and scores may need no memory at all.
    """
    return jax.lax.platform_dependent(
        scores, cuda=lambda x: x, default=jax.lax.optimization_barrier
    )
