"""Compiles every sampler, its gradient and the edge, and says which one it is at.

Masks and logits are made from an index inside the jit, as those of padding and of a
causal triangle are. `test_compile_time.py` runs this in a process with a limit.
"""

import sys

import jax
import jax.numpy as jnp

import gumbax
from gumbax import gumbel

KEY = jax.random.key(0)


def triangle(shape):
    """Categories up to the row's own number; of one row, the first half."""
    category = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    if len(shape) == 1:
        return category < shape[0] // 2
    return category <= jax.lax.broadcasted_iota(jnp.int32, shape, 0)


def slopes(shape):
    """Logits that fall with the category, -inf outside of the triangle."""
    category = jax.lax.broadcasted_iota(jnp.float32, shape, len(shape) - 1)
    return jnp.where(triangle(shape), -category, -jnp.inf)


def masked(sampler, **options):
    return lambda key, x: sampler(key, x, where=triangle(x.shape), **options)


def from_index(sampler, **options):
    return lambda key, x: sampler(key, x + slopes(x.shape), **options)


def given(sampler, **options):
    """Noise of the same jit."""

    def sample(key, x):
        gumbels = gumbel.sample(key, x.shape)
        return sampler(None, x, where=triangle(x.shape), gumbels=gumbels, **options)

    return sample


def given_logistics(sampler):
    def sample(key, x):
        logistics = jnp.where(triangle(x.shape), gumbel.sample(key, x.shape), 0)
        return sampler(None, x, logistics=logistics)

    return sample


def truncated(key, x):
    return gumbel.sample_truncated(key, x.shape, upper=x + slopes(x.shape))


def located(key, x):
    return gumbel.sample(key, x.shape, loc=x + slopes(x.shape))


def given_index(key, x):
    index = jnp.arange(x.size // x.shape[-1]).reshape(x.shape[:-1]) % x.shape[-1]
    return gumbel.sample_given_index(key, x + slopes(x.shape), index)


def chosen(key, x):
    """An edge whose choice is masked to some of its branches."""
    branches = [lambda params, x: params * x, lambda params, x: jnp.sin(x)] * 4
    where = triangle((8,))
    weights = gumbax.gumbel_softmax(key, slopes((8,)), hard=True, where=where)
    return gumbax.single_path(weights, branches, [jnp.float32(2), None] * 4, x)


SMOOTH = {
    "gumbel_softmax": gumbax.gumbel_softmax,
    "log_gumbel_softmax": gumbax.log_gumbel_softmax,
}
HARD = {"hard": True}
PROGRAMS = {
    "gumbel_max": masked(gumbax.gumbel_max),
    "gumbel_max of slopes": from_index(gumbax.gumbel_max),
    "gumbel_max of noise": given(gumbax.gumbel_max),
    "categorical": masked(gumbax.categorical),
    "categorical of slopes": from_index(gumbax.categorical),
    **{name: masked(f) for name, f in SMOOTH.items()},
    **{f"{name} of slopes": from_index(f) for name, f in SMOOTH.items()},
    **{f"{name} of noise": given(f) for name, f in SMOOTH.items()},
    "straight_through": masked(gumbax.gumbel_softmax, **HARD),
    "straight_through of slopes": from_index(gumbax.gumbel_softmax, **HARD),
    "straight_through of noise": given(gumbax.gumbel_softmax, **HARD),
    "relaxed_bernoulli": from_index(gumbax.relaxed_bernoulli),
    "relaxed_bernoulli hard": from_index(gumbax.relaxed_bernoulli, **HARD),
    "relaxed_bernoulli of noise": given_logistics(gumbax.relaxed_bernoulli),
    "logit_relaxed_bernoulli": from_index(gumbax.logit_relaxed_bernoulli),
    "hard_concrete": from_index(gumbax.hard_concrete),
    "sample": located,
    "sample_truncated": truncated,
    "sample_given_index": given_index,
    "single_path": chosen,
}
INDICES = ("gumbel_max", "categorical")


def main(shape):
    for name, program in PROGRAMS.items():
        print(name, flush=True)
        jax.jit(program).lower(KEY, jnp.zeros(shape)).compile()
        if name.startswith(INDICES):
            continue

        def loss(x, program=program):
            y = program(KEY, x)
            return jnp.sum(jnp.where(jnp.isfinite(y), y, 0) ** 2)

        print(f"gradient of {name}", flush=True)
        jax.jit(jax.grad(loss)).lower(jnp.zeros(shape)).compile()


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])))
    print("done", flush=True)
