"""Epochs of whole searches at their published sizes: compile time, time and memory.

    pytest tests/benchmarks/test_searches.py --benchmark-only -s

prints the table of README.md here. The NAS-Bench-201 search takes hours on a CPU: there
it is skipped, unless GUMBAX_IMAGES says on how many images it runs.
"""

import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Examples
from gumbax.search.loops.search import Search
from gumbax.search.methods.methods import METHODS
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.named import nasbench201

from . import compare
from .nas_bench import decoded

BATCH = 64
CIFAR = Path(__file__).parents[2] / ".." / "shared" / "data" / "cifar10_jpeg.npz"
IMAGES = os.environ.get("GUMBAX_IMAGES")
# Of the pixels of these images, each channel, divided by 255.
MEAN = np.float32([0.4913, 0.4821, 0.4465])
DEVIATION = np.float32([0.2452, 0.2428, 0.2606])


def compiled_epoch(search):
    """A call of one epoch from the first state, its compile seconds and temporaries."""
    operands = (search.init(), search._rest, search.weight_half, search.arch_half)
    return compare.compiled(search._epoch, *operands)


def seconds_of(run):
    """Of the second call: the first one may load kernels."""
    for _ in range(2):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds = time.perf_counter() - began
    return seconds


def table(title, space, examples, names, benchmark, augmentation=None):
    """Prints the epochs of these methods; returns compile seconds and temporaries."""
    rows, compiling, memory = [], {}, {}
    for name in names:
        search = Search(
            space,
            METHODS[name],
            examples,
            num_classes=10,
            num_epochs=2,
            batch_size=BATCH,
            augmentation=augmentation,
        )
        run, compiling[name], memory[name] = compiled_epoch(search)
        row = (compiling[name], seconds_of(run), memory[name] / 2**20)
        rows.append((name, *(f"{value:.1f}" for value in row)))
    steps = search.steps_per_epoch
    compare.print_table(
        f"{title}, {steps} {'step' if steps == 1 else 'steps'} in an epoch, "
        f"{jax.devices()[0].device_kind}",
        ("method", "trace and compile, s", "epoch, s", "temporaries, MB"),
        rows,
    )
    benchmark.extra_info.update(compiling=compiling, memory=memory)
    benchmark.pedantic(run, rounds=1)
    return compiling, memory


def test_darts_search_epoch(benchmark):
    """First-order steps of logits and weights: C = 16, 8 cells, 64 images of 32x32."""
    images = jax.random.normal(jax.random.key(0), (2 * BATCH, 32, 32, 3))
    examples = Examples(inputs=images, labels=jnp.arange(2 * BATCH) % 10)
    names = ("gumbel", "gdas", "darts")
    compiling, memory = table("DARTS space", DartsSpace(), examples, names, benchmark)
    compare.at_most({"cpu": 90}, max(compiling.values()), "seconds of compiling")
    compare.at_most({"cpu": 4 * 2**30}, max(memory.values()), "bytes of temporaries")


def cifar_10(count):
    """The first training images of the data file, of mean 0 and deviation 1."""
    pixels, labels = decoded(CIFAR, "train", count)
    scaled = (pixels / np.float32(255) - MEAN) / DEVIATION
    return Examples(inputs=jnp.asarray(scaled), labels=jnp.asarray(labels, jnp.int32))


def test_nas_bench_201_search_epoch(benchmark):
    """C = 16, N = 5: first-order steps over half of the training images."""
    if not CIFAR.exists():
        pytest.skip("the data file cifar10_jpeg.npz is not there")
    if IMAGES is None and jax.default_backend() == "cpu":
        pytest.skip("hours on a CPU: name a number of images in GUMBAX_IMAGES")
    examples = cifar_10(int(IMAGES or 50_000))
    table(
        f"NAS-Bench-201 space, {examples.size} images",
        nasbench201(),
        examples,
        ("gumbel", "gdas", "darts"),
        benchmark,
        augmentation=Augmentation(crop_padding=4, flip=True),
    )
