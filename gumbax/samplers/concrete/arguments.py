"""What the densities and the distribution functions share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gumbax import _noise
from gumbax._common import checks


def binary(
    name: str, argument: str, value: Any, logits: Any, temperature: Any
) -> tuple[list[jax.Array], Any]:
    """The arguments of a binary law, broadcast in a wide dtype, and their own."""
    checks.positive(name, "temperature", temperature, checks.TEMPERATURE_CURE)
    values = {argument: value, "logits": logits, "temperature": temperature}
    return checks.reals(name, **values)


def of_positive(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of a law that is NaN where its temperature is not above 0."""

    @functools.wraps(function)
    def of(value, logits, temperature, **static):
        found = function(value, logits, _noise.positive(temperature), **static)
        if "axis" in static:
            temperature = jnp.squeeze(temperature, static["axis"])
        return _noise.defined(found, temperature)

    return of
