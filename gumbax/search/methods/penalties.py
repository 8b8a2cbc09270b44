"""Costs in the loss of the logits: the published forms.

A penalty is a function (cross entropy, cost) -> loss. The cost that it is given has the
value of the draw that ran, and the gradient of the expectation.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gumbax._common import checks
from gumbax.search.network.costs import CostTable

# (cross entropy, cost) -> loss of the logits
Penalty = Callable[[jax.Array, jax.Array], jax.Array]


def step_cost(
    table: CostTable,
    weights: Mapping[str, jax.Array],
    mean_weights: Mapping[str, jax.Array],
) -> jax.Array:
    """The cost of the weights of a step, with the gradient of the expected cost.

    The expectation is linear in the probabilities, so its gradient is known exactly:
    p_j (c_j - sum_i p_i c_i) for the logits of an edge, whatever was drawn. What a
    straight-through draw gives instead is biased at every temperature, and noisy.

    Args:
        table: the cost.
        weights: choice -> [E, K], what the network of this step ran with.
        mean_weights: choice -> [E, K], their expectation: the softmax of the logits.

    Returns:
        Scalar: the value of `table.expected(weights)`, differentiable in
        `mean_weights` alone.

    References:
        The form "discrete" of Xie et al., 2019 (SNAS); Cai, Zhu, Han, 2019
        (ProxylessNAS), Eq. 7. https://arxiv.org/abs/1812.00332
    """
    mean = table.expected(mean_weights)
    drawn = table.expected(weights)
    return jax.lax.stop_gradient(drawn) + (mean - jax.lax.stop_gradient(mean))


def add_linear(*, weight: float, reference: float) -> Penalty:
    """Cross entropy + weight * cost / reference, that of SNAS and of ProxylessNAS.

    SNAS has the cost itself, ProxylessNAS (cost - reference) / reference: other units
    and another constant, the same gradient.

    Args:
        weight: nats for a cost of `reference`.
        reference: unit of the cost, above 0: for example that of the costliest
            architecture.

    Returns:
        The penalty, equal to every other with these numbers.

    Example:
        >>> float(add_linear(weight=0.5, reference=10.0)(2.0, 4.0))
        2.2

    References:
        Xie et al., 2019 (SNAS), Sec. 2.3. https://arxiv.org/abs/1812.09926. Cai, Zhu,
        Han, 2019 (ProxylessNAS), `add#linear` of its code, weight 0.1.
    """
    _check("add_linear", "weight", weight, weight >= 0, "be 0 or more")
    _check("add_linear", "reference", reference, reference > 0, "be above 0")
    return _AddLinear(weight, reference)


def times_log(*, factor: float, power: float, reference: float = math.e) -> Penalty:
    """Cross entropy * factor * (log cost / log reference)^power: FBNet, ProxylessNAS.

    Args:
        factor: 0.2 in both publications.
        power: 0.6 in FBNet, 0.3 in ProxylessNAS's code.
        reference: above 1: e, which leaves it out, in FBNet, else the cost that is
            aimed at. The cost must be above 1 in its unit; at and below it the loss is
            0 or not a number.

    Returns:
        The penalty, equal to every other with these numbers.

    Example:
        >>> fbnet = times_log(factor=0.2, power=0.6)
        >>> round(float(fbnet(1.5, 20.0)), 4)
        0.5795

    References:
        Wu et al., 2019 (FBNet), Eq. 2, of log(cost)^power and not of log(cost^power).
        https://arxiv.org/abs/1812.03443. Cai, Zhu, Han, 2019 (ProxylessNAS), `mul#log`.
    """
    _check("times_log", "factor", factor, factor > 0, "be above 0")
    _check("times_log", "power", power, power >= 0, "be 0 or more")
    _check("times_log", "reference", reference, reference > 1, "be above 1")
    return _TimesLog(factor, power, reference)


def _check(function: str, argument: str, value: float, fits: bool, must: str) -> None:
    if not (fits and math.isfinite(value)):
        cure = "The publications' numbers are in its docstring."
        raise ValueError(checks.message(function, argument, must, value, cure))


@dataclass(frozen=True)
class _AddLinear:
    weight: float
    reference: float

    def __call__(self, cross_entropy: jax.Array, cost: jax.Array) -> jax.Array:
        return cross_entropy + self.weight * (cost / self.reference)


@dataclass(frozen=True)
class _TimesLog:
    factor: float
    power: float
    reference: float

    def __call__(self, cross_entropy: jax.Array, cost: jax.Array) -> jax.Array:
        share = jnp.log(cost) / math.log(self.reference)
        return cross_entropy * (self.factor * share**self.power)
