"""Supernets of the benchmarks, in the pure functions of gumbax alone.

Batch normalisation uses the statistics of the batch, without scale, as in search.
Shapes: images [N, H, W, C]; parameters of equal edges and cells are stacked.
"""

import math

import jax
import jax.numpy as jnp

import gumbax
from gumbax import convolution, pooling

LAYOUT = ("NHWC", "HWIO", "NHWC")
EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def normalise(x):
    mean = jnp.mean(x, (0, 1, 2), keepdims=True)
    var = jnp.mean(jnp.square(x), (0, 1, 2), keepdims=True) - jnp.square(mean)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5)


class Layers:
    """Operations over one convolution: ours or the stock one."""

    def __init__(self, convolve=convolution.conv_general_dilated):
        self.convolve = convolve

    def conv(self, kernel, x, stride=1, dilation=1, groups=1):
        return self.convolve(
            x,
            kernel,
            (stride, stride),
            "SAME",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
        )

    def relu_conv_norm(self, kernel, x, stride=1):
        return normalise(self.conv(kernel, jax.nn.relu(x), stride))


def he(key, *shape):
    return jax.random.normal(key, shape) * math.sqrt(2 / math.prod(shape[-4:-1]))


# NAS-Bench-201: cells of 6 edges and 5 operations, N to a stage, C channels.


class NasBench201:
    """Supernet of the NAS-Bench-201 space, for 10 classes."""

    def __init__(
        self,
        operation,
        *,
        channels=16,
        cells=1,
        convolve=convolution.conv_general_dilated,
        rolled=True,
    ):
        self.operation, self.cells, self.rolled = operation, cells, rolled
        self.channels = channels
        self.layers = layers = Layers(convolve)
        self.branches = (
            lambda p, x: jnp.zeros_like(x),
            lambda p, x: x,
            layers.relu_conv_norm,
            layers.relu_conv_norm,
            lambda p, x: pooling.avg_pool(x, (3, 3), padding="SAME"),
        )

    def init(self, key):
        keys = iter(jax.random.split(key, 20))
        params = {"stem": he(next(keys), 3, 3, 3, self.channels)}
        for stage in range(3):
            c = self.channels * 2**stage
            stack = (self.cells, len(EDGES))
            params[f"stage{stage}"] = (
                he(next(keys), *stack, 1, 1, c, c),
                he(next(keys), *stack, 3, 3, c, c),
            )
            if stage:
                params[f"reduce{stage}"] = (
                    he(next(keys), 3, 3, c // 2, c),
                    he(next(keys), 3, 3, c, c),
                    he(next(keys), 1, 1, c // 2, c),
                )
        params["head"] = jax.random.normal(next(keys), (4 * self.channels, 10)) / 8
        return params

    def logits(self):
        return jnp.zeros((len(EDGES), len(self.branches)))

    def edge(self, own, x):
        weights, (small, large) = own
        params = (None, None, small, large, None)
        return self.operation(weights, self.branches, params, x)

    def cell(self, weights, x, own):
        if self.rolled:
            nodes = jnp.zeros((4, *x.shape), x.dtype).at[0].set(x)
            return gumbax.scan_edges(self.edge, (weights, own), nodes, EDGES)[-1]
        nodes = [x, 0.0, 0.0, 0.0]
        for e, (source, target) in enumerate(EDGES):
            of_edge = weights[e], jax.tree.map(lambda leaf, e=e: leaf[e], own)
            nodes[target] += self.edge(of_edge, nodes[source])
        return nodes[-1]

    def apply(self, params, weights, images):
        x = normalise(self.layers.conv(params["stem"], images))
        for stage in range(3):
            if stage:
                first, second, shortcut = params[f"reduce{stage}"]
                y = self.layers.relu_conv_norm(first, x, 2)
                y = self.layers.relu_conv_norm(second, y)
                pooled = pooling.avg_pool(x, (2, 2), strides=(2, 2), padding="VALID")
                x = y + self.layers.conv(shortcut, pooled)
            own = params[f"stage{stage}"]
            if self.rolled and self.cells > 1:
                step = lambda x, own: (self.cell(weights, x, own), None)  # noqa: E731
                x, _ = jax.lax.scan(step, x, own)
            else:
                for n in range(self.cells):
                    of_cell = jax.tree.map(lambda leaf, n=n: leaf[n], own)
                    x = self.cell(weights, x, of_cell)
        x = jnp.mean(jax.nn.relu(normalise(x)), axis=(1, 2))
        return x @ params["head"]


# DARTS: cells of 14 edges and 8 operations; cells 1/3 and 2/3 of the way halve images.

NODES = 4
DARTS_EDGES = [(j, 2 + i) for i in range(NODES) for j in range(2 + i)]


class Darts:
    """Supernet of the DARTS space: 8 cells and 16 channels as published."""

    def __init__(self, operation, *, channels=16, cells=8, rolled=True):
        self.operation, self.rolled = operation, rolled
        self.channels, self.cells = channels, cells
        self.layers = Layers()
        self.reductions = {cells // 3, 2 * cells // 3}

    def branches(self, stride):
        layers = self.layers

        def separable(p, x):
            for step, (depthwise, pointwise) in enumerate(p):
                x = layers.conv(
                    depthwise,
                    jax.nn.relu(x),
                    stride if step == 0 else 1,
                    groups=x.shape[-1],
                )
                x = normalise(layers.conv(pointwise, x))
            return x

        def dilated(p, x):
            depthwise, pointwise = p
            x = jax.nn.relu(x)
            x = layers.conv(depthwise, x, stride, dilation=2, groups=x.shape[-1])
            return normalise(layers.conv(pointwise, x))

        def skip(p, x):
            if stride == 1:
                return x
            return factorized_reduce(layers, p, x)

        def pooled(pool, x):
            strides = (stride, stride)
            return normalise(pool(x, (3, 3), strides=strides, padding="SAME"))

        return (
            lambda p, x: jnp.zeros_like(x[:, ::stride, ::stride]),
            lambda p, x: pooled(pooling.max_pool, x),
            lambda p, x: pooled(pooling.avg_pool, x),
            skip,
            separable,
            separable,
            dilated,
            dilated,
        )

    def edge_params(self, key, count, c):
        keys = iter(jax.random.split(key, 16))

        def depthwise(size):
            return he(next(keys), count, size, size, 1, c)

        def pointwise():
            return he(next(keys), count, 1, 1, c, c)

        def pair(size):
            return depthwise(size), pointwise()

        skip = (
            he(next(keys), count, 1, 1, c, c // 2),
            he(next(keys), count, 1, 1, c, c // 2),
        )
        return (
            None,
            None,
            None,
            skip,
            (pair(3), pair(3)),
            (pair(5), pair(5)),
            pair(3),
            pair(5),
        )

    def init(self, key):
        keys = iter(jax.random.split(key, 8 * self.cells))
        c = self.channels
        before, last = 3 * c, 3 * c
        params = {"stem": he(next(keys), 3, 3, 3, 3 * c), "cells": []}
        halved = False
        for i in range(self.cells):
            reduction = i in self.reductions
            c *= 2 if reduction else 1
            first = (
                (
                    he(next(keys), 1, 1, before, c // 2),
                    he(next(keys), 1, 1, before, c // 2),
                )
                if halved
                else he(next(keys), 1, 1, before, c)
            )
            outer = [e for e in DARTS_EDGES if e[0] < 2] if reduction else []
            params["cells"].append(
                {
                    "first": first,
                    "second": he(next(keys), 1, 1, last, c),
                    "outer": self.edge_params(next(keys), len(outer), c),
                    "inner": self.edge_params(
                        next(keys), len(DARTS_EDGES) - len(outer), c
                    ),
                }
            )
            before, last, halved = last, NODES * c, reduction
        params["head"] = jax.random.normal(next(keys), (last, 10)) / math.sqrt(last)
        return params

    def logits(self):
        return {name: jnp.zeros((len(DARTS_EDGES), 8)) for name in ("normal", "reduce")}

    def edges(self, stride, weights, own, nodes, edges, inputs=None):
        branches = self.branches(stride)

        def edge(own, x):
            weights, params = own
            return self.operation(weights, branches, params, x)

        if self.rolled:
            return gumbax.scan_edges(edge, (weights, own), nodes, edges, inputs=inputs)
        rows = list(nodes)
        for e, (source, target) in enumerate(edges):
            of_edge = jax.tree.map(lambda leaf, e=e: leaf[e], (weights, own))
            x = inputs[source] if inputs is not None else rows[source]
            rows[target] = rows[target] + edge(of_edge, x)
        return jnp.stack(rows)

    def cell(self, own, weights, reduction, halved, s0, s1):
        if halved:
            s0 = normalise(factorized_reduce(self.layers, own["first"], s0))
        else:
            s0 = self.layers.relu_conv_norm(own["first"], s0)
        s1 = self.layers.relu_conv_norm(own["second"], s1)
        inputs = jnp.stack([s0, s1])
        if reduction:
            n, h, w, c = s0.shape
            nodes = jnp.zeros((2 + NODES, n, h // 2, w // 2, c), s0.dtype)
            outer = [i for i, e in enumerate(DARTS_EDGES) if e[0] < 2]
            rest = [i for i, e in enumerate(DARTS_EDGES) if e[0] >= 2]
            nodes = self.edges(
                2,
                weights[jnp.array(outer)],
                own["outer"],
                nodes,
                [DARTS_EDGES[i] for i in outer],
                inputs,
            )
            weights = weights[jnp.array(rest)]
            edges = [DARTS_EDGES[i] for i in rest]
        else:
            nodes = jnp.zeros((2 + NODES, *s0.shape), s0.dtype).at[:2].set(inputs)
            edges = DARTS_EDGES
        nodes = self.edges(1, weights, own["inner"], nodes, edges)
        return jnp.concatenate(list(nodes[2:]), axis=-1)

    def apply(self, params, weights, images):
        s0 = s1 = normalise(self.layers.conv(params["stem"], images))
        halved = False
        for i, own in enumerate(params["cells"]):
            reduction = i in self.reductions
            name = "reduce" if reduction else "normal"
            y = self.cell(own, weights[name], reduction, halved, s0, s1)
            s0, s1, halved = s1, y, reduction
        return jnp.mean(s1, axis=(1, 2)) @ params["head"]


def factorized_reduce(layers, p, x):
    """Two strided 1x1 convolutions, the second from the next pixel."""
    first, second = p
    x = jax.nn.relu(x)
    shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    return jnp.concatenate(
        [layers.conv(first, x, 2), layers.conv(second, shifted, 2)], axis=-1
    )


def training_step(network, sampler):
    """(params, logits, images, labels, key) -> loss and both gradients."""

    def loss(params, logits, images, labels, key):
        weights = jax.tree.map(lambda leaf: sampler(key, leaf), logits)
        scores = network.apply(params, weights, images)
        log_probs = jax.nn.log_softmax(scores)
        return -jnp.mean(jnp.sum(log_probs * jax.nn.one_hot(labels, 10), axis=-1))

    return jax.value_and_grad(loss, (0, 1))
