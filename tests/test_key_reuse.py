"""`jax.debug_key_reuse`: an alarm where a key is used twice, and no other."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import gumbax
import gumbax.linen
import gumbax.nnx
from gumbax import gumbel, logistic

X = jnp.ones((2, 4))
WIDE = jnp.zeros(5000)
BRANCHES = [lambda params, x: params * x, lambda params, x: params + x]


def edge(key, x):
    weights, params = jnp.array([1.0, 0.0]), [jnp.ones((1, 4))] * 2
    record = gumbax.subset(1)
    return gumbax.single_path(
        weights, BRANCHES, params, x, logit_gradient=record, key=key
    )


def choices(key, x, **options):
    return gumbax.draw_choices(key, {"a": x, "b": x}, **options)["b"]


SMOOTH = {
    "gumbel_softmax": gumbax.gumbel_softmax,
    "gumbel_softmax hard": lambda k, x: gumbax.gumbel_softmax(k, x, hard=True),
    "log_gumbel_softmax": gumbax.log_gumbel_softmax,
    "relaxed_bernoulli": gumbax.relaxed_bernoulli,
    "logit_relaxed_bernoulli": gumbax.logit_relaxed_bernoulli,
    "hard_concrete": gumbax.hard_concrete,
    "sample": lambda k, x: gumbel.sample(k, x.shape, loc=x),
    "sample_truncated": lambda k, x: gumbel.sample_truncated(k, x.shape, upper=x),
    "sample_given_index": lambda k, x: gumbel.sample_given_index(k, x, jnp.arange(2)),
    "sample_given_bit": lambda k, x: logistic.sample_given_bit(k, x, x),
    "draw": lambda k, x: gumbax.draw(k, x).relaxed,
    "draw_choices": choices,
    "draw_choices of examples": lambda k, x: choices(k, x, num_examples=3),
    "single_path": edge,
}
EVERY = SMOOTH | {
    "gumbel_max": gumbax.gumbel_max,
    "logistic.sample": lambda k, x: logistic.sample(k, x.shape),
    "categorical": gumbax.categorical,
    "categorical, wide": lambda k, x: gumbax.categorical(k, WIDE),
}


@pytest.fixture(autouse=True)
def checked():
    with jax.debug_key_reuse(True):
        yield


@pytest.mark.parametrize("name", EVERY)
def test_no_alarm_where_a_key_is_used_once(name):
    function = EVERY[name]
    function(jax.random.key(0), X)
    keys = jax.random.split(jax.random.key(0), 3)
    jax.vmap(function, (0, None))(keys, X)
    if name in SMOOTH:
        gradient = jax.grad(lambda x, key: jnp.sum(function(key, x) ** 2))
        gradient(X, jax.random.key(0))
        second = jax.grad(lambda x, key: jnp.sum(gradient(x, key) ** 2))
        jax.jit(second)(X, jax.random.key(0))


@pytest.mark.parametrize("name", EVERY)
def test_an_alarm_where_a_key_is_used_twice(name):
    function = EVERY[name]
    key = jax.random.key(0)
    function(key, X)
    with pytest.raises(jax.errors.KeyReuseError):
        function(key, X)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.jit(lambda k: (function(k, X), function(k, X)))(jax.random.key(0))


def test_no_alarm_for_the_clone_that_an_index_is_given_with():
    key = jax.random.key(0)
    index = gumbax.gumbel_max(jax.random.clone(key), X)
    gumbel.sample_given_index(key, X, index)


def nnx_op(**options):
    def dense(seed):
        return nnx.Linear(4, 4, rngs=nnx.Rngs(seed))

    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(3))
    return gumbax.nnx.MixedOp([nnx.Sequential(dense(0), dropout), dense(1)], **options)


def test_mixed_op_with_keys_of_its_branches():
    op = nnx_op(logit_gradient=gumbax.subset(1))
    key = jax.random.key(1)
    gradient = nnx.grad(lambda op, key: jnp.sum(op(X, rngs=key)))
    gradient(op, key)
    with pytest.raises(jax.errors.KeyReuseError):
        gradient(op, key)
    # The key of the dropout is folded with a counter, and used in every call.
    gradient(op, jax.random.key(2))
    op(X, rngs=jax.random.key(3), deterministic=True)
    op(X, rngs=jax.random.key(4), hard=False)


def test_linen_mixed_op_with_keys_of_its_branches():
    drop = linen.Dropout(0.5, deterministic=False)
    op = gumbax.linen.MixedOp(
        [linen.Sequential([linen.Dense(4), drop]), linen.Dense(4)]
    )
    variables = op.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)

    def loss(variables, arch, dropout):
        return jnp.sum(op.apply(variables, X, rngs={"arch": arch, "dropout": dropout}))

    jax.grad(loss)(variables, jax.random.key(2), jax.random.key(3))
