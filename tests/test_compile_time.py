"""No program of ours keeps the compiler busy for ever.

On CPU with JAX 0.8.0 to 0.10.2 it searches some loops without end: small ones that hold
the hash and a selection by an index (CI compiles the programs under one of these too).
Only a process can be given a limit.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import sweep

ROOT = Path(__file__).parents[1]
# All programs of a shape compile in about 20 seconds on an idle core.
SECONDS = 300


@pytest.mark.parametrize(
    "shape", sweep([(8, 8)], [((64, 128),), ((16, 16),), ((32, 8),), ((8,),)]), ids=str
)
def test_masks_and_logits_from_an_index_compile(shape):
    command = [sys.executable, "-m", "tests.compiled_programs", *map(str, shape)]
    # Nothing that was compiled before counts.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    try:
        names, _ = process.communicate()
    finally:
        limit.cancel()
    *_, last = names.split("\n")[:-1] or ["the start"]
    assert last == "done", f"not compiled in {SECONDS} seconds: {last}"
    assert process.returncode == 0
