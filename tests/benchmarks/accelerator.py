"""All that is measured on a GPU, in one run of some minutes of which most is compiling.

    python -m tests.benchmarks.accelerator [draws samplers edges search]

prints the tables of README.md here. Programs are compiled side by side before the first
is timed. A time is that of calls one after another, waited for at the end, the median
of some such rounds. PyTorch is compared with where it is installed.
"""

import concurrent.futures
import functools
import importlib.metadata
import importlib.util
import math
import os
import platform
import statistics
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np

import gumbax
from gumbax._noise import threefry
from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Examples
from gumbax.search.loops.search import Search
from gumbax.search.methods.methods import METHODS
from gumbax.search.spaces.named import nasbench201

from . import compare, test_mixed_op, test_samplers
from .test_samplers import OPERATIONS, TEMPERATURE, both, plain_noise

SHAPES = [(4096, 8), (131072, 1000), (1024, 131072), (8192, 131072)]
# Here every mode of JAX and PyTorch are compared with, elsewhere its default mode.
EVERY = (1024, 131072)
SECONDS = 0.05
ROUNDS = 5


def our_log(key, logits):
    return gumbax.log_gumbel_softmax(key, logits, temperature=TEMPERATURE)


def plain_log(key, logits, *, mode):
    noise = plain_noise(key, logits, mode=mode)
    return jax.nn.log_softmax((logits + noise) / TEMPERATURE)


def our_bits(key, logits):
    return gumbax.relaxed_bernoulli(key, logits, temperature=TEMPERATURE)


def plain_bits(key, logits, *, mode):
    del mode
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    return jax.nn.sigmoid((logits + noise) / TEMPERATURE)


def in_blocks(key, logits):
    size = 2 ** (logits.shape[-1].bit_length() // 2)
    return gumbax.categorical(key, logits, block_size=size)


PAIRS = OPERATIONS | {
    "`categorical`, root blocks": (in_blocks, OPERATIONS["categorical"][1]),
    "log": (our_log, plain_log),
    "log, both": (both(our_log), both(plain_log)),
    "bits": (our_bits, plain_bits),
    "bits, both": (both(our_bits), both(plain_bits)),
}


def hashed(key, logits):
    """One hash for each element, read by nobody: 4 bytes are written."""
    high, low = threefry.random_words(key, logits.shape, axis=logits.ndim - 1)
    return high ^ low


def copied(key, logits):
    del key
    return -logits


def operands(shape, dtype):
    logits, bar = jax.random.normal(jax.random.key(1), (2, *shape), dtype)
    return jax.random.key(0), logits, bar


def programs(shape, dtype):
    """(operation, candidate) -> a function and its arguments' shapes, not compiled."""
    given = jax.eval_shape(functools.partial(operands, shape, dtype))
    modes = compare.MODES if shape == EVERY else compare.MODES[:1]
    found = {}
    for operation, (ours, plain) in PAIRS.items():
        used = given if "both" in operation else given[:2]
        found[operation, "ours"] = ours, used
        for mode in modes:
            found[operation, mode] = functools.partial(plain, mode=mode), used
    if shape == EVERY:
        found["hash", "ours"] = hashed, given[:2]
        found["copy", "ours"] = copied, given[:2]
    return found


def compiled_side_by_side(functions):
    """Name -> a compiled function and the bytes of its temporaries."""

    def compile_one(item):
        name, (function, given) = item
        executable = jax.jit(function).lower(*given).compile()
        return name, (executable, executable.memory_analysis().temp_size_in_bytes)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(compile_one, functions.items()))


def seconds_of(run):
    """Of one call among many that are in flight; `run` returns what is waited for."""
    jax.block_until_ready(run())
    began = time.perf_counter()
    jax.block_until_ready(run())
    once = time.perf_counter() - began
    calls = max(2, min(200, int(SECONDS / once)))
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            last = run()
        jax.block_until_ready(last)
        found.append((time.perf_counter() - began) / calls)
    return statistics.median(found)


def torch_calls(shape, dtype):
    """Operation -> seconds with PyTorch on this device."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    if not torch.cuda.is_available():
        return {}
    narrow = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    x, bar = torch.randn((2, *shape), device="cuda").to(narrow[jnp.dtype(dtype).name])

    def noise():
        return -torch.empty_like(x).exponential_().log()

    def sample(hard, x=x):
        return torch.nn.functional.gumbel_softmax(x, tau=TEMPERATURE, hard=hard)

    def step(hard):
        leaf = x.detach().requires_grad_()
        sample(hard, leaf).backward(bar)

    calls = {
        "noise": noise,
        "index": lambda: (x + noise()).argmax(-1),
        "categorical": lambda: (x + noise()).argmax(-1),
        "soft": lambda: sample(hard=False),
        "soft, both": lambda: step(hard=False),
        "hard": lambda: sample(hard=True),
        "hard, both": lambda: step(hard=True),
    }
    seconds = {}
    for operation, call in calls.items():
        call()
        found = []
        for _ in range(ROUNDS):
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(5):
                call()
            torch.cuda.synchronize()
            found.append((time.perf_counter() - began) / 5)
        seconds[operation] = statistics.median(found)
    torch.cuda.empty_cache()
    return seconds


def samplers():
    """The table of the samplers."""
    cases = [(shape, dtype) for shape in SHAPES for dtype in test_samplers.DTYPES]
    wanted = {case: programs(*case) for case in cases}
    began = time.perf_counter()
    ready = compiled_side_by_side(
        {
            (case, *name): f
            for case, found in wanted.items()
            for name, f in found.items()
        }
    )
    print(f"\n{len(ready)} programs compiled in {time.perf_counter() - began:.0f} s")
    rows = []
    for case in cases:
        shape, dtype = case
        given = jax.jit(functools.partial(operands, *case))()
        size = math.prod(shape) * jnp.dtype(dtype).itemsize
        seconds, memory = {}, {}
        for name in wanted[case]:
            executable, memory[name] = ready[case, *name]
            used = given if "both" in name[0] else given[:2]
            seconds[name] = seconds_of(functools.partial(executable, *used))
        del given
        peer = torch_calls(*case) if shape == EVERY else {}
        for operation in dict.fromkeys(name[0] for name in wanted[case]):
            ours = seconds[operation, "ours"]
            over = [
                f"{seconds[operation, mode] / ours:.2f}"
                if (operation, mode) in seconds
                else ""
                for mode in compare.MODES
            ]
            peers = f"{peer[operation] / ours:.2f}" if operation in peer else ""
            stored = (
                f"{memory[operation, kind] / size:.3f}"
                for kind in ("ours", "low")
                if (operation, kind) in memory
            )
            rows.append(
                (
                    f"{shape}, {jnp.dtype(dtype).name}",
                    operation,
                    f"{1e6 * ours:.0f}",
                    f"{math.prod(shape) / ours / 1e9:.0f}",
                    *over,
                    peers,
                    " / ".join(stored),
                )
            )
    over = [f"over `{mode}`" for mode in compare.MODES]
    header = ("shape, dtype", "operation", "us", "G elements / s", *over)
    header += ("over PyTorch", "temporaries, ours / plain (arrays)")
    compare.print_table("Samplers", header, rows)


def draws():
    """What differs from the CPU beside it, for the same keys."""
    cpu, here = jax.devices("cpu")[0], jax.devices()[0]
    rows, categories = 2**20, 64
    logits = np.random.default_rng(0).normal(size=(rows, categories))
    logits = logits.astype(np.float32)

    def on(device, function, *given):
        placed = jax.device_put((jax.random.key(7), *given), device)
        return jax.device_get(jax.jit(function)(*placed))

    def compared(function, *given):
        return on(cpu, function, *given), on(here, function, *given)

    def words(key):
        return threefry.random_words(key, (rows, categories), axis=1)

    def noise(key):
        return gumbax.gumbel.sample(key, (rows, categories))

    def hard(key, x):
        return gumbax.gumbel_softmax(key, x, hard=True)

    a, b = compared(words)
    print("\nwords that differ:", int(np.sum(a[0] != b[0]) + np.sum(a[1] != b[1])))
    a, b = compared(noise)
    units = np.abs(a - b) / np.spacing(np.maximum(np.abs(a), np.float32(1)))
    print(f"noise: {np.mean(a != b):.4f} differ, by at most {units.max():.1f} units")
    for name, function in (("indices", gumbax.gumbel_max), ("one-hots", hard)):
        a, b = compared(function, logits)
        different = (a != b).reshape(rows, -1).any(axis=1).sum()
        print(f"{name}: {different} of {rows} rows differ")
    a, b = compared(our_bits, logits)
    print(f"relaxed bits: differ by at most {np.abs(a - b).max():.2g}")
    a, b = compared(test_samplers.our_soft, logits)
    print(f"soft samples: differ by at most {np.abs(a - b).max():.2g}")


EDGES = {"6 convolutions": (test_mixed_op.convolutions, 6, test_mixed_op.IMAGES)}
for _size in (16, 64, 256, 1024):
    EDGES[f"8 dense layers of {_size}"] = (
        test_mixed_op.dense_layers,
        8,
        (64, 32, 32, _size) if _size < 1024 else (16, 32, 32, _size),
    )


def edges():
    """One edge, forward and backward: from which size of branch a path pays."""
    forms = ("dense", "exact", "sampled")
    wanted, given = {}, {}
    for name, (edge, count, shape) in EDGES.items():
        x, bar = jax.random.normal(jax.random.key(1), (2, *shape))
        branches, params = edge(count, jax.lax.conv_general_dilated)
        if edge is test_mixed_op.dense_layers:
            size = shape[-1]
            keys = jax.random.split(jax.random.key(0), count)
            params = tuple(jax.random.normal(k, (size, size)) / size for k in keys)
        given[name] = params, x, bar
        for form in forms:
            step = functools.partial(
                test_mixed_op.forward_and_backward,
                test_mixed_op.FORMS[form][0],
                branches,
            )
            wanted[name, form] = step, (jnp.eye(count)[0], *given[name])
    ready = compiled_side_by_side(wanted)
    rows = []
    for name, (_, count, _) in EDGES.items():
        seconds, memory = {}, {}
        for form in forms:
            step, memory[form] = ready[name, form]
            choices = jnp.eye(count)

            def run(step=step, name=name, choices=choices):
                return [step(choice, *given[name]) for choice in choices]

            seconds[form] = seconds_of(run) / count
        rows += [
            (
                name,
                form,
                f"{1e6 * seconds[form]:.0f}",
                f"{seconds['dense'] / seconds[form]:.2f}",
                f"{memory[form] / 2**20:.1f}",
                f"{memory[form] / memory['dense']:.2f}",
            )
            for form in forms
        ]
    header = ("edge", "form", "us", "over dense", "temporaries, MB", "share")
    compare.print_table("One edge, forward and backward", header, rows)


def search():
    """Epochs of NAS-Bench-201 at its published size: 50,000 images, C = 16, N = 5."""
    size = int(os.environ.get("GUMBAX_IMAGES", "50000"))
    images = jax.random.normal(jax.random.key(0), (size, 32, 32, 3))
    examples = Examples(inputs=images, labels=jnp.arange(size) % 10)
    rows = []
    for name in os.environ.get("GUMBAX_METHODS", "gumbel").split():
        run = Search(
            nasbench201(),
            METHODS[name],
            examples,
            num_classes=10,
            num_epochs=250,
            batch_size=64,
            augmentation=Augmentation(crop_padding=4, flip=True),
        )
        state = run.init()
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            state, metrics = jax.block_until_ready(run.epoch(state))
            seconds.append(time.perf_counter() - began)
        epoch = statistics.median(seconds[1:])
        whole = seconds[0] + 249 * epoch
        rows.append(
            (
                name,
                f"{seconds[0]:.1f}",
                f"{epoch:.2f}",
                f"{1e3 * epoch / run.steps_per_epoch:.1f}",
                f"{whole / 60:.0f}",
                f"{float(metrics['loss']):.3f}",
            )
        )
    header = ("method", "first epoch, s", "epoch, s", "step, ms")
    header += ("250 epochs, min (extrapolated)", "loss")
    compare.print_table("NAS-Bench-201 search", header, rows)


SECTIONS = {"draws": draws, "samplers": samplers, "edges": edges, "search": search}


def main(names):
    versions = [
        f"{package} {importlib.metadata.version(package)}"
        for package in ("jax", "jaxlib", "torch")
        if importlib.util.find_spec(package) is not None
    ]
    device = jax.devices()[0].device_kind
    print(f"{device}, {', '.join(versions)}, Python {platform.python_version()}")
    for name in names or SECTIONS:
        began = time.perf_counter()
        SECTIONS[name]()
        print(f"\n({name}: {time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
