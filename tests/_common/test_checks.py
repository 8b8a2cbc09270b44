"""Arguments of a wrong kind, in every function that takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gumbax
from gumbax import concrete, gumbel

X = jnp.full((2, 3), 0.3)
KEY = jax.random.PRNGKey(3)
OF_AXIS = {
    "gumbel_max": lambda axis: gumbax.gumbel_max(KEY, X, axis=axis),
    "gumbel_softmax": lambda axis: gumbax.gumbel_softmax(KEY, X, axis=axis),
    "log_gumbel_softmax": lambda axis: gumbax.log_gumbel_softmax(KEY, X, axis=axis),
    "categorical": lambda axis: gumbax.categorical(KEY, X, axis=axis),
    "gumbel.sample": lambda axis: gumbel.sample(KEY, (2, 3), axis=axis),
    "gumbel.sample_truncated": lambda axis: gumbel.sample_truncated(
        KEY, (2, 3), upper=0.0, axis=axis
    ),
    "gumbel.sample_given_index": lambda axis: gumbel.sample_given_index(
        KEY, X, jnp.zeros(3, int), axis=axis
    ),
    "concrete.log_prob": lambda axis: concrete.log_prob(X, X, axis=axis),
    "concrete.exp_log_prob": lambda axis: concrete.exp_log_prob(X, X, axis=axis),
}


@pytest.mark.parametrize("name", OF_AXIS)
@pytest.mark.parametrize("axis", [None, 1.0, "0", (0,), True], ids=repr)
def test_axis_of_a_wrong_kind(name, axis):
    with pytest.raises(TypeError, match=f"`{name}`: `axis` must be an integer, got"):
        OF_AXIS[name](axis)


@pytest.mark.parametrize("name", OF_AXIS)
def test_axis_of_numpy(name):
    np.testing.assert_array_equal(OF_AXIS[name](np.int64(0)), OF_AXIS[name](0))


def test_traced_axis():
    with pytest.raises(TypeError, match="`gumbel_max`: `axis` must be an integer, got"):
        jax.jit(OF_AXIS["gumbel_max"])(1)


def test_legacy_key_of_a_checkpoint():
    saved = np.asarray(KEY)
    found = gumbax.gumbel_softmax(saved, X)
    np.testing.assert_array_equal(found, gumbax.gumbel_softmax(KEY, X))
    choices = gumbax.draw_choices(saved, {"a": X}, hard=True)
    np.testing.assert_array_equal(
        choices["a"], gumbax.draw_choices(KEY, {"a": X}, hard=True)["a"]
    )
    for wrong in (saved.astype(np.int32), saved[:1], np.stack([saved, saved]), [0, 1]):
        with pytest.raises(TypeError, match="`gumbel_max`: `key` must be one PRNG key"):
            gumbax.gumbel_max(wrong, X)
