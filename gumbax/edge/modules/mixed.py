"""The choice of the Flax faces of the edge: of a call, and of `derive`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gumbax._common import checks, keys
from gumbax.edge.branches import checked_weights
from gumbax.edge.logit_gradients import LogitGradient, check_record
from gumbax.edge.mixed_op import mixed_op, single_path


@dataclasses.dataclass(frozen=True)
class Choice:
    """The choice of one call.

    Attributes:
        weights: [K].
        operation: as `gumbax.mixed_op`.
        is_conditional: the chosen branch alone runs.
        key: of the draw; None if nothing was drawn.
    """

    weights: ArrayLike
    operation: Callable[..., Any]
    is_conditional: bool
    key: jax.Array | None


def check_records(name: str, sampler: Any, logit_gradient: Any) -> None:
    """Refuses a sampler that cannot be called, and what is no logit gradient."""
    must = "be a function of (key, logits, *, temperature, hard, gumbels)"
    checks.function(name, "sampler", sampler, must, "Pass the sampler itself.")
    check_record(name, logit_gradient)


def choose(
    *,
    num_branches: int,
    logits: Callable[[], jax.Array],
    key: Callable[[LogitGradient | None], jax.Array],
    sampler: Callable[..., jax.Array],
    logit_gradient: LogitGradient,
    temperature: ArrayLike,
    hard: bool,
    deterministic: bool,
    weights: ArrayLike | None,
) -> Choice:
    """Makes the choice of a call.

    Args:
        num_branches: of the module.
        logits: gives those of the module, for a draw.
        key: gives a key, for the draw, or for the credits if a record draws them.
        sampler, logit_gradient: of the module.
        temperature, hard, deterministic, weights: of the call.
    """
    cure = (
        "It is static: under `jit`, `remat` or `scan` fix it in the function or the "
        "module that is transformed."
    )
    hard = checks.flag("MixedOp", "hard", hard, cure)
    still = False if deterministic is None else deterministic
    deterministic = checks.flag("MixedOp", "deterministic", still, cure)
    if weights is not None:
        weights = checked_weights(
            "MixedOp", "weights", weights, num_branches, per_example=not hard
        )
    credits_draw = hard and logit_gradient.needs_key
    drawn = credits_key = None
    if credits_draw or (weights is None and not deterministic):
        drawn = key(logit_gradient if credits_draw else None)
        # The sampler consumes the key itself, if there is a draw.
        if credits_draw:
            draws = weights is None and not deterministic
            own = jax.random.clone(drawn) if draws else drawn
            (credits_key,) = keys.folded(own, (1,))
    if weights is None:
        weights = sampler(
            None if deterministic else drawn,
            logits(),
            temperature=temperature,
            hard=hard,
            gumbels=0.0 if deterministic else None,
        )
    operation: Callable[..., Any] = mixed_op
    if hard:
        operation = functools.partial(
            single_path, logit_gradient=logit_gradient, key=credits_key
        )
    return Choice(weights, operation, hard, drawn)


def inner_key(key: jax.Array) -> jax.Array:
    """The key of what draws in the branches of an operation with this key."""
    return jax.random.fold_in(key, 2)


def no_logits() -> ValueError:
    """The error of a draw from logits that were never made."""
    return ValueError(
        checks.message(
            "MixedOp",
            "weights",
            "be given to a module that has no logits of its own",
            "None",
            "Pass `weights=`, one of `gumbax.draw_choices`; or make the logits: in "
            "NNX with `own_logits=True`, in Linen with an `init` without `weights`.",
        )
    )


def derived_index(
    num_branches: int,
    logits: jax.Array | None,
    weights: ArrayLike | None,
    index: int | None,
) -> int:
    """The branch that is kept: the one given, or the most probable."""
    if weights is not None and index is not None:
        raise ValueError(
            checks.message(
                "MixedOp.derive",
                "index",
                "be left out where `weights` are given",
                index,
                "Give one of the two.",
            )
        )
    if index is not None:
        return _checked_index(index, num_branches)
    if weights is not None:
        given = checks.real("MixedOp.derive", "weights", weights)
        return _largest("weights", given, num_branches)
    if logits is None:
        raise ValueError(
            checks.message(
                "MixedOp.derive",
                "weights",
                "be given for a module that has no logits of its own",
                "None",
                _CURE,
            )
        )
    return _largest("logits", logits, num_branches)


_CURE = "Give the shared choice: `weights=` of `gumbax.draw_choices`, or `index=`."


def _checked_index(index: Any, num_branches: int) -> int:
    number = checks.count("MixedOp.derive", "index", index, 0, _CURE)
    if number >= num_branches:
        raise ValueError(
            checks.message(
                "MixedOp.derive",
                "index",
                f"be less than {num_branches}, the number of branches",
                number,
                "The first branch is number 0.",
            )
        )
    return number


def _largest(argument: str, values: jax.Array, num_branches: int) -> int:
    if values.ndim != 1:
        raise ValueError(
            checks.message(
                "MixedOp.derive",
                argument,
                "be those of one operation, of shape (K,)",
                f"shape {values.shape}, several operations",
                "Take the variables of one at a time: index their first axes.",
            )
        )
    got = None
    if len(values) != num_branches:
        got = f"{len(values)} values for {num_branches} branches"
    elif bool(jnp.isnan(values).any()):
        got = "NaN"
    elif num_branches > 1 and bool((values == values[0]).all()):
        got = f"{num_branches} times {values[0]}, as if they were never used"
    if got is not None:
        raise ValueError(
            checks.message(
                "MixedOp.derive", argument, "make one branch the largest", got, _CURE
            )
        )
    return int(jnp.argmax(values))
