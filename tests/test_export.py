"""Every public function exports with symbolic sizes, with its derivatives.

The exported program gives what the jitted one does, whatever the number of rows, and of
categories. The whole table runs with `--exhaustive`.
"""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax import categorical, gumbel, pooling
from tests.helpers import sweep
from tests.mesh_cases import CASES
from tests.test_meshes import smooth_operands

ALWAYS = (
    *("gumbel_max", "gumbel_softmax hard", "relaxed_bernoulli", "categorical"),
    *("sample_truncated", "concrete.log_prob", "single_path, subset"),
    *("strided convolution", "max_pool"),
)
KEY, X = jax.random.key(0), jnp.zeros(5)
# (rows, categories): fewer, as many, and more than the export has seen.
SIZES = ((1, 5), (8, 16), (9, 300))


def letters_of(name):
    """The axes with symbolic sizes. A kernel, and a law by blocks, fix the other."""
    return "r" if "categorical" in name or "convolution" in name else "rk"


def resized(dims, array, sizes):
    """The array with so many rows and categories, repeated or cut off."""
    for axis, letter in enumerate(dims):
        if letter in sizes:
            array = np.take(array, np.arange(sizes[letter]), axis, mode="wrap")
    return array


@pytest.mark.parametrize("name", sweep(ALWAYS, sorted(set(CASES) - set(ALWAYS))))
def test_exported(name):
    case = CASES[name]
    letters, smooth = letters_of(name), smooth_operands(case)

    def loss(*arrays):
        y = case.run(*arrays)
        return jnp.sum(jnp.sin(3 * jnp.where(jnp.isfinite(y), y, 0))), y

    def function(*arrays):
        if not smooth:
            return case.run(*arrays)
        return jax.value_and_grad(loss, smooth, has_aux=True)(*arrays)

    def own(sizes):
        given = dict(zip("rk", sizes, strict=True))
        sized = {letter: given[letter] for letter in letters}
        return [resized(dims, array, sized) for dims, array in case.operands.values()]

    scope = jax.export.SymbolicScope()
    symbolic = [
        jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(
                ", ".join(
                    letter if letter in letters else str(size)
                    for letter, size in zip(dims, array.shape, strict=True)
                ),
                scope=scope,
            ),
            jnp.asarray(array).dtype,
        )
        for dims, array in case.operands.values()
    ]
    exported = jax.export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"])(
        *symbolic
    )
    exported = jax.export.deserialize(exported.serialize())
    for sizes in SIZES:
        arrays = own(sizes)
        found, expected = jax.jit(exported.call)(*arrays), jax.jit(function)(*arrays)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            # Sums over the batch are in another order.
            scale = np.max(np.abs(b), initial=0.1, where=np.isfinite(b))
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * scale)


def exported(function, shape):
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float32)
    return jax.export.export(jax.jit(function))(symbolic)


def test_the_shape_of_draws_may_be_symbolic():
    def draws(x):
        shape = (x.shape[0], 2 * x.shape[1])
        return gumbel.sample(KEY, shape), categorical(KEY, X, sample_shape=x.shape)

    x = jnp.zeros((3, 4))
    for found, expected in zip(exported(draws, "a, b").call(x), draws(x), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("function", "shape", "match"),
    [
        (
            lambda x: categorical(KEY, x),
            "3, k",
            "`categorical`: `logits` must have a fixed number of categories, got the "
            "symbol k",
        ),
        (
            lambda x: pooling.max_pool(x, (2, 2)),
            "b, h, w, 3",
            "`max_pool`: `x` must have images of a fixed size, got shape",
        ),
    ],
)
def test_what_has_to_be_a_number_is_said(function, shape, match):
    with pytest.raises(ValueError, match=match):
        exported(function, shape)
