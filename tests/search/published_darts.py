"""The search network of DARTS, written out from its formulas in plain JAX.

It shares no code with gumbax. Weights are plain lists of kernels [H, W, in, out].
"""

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5


def relu(x):
    return jnp.where(x > 0, x, 0)


def conv(x, kernel, *, stride=1, dilation=1, groups=1):
    """PyTorch's: padding dilation * (size // 2) on every side."""
    pad = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad), (pad, pad)],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def norm(x):
    """By the statistics of the batch, variance biased, no scale, no bias."""
    mean = x.mean(axis=(0, 1, 2), keepdims=True)
    var = ((x - mean) ** 2).mean(axis=(0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(var + EPSILON)


def windows(x, stride, fill):
    """The nine pixels of 3x3 windows, one beyond the margin being `fill`."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    return jnp.stack(
        [
            x[:, i : i + height : stride, j : j + width : stride]
            for i in range(3)
            for j in range(3)
        ]
    )


def none(kernels, x, stride):
    return 0 * x[:, ::stride, ::stride]


def max_pool(kernels, x, stride):
    return norm(windows(x, stride, -jnp.inf).max(axis=0))


def avg_pool(kernels, x, stride):
    count = windows(jnp.ones_like(x), stride, 0).sum(axis=0)
    return norm(windows(x, stride, 0).sum(axis=0) / count)


def factorized_reduce(kernels, x):
    first, second = kernels
    x = relu(x)
    halves = conv(x, first, stride=2), conv(x[:, 1:, 1:], second, stride=2)
    return norm(jnp.concatenate(halves, axis=-1))


def skip_connect(kernels, x, stride):
    return x if stride == 1 else factorized_reduce(kernels, x)


def sep_conv(kernels, x, stride):
    for i in range(2):
        depthwise, pointwise = kernels[2 * i : 2 * i + 2]
        x = conv(relu(x), depthwise, stride=stride, groups=x.shape[-1])
        x, stride = norm(conv(x, pointwise)), 1
    return x


def dil_conv(kernels, x, stride):
    depthwise, pointwise = kernels
    groups = x.shape[-1]
    x = conv(relu(x), depthwise, stride=stride, dilation=2, groups=groups)
    return norm(conv(x, pointwise))


OPERATIONS = {
    "none": none,
    "max_pool_3x3": max_pool,
    "avg_pool_3x3": avg_pool,
    "skip_connect": skip_connect,
    "sep_conv_3x3": sep_conv,
    "sep_conv_5x5": sep_conv,
    "dil_conv_3x3": dil_conv,
    "dil_conv_5x5": dil_conv,
}


def mixed_op(weights, names, kernels, x, stride):
    """sum_o weights[o] o(x)."""
    terms = [
        weights[i] * OPERATIONS[name](kernels[i], x, stride)
        for i, name in enumerate(names)
    ]
    return sum(terms[1:], terms[0])


def cell(params, weights, names, s0, s1, *, reduction):
    """params: first, second (kernels), edges (kernels of each operation, by edge)."""
    if len(params["first"]) == 2:
        s0 = factorized_reduce(params["first"], s0)
    else:
        s0 = norm(conv(relu(s0), params["first"][0]))
    s1 = norm(conv(relu(s1), params["second"][0]))
    states, row = [s0, s1], 0
    while row < len(params["edges"]):
        total = 0
        for j, state in enumerate(states):
            stride = 2 if reduction and j < 2 else 1
            total += mixed_op(
                weights[row + j], names, params["edges"][row + j], state, stride
            )
        row += len(states)
        states.append(total)
    return jnp.concatenate(states[2:], axis=-1)


def network(params, weights, names, images):
    """weights: normal, reduce, each [E, K]. Scores of the classes."""
    stem = norm(conv(images, params["stem"]))
    scale, bias = (a.reshape(1, 1, 1, -1) for a in params["stem_norm"])
    s0 = s1 = stem * scale + bias
    count = len(params["cells"])
    for i, own in enumerate(params["cells"]):
        reduction = i in (count // 3, 2 * count // 3)
        rows = weights["reduce" if reduction else "normal"]
        s0, s1 = s1, cell(own, rows, names, s0, s1, reduction=reduction)
    kernel, bias = params["head"]
    return s1.mean(axis=(1, 2)) @ kernel + bias.reshape(1, -1)


def cross_entropy(scores, labels):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_probs = shifted - jnp.log(jnp.exp(shifted).sum(axis=-1, keepdims=True))
    return -log_probs[np.arange(len(labels)), labels].mean()


# Weights of gumbax in this form.


def kernels_of(module, edge=None):
    """The kernels of a primitive; of one of its stacked edges."""
    pairs = (
        [(d, p) for d, p in zip(module.depthwise, module.pointwise, strict=True)]
        if hasattr(module, "depthwise")
        else [(module.conv,)]
        if hasattr(module, "conv")
        else [(module.first, module.second)]
        if hasattr(module, "second")
        else []
    )
    found = [conv.kernel[...] for pair in pairs for conv in pair]
    return found if edge is None else [kernel[edge] for kernel in found]


def params_of_cell(cell):
    rows = {}
    for group in (cell.outer, cell.inner):
        if group is None:
            continue
        for i, row in enumerate(group.rows):
            rows[row] = [kernels_of(module, i) for module in group.modules]
    return {
        "first": kernels_of(cell.first),
        "second": kernels_of(cell.second),
        "edges": [rows[row] for row in range(len(rows))],
    }


def params_of(network):
    norm = network.stem_norm
    return {
        "stem": network.stem.kernel[...],
        "stem_norm": (norm.scale[...], norm.bias[...]),
        "cells": [params_of_cell(cell) for cell in network.cells],
        "head": (network.head.kernel[...], network.head.bias[...]),
    }
