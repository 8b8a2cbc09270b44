"""Temperature schedules: pure functions of the step, usable as `optax.Schedule`.

Each returns a function step -> temperature. The step may be a Python number or a traced
array; the result is passed to a sampler as `temperature` and never recompiles it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gumbax._common import checks


def constant(value: float) -> optax.Schedule:
    """One temperature for all steps.

    Args:
        value: the temperature, > 0.

    Returns:
        Schedule: step -> temperature.

    Raises:
        ValueError: `value` is not above 0.

    Example:
        >>> constant(0.5)(10)
        0.5

    References:
        Maddison, Mnih, Teh, 2017. https://arxiv.org/abs/1611.00712
    """
    _positive("schedules.constant", "value", value)
    return functools.partial(_constant, value)


def linear(
    init_value: float, end_value: float, transition_steps: int
) -> optax.Schedule:
    """A straight line from `init_value`, reaching `end_value` at `transition_steps`.

    Args:
        init_value: temperature at step 0, > 0.
        end_value: temperature from step `transition_steps` on, > 0.
        transition_steps: length of the line in steps, >= 1.

    Returns:
        Schedule: step -> temperature.

    Raises:
        ValueError: a temperature is not above 0, or `transition_steps` is below 1.

    Example:
        >>> float(linear(10.0, 0.1, 99)(99))
        0.10000000149011612

    References:
        Dong, Yang, 2019 (GDAS: 10 to 0.1). https://arxiv.org/abs/1910.04465
    """
    name = "schedules.linear"
    _positive(name, "init_value", init_value)
    _positive(name, "end_value", end_value)
    _at_least_one(name, "transition_steps", transition_steps)
    return functools.partial(_linear, init_value, end_value, transition_steps)


def exponential(
    init_value: float, rate: float, *, floor: float, every: int = 1
) -> optax.Schedule:
    """max(floor, init_value * exp(-rate * step)), updated once in `every` steps.

    Args:
        init_value: temperature at step 0, > 0.
        rate: decay for each step, >= 0.
        floor: lowest temperature, > 0.
        every: steps between updates, >= 1. The decay does not depend on it: at a
            multiple of `every` the value is that of `every=1`.

    Returns:
        Schedule: step -> temperature.

    Raises:
        ValueError: a temperature is not above 0, `rate` is negative, or `every` is
            below 1.

    Example:
        >>> float(exponential(1.0, 1e-4, floor=0.5, every=500)(100_000))
        0.5

    References:
        Jang, Gu, Poole, 2017, Sec. 4.2. https://arxiv.org/abs/1611.01144
    """
    name = "schedules.exponential"
    _positive(name, "init_value", init_value)
    _positive(name, "floor", floor)
    _at_least_one(name, "every", every)
    must = "be a finite number >= 0"
    cure = "The temperature is multiplied by exp(-rate) in each step."
    checks.finite(name, "rate", rate, must, cure)
    if rate < 0:
        raise ValueError(checks.message(name, "rate", must, rate, cure))
    return functools.partial(_exponential, init_value, rate, floor, every)


def cosine(
    init_value: float, end_value: float, transition_steps: int
) -> optax.Schedule:
    """Half a cosine from `init_value` to `end_value`, flat at both ends.

    Args:
        init_value: temperature at step 0, > 0.
        end_value: temperature from step `transition_steps` on, > 0.
        transition_steps: length of the descent in steps, >= 1.

    Returns:
        Schedule: step -> temperature.

    Raises:
        ValueError: a temperature is not above 0, or `transition_steps` is below 1.

    Example:
        >>> float(cosine(1.0, 0.5, 10)(5))
        0.75

    References:
        Loshchilov, Hutter, 2017 (for learning rates). https://arxiv.org/abs/1608.03983
    """
    name = "schedules.cosine"
    _positive(name, "init_value", init_value)
    _positive(name, "end_value", end_value)
    _at_least_one(name, "transition_steps", transition_steps)
    return functools.partial(_cosine, init_value, end_value, transition_steps)


def preset(name: str, *, num_epochs: int, steps_per_epoch: int = 1) -> optax.Schedule:
    """The temperature schedule of a published system, by name.

    Published schedules change once an epoch; so does this one, as a function of the
    step. With `steps_per_epoch=1` the step is the epoch.

    Args:
        name: a key of `PRESETS`: "jang2017", "gdas", "snas", "fbnet", "nni",
            "drnas_baselines" or "archai".
        num_epochs: length of the search in epochs, >= 1.
        steps_per_epoch: steps in an epoch, >= 1. For "jang2017", whose decay is by
            the step, it does not matter.

    Returns:
        Schedule: step -> temperature.

    Raises:
        ValueError: the name is unknown (the message lists the known ones), or a length
            is below 1.

    Example:
        >>> schedule = preset("gdas", num_epochs=250)
        >>> [round(float(schedule(n)), 3) for n in (0, 249)]
        [10.0, 0.1]

    References:
        Jang, Gu, Poole, 2017 (max(0.5, exp(-1e-4 t)), each 500 steps).
        Dong, Yang, 2019 (GDAS: 10 to 0.1).
        Xie et al., 2019 (SNAS: 1 to 0.03).
        Wu et al., 2019 (FBNet: 5 exp(-0.045 n)).
        NNI GumbelDARTS (1 to 0.33).
        Chen et al., 2021 (DrNAS, its baselines: 10 - 9 n / 100).
        Archai (constant 1).
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(
            checks.message(
                "schedules.preset",
                "name",
                "be the name of a published schedule",
                checks.shown(name),
                f"Known: {', '.join(PRESETS)}.",
            )
        )
    _at_least_one("schedules.preset", "num_epochs", num_epochs)
    _at_least_one("schedules.preset", "steps_per_epoch", steps_per_epoch)
    return PRESETS[name](num_epochs, steps_per_epoch)


# Functions of a module, and not of a call: `pickle` takes schedules made of them.


def _of_any_step(function: Callable[..., ArrayLike]) -> Callable[..., ArrayLike]:
    """A step is an integer as a rule, which strict promotion takes for no number."""

    @functools.wraps(function)
    def temperature(*args: Any) -> ArrayLike:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args)

    return temperature


def _constant(value, step):
    del step
    return value


@_of_any_step
def _linear(init_value, end_value, transition_steps, step):
    done, left = _fractions(step, transition_steps)
    return left * init_value + done * end_value


@_of_any_step
def _exponential(init_value, rate, floor, every, step):
    updated = step // every * every
    return jnp.maximum(floor, init_value * jnp.exp(-rate * updated))


@_of_any_step
def _cosine(init_value, end_value, transition_steps, step):
    done, left = _fractions(step, transition_steps)
    # From the nearer end: sin(x)**2 is (1 - cos(2 x)) / 2 without the difference.
    risen, fallen = (jnp.square(jnp.sin(jnp.pi / 2 * f)) for f in (done, left))
    return jnp.where(
        done < left,
        init_value + risen * (end_value - init_value),
        end_value + fallen * (init_value - end_value),
    )


def _after(schedule, epoch):
    return schedule(epoch + 1)


@_of_any_step
def _fbnet(epoch):
    return 5.0 * jnp.exp(-0.045 * epoch)


def _of_epoch(schedule, steps_per_epoch, step):
    return schedule(step // steps_per_epoch)


def _by_epoch(
    make: Callable[[int], optax.Schedule],
) -> Callable[[int, int], optax.Schedule]:
    """Makes a schedule of epochs one of steps."""

    @functools.wraps(make)
    def make_by_step(num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
        return functools.partial(_of_epoch, make(num_epochs), steps_per_epoch)

    return make_by_step


# Name -> published schedule, of the number of epochs and the steps in an epoch.
PRESETS: Mapping[str, Callable[[int, int], optax.Schedule]] = {
    "jang2017": lambda num_epochs, steps: exponential(1.0, 1e-4, floor=0.5, every=500),
    "gdas": _by_epoch(lambda num_epochs: linear(10.0, 0.1, max(num_epochs - 1, 1))),
    # The public code counts from the end of the first epoch: 1 - 0.97 / N at epoch 0.
    "snas": _by_epoch(
        lambda num_epochs: functools.partial(_after, linear(1.0, 0.03, num_epochs))
    ),
    "fbnet": _by_epoch(lambda num_epochs: _fbnet),
    "nni": _by_epoch(lambda num_epochs: linear(1.0, 0.33, max(num_epochs - 1, 1))),
    "drnas_baselines": _by_epoch(lambda num_epochs: linear(10.0, 1.0, 100)),
    "archai": _by_epoch(lambda num_epochs: constant(1.0)),
}


def _fractions(step: ArrayLike, steps: int) -> tuple[jax.Array, jax.Array]:
    """What of a transition is done and what is left, both exact near 0."""
    step = jnp.clip(step, 0, steps)
    return step / steps, (steps - step) / steps


def _positive(function: str, argument: str, value: float) -> None:
    must = "be a finite temperature above 0"
    cure = "A sampler has no value at temperature 0; stop at a small floor."
    checks.finite(function, argument, value, must, cure)
    if not value > 0:
        raise ValueError(checks.message(function, argument, must, value, cure))


def _at_least_one(function: str, argument: str, value: int) -> None:
    must, cure = "be a number of at least 1", "It counts steps or epochs."
    checks.finite(function, argument, value, must, cure)
    if value < 1:
        raise ValueError(checks.message(function, argument, must, value, cure))
