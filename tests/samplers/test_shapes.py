"""The dtype of the result, and arguments with more axes than the logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from gumbax import concrete

KEY = jax.random.key(4)
LOGITS = jnp.array([0.3, -1.0, 2.0])
SOFT = [
    gumbax.gumbel_softmax,
    functools.partial(gumbax.gumbel_softmax, hard=True),
    gumbax.log_gumbel_softmax,
    gumbax.relaxed_bernoulli,
    gumbax.logit_relaxed_bernoulli,
    gumbax.hard_concrete,
]


@pytest.mark.parametrize("sampler", SOFT)
def test_dtype_of_the_result(sampler):
    narrow = LOGITS.astype(jnp.bfloat16)
    found = sampler(KEY, narrow, dtype=jnp.float32)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, sampler(KEY, narrow.astype(jnp.float32)))
    assert sampler(KEY, narrow).dtype == jnp.bfloat16
    np.testing.assert_array_equal(sampler(KEY, narrow), found.astype(jnp.bfloat16))
    gradient = jax.grad(lambda x: jnp.sum(sampler(KEY, x, dtype=jnp.float32) ** 2))
    assert gradient(narrow).dtype == jnp.bfloat16
    with pytest.raises(TypeError, match="`dtype` must be a real floating type"):
        sampler(KEY, LOGITS, dtype=jnp.int32)


@pytest.mark.parametrize("sampler", SOFT)
def test_temperatures_with_more_axes_than_the_logits(sampler):
    temperature = jnp.array([[0.3], [1.0]])

    def loss(logits, repeated):
        given = jnp.broadcast_to(logits, (2, 3)) if repeated else logits
        y = sampler(KEY, given, temperature=temperature)
        return jnp.sum(jnp.sin(y)), y

    derive = jax.value_and_grad(loss, has_aux=True)
    (_, found), gradient = derive(LOGITS, False)
    (_, expected), expected_gradient = derive(LOGITS, True)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1])
def test_masks_and_noise_with_more_axes_than_the_logits(axis):
    logits = jnp.moveaxis(LOGITS[None], 1, axis)  # of one row
    mask = jnp.moveaxis(
        jnp.array([[[True, True, False]], [[False, True, True]]]), 2, axis + 1
    )
    whole = jnp.broadcast_to(logits, mask.shape)
    place = axis - 2
    for sampler in (gumbax.gumbel_max, gumbax.gumbel_softmax, gumbax.categorical):
        np.testing.assert_array_equal(
            sampler(KEY, logits, where=mask, axis=axis),
            sampler(KEY, whole, where=mask, axis=place),
        )
    noise = gumbax.gumbel.sample(KEY, mask.shape, axis=place)
    np.testing.assert_array_equal(
        gumbax.gumbel_max(None, logits, gumbels=noise, axis=axis),
        gumbax.gumbel_max(KEY, whole, axis=place),
    )
    # One row of logits, many of the mask, and several draws of each.
    several = gumbax.gumbel_max(KEY, logits, where=mask, axis=axis, sample_shape=(2,))
    assert several.shape == (2, 1)


def test_what_would_change_the_number_of_categories_is_refused():
    one = jnp.zeros((4, 1))
    for options in (
        {"temperature": jnp.ones(4)},
        {"where": jnp.ones((4, 5), bool)},
        {"gumbels": jnp.ones((4, 5))},
    ):
        (name,) = options
        with pytest.raises(ValueError, match=f"`{name}` must broadcast to"):
            gumbax.gumbel_softmax(KEY, one, **options)


def test_densities_of_temperatures_with_more_axes():
    x, temperature = jax.nn.softmax(LOGITS), jnp.array([[0.5], [2.0]])
    found = concrete.log_prob(x, LOGITS, temperature=temperature)
    for value, t in zip(found, temperature[:, 0], strict=True):
        expected = concrete.log_prob(x, LOGITS, temperature=t)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
