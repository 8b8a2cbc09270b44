"""Flax NNX module over `gumbax.mixed_op`."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from gumbax import _branches, _checks, _versions, logit_gradients
from gumbax._branches import Branch
from gumbax._relaxation import gumbel_softmax
from gumbax.logit_gradients import LogitGradient
from gumbax.mixed_op import mixed_op, single_path


class ArchParam(nnx.Variable):
    """Architecture logits: a variable type of its own, so that `nnx.Param` optimisers
    of the weights do not see them (`nnx.Optimizer(model, tx, wrt=ArchParam)`)."""


class MixedOp(nnx.Module):
    """Chooses one of several modules, by architecture logits that are learned.

    Called with its defaults it draws one module by straight-through Gumbel-Softmax and
    runs that one alone (`gumbax.single_path`). `hard=False` is the weighted sum of all
    modules, `deterministic=True` leaves the noise out; both together, at temperature 1,
    are the mixed operation of DARTS.

    Variables that modules change in a call, such as batch statistics and dropout
    counters, are kept: those of the chosen module with `hard=True`, else of all.

    Attributes:
        arch_logits: `ArchParam` of shape [K], zeros at first: all choices alike.
        branches: the K modules, an `nnx.List` (a list in Flax 0.11).

    Args:
        branches: K modules that map x to outputs of one structure, shape and dtype.
        sampler: (key, logits, *, temperature, hard, gumbels) -> weights [K]:
            `gumbax.gumbel_softmax` or a function of the same kind.
        logit_gradient: for `hard=True`, as in `gumbax.single_path`.

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

    def __init__(
        self,
        branches: Sequence[nnx.Module],
        *,
        sampler: Callable[..., jax.Array] = gumbel_softmax,
        logit_gradient: LogitGradient = logit_gradients.exact,
    ):
        _checks.some_branches("MixedOp", branches)
        self.branches = _versions.nnx_list(branches)
        self.arch_logits = ArchParam(jnp.zeros(len(branches)))
        self.sampler = sampler
        has_arrays = bool(jax.tree.leaves(logit_gradient))
        kind: Any = nnx.data if has_arrays else _versions.nnx_static
        self.logit_gradient = kind(logit_gradient)

    def __call__(
        self,
        x: Any,
        *,
        temperature: ArrayLike = 1.0,
        hard: bool = True,
        deterministic: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        weights: ArrayLike | None = None,
    ) -> Any:
        """Applies the choice to x.

        Args:
            x: input of the modules, any pytree.
            temperature: relaxation temperature > 0. Traced: annealing never recompiles.
            hard: run the chosen module alone; else the weighted sum of all.
            deterministic: no noise: the most probable module, or softmax weights.
            rngs: where the key of the draw comes from: a key, a stream, or `nnx.Rngs`
                with a stream "arch" (or a default one).
            weights: [K], in place of a draw: one of `gumbax.draw_choices`, shared by
                all operations of a name. `temperature` is then not used. With
                `hard=True` they must be one-hot, a draw made with `hard=True`: soft
                weights would run as the module of the largest, times its weight.

        Returns:
            Pytree with the structure, shapes and dtypes of one module's output.

        Raises:
            TypeError: a key is needed and `rngs` gives none.
            ValueError: two modules disagree in their outputs, or share a variable that
                one of them changes.
        """
        credits_draw = hard and self.logit_gradient.needs_key
        key = credits_key = None
        if credits_draw or (weights is None and not deterministic):
            key = _draw_key(rngs, self.logit_gradient if credits_draw else None)
            # The sampler consumes the key itself.
            credits_key = jax.random.fold_in(key, 1) if credits_draw else None
        if weights is None:
            weights = self.sampler(
                None if deterministic else key,
                self.arch_logits[...],
                temperature=temperature,
                hard=hard,
                gumbels=0.0 if deterministic else None,
            )
        operation: Callable[..., Any] = mixed_op
        if hard:
            operation = functools.partial(
                single_path,
                logit_gradient=self.logit_gradient,
                key=credits_key,
            )
        return _apply(operation, weights, self.branches, x)

    def derive(self) -> nnx.Module:
        """Returns the most probable module itself, not a copy.

        Raises:
            ValueError: the logits are those of several operations, stacked.
        """
        logits = self.arch_logits[...]
        return self.branches[_branches.most_probable("MixedOp.derive", logits)]


def _apply(operation, weights, modules: Sequence[nnx.Module], x: Any) -> Any:
    """Runs the operation over the modules, and keeps what they change."""
    branches, params, splits = [], [], []
    for module in modules:
        graphdef, state = nnx.split(module)
        leaves, treedef = jax.tree.flatten(state)
        name = type(module).__name__
        changed = _changed(name, graphdef, treedef, *_signature((leaves, x)))
        branches.append(_branch(name, graphdef, treedef, changed))
        fixed = [None if i in changed else leaf for i, leaf in enumerate(leaves)]
        params.append((fixed, [leaves[i] for i in changed]))
        splits.append((treedef, leaves, changed))
    _check_shared(modules, splits)
    output, states = operation(weights, branches, params, x, has_state=True)
    for module, (treedef, leaves, changed), new in zip(
        modules, splits, states, strict=True
    ):
        if changed:
            updated = dict(zip(changed, new, strict=True))
            merged = [updated.get(i, leaf) for i, leaf in enumerate(leaves)]
            nnx.update(module, jax.tree.unflatten(treedef, merged))
    return output


def _check_shared(modules: Sequence[nnx.Module], splits: Sequence[Any]) -> None:
    if not any(changed for _, _, changed in splits):
        return
    owner: dict[int, int] = {}
    for number, (module, (_, _, changed)) in enumerate(
        zip(modules, splits, strict=True)
    ):
        for i, (path, variable) in enumerate(nnx.to_flat_state(nnx.state(module))):
            del variable
            actual = functools.reduce(_child, path, module)
            first = owner.setdefault(id(actual), number)
            if first != number and i in changed:
                raise ValueError(
                    _checks.message(
                        "MixedOp",
                        "branches",
                        "own the variables that they change",
                        f"{'.'.join(map(str, path))} of branch {number}, which is "
                        f"part of branch {first} too",
                        "Give each module a variable or `nnx.Rngs` of its own.",
                    )
                )


def _child(node: Any, name: Any) -> Any:
    by_item = isinstance(node, dict) or not isinstance(name, str)
    return node[name] if by_item else getattr(node, name)


def pure_branches(
    modules: Sequence[nnx.Module], *, batch_statistics: bool = False
) -> tuple[tuple[Branch, ...], tuple[list[jax.Array], ...]]:
    """Turns modules into functions of (params, x) and the params to call them with.

    Equal modules give the same function object, so that traces are shared.

    Args:
        modules: modules whose calls change none of their own variables.
        batch_statistics: allow modules that track the statistics of batches, and drop
            these (search networks use the statistics of the batch itself). Static.

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
        dropped = _statistics(module) if batch_statistics else ()
        name = type(module).__name__
        branches.append(_branch(name, graphdef, treedef, None, dropped))
        params.append(leaves)
    return tuple(branches), tuple(params)


def _statistics(module: nnx.Module) -> tuple[int, ...]:
    """Which leaves are statistics of batches."""
    variables = [variable for _, variable in nnx.to_flat_state(nnx.state(module))]
    return tuple(i for i, v in enumerate(variables) if isinstance(v, nnx.BatchStat))


@functools.lru_cache(maxsize=1024)
def _branch(
    name: str,
    graphdef: nnx.GraphDef,
    treedef: Any,
    changed: tuple[int, ...] | None,
    dropped: tuple[int, ...] = (),
) -> Callable[[Any, Any], Any]:
    """A module as a function: of (leaves, x), which must not change; or with state."""

    def stateless(leaves, x):
        output, _, found = _call(graphdef, treedef, leaves, x)
        changes = {i: path for i, path in found.items() if i not in dropped}
        if changes:
            raise ValueError(
                _checks.message(
                    "pure_branches",
                    "modules",
                    "leave their variables as they are",
                    f"{name}, whose call changes {', '.join(changes.values())}",
                    "Use `MixedOp`, which keeps the changes, or batch statistics "
                    "without tracking them.",
                )
            )
        return output

    def stateful(own, x):
        fixed, state = own
        leaves = list(fixed)
        for i, value in zip(changed or (), state, strict=True):
            leaves[i] = value
        output, values, _ = _call(graphdef, treedef, leaves, x)
        return output, [values[i] for i in changed or ()]

    branch = stateless if changed is None else stateful
    branch.__name__ = name
    return branch


def _call(
    graphdef: nnx.GraphDef, treedef: Any, leaves: Sequence[jax.Array], x: Any
) -> tuple[Any, list[jax.Array], dict[int, str]]:
    """Output, the leaves afterwards, and the names of those that are others now."""
    module = nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves))
    output = module(x)
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(module))]
    values = jax.tree.leaves(nnx.state(module))
    changes = {
        i: ".".join(map(str, path))
        for i, (path, before, after) in enumerate(
            zip(paths, leaves, values, strict=True)
        )
        if before is not after
    }
    return output, values, changes


def _signature(tree: Any) -> tuple[Any, tuple[Hashable, ...]]:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple(
        jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in leaves
    )


@functools.lru_cache(maxsize=1024)
def _changed(
    name: str, graphdef: nnx.GraphDef, treedef: Any, structure: Any, shapes: Any
) -> tuple[int, ...]:
    """Which leaves a call changes, by tracing it."""
    del name
    found: list[int] = []

    def run(leaves, x):
        found.extend(_call(graphdef, treedef, leaves, x)[2])

    jax.eval_shape(run, *jax.tree.unflatten(structure, shapes))
    return tuple(found)


def _draw_key(
    rngs: nnx.Rngs | nnx.RngStream | jax.Array | None, record: LogitGradient | None
) -> jax.Array:
    """A key for the draw, or for the credits if a record draws them."""
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
            "give a key for " + ("the draw" if record is None else repr(record)),
            got,
            "Pass a key, `nnx.Rngs(arch=seed)`, or `deterministic=True`."
            if record is None
            else "Pass a key or `nnx.Rngs(arch=seed)`: the credits are drawn even "
            "where the module is not. Without gradients, call `derive()`'s module.",
        )
    )
