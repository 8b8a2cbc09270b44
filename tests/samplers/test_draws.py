import jax
import jax.numpy as jnp
import numpy as np

import gumbax

KEY = jax.random.key(2)
LOGITS = jax.random.normal(jax.random.key(1), (4, 5))
MASK = jnp.array([[True, True, False, True, True]])
COSTS = jnp.arange(5.0) ** 2


def apart(logits, *, temperature, dtype=None, **options):
    """The same draw in three calls."""
    vectors = {"temperature": temperature, "dtype": dtype, **options}
    return (
        gumbax.gumbel_max(KEY, logits, **options),
        gumbax.gumbel_softmax(KEY, logits, hard=True, **vectors),
        gumbax.gumbel_softmax(KEY, logits, **vectors),
    )


def together(logits, **options):
    y = gumbax.draw(KEY, logits, **options)
    return y.index, y.one_hot, y.relaxed


def test_equals_the_three_calls():
    options = {"temperature": 0.5, "where": MASK, "sample_shape": (3,)}
    for kind in (jnp.float32, jnp.bfloat16):
        logits = LOGITS.astype(kind)
        of = [f(logits, dtype=jnp.float32, **options) for f in (together, apart)]
        for found, expected in zip(*of, strict=True):
            np.testing.assert_array_equal(found, expected)

    def loss(function, logits):
        _, hard, soft = function(logits, **options)
        return jnp.sum(jnp.sin(hard @ COSTS) + soft @ COSTS)

    for derive in (jax.grad, lambda f, argnums: jax.grad(
        lambda *a: jnp.sum(jax.grad(f, argnums)(*a) ** 2), argnums
    )):  # fmt: skip
        found, expected = (
            jax.jit(derive(loss, argnums=1), static_argnums=0)(f, LOGITS)
            for f in (together, apart)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_noise_is_made_once():
    text = jax.jit(together).lower(LOGITS).as_text()
    alone = jax.jit(lambda x: gumbax.gumbel_max(KEY, x)).lower(LOGITS).as_text()
    assert text.count("xor") == alone.count("xor") > 20


def test_is_a_pytree():
    y = jax.vmap(gumbax.draw)(jax.random.split(KEY, 4), LOGITS)
    assert y.index.shape == (4,)
    assert y.relaxed.shape == y.one_hot.shape == (4, 5)
