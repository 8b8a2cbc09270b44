"""Measures PyTorch on the grid of `tests/precision`, in the same units.

    PYTHONPATH=. python .docs/precision_torch.py

where PyTorch, SciPy and mpmath are installed beside gumbax writes
`precision_torch.json`, which `python -m tests.precision` puts into its page. Run once:
PyTorch is no dependency of the tests.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import distributions as law

from tests.precision import choices, laws, units

ROWS = Path(__file__).with_suffix(".json")


def gumbel(name):
    def of(x, loc, scale):
        return getattr(law.Gumbel(loc, scale, validate_args=False), name)(x)

    return of


def moment(name):
    def of(loc, scale):
        return getattr(law.Gumbel(loc, scale, validate_args=False), name)

    return of


def entropy(loc, scale):
    return law.Gumbel(loc, scale, validate_args=False).entropy()


def kl_divergence(loc, scale, other_loc, other_scale):
    return law.kl_divergence(
        law.Gumbel(loc, scale, validate_args=False),
        law.Gumbel(other_loc, other_scale, validate_args=False),
    )


def binary_log_prob(x, logits, temperature):
    options = {"logits": logits, "validate_args": False}
    return law.RelaxedBernoulli(temperature, **options).log_prob(x)


def binary_logit_log_prob(logit, logits, temperature):
    options = {"logits": logits, "validate_args": False}
    base = law.RelaxedBernoulli(temperature, **options).base_dist
    return base.log_prob(logit)


def density(of):
    def log_prob(*point):
        *numbers, temperature = point
        values, logits = torch.stack(numbers[:3]), torch.stack(numbers[3:])
        relaxed = law.RelaxedOneHotCategorical(
            temperature, logits=logits, validate_args=False
        )
        return of(relaxed).log_prob(values)

    return log_prob


def cost(function):
    """What `F.gumbel_softmax` does behind its noise."""

    def of(*point):
        logits, temperature, costs = point[:3], point[3], point[4:]
        y = function(torch.stack(logits) / temperature, dim=-1)
        return y[0] * costs[0] + (y[1] * costs[1] + y[2] * costs[2])

    return of


TORCH = {
    "gumbel.log_prob": gumbel("log_prob"),
    "gumbel.cdf": gumbel("cdf"),
    "gumbel.quantile": gumbel("icdf"),
    "gumbel.kl_divergence": kl_divergence,
    **{f"gumbel.{name}": moment(name) for name in ("mean", "variance", "stddev")},
    "gumbel.entropy": entropy,
    "concrete.binary_log_prob": binary_log_prob,
    "concrete.binary_logit_log_prob": binary_logit_log_prob,
    "concrete.log_prob": density(lambda relaxed: relaxed),
    "concrete.exp_log_prob": density(lambda relaxed: relaxed.base_dist),
    "relaxed_bernoulli": lambda logits, noise, t: torch.sigmoid((logits + noise) / t),
    "gumbel_softmax": cost(torch.softmax),
    "log_gumbel_softmax": cost(torch.log_softmax),
}


def quantities(function, order, point):
    """Value, first derivatives, second ones by the same argument."""
    leaves = [torch.tensor(x, requires_grad=True) for x in point]
    value = function(*leaves)
    found = [[value.item()]]
    if order == 0 or not value.requires_grad:
        return found
    first = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    found.append([0.0 if d is None else d.item() for d in first])
    if order > 1:
        found.append([second(d, leaf) for d, leaf in zip(first, leaves, strict=True)])
    return found


def second(slope, leaf):
    if slope is None or not slope.requires_grad:
        return 0.0
    (found,) = torch.autograd.grad(slope, leaf, retain_graph=True, allow_unused=True)
    return 0.0 if found is None else found.item()


def worst(function, entry):
    """As `units.worst`, in float32: the worst units of each order."""
    _, _, reference, names, points, order = entry
    errors = [0.0] * (order + 1)
    for numbers in points:
        point = tuple(map(np.float32, numbers))
        found = quantities(function, order, point)
        for n, got in enumerate(found):
            if n == 2 and not units.square_in_range(zip(names, point, strict=True)):
                continue
            for i, number in enumerate(got):
                true = units.derivative(reference, i, n)
                error = units.units(number, true, point, np.float32)
                errors[n] = max(errors[n], error)
    return errors


def main():
    narrow = {**laws.LAWS, **choices.entries(np.float32)}
    found = {name: worst(function, narrow[name]) for name, function in TORCH.items()}
    table = {"version": torch.__version__.partition("+")[0], "float32": found}
    ROWS.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
