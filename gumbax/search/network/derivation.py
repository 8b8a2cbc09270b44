"""Networks of one architecture: derived from a supernet, or with new weights."""

from collections import abc
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common import checks
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.network.supernet import Network, PyTree, Supernet
from gumbax.search.spaces.edges import (
    Candidates,
    MakeEdges,
    all_candidates,
    kept_edges,
)
from gumbax.search.spaces.layers import Layers
from gumbax.search.spaces.space import Space


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
        >>> from gumbax.search.methods import argmax_per_edge
        >>> from gumbax.search.spaces import small_images
        >>> net = Supernet(small_images(), (8, 8, 1), 10, rngs=nnx.Rngs(0))
        >>> genotype = argmax_per_edge(net.logits(), net.space)
        >>> derive(net, genotype)(jnp.ones((2, 8, 8, 1))).shape
        (2, 10)

    References:
        Liu, Simonyan, Yang, 2019, Sec. 2.4. https://arxiv.org/abs/1806.09055
    """
    return keep(supernet.network, supernet.space, genotype)


def keep(network: Network, space: Space, genotype: Genotype) -> Network:
    """`derive`, of a network with all candidates."""
    genotype.check(space)
    names = _kept(genotype, space)
    kept = {
        choice: {
            row: (name, space.choices[choice].primitives.index(name))
            for row, name in rows.items()
        }
        for choice, rows in names.items()
    }
    network = nnx.clone(network)
    for owner, attribute, edges in list(groups_of(network)):
        _put(owner, attribute, edges.keep(kept[edges.choice]))
    return network


def groups_of(node: Any) -> Iterable[tuple[Any, Any, Candidates]]:
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
            yield from groups_of(child)


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
    genotype: Genotype | None,
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
        genotype: the architecture; with None all candidates are there, and the network
            takes its choices as weights, as a supernet's does.
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
    make_edges: MakeEdges
    if genotype is None:
        names = {name: choice.primitives for name, choice in space.choices.items()}
        make_edges = all_candidates(names)
    else:
        genotype.check(space)
        make_edges = kept_edges(_kept(genotype, space))
    return space.build(
        make_edges,
        tuple(input_shape),
        num_classes,
        layers=Layers(norm=space.norm, affine=True, pool_norm=False, stock=stock),
        rngs=rngs,
        auxiliary=auxiliary,
    )


def modules_of(network: nnx.Module) -> list[nnx.Module]:
    """All modules in a network, itself too; `nnx.iter_modules` of newer Flax."""
    return [node for _, node in nnx.iter_graph(network) if isinstance(node, nnx.Module)]


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
            checks.message(
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


def num_weights(network: Network) -> int:
    """The number of trained weights, architecture logits not counted."""
    params = nnx.state(network, nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))
