"""Times functions against each other in one run, in turn, so that ratios hold."""

import statistics
import time
from collections.abc import Callable, Mapping

import jax

ROUNDS = 9


def medians(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each candidate, compiled before the first round."""
    for run in candidates.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def temporary_bytes(function, *operands) -> int:
    """Temporary memory of a compiled function."""
    compiled = jax.jit(function).lower(*operands).compile()
    return compiled.memory_analysis().temp_size_in_bytes
