"""How a search turns architecture logits into the weights of a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import optax

from gumbax import mixed_op, schedules, single_path
from gumbax._relaxation import gumbel_softmax
from gumbax.search.network import Operation


@dataclass(frozen=True)
class Method:
    """A search method, as a record of functions.

    Attributes:
        name: its name on the command line and in saved files.
        weights: (key, arch_logits [edges, primitives], temperature) -> weights of the
            same shape.
        operation: how an edge uses its weights.
        temperature: number of steps -> schedule.
        arch_learning_rate: of the architecture logits (Adam).
        warmup: share of the steps before the logits begin to move, so that operations
            with weights are not dropped while these are still random.
    """

    name: str
    weights: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    operation: Operation
    temperature: Callable[[int], optax.Schedule]
    arch_learning_rate: float = 0.1
    warmup: float = 0.3


def _straight_through(key, arch_logits, temperature):
    return gumbel_softmax(key, arch_logits, temperature=temperature, hard=True)


def _softmax(key, arch_logits, temperature):
    del key
    return jax.nn.softmax(arch_logits / temperature)


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="gumbel",
            weights=_straight_through,
            operation=single_path,
            temperature=lambda num_steps: schedules.cosine(2.0, 0.2, num_steps),
        ),
        Method(
            name="darts",
            weights=_softmax,
            operation=mixed_op,
            temperature=lambda num_steps: schedules.constant(1.0),
        ),
    )
}
