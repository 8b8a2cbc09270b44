"""Times functions against each other in one run, in turn, so that ratios hold."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax

ROUNDS = 9
# Large cases take fewer rounds: about this many seconds for each candidate.
SECONDS = 6.0
# Of the noise of JAX: 23 random bits in "low", its default; "highest" is of JAX 0.10.
MODES = ("low", "high", "highest")[: 2 + (jax.__version_info__ >= (0, 10))]


def medians(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each candidate, compiled before the first round."""
    slowest = 0.0
    for run in candidates.values():
        jax.block_until_ready(run())
        began = time.perf_counter()
        jax.block_until_ready(run())
        slowest = max(slowest, time.perf_counter() - began)
    rounds = max(3, min(ROUNDS, int(SECONDS / slowest)))
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compiled(function, *operands) -> tuple[Callable[[], object], float, int]:
    """A compiled call on operands, the seconds it took to trace and compile,
    and the bytes of its temporaries."""
    began = time.perf_counter()
    executable = jax.jit(function).lower(*operands).compile()
    seconds = time.perf_counter() - began
    size = executable.memory_analysis().temp_size_in_bytes
    return lambda: executable(*operands), seconds, size


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]):
    """Prints a table as the README has it."""
    print(f"\n\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def at_least(thresholds: Mapping[str, float], value: float, what: str) -> None:
    """Asserts a threshold of this platform; where none was measured, prints the value.

    Args:
        thresholds: platform -> least value.
        value: what was found.
        what: in messages.
    """
    least = thresholds.get(jax.default_backend())
    if least is None:
        print(f"\n{what}: {value:.3g} (no threshold on {jax.default_backend()})")
    else:
        assert value >= least, f"{what}: {value:.3g} < {least}"


def at_most(thresholds: Mapping[str, float], value: float, what: str) -> None:
    """The same for a largest value."""
    at_least({name: -most for name, most in thresholds.items()}, -value, f"-{what}")


def temporary_bytes(function, *operands) -> int:
    """Temporary memory of a compiled function."""
    return compiled(function, *operands)[2]
