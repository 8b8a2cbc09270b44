"""Whole search networks, and the convolutions that they are made of.

    pytest tests/benchmarks/test_supernets.py --benchmark-only -s

prints the tables of README.md here.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest

import gumbax
from gumbax import convolution

from . import compare, supernets

BATCH = 64
OURS, STOCK = convolution.conv_general_dilated, jax.lax.conv_general_dilated
KEY = jax.random.key(5)


def path(logit_gradient):
    def operation(weights, branches, params, x):
        return gumbax.single_path(
            weights, branches, params, x, logit_gradient=logit_gradient, key=KEY
        )

    return operation


def one_hot(key, logits):
    return gumbax.gumbel_softmax(key, logits, hard=True)


def batch():
    images = jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3))
    return images, jnp.arange(BATCH) % 10


def over_keys(step, *operands, count=8):
    """The step with another draw each time, the same draws for every candidate."""
    keys = itertools.cycle(jax.random.split(KEY, count))
    return lambda: step(*operands, next(keys))


NAS_BENCH_FORMS = {
    "dense": (gumbax.mixed_op, OURS),
    "exact": (path(gumbax.exact), OURS),
    "subset(1)": (path(gumbax.subset(1)), OURS),
    "sampled": (path(gumbax.sampled), OURS),
    "sampled, stock convolutions": (path(gumbax.sampled), STOCK),
}


@pytest.mark.parametrize("cells", [1, 5])
def test_nas_bench_201_step(cells, benchmark):
    """Forward and backward of weights and logits, C = 16, 64 images of 32x32x3."""
    steps, compiling, memory = {}, {}, {}
    for name, (operation, convolve) in NAS_BENCH_FORMS.items():
        if name.endswith("stock convolutions") and cells > 1:
            continue  # half a minute for each step
        network = supernets.NasBench201(operation, cells=cells, convolve=convolve)
        step = supernets.training_step(network, one_hot)
        operands = (network.init(jax.random.key(0)), network.logits(), *batch())
        _, compiling[name], memory[name] = compare.compiled(step, *operands, KEY)
        steps[name] = over_keys(jax.jit(step), *operands)
    try:
        from . import torch_gdas
    except ModuleNotFoundError:
        print("PyTorch is not installed: its GDAS step is left out")
    else:
        run = torch_gdas.step(16, cells, BATCH)
        seeds = itertools.cycle(range(8))
        steps["PyTorch GDAS"] = lambda: run(next(seeds))
    seconds = compare.medians(steps)
    header = ("form", "ms", "over dense", "temporaries, MB", "compile, s")
    rows = [
        (
            name,
            f"{1e3 * value:.0f}",
            f"{seconds['dense'] / value:.1f}",
            f"{memory[name] / 2**20:.0f}" if name in memory else "",
            f"{compiling[name]:.0f}" if name in compiling else "",
        )
        for name, value in seconds.items()
    ]
    compare.print_table(f"NAS-Bench-201 step, N = {cells}", header, rows)
    benchmark.extra_info.update(seconds=seconds, compiling=compiling, memory=memory)
    benchmark.pedantic(steps["sampled"], rounds=1)
    if cells == 1:
        stock = seconds["sampled, stock convolutions"]
        ratio = stock / seconds["sampled"]
        compare.at_least({"cpu": 6}, ratio, "over stock convolutions")
    if "PyTorch GDAS" in seconds:
        ratio = seconds["PyTorch GDAS"] / seconds["sampled"]
        compare.at_least({"cpu": 0.8}, ratio, "over PyTorch GDAS")


def test_darts_step(benchmark):
    """First-order step of 8 cells, 14 edges each, 8 primitives: compile time."""
    rows, compiling = [], {}
    for name in ("sampled", "exact", "dense"):
        operation, _ = NAS_BENCH_FORMS[name]
        network = supernets.Darts(operation)
        step = supernets.training_step(network, one_hot)
        operands = (network.init(jax.random.key(0)), network.logits(), *batch(), KEY)
        run, compiling[name], memory = compare.compiled(step, *operands)
        seconds = compare.medians({name: run})[name]
        rows.append(
            (
                name,
                f"{compiling[name]:.0f}",
                f"{seconds:.1f}",
                f"{memory / 2**20:.0f}",
            )
        )
    compare.print_table(
        "DARTS step", ("form", "compile, s", "s", "temporaries, MB"), rows
    )
    benchmark.extra_info.update(compiling=compiling)
    benchmark.pedantic(run, rounds=1)
    compare.at_most({"cpu": 90}, max(compiling.values()), "seconds of compiling")


def convolution_case(size, channels, groups=1):
    keys = jax.random.split(jax.random.key(2), 3)
    x, g = (jax.random.normal(key, (BATCH, 32, 32, channels)) for key in keys[:2])
    kernel = jax.random.normal(keys[2], (size, size, channels // groups, channels))
    return x, kernel, g


def pull_back(convolve, groups, x, kernel, g):
    def run(x, kernel):
        return convolve(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    y, vjp = jax.vjp(run, x, kernel)
    return y, vjp(g)


def test_convolution_gradient_inside_a_switch(benchmark):
    rows, ratios = [], {}
    for size in (3, 5):
        operands = convolution_case(size, 16)
        steps = {}
        for kind, convolve in (("ours", OURS), ("stock", STOCK)):
            run = functools.partial(pull_back, convolve, 1)
            switched = [run, lambda x, kernel, g: (x, (x, kernel))]

            def inside(index, *operands, switched=switched):
                return jax.lax.switch(index, switched, *operands)

            steps[kind, "outside"], _, _ = compare.compiled(run, *operands)
            steps[kind, "inside"], _, _ = compare.compiled(
                inside, jnp.int32(0), *operands
            )
        seconds = compare.medians(steps)
        for kind in ("ours", "stock"):
            ratios[kind, size] = seconds[kind, "inside"] / seconds[kind, "outside"]
            rows.append(
                (
                    f"{size}x{size}, {kind}",
                    f"{1e3 * seconds[kind, 'outside']:.1f}",
                    f"{1e3 * seconds[kind, 'inside']:.1f}",
                    f"{ratios[kind, size]:.2f}",
                )
            )
    header = ("convolution", "outside, ms", "inside, ms", "inside / outside")
    compare.print_table("Forward and backward in `lax.switch`", header, rows)
    benchmark.extra_info.update(rows=rows)
    benchmark.pedantic(steps["ours", "inside"], rounds=1)
    slowest = max(ratios["ours", size] for size in (3, 5))
    compare.at_most({"cpu": 1.2}, slowest, "inside over outside")


def test_depthwise_convolution(benchmark):
    rows, ratios = [], {}
    for size in (3, 5):
        operands = convolution_case(size, 16, groups=16)
        steps = {
            kind: compare.compiled(functools.partial(pull_back, c, 16), *operands)[0]
            for kind, c in (("ours", OURS), ("stock", STOCK))
        }
        seconds = compare.medians(steps)
        ratios[size] = seconds["stock"] / seconds["ours"]
        rows.append(
            (
                f"{size}x{size}",
                f"{1e3 * seconds['ours']:.1f}",
                f"{1e3 * seconds['stock']:.1f}",
                f"{ratios[size]:.1f}",
            )
        )
    header = ("depthwise", "ours, ms", "stock, ms", "times faster")
    compare.print_table("Depthwise convolution, forward and backward", header, rows)
    benchmark.extra_info.update(rows=rows)
    benchmark.pedantic(steps["ours"], rounds=1)
    compare.at_least({"cpu": 3}, min(ratios.values()), "stock over ours")


def test_training_loop_under_scan(benchmark):
    """Eight steps of plain gradient descent on weights and logits."""
    network = supernets.NasBench201(path(gumbax.sampled), cells=1)
    step = supernets.training_step(network, one_hot)
    start = network.init(jax.random.key(0)), network.logits()
    images, labels = batch()
    keys = jax.random.split(KEY, 8)

    def update(state, key):
        loss, gradient = step(*state, images, labels, key)
        return jax.tree.map(lambda a, b: a - 0.01 * b, state, gradient), loss

    jitted = jax.jit(update)

    def loop():
        state = start
        for key in keys:
            state, _ = jitted(state, key)
        return state

    scanned, _, _ = compare.compiled(
        lambda state, keys: jax.lax.scan(update, state, keys), start, keys
    )
    seconds = compare.medians({"scan": scanned, "loop": loop})
    ratio = seconds["scan"] / seconds["loop"]
    print(f"\n\n8 steps: scan {seconds['scan']:.2f} s, loop {seconds['loop']:.2f} s")
    benchmark.extra_info.update(ratio=ratio)
    benchmark.pedantic(scanned, rounds=1)
    # Not slower, within the noise of the clock.
    compare.at_most({"cpu": 1.1}, ratio, "scan over loop")


def test_choice_for_each_example(benchmark):
    """One draw for the batch against one for each example, which runs all branches."""
    branches = [functools.partial(_dense_layer, i) for i in range(8)]
    keys = jax.random.split(jax.random.key(0), 8)
    params = tuple(jax.random.normal(key, (256, 256)) / 16 for key in keys)
    x = jax.random.normal(jax.random.key(1), (1024, 256))
    logits = {"choice": jnp.zeros(8)}

    def loss(params, per_example, operation):
        drawn = gumbax.draw_choices(
            KEY, logits, hard=True, num_examples=len(x) if per_example else None
        )
        return operation(drawn["choice"], branches, params, x).sum()

    steps = {
        "one for the batch": compare.compiled(
            jax.grad(lambda p: loss(p, False, gumbax.single_path)), params
        )[0],
        "one for each example": compare.compiled(
            jax.grad(lambda p: loss(p, True, gumbax.mixed_op)), params
        )[0],
    }
    seconds = compare.medians(steps)
    ratio = seconds["one for each example"] / seconds["one for the batch"]
    print(f"\n\na draw for each example costs {ratio:.1f} times one for the batch")
    benchmark.extra_info.update(ratio=ratio)
    benchmark.pedantic(steps["one for the batch"], rounds=1)


def _dense_layer(number, kernel, x):
    del number
    return jnp.tanh(x @ kernel)
