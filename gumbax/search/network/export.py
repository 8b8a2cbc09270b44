"""Networks without gumbax: of stock Flax layers, and as StableHLO without Flax."""

import os
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
from flax import nnx

from gumbax.search.network.derivation import modules_of
from gumbax.search.network.supernet import Network
from gumbax.search.spaces.layers import Pool


def with_stock_layers(network: Network) -> Network:
    """The same network and weights, of stock Flax layers alone; equal to rounding.

    Convolutions and poolings of gumbax have reverse rules of their own, which are fast
    on CPU. Without them what `jax.export` saves is plainer; the modules that hold the
    layers are those of the space, until `export` leaves Flax behind too.

    Args:
        network: what `derive` or `new_network` gave.

    Returns:
        A copy.

    Example:
        >>> from gumbax.search.genotype import Genotype
        >>> from gumbax.search.network import new_network
        >>> from gumbax.search.spaces import nasbench201
        >>> space = nasbench201(channels=4, cells_per_stage=1)
        >>> genotype = Genotype.random(jax.random.key(0), space)
        >>> net = new_network(space, genotype, (8, 8, 3), 10, rngs=nnx.Rngs(0))
        >>> with_stock_layers(net)(jnp.ones((2, 8, 8, 3))).shape
        (2, 10)

    References:
        `jax.export`.
    """
    stock = nnx.clone(network)
    for module in modules_of(stock):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = jax.lax.conv_general_dilated
        elif isinstance(module, Pool):
            module.stock = True
    return stock


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
