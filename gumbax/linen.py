"""Flax Linen module over `gumbax.mixed_op`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from gumbax import _branches, _checks, logit_gradients
from gumbax._branches import Branch
from gumbax._relaxation import gumbel_softmax
from gumbax.logit_gradients import LogitGradient
from gumbax.mixed_op import mixed_op, single_path

# The collection of the architecture logits, beside "params": optimisers of the weights
# do not see them. Also the name of the random stream of the draws.
ARCH = "arch"


class MixedOp(nn.Module):
    """Chooses one of several modules, by architecture logits that are learned.

    Called with its defaults it draws one module by straight-through Gumbel-Softmax and
    runs that one alone (`gumbax.single_path`). `hard=False` is the weighted sum of all
    modules, `deterministic=True` leaves the noise out; both together, at temperature 1,
    are the mixed operation of DARTS.

    The variable "logits", [K], zeros at first, is in the collection "arch". Collections
    that are mutable in a call, such as "batch_stats", are updated: those of the chosen
    module with `hard=True`, else of all. The modules' other random streams, such as
    "dropout", reach them.

    Attributes:
        branches: K modules that map x to outputs of one structure, shape and dtype.
        sampler: (key, logits, *, temperature, hard, gumbels) -> weights [K]:
            `gumbax.gumbel_softmax` or a function of the same kind.
        logit_gradient: for `hard=True`, as in `gumbax.single_path`.

    Raises:
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

    branches: Sequence[nn.Module]
    sampler: Callable[..., jax.Array] = gumbel_softmax
    logit_gradient: LogitGradient = logit_gradients.exact

    @nn.compact
    def __call__(
        self,
        x: Any,
        *,
        temperature: ArrayLike = 1.0,
        hard: bool = True,
        deterministic: bool = False,
        key: jax.Array | None = None,
        weights: ArrayLike | None = None,
    ) -> Any:
        """Applies the choice to x.

        Args:
            x: input of the modules, any pytree.
            temperature: relaxation temperature > 0. Traced: annealing never recompiles.
            hard: run the chosen module alone; else the weighted sum of all.
            deterministic: no noise: the most probable module, or softmax weights.
            key: of the draw; None for one from the random stream "arch".
            weights: [K], in place of a draw: one of `gumbax.draw_choices`, shared by
                all operations of a name. `temperature` is then not used. With
                `hard=True` they must be one-hot, a draw made with `hard=True`: soft
                weights would run as the module of the largest, times its weight.

        Returns:
            Pytree with the structure, shapes and dtypes of one module's output.

        Raises:
            TypeError: a key is needed and there is none.
            ValueError: two modules disagree in their outputs.
        """
        _checks.some_branches("MixedOp", self.branches)
        zeros = functools.partial(jnp.zeros, len(self.branches))
        logits = self.variable(ARCH, "logits", zeros).value
        if self.is_initializing():
            # Every module makes its variables.
            first, *_ = [branch(x) for branch in self.branches]
            return first
        credits_draw = hard and self.logit_gradient.needs_key
        credits_key = None
        if credits_draw or (weights is None and not deterministic):
            key = self._draw_key(key, self.logit_gradient if credits_draw else None)
            # The sampler consumes the key itself.
            credits_key = jax.random.fold_in(key, 1) if credits_draw else None
        if weights is None:
            weights = self.sampler(
                None if deterministic else key,
                logits,
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
        return self._apply(operation, weights, x)

    def _draw_key(
        self, key: jax.Array | None, record: LogitGradient | None
    ) -> jax.Array:
        """A key for the draw, or for the credits if a record draws them."""
        if key is None and self.has_rng(ARCH):
            return self.make_rng(ARCH)
        if key is not None:
            return _checks.scalar_key("MixedOp", key)
        raise TypeError(
            _checks.message(
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

    def _apply(self, operation: Callable[..., Any], weights: Any, x: Any) -> Any:
        branches, params = [], []
        for child in self.branches:
            module, variables = child.unbind()
            mutable = tuple(
                sorted(c for c in variables if self.is_mutable_collection(c))
            )
            state = {c: variables[c] for c in mutable if c not in ("params", ARCH)}
            fixed = {c: v for c, v in variables.items() if c not in state}
            branches.append(_branch(module, tuple(state)))
            params.append((fixed, state))
        assert self.scope is not None
        streams = [s for s in self.scope.rngs if s not in ("params", ARCH)]
        keys = {stream: self.make_rng(stream) for stream in streams}
        output, states = operation(weights, branches, params, (x, keys), has_state=True)
        for child, state in zip(self.branches, states, strict=True):
            for collection, values in state.items():
                for name, value in values.items():
                    child.put_variable(collection, name, value)
        return output

    def derive(
        self, variables: Mapping[str, Any]
    ) -> tuple[nn.Module, dict[str, Mapping[str, Any]]]:
        """Returns the most probable module and its variables.

        Args:
            variables: of this module, as `init` returns them.

        Returns:
            An unbound module, and the variables to call its `apply` with.

        Raises:
            ValueError: the logits are those of several operations, stacked.
        """
        logits = variables[ARCH]["logits"]
        index = _branches.most_probable("MixedOp.derive", logits)
        name = f"branches_{index}"
        return self.branches[index], {
            collection: values[name]
            for collection, values in variables.items()
            if name in values
        }


@functools.lru_cache(maxsize=1024)
def _branch(module: nn.Module, mutable: tuple[str, ...]) -> Branch:
    """A module as a function: equal modules give the same one, and share traces."""

    def branch(own, inputs):
        fixed, state = own
        x, keys = inputs
        if not mutable:
            return module.apply({**fixed}, x, rngs=keys), state
        return module.apply({**fixed, **state}, x, rngs=keys, mutable=list(mutable))

    branch.__name__ = type(module).__name__
    return branch
