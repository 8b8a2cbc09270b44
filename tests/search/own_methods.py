"""Four published methods that gumbax does not have, each as one record."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

import gumbax
from gumbax.edge.logit_gradients import LogitGradient
from gumbax.search.methods import derive_rules
from gumbax.search.methods.bilevel import single_level
from gumbax.search.methods.methods import Method, path
from gumbax.search.network.supernet import dense_operation


def one(num_epochs, steps_per_epoch):
    return gumbax.schedules.constant(1.0)


# DrNAS: weights from a Dirichlet distribution, differentiated implicitly.


def dirichlet(key, logits, temperature):
    return jax.random.dirichlet(key, jax.nn.elu(logits) + 1)


def mean_of_dirichlet(logits, temperature):
    concentration = jax.nn.elu(logits) + 1
    return concentration / concentration.sum(axis=-1, keepdims=True)


DRNAS = Method(
    "drnas", dirichlet, dense_operation, temperature=one, soft=mean_of_dirichlet
)


# DSNAS: hard draws; the score function, whose local reward is the credit.


@jax.custom_vjp
def _with_score(logits, one_hot):
    return one_hot


def _score(residuals, credits):
    logits, one_hot = residuals
    reward = jnp.sum(credits * one_hot, axis=-1, keepdims=True)
    return reward * (one_hot - jax.nn.softmax(logits)), None


_with_score.defvjp(lambda logits, one_hot: (one_hot, (logits, one_hot)), _score)


def score_function(key, logits, temperature):
    one_hot = gumbax.gumbel_softmax(key, jax.lax.stop_gradient(logits), hard=True)
    return _with_score(logits, one_hot)


DSNAS = Method(
    "dsnas", score_function, path(gumbax.sampled), temperature=one, bilevel=single_level
)


# ProxylessNAS, two paths: a pair is drawn without replacement, one of it is active, and
# both have their credits. The weights are 1 for the active one, -1 for the other.


@jax.custom_vjp
def _with_gradient_of(relaxed, value):
    return value


_with_gradient_of.defvjp(lambda relaxed, value: (value, None), lambda _, g: (g, None))


def two_paths(key, logits, temperature):
    pair_key, active_key = jax.random.split(key)
    noise = gumbax.gumbel.sample(pair_key, logits.shape)
    scores = jax.lax.stop_gradient(logits) + noise
    second = jnp.sort(scores, axis=-1)[..., -2:-1]
    pair = scores >= second
    active = gumbax.gumbel_softmax(
        active_key, jax.lax.stop_gradient(logits), hard=True, where=pair
    )
    relaxed = jax.nn.softmax(jnp.where(pair, logits, -jnp.inf))
    return _with_gradient_of(relaxed, 2 * active - pair)


@dataclasses.dataclass(frozen=True)
class Pair(LogitGradient):
    """The credits of the chosen branch and of one other."""

    other: jax.Array

    def credits(self, path):
        credits = jnp.where(path.is_chosen(), path.chosen, 0)
        return credits.at[self.other].set(path.credit_of(self.other))


jax.tree_util.register_dataclass(Pair, data_fields=["other"], meta_fields=[])


def pair_operation(weights, branches, params, x, *, key=None):
    fixed = jax.lax.stop_gradient(weights)
    one_hot = weights + jnp.where(fixed < 0, 1.0, 0.0)
    record = Pair(other=jnp.argmin(fixed))
    return gumbax.single_path(one_hot, branches, params, x, logit_gradient=record)


TWO_PATH = Method("two_path", two_paths, pair_operation, temperature=one)

# PC-DARTS: an operation sees a quarter of the channels, the others pass by. Partial
# channels are primitives of a space; edge normalisation is a sampler, with the means of
# the rows of logits, which a softmax over operations does not see, for its betas.


class Partial(nnx.Module):
    """A primitive on the first channels; then the channels are shuffled."""

    def __init__(self, primitive, channels, parts, *, stride, layers, rngs):
        self.stride, self.parts = stride, parts
        self.operation = primitive(
            channels // parts, stride=stride, layers=layers, rngs=rngs
        )
        self.pool = layers.max_pool(2, stride=2)

    def __call__(self, x):
        size = x.shape[-1] // self.parts
        rest = x[..., size:]
        if self.stride == 2:
            rest = self.pool(rest)
        y = jnp.concatenate([self.operation(x[..., :size]), rest], axis=-1)
        groups = y.reshape(*y.shape[:-1], self.parts, size)
        return jnp.swapaxes(groups, -1, -2).reshape(y.shape)


def partial_channels(primitives, parts=4):
    """The primitives of a space, by name, each on a part of the channels."""

    def make(primitive):
        return lambda channels, *, stride, layers, rngs: Partial(
            primitive, channels, parts, stride=stride, layers=layers, rngs=rngs
        )

    return {name: make(primitive) for name, primitive in primitives.items()}


def edge_normalised(targets):
    """Softmax over operations, times softmax over the edges into each node."""
    columns = jnp.array(targets)[:, None]
    same_node = (columns == columns.T).astype(jnp.float32)

    def sampler(key, logits, temperature):
        beta = jnp.exp(logits.mean(axis=-1))
        beta = beta / (same_node @ beta)
        return beta[:, None] * jax.nn.softmax(logits)

    return sampler


def pc_darts(space):
    """The record for a space whose choices have the same edges."""
    (targets,) = {tuple(t for _, t in c.edges) for c in space.choices.values()}
    sampler = edge_normalised(targets)

    def soft(logits, temperature):
        return sampler(None, logits, temperature)

    def derive(logits, space):
        """The two inputs of a node with the largest beta times alpha."""
        weights = {name: soft(a, 1.0) for name, a in logits.items()}
        odds = {name: jnp.log(w) - jnp.log1p(-w) for name, w in weights.items()}
        return derive_rules.threshold(minimum=0.0)(odds, space)

    return Method(
        "pc_darts", sampler, dense_operation, temperature=one, derive=derive, soft=soft
    )


OWN = {method.name: method for method in (DRNAS, DSNAS, TWO_PATH)}
