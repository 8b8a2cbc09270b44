"""Errors in units of rounding, beyond what the inputs themselves are worth.

|got - true| / (eps |true| + how far the true value goes when an input moves by
eps / 2), the moves of all inputs added up; where the truth is a normal number.
"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np


def quantities(function, order):
    """Jitted: points -> values, first derivatives, second ones by the same argument."""

    def all_of(*point):
        numbers = range(len(point))
        found = [[function(*point)]]
        if order > 0:
            found.append([jax.grad(function, i)(*point) for i in numbers])
        if order > 1:
            # The diagonal of the Hessian, by reverse over reverse.
            found.append([jax.grad(jax.grad(function, i), i)(*point) for i in numbers])
        return [jnp.stack(row) for row in found]

    return jax.jit(jax.vmap(all_of))


def derivative(reference, i, n):
    """The n-th derivative of the reference by argument i, at points of numbers."""

    def of(*point):
        if n == 0:
            return reference(*point)
        # In steps of its own size, or of the smallest other number.
        size = abs(point[i]) or min(abs(x) for x in point if x)
        along = lambda x: reference(*point[:i], point[i] + x * size, *point[i + 1 :])  # noqa: E731
        return mp.diff(along, 0, n) / size**n

    return of


def units(got, true_of, point, dtype):
    """Of one number; 0 where the truth is not a normal number of the type."""
    info = np.finfo(dtype)
    eps = mp.mpf(float(info.eps))
    point = [mp.mpf(float(x)) for x in point]
    true = true_of(*point)
    if abs(true) > float(info.max) or 0 < abs(true) < float(info.tiny):
        return 0.0
    if not np.isfinite(got):
        return np.inf
    moved = mp.mpf(0)
    error = abs(mp.mpf(float(got)) - true)
    allowed = eps * abs(true) + float(info.tiny)
    if error <= allowed / 8:
        return float(error / allowed)
    for i, x in enumerate(point):
        ends = (x * (1 + sign * eps / 2) for sign in (-1, 1))
        near = (true_of(*point[:i], end, *point[i + 1 :]) for end in ends)
        moved += max(abs(value - true) for value in near)
    return float(error / (allowed + moved))


def worst(entry, dtype, stride=1):
    """[worst units and their point] of the values and of each order of derivatives."""
    function, call, reference, names, points, order = entry
    if call is None:
        call = lambda *point: function(**dict(zip(names, point, strict=True)))  # noqa: E731
    arrays = [
        np.asarray(column, dtype) for column in zip(*points[::stride], strict=True)
    ]
    found = jax.device_get(quantities(call, order)(*arrays))
    results = []
    for n, got in enumerate(found):
        each = [
            (units(got[row, i], derivative(reference, i, n), point, dtype), point)
            for row, point in enumerate(zip(*arrays, strict=True))
            for i in range(got.shape[1])
            if n < 2 or square_in_range(zip(names, point, strict=True))
        ]
        results.append(max(each, key=lambda pair: pair[0]))
    return results


def square_in_range(named):
    """1 / scale**2 is a number of float32; of pairs (name, number)."""
    return all(1e-16 < x < 1e16 for name, x in named if "scale" in name)
