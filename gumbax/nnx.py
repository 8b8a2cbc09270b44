"""Flax NNX modules over `gumbax.mixed_op`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from gumbax import _checks
from gumbax._relaxation import gumbel_softmax
from gumbax.mixed_op import Branch, mixed_op, single_path


class ArchParam(nnx.Variable):
    """Architecture logits: a variable type of its own, so that `nnx.Param` optimisers
    of the weights do not see them (`nnx.Optimizer(model, tx, wrt=ArchParam)`)."""


class MixedOp(nnx.Module):
    """Chooses one of several modules, by architecture logits that are learned.

    Called with its defaults it draws one module by straight-through Gumbel-Softmax and
    runs that one alone (`gumbax.single_path`). `hard=False` is the weighted sum of all
    modules, `deterministic=True` leaves the noise out; both together, at temperature 1,
    are the mixed operation of DARTS.

    Attributes:
        arch_logits: `ArchParam` of shape [K], zeros at first: all choices alike.
        branches: `nnx.List` of the K modules.

    Args:
        branches: K modules that map x to outputs of one structure, shape and dtype.
            Variables that they change in a call (tracked batch-norm statistics,
            dropout counters) are refused with a ValueError: use batch statistics.

    Raises:
        ValueError: `branches` is empty.

    Example:
        >>> rngs = nnx.Rngs(0)
        >>> op = MixedOp([nnx.Linear(8, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)])
        >>> op(jnp.ones((4, 8)), temperature=0.5, rngs=jax.random.key(1)).shape
        (4, 8)

    References:
        Liu, Simonyan, Yang, 2019 (DARTS). https://arxiv.org/abs/1806.09055
        Dong, Yang, 2019 (GDAS). https://arxiv.org/abs/1910.04465
    """

    def __init__(self, branches: Sequence[nnx.Module]):
        if not branches:
            raise ValueError(
                _checks.message(
                    "MixedOp",
                    "branches",
                    "hold at least one module",
                    "none",
                    "Add one.",
                )
            )
        self.branches = nnx.List(branches)
        self.arch_logits = ArchParam(jnp.zeros(len(branches)))

    def __call__(
        self,
        x: Any,
        *,
        temperature: ArrayLike = 1.0,
        hard: bool = True,
        deterministic: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> Any:
        """Applies the choice to x.

        Args:
            x: input of the modules, any pytree.
            temperature: relaxation temperature > 0. Traced: annealing never recompiles.
            hard: run the chosen module alone; else the weighted sum of all.
            deterministic: no noise: the most probable module, or softmax weights.
            rngs: where the key of the draw comes from: a key, a stream, or `nnx.Rngs`
                with a stream "arch" (or a default one).

        Returns:
            Pytree with the structure, shapes and dtypes of one module's output.

        Raises:
            TypeError: a draw is asked for and `rngs` gives no key.
            ValueError: two modules disagree in their outputs, or one changes its own
                variables.
        """
        weights = gumbel_softmax(
            None if deterministic else _draw_key(rngs),
            self.arch_logits[...],
            temperature=temperature,
            hard=hard,
            gumbels=0.0 if deterministic else None,
        )
        branches, params = pure_branches(self.branches)
        operation = single_path if hard else mixed_op
        return operation(weights, branches, params, x)

    def derive(self) -> nnx.Module:
        """Returns the most probable module itself, not a copy."""
        return self.branches[int(jnp.argmax(self.arch_logits[...]))]


def pure_branches(
    modules: Sequence[nnx.Module],
) -> tuple[tuple[Branch, ...], tuple[list[jax.Array], ...]]:
    """Turns modules into functions of (params, x) and the params to call them with.

    Equal modules give the same function object, so that traces are shared.

    Args:
        modules: modules whose calls change none of their own variables.

    Returns:
        The branches, and for each one the list of its arrays.

    Raises:
        ValueError: when a branch is called, if its module changes its variables.

    Example:
        >>> layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(2)]
        >>> (first, second), params = pure_branches(layers)
        >>> first is second, first(params[0], jnp.ones(2)).shape
        (True, (2,))

    References:
        Flax NNX functional API, `nnx.split` and `nnx.merge`.
    """
    branches = []
    params = []
    for module in modules:
        graphdef, state = nnx.split(module)
        leaves, treedef = jax.tree.flatten(state)
        branches.append(_branch(type(module).__name__, graphdef, treedef))
        params.append(leaves)
    return tuple(branches), tuple(params)


@functools.lru_cache(maxsize=1024)
def _branch(
    name: str, graphdef: nnx.GraphDef, treedef: Any
) -> Callable[[list, Any], Any]:
    def branch(leaves, x):
        module = nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves))
        before = nnx.to_flat_state(nnx.state(module))
        held = [variable[...] for _, variable in before]
        output = module(x)
        changed = [
            ".".join(map(str, path))
            for (path, variable), value in zip(before, held, strict=True)
            if variable[...] is not value
        ]
        if changed:
            raise ValueError(
                _checks.message(
                    "MixedOp",
                    "branches",
                    "hold modules that leave their variables as they are",
                    f"{name}, whose call changes {', '.join(changed)}",
                    "Use batch statistics without tracking them, or another "
                    "normalisation, and no dropout inside a branch.",
                )
            )
        return output

    branch.__name__ = name
    return branch


def _draw_key(rngs: nnx.Rngs | nnx.RngStream | jax.Array | None) -> jax.Array:
    if isinstance(rngs, nnx.RngStream):
        return rngs()
    if isinstance(rngs, nnx.Rngs):
        if "arch" in rngs or "default" in rngs:
            return rngs["arch"]() if "arch" in rngs else rngs["default"]()
        got = f"nnx.Rngs with the streams {sorted(rngs)}"
    elif rngs is None:
        got = "None"
    else:
        return _checks.scalar_key("MixedOp", rngs)
    raise TypeError(
        _checks.message(
            "MixedOp",
            "rngs",
            "give a key for the draw",
            got,
            "Pass a key, `nnx.Rngs(arch=seed)`, or `deterministic=True`.",
        )
    )
