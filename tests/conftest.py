"""Eight CPU devices, no silent broadcasting of ranks; set before JAX starts.

Benchmarks run as a user would: with the devices that are there.
"""

import os
import sys

if "--benchmark-only" not in sys.argv:
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )

import jax
import pytest

from .helpers import enable_x64

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption(
        "--full-notebooks",
        action="store_true",
        help="run the notebooks at full size, minutes each, not at smoke size",
    )


@pytest.fixture
def strict_promotion():
    """No implicit change of dtype inside the core."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """float64, for comparisons with closed forms."""
    with enable_x64():
        yield
