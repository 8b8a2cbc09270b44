"""How long operations take on the device at hand."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax.search.network.counting import program

PyTree = Any
SECONDS = 0.2  # of calls of the loop, and so many calls at least
ROUNDS = 10
TIMES = 16


class Latency:
    """Measures an operation: microseconds for a batch of examples, forward.

    The shortest of many calls of a loop over the operation, less that of an empty one:
    in a network that is compiled whole, operations are not dispatched one by one. What
    is measured twice differs, so keep the table (`gumbax.search.network.costs.write`).

    Args:
        batch_size: examples at once; 1, as on a telephone.

    Example:
        >>> x = jax.ShapeDtypeStruct((1, 8), jnp.float32)
        >>> Latency()("dense", nnx.Linear(8, 8, rngs=nnx.Rngs(0)), x) >= 0
        True

    References:
        Wu et al., 2019 (FBNet), Sec. 3.2. https://arxiv.org/abs/1812.03443
    """

    def __init__(self, batch_size: int = 1):
        self.batch_size = batch_size

    def __call__(self, primitive: str | None, module: nnx.Module, x: PyTree) -> float:
        """Microseconds, to the nanosecond.

        Args:
            primitive: not used.
            module: the operation; its variables may be abstract.
            x: shapes of its input, a batch of one.
        """
        del primitive
        run, *variables = program(module)

        def batched(leaf: Any) -> jax.Array:
            return jnp.full((self.batch_size, *leaf.shape[1:]), 0.5, leaf.dtype)

        arguments = (*jax.tree.map(_filled, variables), jax.tree.map(batched, x))
        # The same loop without the operation: what is left is the operation's.
        loops = [jax.jit(_repeated(f)) for f in (run, lambda params, rest, x: x)]
        for loop in loops:
            jax.block_until_ready(loop(*arguments))  # compiled
        least = [math.inf, math.inf]
        until, rounds = time.perf_counter() + SECONDS, 0
        while rounds < ROUNDS or time.perf_counter() < until:
            rounds += 1
            for i, loop in enumerate(loops):  # in turn: a busy moment hits both
                began = time.perf_counter()
                jax.block_until_ready(loop(*arguments))
                least[i] = min(least[i], time.perf_counter() - began)
        spent, nothing = least
        return round(max(spent - nothing, 0.0) / TIMES * 1e6, 3)


def _repeated(run: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The operation `TIMES` times, each after the one before."""

    def repeated(params: PyTree, rest: PyTree, x: PyTree) -> PyTree:
        def once(_: Any, x: PyTree) -> PyTree:
            y = run(params, rest, x)
            # Rounded away, but the compiler cannot know.
            mean = (
                1e-30 * jnp.stack([jnp.mean(leaf) for leaf in jax.tree.leaves(y)]).sum()
            )
            return jax.tree.map(lambda leaf: leaf + mean.astype(leaf.dtype), x)

        return jax.lax.fori_loop(0, TIMES, once, x)

    return repeated


def _filled(leaf: Any) -> jax.Array:
    """Values that every operation can take, of the shape of a variable."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    return jnp.full(leaf.shape, 1, leaf.dtype)
