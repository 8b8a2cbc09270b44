"""What a search or a training is given, checked before it starts, by traces alone."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gumbax._common import checks
from gumbax.search.data.dataset import Examples
from gumbax.search.methods.budgets import check_budget
from gumbax.search.methods.derive_rules import Rule as DeriveRule
from gumbax.search.methods.methods import Method
from gumbax.search.methods.penalties import Penalty
from gumbax.search.network.costs import CostTable
from gumbax.search.network.derivation import groups_of
from gumbax.search.network.supernet import Network
from gumbax.search.spaces.space import Space
from gumbax.search.store.errors import SearchError, search_error


def check_kinds(space: Space, method: Method) -> None:
    """Refuses a space or a method that is none: a name, or what makes one."""
    if not isinstance(space, Space):
        must, cure = "be a space", 'As `search.SPACES["small_images"]()`.'
        got = checks.shown(space)
        raise TypeError(checks.message("Search", "space", must, got, cure))
    if not isinstance(method, Method):
        must, cure = "be a method", 'As `search.METHODS["gumbel"]`.'
        got = checks.shown(method)
        raise TypeError(checks.message("Search", "method", must, got, cure))


def check_labels(examples: Examples, num_classes: int) -> None:
    """Refuses labels that are not those of so many classes, one for each example."""
    labels = np.asarray(examples.labels)
    given = jnp.shape(examples.inputs)
    if labels.shape != given[:1] or labels.dtype.kind not in "iu":
        raise search_error(
            "labels",
            f"be {given[0] if given else 1} integers, one for each example",
            f"{labels.dtype.name}{list(labels.shape)} for inputs of shape {given}",
            "Number the classes from 0.",
        )
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise search_error(
            "num_classes",
            "be more than every label, and no label negative",
            f"{num_classes} classes and the label {outside[0]}",
            "Number the classes from 0, and pass as many as there are.",
        )


def check_edges(space: Space, network: Network) -> None:
    """Refuses edges whose logits are not there."""
    for _, _, edges in groups_of(network):
        count, _ = space.choices[edges.choice].shape
        if not all(0 <= row < count for row in edges.rows):
            raise search_error(
                "space",
                f"build edges of the {count} rows of logits of `{edges.choice}`",
                f"rows {edges.rows}",
                "The rows are those of the edges in `choices`, from 0.",
            )


def check_weights(
    argument: str, space: Space, make: Callable[[], Mapping[str, Any]]
) -> None:
    """Refuses weights that are not those of every edge and primitive.

    Args:
        argument: of the method, that makes them.
        space: what they choose from.
        make: of the weights, choice -> [E, K].
    """
    found = jax.eval_shape(make)
    for name, choice in space.choices.items():
        kind = found[name]
        floating = jnp.issubdtype(kind.dtype, jnp.floating)
        if kind.shape != choice.shape or not floating:
            raise search_error(
                argument,
                f"give floating weights {list(choice.shape)} for `{name}`, one for "
                "each edge and primitive",
                f"{kind.dtype.name}{list(kind.shape)}",
                "Correct the method.",
            )


def check_scores(
    scores: Callable[[jax.Array], Any], examples: Examples, size: int, num_classes: int
) -> None:
    """Refuses a network whose output is not one score for each example and class.

    Args:
        scores: the network, of inputs.
        examples: what it is given.
        size: of a batch.
        num_classes: of the labels.
    """
    shape = (size, *examples.inputs.shape[1:])
    x = jax.ShapeDtypeStruct(shape, examples.inputs.dtype)
    must = f"build a network of inputs {list(shape)}"
    cure = "See the shapes in the docstring of the space, and its primitives."
    try:
        found = jax.eval_shape(scores, x)
    except SearchError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        got = f"{type(error).__name__}: {reason[0]}"
        raise search_error("space", must, got, cure) from error
    kinds = jax.tree.leaves(found)
    wanted = [
        kind
        for kind in kinds
        if kind.shape == (size, num_classes)
        and jnp.issubdtype(kind.dtype, jnp.floating)
    ]
    if len(kinds) != 1 or not wanted:
        raise search_error(
            "space",
            f"{must} that has one floating score for each of {num_classes} classes",
            ", ".join(f"{kind.dtype.name}{list(kind.shape)}" for kind in kinds)
            or "none",
            cure,
        )


def check_costs(
    space: Space,
    rule: DeriveRule,
    cost: CostTable | None,
    penalty: Penalty | None,
    budget: float | None,
) -> None:
    """Refuses a cost, a penalty and a budget that do not fit each other.

    Args:
        space: of the search.
        rule: how the architecture is derived.
        cost: what operations cost.
        penalty: of the cost.
        budget: largest cost.
    """
    if cost is None:
        for name, value in {"penalty": penalty, "budget": budget}.items():
            if value is not None:
                must, cure = f"be given with `{name}`", "Pass a table of costs."
                raise search_error("cost", must, "none", cure)
        return
    if (cost.space, dict(cost.choices)) != (space.name, dict(space.choices)):
        must = f"be the table of the space {space.name!r}"
        got = f"one of {cost.space!r} with other choices"
        raise search_error("cost", must, got, "Make it with `cost_tables`.")
    if budget is not None:
        try:
            check_budget(space, cost, budget, rule)
        except ValueError as error:
            raise SearchError(str(error)) from error


class ByArguments:
    """Pickles by what it was given; what follows from that is made anew."""

    _given: tuple[str, ...]

    def _prepare(self) -> None:
        """Makes what follows from the arguments, whose names are in `_given`."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*self._given, "_given")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()
