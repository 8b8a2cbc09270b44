"""From architecture logits to the architecture that is kept: the published rules.

A rule is a function (arch_logits, space) -> `Genotype` that runs on the host, in
float64, and draws nothing: equal logits always give one architecture.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from gumbax._common import checks
from gumbax.search.genotype.enumeration import by_node, connecting
from gumbax.search.genotype.genotype import Edge, Genotype
from gumbax.search.spaces.space import Choice, Space

Rule = Callable[[Mapping[str, ArrayLike], Space], Genotype]


def argmax_per_edge(arch_logits: Mapping[str, ArrayLike], space: Space) -> Genotype:
    """Keeps every edge with its most probable primitive, `none` allowed.

    Of equal logits the first primitive is kept.

    Args:
        arch_logits: name of a choice -> logits [E, K].
        space: the space that they choose from.

    Returns:
        The architecture, all edges listed in the order of the space.

    Raises:
        ValueError: names or shapes are not those of the space, or a row holds NaN, +inf
            or nothing but -inf.

    Example:
        >>> from types import SimpleNamespace
        >>> from gumbax.search.spaces import Choice
        >>> choice = Choice(((0, 1), (1, 2)), ("conv", "pool"))
        >>> space = SimpleNamespace(name="mine", choices={"layers": choice})
        >>> print(argmax_per_edge({"layers": [[0.0, 2.0], [1.0, 1.0]]}, space))
        layers: pool(0->1), conv(1->2)

    References:
        Dong, Yang, 2020 (NAS-Bench-201). https://arxiv.org/abs/2001.00326
    """
    cells = {}
    for name, logits in _checked("argmax_per_edge", arch_logits, space).items():
        choice = space.choices[name]
        chosen = np.argmax(logits, axis=-1)
        cells[name] = tuple(
            Edge(choice.primitives[i], *edge)
            for edge, i in zip(choice.edges, chosen, strict=True)
        )
    return Genotype(space.name, cells)


def top_two_edges(arch_logits: Mapping[str, ArrayLike], space: Space) -> Genotype:
    """Keeps the two strongest inputs of every node, as published with DARTS.

    The strength of an edge is max_{o != none} softmax(logits)_o: `none` takes
    probability, and so weakens its edge, but is never kept. Inputs are listed by
    falling strength, equal ones by their node; of equal primitives the first is kept.

    Args:
        arch_logits: name of a choice -> logits [E, K].
        space: the space that they choose from.

    Returns:
        The architecture. A node with fewer than two possible inputs keeps those.

    Raises:
        ValueError: names or shapes are not those of the space, a row holds NaN, +inf or
            nothing but -inf, or a choice has no primitive but `none`.

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Sec. 2.4. https://arxiv.org/abs/1806.09055
    """
    found = log_probabilities("top_two_edges", arch_logits, space)
    cells = {
        name: _two_strongest("top_two_edges", log_probs, space.choices[name])
        for name, log_probs in found.items()
    }
    return Genotype(space.name, cells)


def threshold(*, minimum: float = 0.85) -> Rule:
    """Makes the rule of FairDARTS: the strongest inputs that are strong enough.

    The strength of an edge is max_{o != none} sigmoid(logits)_o. Of the two strongest
    inputs of a node those are kept whose strength is at least `minimum`, so a node may
    have one input or none.

    Args:
        minimum: least strength that is kept, from 0 to 1.

    Returns:
        A rule, equal to every other with this minimum. Its inputs are listed by falling
        strength, and it refuses what `top_two_edges` refuses.

    Raises:
        ValueError: `minimum` is not from 0 to 1.

    Example:
        >>> threshold(minimum=0.9) == threshold(minimum=0.9)
        True

    References:
        Chu, Zhou, Zhang, Li, 2020 (FairDARTS). https://arxiv.org/abs/1911.12126
    """
    if not 0.0 <= minimum <= 1.0:
        cure = "It is compared with sigmoids; the published one is 0.85."
        raise ValueError(
            checks.message("threshold", "minimum", "be from 0 to 1", minimum, cure)
        )
    return _Threshold(minimum)


@dataclass(frozen=True)
class _Threshold:
    minimum: float

    def __call__(self, arch_logits: Mapping[str, ArrayLike], space: Space) -> Genotype:
        cells = {}
        for name, logits in _checked("threshold", arch_logits, space).items():
            # Of either sign, without overflow.
            gates = np.exp(-np.logaddexp(0.0, -logits))
            cells[name] = _two_strongest(
                "threshold", gates, space.choices[name], self.minimum
            )
        return Genotype(space.name, cells)


# Name in files and on the command line -> rule: logits -> architecture.
RULES: Mapping[str, Rule] = {
    "argmax": argmax_per_edge,
    "top2": top_two_edges,
    "threshold": threshold(),
}


def log_probabilities(
    function: str, arch_logits: Mapping[str, ArrayLike], space: Space
) -> dict[str, np.ndarray]:
    """Log-probabilities in float64: ordered as probabilities, without underflow."""
    found = {}
    for name, logits in _checked(function, arch_logits, space).items():
        peak = logits.max(axis=-1, keepdims=True)
        log_sum = peak + np.log(np.exp(logits - peak).sum(axis=-1, keepdims=True))
        found[name] = logits - log_sum
    return found


def _two_strongest(
    function: str, values: np.ndarray, choice: Choice, minimum: float = -np.inf
) -> tuple[Edge, ...]:
    usable = connecting(function, choice)
    best = np.argmax(values[:, usable], axis=-1)
    strengths = values[:, usable].max(axis=-1)
    kept: list[Edge] = []
    for rows in by_node(choice):
        # Rows lie by source and the sort is stable: ties go to the earlier node.
        strongest = sorted(rows.tolist(), key=lambda row: -strengths[row])[:2]
        kept += [
            Edge(choice.primitives[usable[best[row]]], *choice.edges[row])
            for row in strongest
            if strengths[row] >= minimum
        ]
    return tuple(kept)


def _checked(
    function: str, arch_logits: Mapping[str, ArrayLike], space: Space
) -> dict[str, np.ndarray]:
    """The logits in float64, in the order of the space's choices."""
    cure = f"Give the logits of a supernet of the space {space.name!r}."
    argument = "arch_logits"
    if set(arch_logits) != set(space.choices):
        must = f"have the names {sorted(space.choices)}"
        got = str(sorted(arch_logits))
        raise ValueError(checks.message(function, argument, must, got, cure))
    found = {}
    for name, choice in space.choices.items():
        logits = np.asarray(arch_logits[name]).astype(np.float64)
        shape = (len(choice.edges), len(choice.primitives))
        if logits.shape != shape:
            must, got = f"have the shape {shape} for {name!r}", f"shape {logits.shape}"
            raise ValueError(checks.message(function, argument, must, got, cure))
        # NaN and +inf pass through the maximum, as does a row of nothing but -inf.
        bad = np.flatnonzero(~np.isfinite(logits.max(axis=-1)))
        if bad.size:
            must = f"be numbers or -inf, one number at least in each row of {name!r}"
            got = f"{logits[bad[0]].tolist()} for the edge {choice.edges[bad[0]]}"
            raise ValueError(
                checks.message(
                    function, argument, must, got, "The search has diverged."
                )
            )
        found[name] = logits
    return found
