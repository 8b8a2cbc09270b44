"""Measures the whole grid and writes the page: python -m tests.precision

Both types, some minutes. The page is `.docs/precision.md`; what PyTorch has was
measured by the script beside it.
"""

import json
from pathlib import Path

import jax
import numpy as np
import scipy

from tests.helpers import enable_x64
from tests.precision import choices, laws, plain, units

PAGE = Path(__file__).parents[2] / ".docs/precision.md"
OF_TORCH = PAGE.with_name("precision_torch.json")
TEXT = """# How exact

The worst error of every function of numbers and of its derivatives, in *units of rounding*: |got - true| / (eps |true| + how far the true value goes when an input moves by eps / 2), the moves of all inputs added up. The truth has 60 digits (mpmath); 1 is what a correctly rounded function may have. `pytest tests/precision --exhaustive` fails above 4 units for a value, 8 for a first and 32 for a second derivative; `python -m tests.precision` wrote this page, with {versions}, on CPU.

Each cell: value / first derivatives / second derivatives by the same argument. "-" is not there, "lost" is infinite, NaN or more than 1000 units: nothing of the number is right to three digits of eight.

| function | float32 | float64 | plain JAX, float32 | PyTorch, float32 | SciPy, float64 |
|---|---|---|---|---|---|
{table}

The grid: a winner that leads by 0 to 30 in scaled scores, temperatures .01, .1, 1 and 1000, cotangents with offsets 0 and 30, z from -80 to 1e4 at scale 1 and from -4.3 to 80 at scales 1e-30 and 3e30. Rows of 2 to 131,072 categories are measured apart, in `test_table.py`, against the same bounds.

What is not as good, and is not left out:

- **bfloat16 and float16**: noise, sums and rules are float32, and the result is rounded once. A row's gradient of `gumbel_softmax` is made from the rounded sample: its error is at most 2^-6 (float16: 2^-9) of the row's largest entry. Above 2^-7 were five of some 20,000 rows (drawn apart from this grid), at temperatures 30 and 1000, where equal losers' shares of a winner's gradient cancel; the sum of the rounded sample does not know it. That of `log_gumbel_softmax` takes exp of a rounded logarithm: a loser's share has a relative error of up to 2^-9 |log y| (float16 2^-12 |log y|); take the logarithms in float32 where that matters.
- **`relaxed_bernoulli`**: second derivatives in float32 are within 48 units, and beyond 32 where y (1 - y) is below the normal numbers, which a CPU flushes to 0 before the temperature brings them back.
- **What underflows at scale 1 underflows at every scale**: derivatives of the Gumbel law are those of z times a power of the scale. In float32 they are 0 where the density of z is below 1e-38 (z above 87) and infinite where exp(-z) is (z below -88), even where the power of the scale would bring them back.
- **A weight that underflows has no gradient** in a relaxed sample; in log space it has.
- Inside `jax.lax.scan` JAX before 0.12 forgets the rules of second derivatives: they are those of the plain formulas there.
"""


def cell(found):
    if found is None:
        return "-"
    numbers = [error for error, _ in found]
    return errors(numbers)


def errors(numbers):
    return " / ".join("lost" if e > 1000 else f"{e:.1f}" for e in numbers)


def beside(table, name, entry, dtype):
    """Another's function on the same points."""
    if name not in table:
        return None
    function, _, reference, names, points, order = entry
    return units.worst((function, table[name], reference, names, points, order), dtype)


def values_of_scipy(name, entry):
    if name not in plain.SCIPY:
        return None
    _, _, reference, _, points, _ = entry
    with np.errstate(all="ignore"):
        each = [
            (
                units.units(plain.SCIPY[name](*point), reference, point, np.float64),
                point,
            )
            for point in points
        ]
    return [max(each, key=lambda pair: pair[0])]


def main():
    narrow = {**laws.LAWS, **choices.entries(np.float32)}
    with enable_x64():
        wide = {**laws.LAWS, **choices.entries(np.float64)}
        in_float64 = {name: units.worst(e, np.float64) for name, e in wide.items()}
    torch = json.loads(OF_TORCH.read_text("utf-8"))
    lines = []
    for name, entry in narrow.items():
        cells = [
            units.worst(entry, np.float32),
            in_float64[name],
            beside(plain.JAX, name, entry, np.float32),
            values_of_scipy(name, wide[name]),
        ]
        cells = [cell(found) for found in cells]
        if name in torch["float32"]:
            cells.insert(3, errors(torch["float32"][name]))
        else:
            cells.insert(3, "-")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    versions = (
        f"JAX {jax.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"PyTorch {torch['version']}"
    )
    PAGE.write_text(TEXT.format(versions=versions, table="\n".join(lines)), "utf-8")


if __name__ == "__main__":
    main()
