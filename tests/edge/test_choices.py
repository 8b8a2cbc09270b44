import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gumbax
from tests import helpers

KEY = jax.random.key(0)
LOGITS = {"normal": jnp.array([[0.0, 1.0, 2.0]] * 4), "reduce": jnp.zeros((4, 3))}
draw = functools.partial(gumbax.draw_choices, hard=True)


def test_cells_of_one_name_share_the_draw_and_other_names_do_not():
    choices = draw(KEY, LOGITS | {"other": LOGITS["reduce"]})
    again = draw(KEY, {"reduce": LOGITS["reduce"]})
    np.testing.assert_array_equal(choices["reduce"], again["reduce"])
    rows = draw(KEY, {name: jnp.zeros((50, 3)) for name in ("reduce", "other")})
    assert (rows["reduce"] != rows["other"]).any()


def test_names_are_independent_and_follow_the_law_of_their_logits():
    keys = jax.random.split(KEY, 5000)
    logits = {"a": jnp.array([0.0, 1.0]), "b": jnp.array([0.5, 0.0])}
    choices = jax.vmap(lambda key: draw(key, logits))(keys)
    pairs = 2 * choices["a"].argmax(-1) + choices["b"].argmax(-1)
    probs = np.outer(*(jax.nn.softmax(logits[name]) for name in "ab")).ravel()
    helpers.assert_law(np.bincount(pairs, minlength=4), probs)


def test_draw_is_the_same_in_every_process():
    """The hash of a name is fixed: a saved search goes on with the same draws."""
    own = jax.random.fold_in(KEY, 562391268)  # crc32 of the name
    found = draw(KEY, {"normal": LOGITS["normal"]})["normal"]
    expected = gumbax.gumbel_softmax(own, LOGITS["normal"], hard=True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.eight_devices
@pytest.mark.exhaustive
def test_every_device_has_the_same_draw():
    """Data parallel over 8 devices: one loss and gradient, those of one device."""
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    x = jax.random.normal(KEY, (16, 3))
    branches = [lambda p, x: p * jnp.sin(x), lambda p, x: p * x * x, lambda p, x: p - x]
    params = [jnp.float32(1), jnp.float32(2), jnp.float32(3)]

    def loss(logits, params, x, key):
        choices = draw(key, {"cell": logits})
        for row in choices["cell"]:
            x = gumbax.single_path(row, branches, params, x)
        return jnp.mean(x**2)

    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    expected = step(LOGITS["normal"], params, x, KEY)
    found = step(LOGITS["normal"], params, sharded, KEY)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


def test_draw_for_each_example():
    choices = draw(KEY, LOGITS, num_examples=2000)
    rows = choices["normal"]
    assert rows.shape == (2000, 4, 3)
    probs = jax.nn.softmax(LOGITS["normal"][0])
    for edge in range(4):
        helpers.assert_law(rows[:, edge].sum(axis=0), probs)
    x = jax.random.normal(KEY, (2000, 3))
    branches = [lambda p, x: 2 * x, lambda p, x: -x, lambda p, x: x * x]
    y = gumbax.mixed_op(rows[:, 0], branches, [None] * 3, x)
    outputs = jnp.stack([b(None, x) for b in branches])
    expected = outputs[rows[:, 0].argmax(-1), np.arange(2000)]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert draw(KEY, LOGITS, num_examples=0)["normal"].shape == (0, 4, 3)


@pytest.mark.parametrize(
    "sampler",
    [
        gumbax.gumbel_softmax,
        lambda key, logits, temperature: jax.nn.softmax(logits / temperature),
        functools.partial(gumbax.gumbel_softmax, hard=True),
    ],
    ids=["relaxed", "softmax", "hard"],
)
def test_every_sampler_fits(sampler):
    choices = gumbax.draw_choices(KEY, LOGITS, sampler=sampler, temperature=0.5)
    own = gumbax.draw_choices(KEY, LOGITS, sampler=lambda key, logits: key)["normal"]
    expected = sampler(own, LOGITS["normal"], temperature=0.5)
    np.testing.assert_array_equal(choices["normal"], expected)
    branches = [lambda p, x: 2 * x, lambda p, x: -x, lambda p, x: x * x]
    y = gumbax.mixed_op(choices["normal"][0], branches, [None] * 3, 3.0)
    np.testing.assert_allclose(y, expected[0] @ jnp.array([6.0, -3.0, 9.0]), rtol=1e-6)


def test_is_a_pytree():
    choices = jax.jit(draw)(KEY, LOGITS)
    chex.assert_trees_all_equal(choices, draw(KEY, LOGITS))
    assert len(jax.tree.leaves(choices)) == 2


def test_names_with_one_hash_are_refused():
    """`plumless` and `buckeroo` have one crc32: they would be one draw."""
    message = "hashes, got 'plumless' and 'buckeroo', which would share one draw"
    with pytest.raises(ValueError, match=message):
        draw(KEY, {name: jnp.zeros(3) for name in ("plumless", "buckeroo")})


def test_errors():
    with pytest.raises(KeyError, match=r"be one of \['normal', 'reduce'\], got 'norm'"):
        draw(KEY, LOGITS)["norm"]
    with pytest.raises(TypeError, match="`draw_choices`: `key` must be one PRNG key"):
        draw(None, LOGITS)
    with pytest.raises(TypeError, match="`num_examples` must be an integer"):
        draw(KEY, LOGITS, num_examples=2.0)
    with pytest.raises(ValueError, match="`num_examples` must be at least 0"):
        draw(KEY, LOGITS, num_examples=-1)
