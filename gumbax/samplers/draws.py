"""Index, one-hot and relaxed form of one draw."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from gumbax import _noise
from gumbax._common import checks, keys, meshes
from gumbax._common.records import pytree
from gumbax.samplers import relaxation, rules


@pytree
class Draw:
    """The forms of one draw of a category. A pytree.

    Attributes:
        index: int32, as of `gumbax.gumbel_max`.
        one_hot: straight-through, as of `gumbax.gumbel_softmax(..., hard=True)`.
        relaxed: as of `gumbax.gumbel_softmax`.
    """

    index: jax.Array
    one_hot: jax.Array
    relaxed: jax.Array


def draw(
    key: jax.Array | None,
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    gumbels: ArrayLike | None = None,
    sample_shape: Sequence[int] = (),
    dtype: Any = None,
) -> Draw:
    """Draws one category, and gives its index, its one-hot and its relaxed vector.

    What `gumbel_max`, `gumbel_softmax(..., hard=True)` and `gumbel_softmax` give for
    this key, to the bit, from one noise, which is kept for the backward pass. What is
    not used is not computed under `jax.jit`. The words behind the noise are the same on
    every backend, float values to rounding, index and one-hot but for near-ties.

    Args:
        key: scalar key from `jax.random.key`. Consumed. May be None with `gumbels`.
        logits: unnormalised log-probabilities, [..., K] for K categories on `axis`.
        temperature: as for `gumbel_softmax`.
        axis: the category axis of `logits`. Static.
        where: boolean mask of allowed categories, broadcasts with the sample.
        gumbels: noise to use in place of a draw, broadcasts with the sample.
        sample_shape: leading axes of independent draws from the same logits. Static.
        dtype: of the vectors, a real floating type; that of `logits` if None. Static.

    Returns:
        A `Draw` of index, one_hot and relaxed. A row without an allowed category has
        the index -1, which in a table is the last row, and vectors of zeros.

    Raises:
        TypeError: `logits` is not floating, `where` not boolean, or `key` not a key.
        ValueError: a Python `temperature` is not above 0, or an argument does not fit.

    Example:
        >>> y = draw(jax.random.key(0), jnp.zeros((2, 3)))
        >>> bool((y.one_hot.argmax(-1) == y.index).all())
        True
        >>> bool((y.relaxed.argmax(-1) == y.index).all())
        True

    References:
        Jang, Gu, Poole, 2017. https://arxiv.org/abs/1611.01144
        Maddison, Tarlow, Minka, 2014. https://arxiv.org/abs/1411.0030
    """
    name = "draw"
    options = (axis, where, gumbels, sample_shape)
    given = relaxation.operands(name, key, logits, temperature, *options)
    dtype = checks.result_dtype(name, dtype, given.logits.dtype)
    _, logits, rows, noise, mask = given[:5]
    static = {"axis": given.axis, "shape": given.shape}
    if noise is None:
        noise = _gumbels(given.key, logits, rows, mask, **static)
    # Apart from each other: to JAX 0.7.2 the samples of one jitted function, met with
    # other derivatives than before, have results of another structure.
    index = rules.index(None, logits, noise, mask, **static)
    hard, soft = (
        rules.sample(form, None, logits, rows, noise, mask, **static, dtype=dtype)
        for form in (rules.STRAIGHT_THROUGH, rules.RELAXED)
    )
    return Draw(index=index, one_hot=hard, relaxed=soft)


@functools.partial(jax.jit, static_argnames=("axis", "shape"))
def _gumbels(key, logits, temperature, where, *, axis, shape):
    """The noise of all three, made once, and laid out as the operands are."""

    def noise(key, logits, where):
        del where
        wide = _noise.computation_dtype(logits.dtype)
        return _noise.standard(key, shape, axis=axis, dtype=wide)

    out = meshes.broadcast_spec(shape, logits, where, temperature)
    made = meshes.automatic(noise, out, keys.consumed(key), logits, where)
    return jax.lax.optimization_barrier(made)
