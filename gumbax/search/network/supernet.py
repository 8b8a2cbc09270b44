"""The network that holds every architecture of a space."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gumbax._common.versions import nnx_dict, nnx_static
from gumbax.edge.mixed_op import mixed_op, single_path
from gumbax.nnx.mixed_op import ArchParam
from gumbax.search.spaces.edges import Context, Operation, all_candidates
from gumbax.search.spaces.layers import Layers
from gumbax.search.spaces.space import Space

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
