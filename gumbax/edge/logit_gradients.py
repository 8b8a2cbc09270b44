"""Which credits of a single path reach the logits: every published form, as a record.

The credit of branch i is c_i = <cotangent, output of branch i>, the derivative of the
loss by the weight of the branch. The sampler that made the weights turns credits into
the gradient of the logits: for `gumbel_softmax(..., hard=True)`, with relaxed sample q,
d loss / d logits[j] = q[j] (c[j] - sum_i q[i] c[i]) / temperature.
"""

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gumbax._common import checks


@dataclasses.dataclass(frozen=True)
class Path:
    """What a logit gradient sees of one operation in its backward pass.

    Attributes:
        index: the chosen branch, int32 [].
        chosen: its credit, []; free of cost.
        credit_of: credit [] of any branch by its index, traced or not; one forward pass
            of that branch.
        all_credits: credits [K] of all branches; one forward pass of each.
        cotangent_sum: sum of all elements of the cotangent, [].
        num_branches: their number K.
        key: the key given to `single_path`, or None.
    """

    index: jax.Array
    chosen: jax.Array
    credit_of: Callable[[int | jax.Array], jax.Array]
    all_credits: Callable[[], jax.Array]
    cotangent_sum: jax.Array
    num_branches: int
    key: jax.Array | None

    def is_chosen(self) -> jax.Array:
        """Boolean [K], true for the chosen branch alone."""
        return jnp.arange(self.num_branches) == self.index


class LogitGradient(abc.ABC):
    """Base of the records that say which credits are computed.

    A new form is a frozen dataclass of this type, registered as a pytree: by
    `jax.tree_util.register_static`, or by `register_dataclass` if it has fields that
    differ from step to step, which are arrays. (JAX 0.10.2 to 0.12 find the structures
    of two dataclasses with as many such fields equal, and a jit that is given both may
    take one for the other; static ones differ.) First derivatives are what `credits`
    says. Second derivatives are those of the loss whose first derivatives these are, if
    the credits are linear in the cotangent, as in all published forms.

    Attributes:
        needs_key: whether it draws, so that `single_path` must be given a key.
    """

    needs_key: bool = False

    def check(self, num_branches: int) -> None:  # noqa: B027, most forms fit any number
        """Raises ValueError if the form does not fit so many branches."""

    @abc.abstractmethod
    def credits(self, path: Path) -> jax.Array:
        """The credit [K] of every branch."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Exact(LogitGradient):
    """Every credit: c_i = <cotangent, output of branch i> for all i.

    The gradient of the dense form; with a hard Gumbel-Softmax sample, the
    straight-through gradient. It costs one forward pass of every branch, each output
    dropped at once.
    """

    def credits(self, path: Path) -> jax.Array:
        return path.all_credits()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Sampled(LogitGradient):
    """The chosen credit alone: c_i = 0 for the others.

    Other logits then move by their coupling in the sampler only. It costs nothing
    beyond the chosen branch. The gradient of the NASNet-space code of GDAS, and of
    DSNAS with a score-function sampler.
    """

    def credits(self, path: Path) -> jax.Array:
        return jnp.where(path.is_chosen(), path.chosen, 0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Gdas(LogitGradient):
    """The published GDAS trick: c_i = sum(cotangent) for the others.

    As if every other output were all ones: neither the straight-through gradient nor
    unbiased. It is here to reproduce what was published.
    """

    def credits(self, path: Path) -> jax.Array:
        return jnp.where(path.is_chosen(), path.chosen, path.cotangent_sum)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Subset(LogitGradient):
    """A random subset of the others: c_i (K - 1) / m for m of them, 0 for the rest.

    Unbiased for the exact credits: each other branch is in the subset with probability
    m / (K - 1), which gives its credit the variance c_i**2 ((K - 1) / m - 1). It costs
    m forward passes, whatever K is.

    Attributes:
        num_others: m, from 1 to K - 1.
    """

    num_others: int
    needs_key = True

    def check(self, num_branches: int) -> None:
        num_others = num_branches - 1
        if self.num_others > num_others:
            raise ValueError(
                checks.message(
                    "single_path",
                    "logit_gradient",
                    f"draw at most {num_others} of {num_others} other branches",
                    f"subset({self.num_others})",
                    "Use `exact`.",
                )
            )

    def credits(self, path: Path) -> jax.Array:
        self.check(path.num_branches)
        num_others = path.num_branches - 1
        assert path.key is not None
        # The others by their distance from the chosen branch.
        distances = 1 + jax.random.permutation(path.key, num_others)
        drawn = (path.index + distances[: self.num_others]) % path.num_branches
        credits = jnp.where(path.is_chosen(), path.chosen, 0)
        for i in drawn:
            credit = path.credit_of(i) * (num_others / self.num_others)
            credits = credits.at[i].set(credit)
        return credits


def check_record(function: str, logit_gradient: object) -> None:
    """Refuses what is no record."""
    must, got = "be a LogitGradient record", checks.shown(logit_gradient)
    cure = "Use `gumbax.exact`, `gumbax.sampled`, `gumbax.gdas` or `gumbax.subset(1)`."
    if not isinstance(logit_gradient, LogitGradient):
        name = "logit_gradient"
        raise TypeError(checks.message(function, name, must, got, cure))


exact = Exact()
sampled = Sampled()
gdas = Gdas()


def subset(num_others: int) -> LogitGradient:
    """An unbiased logit gradient whose cost does not depend on the number of branches.

    The backward pass credits `num_others` of the branches that were not chosen, drawn
    without replacement, each with its credit divided by the probability of being drawn.

    Args:
        num_others: m >= 1, at most K - 1. Static.

    Returns:
        A record for `single_path(..., logit_gradient=..., key=...)`, which needs a key.

    Raises:
        TypeError: `num_others` is not an integer.
        ValueError: `num_others` is less than 1.

    Example:
        >>> subset(1)
        Subset(num_others=1)

    References:
        Horvitz, Thompson, 1952. https://doi.org/10.1080/01621459.1952.10483446
    """
    cure = "For none of the other branches use `sampled`."
    return Subset(checks.count("subset", "num_others", num_others, 1, cure))
