"""A search from a state to its end: one loop over its epochs."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from gumbax.search.loops import diagnostics
from gumbax.search.loops.evaluation import all_finite, soft_weights
from gumbax.search.loops.search import Search, SearchState
from gumbax.search.store.errors import SearchError


def fit(
    search: Search,
    state: SearchState | None = None,
    on_epoch: Callable[[SearchState, dict[str, float]], None] = lambda state, row: None,
) -> SearchState:
    """Runs a search from a state to its end.

    Args:
        search: the search.
        state: where to go on from; the first state if None.
        on_epoch: called after every epoch with the new state and its metrics, as
            numbers: losses in nats (that of the logits with its penalty), accuracies as
            fractions, temperature, the diagnostics of
            `gumbax.search.loops.diagnostics`, the accuracies of `gap`, and with a cost
            `expected_cost` of the logits and `argmax_cost` of what would be kept.

    Returns:
        The final state.

    Raises:
        SearchError: a loss or the state is not finite. `on_epoch` has not seen that
            state.
    """
    state = search.init() if state is None else state
    while (done := int(state.step) // search.steps_per_epoch) < search.num_epochs:
        state, metrics = search.epoch(state)
        found = metrics | diagnostics.of_logits(state.arch, search.space)
        row = {name: float(np.asarray(v)) for name, v in found.items()}
        losses = row["loss"], row["arch_loss"]
        # The last step of an epoch can break the weights, and no loss shows it yet.
        if not np.isfinite(losses).all() or not all_finite(state):
            raise SearchError(
                f"The loss became {losses[0]} (weights), {losses[1]} (architecture), "
                f"or a weight NaN, in epoch {done + 1}. What was saved before is "
                "kept. Lower the learning rates of the method."
            )
        row |= search.gap(state)
        if search.cost is not None:
            mean = soft_weights(state.arch, jnp.ones(()), search.method.soft)
            row["expected_cost"] = float(search.cost.expected(mean))
            row["argmax_cost"] = search.cost.of(search.genotype(state.arch)).total
        on_epoch(state, {"epoch": done + 1, "step": int(state.step)} | row)
    return state
