"""The shapes of the three kinds of space, without their networks."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from gumbax.search.spaces.space import Choice

DARTS_PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NASBENCH201_PRIMITIVES = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)


@dataclass(frozen=True)
class SmallSpace:
    name: str
    choices: Mapping[str, Choice]
    inputs_per_node: int | None = None


def dense_edges(num_nodes, num_inputs=1):
    pairs = itertools.combinations(range(num_nodes), 2)
    by_target = sorted(pairs, key=lambda edge: (edge[1], edge[0]))
    return tuple(edge for edge in by_target if edge[1] >= num_inputs)


def darts_choice(primitives=DARTS_PRIMITIVES):
    return Choice(dense_edges(6, 2), primitives, num_inputs=2, outputs=(2, 3, 4, 5))


def chain(num_layers, primitives):
    """One choice for each layer; all with the same primitives."""
    edges = tuple((i, i + 1) for i in range(num_layers))
    return SmallSpace("chain", {"layers": Choice(edges, primitives)})


DARTS = SmallSpace("darts", {"normal": darts_choice(), "reduce": darts_choice()}, 2)
NASBENCH201 = SmallSpace(
    "nasbench201",
    {"cell": Choice(dense_edges(4), NASBENCH201_PRIMITIVES, outputs=(3,))},
)
CHAIN = chain(9, ("mbconv3_3x3", "mbconv6_5x5", "skip_connect"))
