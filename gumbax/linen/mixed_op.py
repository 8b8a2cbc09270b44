"""Flax Linen module over `gumbax.mixed_op`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from gumbax._common import checks
from gumbax.edge import logit_gradients
from gumbax.edge.logit_gradients import LogitGradient
from gumbax.edge.modules import arguments, mixed, stateful
from gumbax.edge.modules.stateful import Module
from gumbax.linen import branches as linen_branches
from gumbax.samplers.relaxation import gumbel_softmax

# The collection of the architecture logits, beside "params": optimisers of the weights
# do not see them. Also the name of the random stream of the draws.
ARCH = "arch"


class MixedOp(nn.Module):
    """Chooses one of several modules, by architecture logits that are learned.

    Called with its defaults it draws one module by straight-through Gumbel-Softmax and
    runs that one alone (`gumbax.single_path`). `hard=False` is the weighted sum of all
    modules, `deterministic=True` leaves the noise out; both together, at temperature 1,
    are the mixed operation of DARTS.

    The variable "logits", [K], zeros at first, is in the collection "arch"; an `init`
    with `weights` makes none. What modules change, make or `sow` in collections that
    are mutable in a call is kept: of the chosen module with `hard=True`, else of all. A
    module that did not run has what it had before; for what it would have made stand
    zeros, which add nothing to a sum of losses. What is kept has gradients: sown losses
    train the modules, not weighted, and with `hard=True` the logits too, as the loss
    then depends on the choice.

    The modules' random streams, such as "dropout", reach them. A `MixedOp` that is
    itself a branch is called with the same `temperature`, `hard` and `deterministic`;
    it draws for itself, as one inside a branch does, with a key from that of this call.

    Attributes:
        branches: K modules or functions that map x to outputs of one structure, shape
            and dtype.
        sampler: (key, logits, *, temperature, hard, gumbels) -> weights [K]:
            `gumbax.gumbel_softmax` or a function of the same kind.
        logit_gradient: for `hard=True`, as in `gumbax.single_path`.

    Raises:
        TypeError: a branch cannot be called.
        ValueError: `branches` is empty.

    Example:
        >>> op = MixedOp([nn.Dense(8), nn.LayerNorm()])
        >>> variables = op.init(jax.random.key(0), jnp.ones((4, 8)))
        >>> rngs = {"arch": jax.random.key(1)}
        >>> op.apply(variables, jnp.ones((4, 8)), temperature=0.5, rngs=rngs).shape
        (4, 8)

    References:
        Liu, Simonyan, Yang, 2019 (DARTS). https://arxiv.org/abs/1806.09055
        Dong, Yang, 2019 (GDAS). https://arxiv.org/abs/1910.04465
    """

    branches: Sequence[nn.Module | Callable[..., Any]]
    sampler: Callable[..., jax.Array] = gumbel_softmax
    logit_gradient: LogitGradient = logit_gradients.exact

    @nn.compact
    def __call__(
        self,
        x: Any,
        *args: Any,
        temperature: ArrayLike = 1.0,
        hard: bool = True,
        deterministic: bool = False,
        key: jax.Array | None = None,
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
            deterministic: no noise: the most probable module, or softmax weights.
                Static. A flag of the modules of this name: see `branch_kwargs`.
            key: of the draw; None for one from the random stream "arch".
            weights: [K], in place of a draw: one of `gumbax.draw_choices`, shared by
                all operations of a name. `temperature` is then not used, nor are
                logits made or read. With `hard=True` they must be one-hot, a draw made
                with `hard=True`: soft weights would run as the module of the largest,
                times its weight.
            branch_kwargs: keywords of the modules whose names this call has for itself:
                `branch_kwargs={"deterministic": True}` turns their dropout off.
            **kwargs: keywords of the modules, as `train=True`. Each reaches the modules
                that take it by its name.

        Returns:
            Pytree with the structure, shapes and dtypes of one module's output.

        Raises:
            TypeError: a key is needed and there is none; no module takes a keyword, or
                one does not take the arguments; `hard` or `deterministic` is traced; a
                variable holds no array.
            ValueError: two modules disagree in their outputs, or share a variable that
                one of them changes; there are neither weights nor logits; or, with
                `hard=True`, a module gives a variable another shape.
        """
        checks.some_branches("MixedOp", self.branches)
        mixed.check_records("MixedOp", self.sampler, self.logit_gradient)
        children = [self._module(i) for i in range(len(self.branches))]
        given = arguments.together("MixedOp", kwargs, branch_kwargs)
        taken = self._taken(children, len(args), given)
        if self.is_initializing():
            if weights is None:
                self._logits()
            # Every module makes its variables.
            pairs = zip(children, taken, strict=True)
            first, *_ = [m(x, *args, **{k: given[k] for k in own}) for m, own in pairs]
            return first
        choice = mixed.choose(
            num_branches=len(self.branches),
            logits=self._logits,
            key=functools.partial(self._draw_key, key),
            sampler=self.sampler,
            logit_gradient=self.logit_gradient,
            temperature=temperature,
            hard=hard,
            deterministic=deterministic,
            weights=weights,
        )
        options: dict[str, Any] = {}
        if any(isinstance(child, MixedOp) for child in children):
            # Of a `MixedOp` that is itself a branch.
            options = {"hard": hard, "deterministic": deterministic}
            options["temperature"] = jnp.asarray(temperature)
        arrays, frame = arguments.split("MixedOp", args, given)
        mutable = linen_branches.mutable(self, "params", ARCH)
        capture = linen_branches.capture()
        modules = []
        for child, names in zip(children, taken, strict=True):
            alone = linen_branches.Standalone.of(child)
            own = options if isinstance(child, MixedOp) else {}
            own = {k: v for k, v in own.items() if k not in names}
            own_arrays, own_frame = arguments.split("MixedOp", (), own)
            call = linen_branches.Call(
                alone.module, names, frame, own_frame, mutable, capture
            )
            modules.append(linen_branches.branch(alone, call, own_arrays))
        keys = self._keys(choice, key, modules)
        return stateful.apply(choice, modules, (x, arrays, keys))

    def _module(self, number: int) -> nn.Module:
        branch = self.branches[number]
        if isinstance(branch, nn.Module):
            return branch
        return linen_branches.Function(branch, name=f"branches_{number}")

    def _taken(
        self, children: Sequence[nn.Module], num_args: int, kwargs: Mapping[str, Any]
    ) -> list[tuple[str, ...]]:
        labels = [
            f"{i} ({linen_branches.name(child)})" for i, child in enumerate(children)
        ]
        branches = dict(zip(labels, self.branches, strict=True))
        return arguments.taken("MixedOp", branches, 1 + num_args, kwargs)

    def _logits(self) -> jax.Array:
        makes = self.is_initializing() or self.is_mutable_collection(ARCH)
        if not (makes or self.has_variable(ARCH, "logits")):
            raise mixed.no_logits()
        zeros = functools.partial(jnp.zeros, len(self.branches))
        return self.variable(ARCH, "logits", zeros).value

    def _keys(
        self,
        choice: mixed.Choice,
        key: jax.Array | None,
        modules: Sequence[Module],
    ) -> dict[str, jax.Array]:
        """A key of each random stream, for what draws in the branches."""
        assert self.scope is not None
        streams = [s for s in self.scope.rngs if s not in ("params", ARCH)]
        keys = {stream: self.make_rng(stream) for stream in streams}
        if any(ARCH in module.own[0] for module in modules):
            given = choice.key if key is None else key
            if given is None and self.has_rng(ARCH):
                given = self.make_rng(ARCH)
            if given is not None:
                keys[ARCH] = mixed.inner_key(given)
        return keys

    def _draw_key(
        self, key: jax.Array | None, record: LogitGradient | None
    ) -> jax.Array:
        """A key for the draw, or for the credits if a record draws them."""
        if key is None and self.has_rng(ARCH):
            return self.make_rng(ARCH)
        if key is not None:
            return checks.scalar_key("MixedOp", key)
        raise TypeError(
            checks.message(
                "MixedOp",
                "key",
                "come with the call or from a random stream"
                + (f", for {record}" if record is not None else ""),
                "None",
                'Pass `key=...`, `rngs={"arch": key}`, or `deterministic=True`.'
                if record is None
                else 'Pass `key=...` or `rngs={"arch": key}`: the credits are drawn '
                "even where the module is not. Without gradients, call `derive()`'s "
                "module.",
            )
        )

    # Not wrapped: a call of a wrapped method would adopt modules whose parent is gone.
    @nn.nowrap
    def derive(
        self,
        variables: Mapping[str, Any] | None = None,
        *,
        weights: ArrayLike | None = None,
        index: int | None = None,
    ) -> tuple[nn.Module, dict[str, Mapping[str, Any]]]:
        """Returns the module that is kept, and its variables.

        That is the most probable one by the logits of this module. A choice that came
        from outside, as `weights=` of the calls, is to be given here too.

        Args:
            variables: of this module, as `init` returns them. Left out where the module
                is bound, as inside `nn.Module.bind`: modules that were made inside a
                `compact` method or the `setup` of a parent have their variables there.
            weights: [K], of which the largest is kept.
            index: number of the module that is kept.

        Returns:
            An unbound module, and the variables to call its `apply` with.

        Raises:
            TypeError: `index` is not an integer.
            ValueError: there is no choice: no logits, or all are equal, as they are
                made; or they are those of several operations, stacked. The variables
                are not those of this module.
        """
        if variables is None and self.scope is None:
            raise ValueError(
                checks.message(
                    "MixedOp.derive",
                    "variables",
                    "be given for a module that is not bound",
                    "None",
                    "Pass what `init` returned.",
                )
            )
        if variables is None:
            return self._derive(weights, index)
        given: Any = variables
        logits = given.get(ARCH, {}).get("logits")
        number = mixed.derived_index(len(self.branches), logits, weights, index)
        module, own = self.bind(given)._derive(None, number)
        names = {f"branches_{i}" for i in range(len(self.branches))} | {"logits"}
        others = {name for values in given.values() for name in values} - names
        if others and not own:
            raise ValueError(
                checks.message(
                    "MixedOp.derive",
                    "variables",
                    f"be those of this module, with branches_{number}",
                    f"{', '.join(sorted(others))}",
                    "Modules made in a method of a parent have their variables in the "
                    "parent: call `derive()` without variables on this module inside "
                    "the parent, in a method or after `parent.bind(variables)`.",
                )
            )
        return module, own

    @nn.nowrap
    def _derive(
        self, weights: ArrayLike | None, index: int | None
    ) -> tuple[nn.Module, dict[str, Mapping[str, Any]]]:
        logits: Any = self.get_variable(ARCH, "logits")
        number = mixed.derived_index(len(self.branches), logits, weights, index)
        child: Any = self.branches[number]
        if isinstance(child, nn.Module):
            linen_branches.check_parents(self)
            # Those of its own are bound when it is asked for what it has not.
            getattr(self, "_", None)
            child = self.branches[number]
            alone = linen_branches.Standalone.of(child)
            module, own = alone.module, alone.variables
        else:
            module = linen_branches.Function(child, parent=None)
            name = f"branches_{number}"
            own = {c: values.get(name) for c, values in self.variables.items()}
        return module, {c: values for c, values in own.items() if values}
