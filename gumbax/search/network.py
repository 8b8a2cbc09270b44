"""The supernet of a space, and the networks that are derived from it."""

import os
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from flax import nnx

from gumbax import _checks, mixed_op, single_path
from gumbax._versions import nnx_dict, nnx_static
from gumbax.nnx import ArchParam
from gumbax.search.edges import (
    Candidates,
    Context,
    Operation,
    all_candidates,
    kept_edges,
)
from gumbax.search.genotype import Genotype
from gumbax.search.layers import Layers
from gumbax.search.space import Space

PyTree = Any
# A network as a module: (x, context) -> class scores.
Network = nnx.Module


def dense_operation(weights, branches, params, x, *, key=None):
    """All operations of an edge, weighted: `gumbax.mixed_op`.

    Only its input is kept for the backward pass, which runs the operations again: kept,
    the insides of all operations of all edges take many times the memory.
    """
    del key

    @jax.checkpoint
    def edge(weights, params, x):
        return mixed_op(weights, branches, params, x)

    return edge(weights, params, x)


def path_operation(weights, branches, params, x, *, key=None):
    """The chosen operation of an edge: `gumbax.single_path`, exact."""
    del key
    return single_path(weights, branches, params, x)


class Supernet(nnx.Module):
    """The network that holds every architecture of a space.

    Attributes:
        arch: choice -> `ArchParam` [E, K], zeros at first.
        network: the network with all candidates.

    Args:
        space: the space.
        input_shape: of one example, [H, W, C] or [D].
        num_classes: outputs.
        rngs: for the initial weights.

    Example:
        >>> from gumbax.search.spaces import small_images
        >>> net = Supernet(small_images(), (8, 8, 1), 10, rngs=nnx.Rngs(0))
        >>> weights = {name: jax.nn.softmax(a) for name, a in net.logits().items()}
        >>> net(jnp.ones((2, 8, 8, 1)), weights, dense_operation).shape
        (2, 10)

    References:
        Liu, Simonyan, Yang, 2019 (DARTS). https://arxiv.org/abs/1806.09055
    """

    def __init__(
        self,
        space: Space,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.space = nnx_static(space)
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        choices = space.choices
        self.arch = nnx_dict(
            {name: ArchParam(jnp.zeros(c.shape)) for name, c in choices.items()}
        )
        self.network = space.build(
            all_candidates({name: c.primitives for name, c in choices.items()}),
            self.input_shape,
            num_classes,
            layers=Layers(norm=space.norm),
            rngs=rngs,
        )

    def logits(self) -> dict[str, jax.Array]:
        """The architecture logits, choice -> [E, K]."""
        return {name: param[...] for name, param in self.arch.items()}

    def __call__(
        self,
        x: jax.Array,
        weights: Mapping[str, jax.Array],
        operation: Operation,
        *,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Class scores [batch, classes] of x [batch, ...].

        Args:
            x: examples.
            weights: choice -> [E, K], used by every cell of that choice. A row of zeros
                leaves the edge out.
            operation: how an edge uses its row: `dense_operation` for any weights,
                `path_operation` for one-hot rows.
            key: for operations that draw.

        Returns:
            Unnormalised class scores.
        """
        context = Context(weights=weights, operation=operation, key=key)
        return self.network(x, context)


def derive(supernet: Supernet, genotype: Genotype) -> Network:
    """Keeps the operations of a genotype, with the weights they have in the supernet.

    The weights are copied. The output is the supernet's own for these choices: exactly
    under `jax.disable_jit()`, to rounding when compiled. Batch normalisation uses the
    statistics of the batch, as in the search, until `recalibrate`.

    Args:
        supernet: the trained supernet.
        genotype: what to keep.

    Returns:
        An ordinary NNX module, x -> class scores.

    Raises:
        ValueError: the genotype is of another space.

    Example:
        >>> from gumbax.search.derive_rules import argmax_per_edge
        >>> from gumbax.search.spaces import small_images
        >>> net = Supernet(small_images(), (8, 8, 1), 10, rngs=nnx.Rngs(0))
        >>> genotype = argmax_per_edge(net.logits(), net.space)
        >>> derive(net, genotype)(jnp.ones((2, 8, 8, 1))).shape
        (2, 10)

    References:
        Liu, Simonyan, Yang, 2019, Sec. 2.4. https://arxiv.org/abs/1806.09055
    """
    space = supernet.space
    genotype.check(space)
    names = _kept(genotype, space)
    kept = {
        choice: {
            row: (name, space.choices[choice].primitives.index(name))
            for row, name in rows.items()
        }
        for choice, rows in names.items()
    }
    network = nnx.clone(supernet.network)
    for owner, attribute, edges in list(_groups(network)):
        _put(owner, attribute, edges.keep(kept[edges.choice]))
    return network


def _groups(node: Any) -> Iterable[tuple[Any, Any, Candidates]]:
    """Every group of candidates in a network, with its owner and its name there."""
    children: Iterable[tuple[Any, Any]]
    if isinstance(node, abc.MutableSequence):
        children = enumerate(node)
    elif isinstance(node, abc.MutableMapping):
        children = node.items()
    else:
        children = vars(node).items()
    for name, child in list(children):
        if isinstance(child, Candidates):
            yield node, name, child
        elif isinstance(child, nnx.Module | list | dict):
            yield from _groups(child)


def _put(owner: Any, attribute: Any, value: nnx.Module) -> None:
    if isinstance(owner, abc.MutableSequence | abc.MutableMapping):
        owner[attribute] = value
    else:
        setattr(owner, attribute, value)


def _kept(genotype: Genotype, space: Space) -> dict[str, dict[int, str]]:
    """choice -> row of its logits -> primitive."""
    kept = {}
    for name, choice in space.choices.items():
        rows = {edge: row for row, edge in enumerate(choice.edges)}
        kept[name] = {
            rows[edge.source, edge.target]: edge.primitive
            for edge in genotype.cells[name]
        }
    return kept


def new_network(
    space: Space,
    genotype: Genotype,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    rngs: nnx.Rngs,
    auxiliary: bool = False,
    stock: bool = False,
) -> Network:
    """One architecture of a space with new weights, for training from scratch.

    Args:
        space: the space; its depth and width may differ from the search's.
        genotype: the architecture.
        input_shape: of one example, [H, W, C] or [D].
        num_classes: outputs.
        rngs: for the initial weights.
        auxiliary: with an auxiliary head, where the space has one.
        stock: of stock Flax layers alone.

    Returns:
        An ordinary NNX module, x -> class scores, whose normalisation has a scale and
        a bias.

    Raises:
        ValueError: the genotype is of another space.

    Example:
        >>> from gumbax.search.spaces import small_images
        >>> space = small_images()
        >>> genotype = Genotype.random(jax.random.key(0), space)
        >>> net = new_network(space, genotype, (8, 8, 1), 10, rngs=nnx.Rngs(0))
        >>> net(jnp.ones((2, 8, 8, 1))).shape
        (2, 10)

    References:
        Liu, Simonyan, Yang, 2019, Sec. 3.2. https://arxiv.org/abs/1806.09055
    """
    genotype.check(space)
    return space.build(
        kept_edges(_kept(genotype, space)),
        tuple(input_shape),
        num_classes,
        layers=Layers(norm=space.norm, affine=True, pool_norm=False, stock=stock),
        rngs=rngs,
        auxiliary=auxiliary,
    )


def modules_of(network: nnx.Module) -> list[nnx.Module]:
    """All modules in a network, itself too; `nnx.iter_modules` of newer Flax."""
    return [node for _, node in nnx.iter_graph(network) if isinstance(node, nnx.Module)]


def with_stock_layers(network: Network) -> Network:
    """The same network and weights, of stock Flax layers alone; equal to rounding.

    Convolutions and poolings of gumbax have reverse rules of their own, which are fast
    on CPU. Without them `jax.export` saves the network; the modules that hold the
    layers are still those of the space, until `export` leaves Flax behind too.

    Args:
        network: what `derive` or `new_network` gave.

    Returns:
        A copy.

    Example:
        >>> from gumbax.search.spaces import nasbench201
        >>> space = nasbench201(channels=4, cells_per_stage=1)
        >>> genotype = Genotype.random(jax.random.key(0), space)
        >>> net = new_network(space, genotype, (8, 8, 3), 10, rngs=nnx.Rngs(0))
        >>> with_stock_layers(net)(jnp.ones((2, 8, 8, 3))).shape
        (2, 10)

    References:
        `jax.export`.
    """
    from gumbax.search.layers import Pool

    stock = nnx.clone(network)
    for module in modules_of(stock):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = jax.lax.conv_general_dilated
        elif isinstance(module, Pool):
            module.stock = True
    return stock


def recalibrate(network: Network, batches: Iterable[jax.Array]) -> Network:
    """Measures the statistics of batch normalisation: their mean over the batches.

    Args:
        network: any NNX module of x -> scores.
        batches: inputs, of the training set.

    Returns:
        A copy in evaluation mode, which uses these statistics.

    Raises:
        ValueError: there is no batch.

    Example:
        >>> net = nnx.Sequential(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
        >>> calibrated = recalibrate(net, [jnp.ones((4, 2)), 3 * jnp.ones((4, 2))])
        >>> calibrated.layers[0].mean[...].tolist()
        [2.0, 2.0]

    References:
        D-X-Y/AutoDL-Projects issues 70, 115: tracked statistics of sampled networks
        are stale.
    """
    network = nnx.clone(network)
    network.train()
    norms = [m for m in modules_of(network) if isinstance(m, nnx.BatchNorm)]
    # The update mean' = momentum * mean + (1 - momentum) * batch, with momentum 0,
    # leaves the statistics of the last batch.
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    measure = nnx.jit(lambda network, x: network(x) is None)
    total: PyTree = None
    count = 0
    for x in batches:
        measure(network, x)
        found = nnx.state(network, nnx.BatchStat)
        total = (
            jax.tree.map(jnp.array, found)
            if total is None
            else jax.tree.map(jnp.add, total, found)
        )
        count += 1
    if not count:
        raise ValueError(
            _checks.message(
                "recalibrate",
                "batches",
                "hold a batch or more",
                "none",
                "Pass batches of the training set.",
            )
        )
    nnx.update(network, jax.tree.map(lambda leaf: leaf / count, total))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return network


def export(network: Network, input_shape: tuple[int, ...], path: Path) -> None:
    """Saves a network as StableHLO, which runs without gumbax and without Flax.

    After `import jax.export`, `jax.export.deserialize(path.read_bytes()).call(x)` gives
    the class scores of x, for any batch size, on CPU, CUDA and TPU.

    Args:
        network: what `derive`, `new_network` or `recalibrate` gave.
        input_shape: of one example.
        path: file to write.

    Raises:
        ImportError: the package `flatbuffers` is not installed.

    References:
        `jax.export`.
    """
    graphdef, state = nnx.split(with_stock_layers(network))

    def forward(x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state, copy=True)(x)

    (size,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((size, *input_shape), jnp.float32)
    exported = jax.export.export(jax.jit(forward), platforms=["cpu", "cuda", "tpu"])
    content = exported(shape).serialize()
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def num_weights(network: Network) -> int:
    """The number of trained weights, architecture logits not counted."""
    params = nnx.state(network, nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


Forward = Callable[[jax.Array], jax.Array]
