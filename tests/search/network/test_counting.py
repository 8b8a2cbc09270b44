"""Weights and multiply-adds against published counts and counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gumbax
from gumbax.search.network.counting import multiply_adds, weights


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


class Plain(nnx.Module):
    """A module without weights, of any function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


class Kernel(nnx.Module):
    """A function of one weight and the input."""

    def __init__(self, function, *sizes):
        self.function = function
        self.kernel = nnx.Param(jnp.ones(sizes))

    def __call__(self, x):
        return self.function(self.kernel[...], x)


def count(make, *sizes):
    return multiply_adds("mine", nnx.eval_shape(make), shape(*sizes))


def test_dense_layers_and_their_biases():
    assert count(lambda: nnx.Linear(3, 4, rngs=nnx.Rngs(0)), 1, 3) == 3 * 4 + 4
    without = nnx.eval_shape(lambda: nnx.Linear(3, 4, use_bias=False, rngs=nnx.Rngs(0)))
    assert multiply_adds("mine", without, shape(1, 3)) == 3 * 4
    assert multiply_adds("mine", without, shape(1, 7, 5, 3)) == 7 * 5 * 3 * 4
    assert weights("mine", without, None) == 3 * 4


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(
    ("options", "positions", "of_one"),
    [
        ({}, 9 * 7, 5 * 3 * 4),
        ({"strides": (2, 2)}, 5 * 4, 5 * 3 * 4),
        ({"padding": "VALID"}, 5 * 5, 5 * 3 * 4),
        ({"kernel_dilation": (2, 2)}, 9 * 7, 5 * 3 * 4),
        ({"feature_group_count": 4}, 9 * 7, 5 * 3),
    ],
)
def test_convolutions(options, positions, of_one, use_bias):
    """Kernel 5x3, 4 channels to 8: by position, kernel and output channel."""

    def make():
        return nnx.Conv(4, 8, (5, 3), use_bias=use_bias, rngs=nnx.Rngs(0), **options)

    assert count(make, 1, 9, 7, 4) == positions * (of_one + use_bias) * 8


def test_sequences_and_transposed_convolutions():
    assert count(lambda: nnx.Conv(2, 6, (3,), rngs=nnx.Rngs(0)), 1, 10, 2) == (
        10 * (3 * 2 + 1) * 6
    )

    def transposed():
        return nnx.ConvTranspose(
            2, 6, (3, 3), strides=(2, 2), use_bias=False, rngs=nnx.Rngs(0)
        )

    # Each input meets the whole kernel, whatever lies between inputs.
    assert count(transposed, 1, 5, 4, 2) == 5 * 4 * 3 * 3 * 2 * 6


def test_convolutions_of_gumbax_count_as_stock_ones():
    """On CPU a depthwise one is a sum of shifted products."""
    layout = ("NHWC", "HWIO", "NHWC")

    def convolved(function):
        return lambda kernel, x: function(
            x, kernel, (1, 1), "SAME", None, None, layout, feature_group_count=4
        )

    found = [
        count(lambda f=f: Kernel(convolved(f), 3, 3, 1, 4), 1, 8, 8, 4)
        for f in (gumbax.convolution.conv_general_dilated, jax.lax.conv_general_dilated)
    ]
    assert found == [8 * 8 * 9 * 4] * 2


def test_normalisation_pooling_and_sums_count_nothing():
    def make():
        rngs = nnx.Rngs(0)
        return nnx.Sequential(
            nnx.BatchNorm(4, rngs=rngs),
            nnx.LayerNorm(4, rngs=rngs),
            nnx.GroupNorm(4, num_groups=2, rngs=rngs),
            Plain(lambda x: nnx.avg_pool(nnx.relu(x), (3, 3), padding="SAME") + x),
        )

    assert count(make, 1, 8, 8, 4) == 0
    # A bias is what is added to a product, and to nothing else.
    assert count(lambda: Kernel(lambda b, x: jnp.tanh(x) + b[None], 4), 1, 4) == 0


def test_products_of_activations_loops_branches_and_checkpoints():
    def attention(x):
        return jax.nn.softmax(jnp.einsum("nic,njc->nij", x, x)) @ x

    assert count(lambda: Plain(attention), 1, 6, 5) == 2 * 6 * 6 * 5

    def looped(kernel, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ kernel), None), x, length=7)[0]

    assert count(lambda: Kernel(looped, 5, 5), 1, 5) == 7 * 25

    def branched(kernel, x):
        return jax.lax.cond(
            x.sum() > 0, lambda x: x @ kernel @ kernel, lambda x: x @ kernel, x
        )

    assert count(lambda: Kernel(branched, 5, 5), 1, 5) == 2 * 25

    def again(kernel, x):
        return jax.checkpoint(jax.jit(lambda x: x @ kernel))(x)

    assert count(lambda: Kernel(again, 5, 5), 1, 5) == 25


def test_while_without_products_counts_nothing():
    def halved(x):
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x)

    assert count(lambda: Plain(halved), 1, 5) == 0


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (
            lambda x: jax.lax.while_loop(
                lambda x: x.sum() > 1, lambda x: x @ jnp.ones((5, 5)), x
            ),
            "while",
        ),
        (lambda x: jnp.fft.fft(x).real, "fft"),
        (lambda x: jax.pure_callback(lambda x: x, shape(1, 5), x), "pure_callback"),
    ],
    ids=["while", "fft", "callback"],
)
def test_what_cannot_be_counted_is_refused(function, name):
    module = Plain(function)
    with pytest.raises(ValueError, match=f"got `{name}` in 'mine'. Give its count: a"):
        multiply_adds("mine", module, shape(1, 5))
    with pytest.raises(ValueError, match="in the part that is not chosen"):
        multiply_adds(None, module, shape(1, 5))
