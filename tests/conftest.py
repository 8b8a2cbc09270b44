"""Eight CPU devices, no silent broadcasting of ranks; set before JAX starts.

What is compiled is kept on disk until the end of the run: objects that are made anew,
the other worker, and processes that tests start compile equal programs once. Loops are
not unrolled by the compiler, which takes a quarter off its time. Benchmarks run as a
user would: with the devices that are there, and compiling; `--optimised` compiles so.
"""

import atexit
import contextlib
import gc
import inspect
import os
import shutil
import sys
import tempfile
from pathlib import Path

if "--benchmark-only" not in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ:
    # Workers inherit all of it.
    flags, count = (
        os.environ.get("XLA_FLAGS", ""),
        "xla_force_host_platform_device_count",
    )
    if count not in flags:
        flags = f"{flags} --{count}=8"
    extra = "xla_backend_extra_options"
    if "--optimised" not in sys.argv and extra not in flags:
        left_out = "xla_cpu_disable_loop_unrolling,xla_cpu_disable_slp_vectorizer"
        flags = f"{flags} --{extra}={left_out}"
    os.environ["XLA_FLAGS"] = flags
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        compiled = tempfile.mkdtemp(prefix="gumbax-compiled-")
        atexit.register(shutil.rmtree, compiled, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

from .helpers import NOT_OPTIMISED, enable_x64

jax.config.update("jax_numpy_rank_promotion", "raise")


def slow_tests():
    """The entries of slow.txt."""
    listed = (Path(__file__).parent / "slow.txt").read_text("utf-8").splitlines()
    return [line for line in listed if not line.startswith("#")]


def pytest_addoption(parser):
    parser.addoption(
        "--full-notebooks",
        action="store_true",
        help="run the notebooks at full size, minutes each, not at smoke size",
    )
    parser.addoption(
        "--optimised",
        action="store_true",
        help="compile as users do, not with as little optimisation as there is; slow",
    )
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="also run sweeps and slow tests, as CI does once, on the newest versions",
    )


def pytest_configure(config):
    if not (config.getoption("--optimised") or config.getoption("--benchmark-only")):
        jax.config.update(NOT_OPTIMISED, True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skips what this machine cannot show."""
    if item.get_closest_marker("eight_devices") and (found := jax.device_count()) < 8:
        pytest.skip(f"needs eight devices, and there are {found}")
    if item.get_closest_marker("cpu_program") and jax.default_backend() != "cpu":
        pytest.skip("reads the program that is compiled for CPU")


def pytest_collection_modifyitems(config, items):
    """Leaves sweeps and slow tests out, unless they are asked for."""
    if config.getoption("--exhaustive"):
        return
    slow = tuple(f"tests/{name}" for name in slow_tests())
    left_out = [
        item
        for item in items
        if item.get_closest_marker("exhaustive") or item.nodeid.startswith(slow)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture
def optimised():
    """Programs as users have them: for tests of bits, of rounding and of costs."""
    before = jax.config.values[NOT_OPTIMISED]
    jax.config.update(NOT_OPTIMISED, False)
    yield
    jax.config.update(NOT_OPTIMISED, before)


@pytest.fixture
def strict_promotion():
    """No implicit change of dtype inside the core."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def collected():
    """Unreachable objects, and tasks of orbax that wait, end before the test does."""
    yield
    gc.collect()
    for found in gc.get_objects():
        if inspect.iscoroutine(found) and "orbax" in found.cr_code.co_filename:
            with contextlib.suppress(Exception):
                found.close()


@pytest.fixture
def x64():
    """float64, for comparisons with closed forms."""
    with enable_x64():
        yield
