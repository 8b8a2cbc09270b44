"""Sizes of axes, which are symbols where `jax.export` is given symbolic shapes.

A comparison of symbols that holds for some sizes and not for others raises. So a size
is compared where it is a number, and what depends on it is computed where it is none.
"""

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np


def is_known(*sizes: Any) -> bool:
    """Whether all these sizes are numbers."""
    return not any(map(jax.export.is_symbolic_dim, sizes))


def value(size: Any, dtype: Any) -> Any:
    """A size as a scalar of this dtype, to compute with."""
    return np.dtype(dtype).type(size) if is_known(size) else jnp.asarray(size, dtype)
