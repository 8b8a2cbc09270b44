"""Flax NNX module over `gumbax.mixed_op`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from gumbax._common import checks, versions
from gumbax.edge import logit_gradients
from gumbax.edge.branches import Branch
from gumbax.edge.logit_gradients import LogitGradient
from gumbax.edge.modules import arguments, changes, mixed, stateful
from gumbax.nnx import branches as nnx_branches
from gumbax.samplers.relaxation import gumbel_softmax


class ArchParam(nnx.Variable):
    """Architecture logits: a variable type of its own, so that `nnx.Param` optimisers
    of the weights do not see them (`nnx.Optimizer(model, tx, wrt=ArchParam)`)."""


class MixedOp(nnx.Module):
    """Chooses one of several modules, by architecture logits that are learned.

    Called with its defaults it draws one module by straight-through Gumbel-Softmax and
    runs that one alone (`gumbax.single_path`). `hard=False` is the weighted sum of all
    modules, `deterministic=True` leaves the noise out; both together, at temperature 1,
    are the mixed operation of DARTS.

    Variables that modules change or make in a call, such as batch statistics, dropout
    counters and what they `sow`, are kept: those of the chosen module with `hard=True`,
    else of all. A module that did not run has what it had before; for what it would
    have made stand zeros, which add nothing to a sum of losses. What is kept has
    gradients: sown losses train the modules, not weighted, and with `hard=True` the
    logits too, as the loss then depends on the choice.

    A `MixedOp` that is itself a branch is called with the same `temperature`, `hard`
    and `deterministic`, and draws for itself.

    As with `nnx.Dropout`, `model.eval()` makes it deterministic: the most probable
    module, without a key (gradients then credit every module, whatever the logit
    gradient draws). `model.train()` undoes that; in Flax 0.12
    `nnx.view(model, deterministic=True)` is the model with it.

    Attributes:
        arch_logits: `ArchParam` of shape [K], zeros at first: all choices alike.
        deterministic: what a call without this argument does, False at first. Static.
        branches: the K modules, an `nnx.List` (a list in Flax 0.11).

    Args:
        branches: K modules or functions that map x to outputs of one structure, shape
            and dtype.
        sampler: (key, logits, *, temperature, hard, gumbels) -> weights [K]:
            `gumbax.gumbel_softmax` or a function of the same kind.
        logit_gradient: for `hard=True`, as in `gumbax.single_path`.
        own_logits: whether there are `arch_logits`; else they are None, and every call
            is given `weights`.

    Raises:
        TypeError: a branch cannot be called.
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
        branches: Sequence[nnx.Module | Callable[..., Any]],
        *,
        sampler: Callable[..., jax.Array] = gumbel_softmax,
        logit_gradient: LogitGradient = logit_gradients.exact,
        own_logits: bool = True,
    ):
        checks.some_branches("MixedOp", branches)
        own_logits = checks.flag("MixedOp", "own_logits", own_logits)
        mixed.check_records("MixedOp", sampler, logit_gradient)
        self.branches = versions.nnx_list(branches)
        zeros = jnp.zeros(len(branches))
        self.arch_logits = ArchParam(zeros) if own_logits else None
        self.sampler = sampler
        self.deterministic = False
        has_arrays = bool(jax.tree.leaves(logit_gradient))
        kind: Any = nnx.data if has_arrays else versions.nnx_static
        self.logit_gradient = kind(logit_gradient)

    def __call__(
        self,
        x: Any,
        *args: Any,
        temperature: ArrayLike = 1.0,
        hard: bool = True,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        weights: ArrayLike | None = None,
        branch_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Applies the choice to x.

        Args:
            x: input of the modules, any pytree.
            *args: further arguments of all modules. Arrays are traced, and have
                gradients; a Python value, such as a flag, reaches the module as it is.
            temperature: relaxation temperature > 0. Traced: annealing never recompiles.
            hard: run the chosen module alone; else the weighted sum of all. Static.
            deterministic: no noise: the most probable module, or softmax weights. The
                attribute of this name, which `eval()` sets, if None. Static. A flag of
                the modules of this name: see `branch_kwargs`.
            rngs: where the key of the draw comes from: a key, a stream, or `nnx.Rngs`
                with a stream "arch" (or a default one).
            weights: [K], in place of a draw: one of `gumbax.draw_choices`, shared by
                all operations of a name. Temperature and logits are then not used. With
                `hard=True` they must be one-hot, a draw made with `hard=True`: soft
                weights would run as the module of the largest, times its weight.
            branch_kwargs: keywords of the modules whose names this call has for itself:
                `branch_kwargs={"deterministic": True}` turns their dropout off.
            **kwargs: keywords of the modules, as `train=True`. Each reaches the modules
                that take it by its name.

        Returns:
            Pytree with the structure, shapes and dtypes of one module's output.

        Raises:
            TypeError: a key is needed and `rngs` gives none; no module takes a keyword,
                or one does not take the arguments; `hard` or `deterministic` is traced;
                a variable holds no array.
            ValueError: two modules disagree in their outputs, or share a variable that
                one of them changes; there are neither weights nor logits; or, with
                `hard=True`, a module deletes a variable or gives it another shape.
        """
        every = arguments.together("MixedOp", kwargs, branch_kwargs)
        args, every = nnx_branches.given((args, every))
        names = [f"{i} ({nnx_branches.name(m)})" for i, m in enumerate(self.branches)]
        branches = dict(zip(names, self.branches, strict=True))
        taken = arguments.taken("MixedOp", branches, 1 + len(args), every)
        record = self.logit_gradient
        if deterministic is None and self.deterministic and rngs is None:
            # No key at all: every credit, where gradients are asked for.
            record = logit_gradients.exact if record.needs_key else record
        choice = mixed.choose(
            num_branches=len(self.branches),
            logits=self._logits,
            key=functools.partial(_draw_key, rngs),
            sampler=self.sampler,
            logit_gradient=record,
            temperature=temperature,
            hard=hard,
            deterministic=self._is_still(deterministic),
            weights=weights,
        )
        options: dict[str, Any] = {}
        inner = [module for module in self.branches if isinstance(module, MixedOp)]
        if inner:
            # Of a `MixedOp` that is itself a branch.
            options = {"hard": hard, "deterministic": deterministic}
            options["temperature"] = jnp.asarray(temperature)
            key = choice.key
            draws = any(
                (hard and m.logit_gradient.needs_key) or not m._is_still(deterministic)
                for m in inner
            )
            if key is None and rngs is not None and draws:
                key = _draw_key(rngs, None)
            options["rngs"] = None if key is None else mixed.inner_key(key)
        arrays, frame = arguments.split("MixedOp", args, every)
        modules = []
        for module, own_names in zip(self.branches, taken, strict=True):
            static, variables = nnx_branches.split(module)
            own = options if isinstance(module, MixedOp) else {}
            own = {k: v for k, v in own.items() if k not in own_names}
            own_arrays, own_frame = arguments.split("MixedOp", (), own)
            call = nnx_branches.Call(static, own_names, frame, own_frame)
            branch = nnx_branches.branch(module, call, variables, own_arrays)
            modules.append(branch)
        return stateful.apply(choice, modules, (x, arrays))

    def set_view(self, deterministic: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
          deterministic: the most probable module, without a draw.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def _is_still(self, deterministic: Any) -> Any:
        """Whether a call with this argument draws nothing."""
        return self.deterministic if deterministic is None else deterministic

    def _logits(self) -> jax.Array:
        if self.arch_logits is None:
            raise mixed.no_logits()
        return self.arch_logits[...]

    def derive(
        self, *, weights: ArrayLike | None = None, index: int | None = None
    ) -> nnx.Module | Callable[..., Any]:
        """Returns the module that is kept itself, not a copy.

        That is the most probable one by the logits of this module. A choice that came
        from outside, as `weights=` of the calls, is to be given here too.

        Args:
            weights: [K], of which the largest is kept.
            index: number of the module that is kept.

        Returns:
            One of `branches`.

        Raises:
            TypeError: `index` is not an integer.
            ValueError: there is no choice: no logits, or all are equal, as they are
                made; or they are those of several operations, stacked.
        """
        own = None if self.arch_logits is None else self.arch_logits[...]
        number = mixed.derived_index(len(self.branches), own, weights, index)
        return self.branches[number]


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
    must, cure = "be a sequence of NNX modules or functions", "Put them into a list."
    for module in checks.sequence("pure_branches", "modules", modules, must, cure):
        if not callable(module):
            got = f"{checks.shown(module)} among them"
            raise TypeError(checks.message("pure_branches", "modules", must, got, cure))
        static, state = nnx_branches.split(module)
        dropped = _statistics(state) if batch_statistics else ()
        leaves, treedef = jax.tree.flatten(state)
        branches.append(_branch(nnx_branches.name(module), static, treedef, dropped))
        params.append(leaves)
    return tuple(branches), tuple(params)


def _statistics(state: Any) -> tuple[tuple[Any, ...], ...]:
    """Paths of the variables that are statistics of batches."""
    flat = nnx.to_flat_state(state)
    return tuple(path for path, v in flat if isinstance(v, nnx.BatchStat))


@functools.lru_cache(maxsize=1024)
def _branch(name: str, static: Any, treedef: Any, dropped: Any) -> Branch:
    """A module as a function of (leaves, x), which must not change."""

    def branch(leaves, x):
        state = jax.tree.unflatten(treedef, leaves)
        module = nnx_branches.merge(static, state)
        output = module(x)
        changed = [
            changes.path_name(path)
            for path in changes.differences(state, nnx_branches.split(module)[1])
            if nnx_branches.variable_path(path) not in dropped
        ]
        if changed:
            raise ValueError(
                checks.message(
                    "pure_branches",
                    "modules",
                    "leave their variables as they are",
                    f"{name}, whose call changes {', '.join(changed)}",
                    "Use `MixedOp`, which keeps the changes, or batch statistics "
                    "without tracking them.",
                )
            )
        return output

    branch.__name__ = name
    return branch


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
        return checks.scalar_key("MixedOp", rngs)
    raise TypeError(
        checks.message(
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
