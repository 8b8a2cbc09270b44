"""Counter-based random bits: Threefry-2x32 with 20 rounds, written out in jnp.

The two words of an element depend on the key and on its counter alone, so that they
are the same under jit, vmap, padding and any sharding. On CPU the unrolled rounds
fuse with what follows; the rolled loop that JAX lowers to does not.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gumbax._common import keys
from gumbax._common.sizes import is_known, value

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
# "gumb", "ax\0\0": keeps our stream apart from what jax.random draws with the same key.
_DOMAIN = (np.uint32(0x67756D62), np.uint32(0x61780000))

Words = tuple[jax.Array, jax.Array]


def threefry2x32(key: tuple[ArrayLike, ArrayLike], counter: Words) -> Words:
    """Applies the Threefry-2x32-20 bijection to a counter.

    Args:
        key: two uint32 words.
        counter: two uint32 arrays of one shape.

    Returns:
        Two uint32 arrays of random words.

    References:
        Salmon, Moraes, Dror, Shaw, 2011. Parallel random numbers: as easy as 1, 2, 3.
    """
    k0, k1 = (jnp.asarray(word, jnp.uint32) for word in key)
    schedule = (k0, k1, k0 ^ k1 ^ _PARITY)
    shape = counter[0].shape

    # lax and not jnp, whose operators cost several times as much to trace.
    @functools.cache
    def constant(value: int) -> jax.Array:
        return lax.full(shape, value, jnp.uint32)

    def plus(x: jax.Array, word: jax.Array) -> jax.Array:
        return lax.add(x, lax.broadcast_in_dim(word, shape, ()))

    x0, x1 = plus(counter[0], k0), plus(counter[1], k1)
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = lax.add(x0, x1)
            left = lax.shift_left(x1, constant(rotation))
            right = lax.shift_right_logical(x1, constant(32 - rotation))
            x1 = lax.bitwise_xor(lax.bitwise_or(left, right), x0)
        x0 = plus(x0, schedule[(group + 1) % 3])
        x1 = plus(x1, schedule[(group + 2) % 3] + np.uint32(group + 1))
    return x0, x1


def key_words(key: jax.Array, *, stream: int = 0) -> Words:
    """Folds the library's constant and a stream into a key of any implementation.

    The streams of one key are independent: stream 0 is Gumbel noise, and what is drawn
    under a condition, or from another law, has a stream of its own.
    """
    data = jax.random.key_data(key) if keys.is_typed(key) else key
    words = [data[i] for i in range(data.shape[0])]
    if len(words) % 2:
        words.append(jnp.zeros((), jnp.uint32))
    domain = (_DOMAIN[0], _DOMAIN[1] | np.uint32(stream))
    state: Words = (jnp.asarray(domain[0]), jnp.asarray(domain[1]))
    for pair in zip(words[::2], words[1::2], strict=True):
        state = threefry2x32(pair, state)
    return state


def random_words(
    key: jax.Array,
    shape: Sequence[int],
    *,
    axis: int,
    offset: tuple[ArrayLike, ArrayLike] = (0, 0),
    stream: int = 0,
) -> Words:
    """Returns two random words for each element of an array.

    Args:
        key: one typed or legacy key.
        shape: shape of the array.
        axis: the category axis, counted from the front.
        offset: counters (row, category) of the first element.
        stream: as in `key_words`.

    Returns:
        Two uint32 arrays of that shape. The counter of an element is (row, category),
        row being its flat index over all other axes in C order.

    Raises:
        ValueError: the counters do not fit 32 bits. Of symbolic sizes nothing is known.
    """
    sizes = list(shape)
    num_categories = sizes[axis]
    sizes[axis] = 1
    if math.prod(filter(is_known, sizes)) > 2**32 or (
        is_known(num_categories) and num_categories > 2**32
    ):
        raise ValueError(f"more than 2**32 rows or categories in shape {tuple(shape)}")
    row = jnp.broadcast_to(jnp.asarray(offset[0], jnp.uint32), tuple(shape))
    stride = 1
    for dimension in reversed(range(len(sizes))):
        if dimension != axis and sizes[dimension] != 1:
            index = jax.lax.broadcasted_iota(jnp.uint32, tuple(shape), dimension)
            row = row + index * value(stride, jnp.uint32)
            stride *= sizes[dimension]
    category = jax.lax.broadcasted_iota(jnp.uint32, tuple(shape), axis)
    category = category + jnp.asarray(offset[1], jnp.uint32)
    return threefry2x32(key_words(key, stream=stream), (row, category))
