"""Keys as `jax.debug_key_reuse` sees them: consumed once, by whom they were given to.

A backward pass makes noise again, and runs branches again, with what was drawn in the
forward pass. That is no second use of a key: residuals hold its words in its place.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

PyTree = Any

# The checker takes a key for consumed by every operation that it does not know.
_consume = Primitive("consume_key")
_consume.def_impl(lambda key: key)
_consume.def_abstract_eval(lambda key: key)
batching.defvectorized(_consume)
mlir.register_lowering(_consume, lambda ctx, key: [key])


def is_typed(leaf: Any) -> bool:
    """Whether this is an array of typed keys."""
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def consumed(key: Any) -> Any:
    """The words of a key, which may not be used again; None for None."""
    if key is None or not is_typed(key):
        return key
    return jax.random.key_data(_consume.bind(key))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hidden:
    """A typed key by its words, of which the checker sees nothing."""

    words: jax.Array
    kind: Any = dataclasses.field(metadata={"static": True})


def hidden(tree: PyTree, *, consume: bool = False) -> PyTree:
    """The same tree, with words in place of typed keys.

    Args:
        tree: any pytree.
        consume: its keys may not be used again.
    """

    def one(leaf: Any) -> Any:
        if not is_typed(leaf):
            return leaf
        words = consumed(leaf) if consume else jax.random.key_data(leaf)
        return Hidden(words, jax.random.key_impl(leaf))

    return jax.tree.map(one, tree)


def shown(tree: PyTree) -> PyTree:
    """Undoes `hidden`: new keys, to be used once each time."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Hidden):
            return leaf
        return jax.random.wrap_key_data(leaf.words, impl=leaf.kind)

    return jax.tree.map(one, tree, is_leaf=lambda v: isinstance(v, Hidden))


@functools.partial(jax.jit, static_argnums=1)
def folded(key: jax.Array, numbers: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """A key for each number, as by `jax.random.fold_in`; the key itself is consumed."""
    key = shown(hidden(key, consume=True))
    return tuple(jax.random.fold_in(key, number) for number in numbers)
