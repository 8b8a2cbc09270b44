"""Where the kept architecture stands among random ones, and how likely by chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Standing:
    """The place of one architecture among others that were trained equally.

    Attributes:
        rank: 1 for the best; of equal ones the worst place.
        among: how many there are, this one included.
    """

    rank: int
    among: int

    @classmethod
    def of(cls, kept: float, others: Sequence[float]) -> "Standing":
        """The place of an accuracy among those of others."""
        return cls(1 + sum(other >= kept for other in others), 1 + len(others))

    def __str__(self) -> str:
        return f"{self.rank} of {self.among}"


def chance(standings: Sequence[Standing]) -> float:
    """The probability that random architectures stand as well as the kept ones.

    If every kept architecture were one more random one, each rank would be uniform:
    this is the probability that their sum is at most the one that was found, exactly.
    With one run it is rank / number; ties only make it smaller than is said.

    Args:
        standings: of each run.

    Returns:
        A probability.

    Example:
        >>> chance([Standing(1, 20)]), chance([Standing(1, 6)] * 2)
        (0.05, 0.027777777777777776)
    """
    law = np.ones(1)
    for one in standings:
        law = np.convolve(law, np.full(one.among, 1 / one.among))
    # The sum of all ranks but 1 for each.
    return float(law[: sum(one.rank - 1 for one in standings) + 1].sum())


def pooled(kept: Sequence[float], others: Sequence[float]) -> str:
    """A sentence: accuracies of kept architectures beside all random ones of the runs.

    Args:
        kept: of each run, percent.
        others: of all random architectures, percent.
    """
    high = float(np.percentile(others, 90))
    above = sum(one > high for one in kept)
    return (
        f"The 90th percentile of all {len(others)} random ones is {high:.2f} %: "
        f"{above} of the {len(kept)} kept ones are above it, and their mean "
        f"({np.mean(kept):.2f} %) is{'' if np.mean(kept) > high else ' not'}."
    )
