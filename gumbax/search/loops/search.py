"""The search itself, as jitted epochs, which never see a test set."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gumbax._common import checks
from gumbax._common.records import pytree
from gumbax.edge.choices import draw_choices
from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Examples, epoch_order, split
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops import diagnostics, given
from gumbax.search.loops.evaluation import (
    loss_and_accuracy,
    network_accuracies,
    soft_weights,
)
from gumbax.search.methods import bilevel
from gumbax.search.methods.bilevel import Problem
from gumbax.search.methods.budgets import within_budget
from gumbax.search.methods.methods import Method
from gumbax.search.methods.optimizers import InnerStep
from gumbax.search.methods.penalties import Penalty, step_cost
from gumbax.search.network.costs import CostTable
from gumbax.search.network.supernet import Supernet
from gumbax.search.spaces.edges import Context
from gumbax.search.spaces.space import Space
from gumbax.search.store.errors import search_error

PyTree = Any
GAP_EXAMPLES = 1000


@pytree
class SearchState:
    """All that changes in a search; keys and data order follow from (seed, step).

    Attributes:
        step: steps done.
        arch: choice -> logits [E, K].
        weights: of the supernet.
        arch_opt: state of the logits' optimiser.
        weight_opt: state of the weights' optimiser.
    """

    step: jax.Array
    arch: PyTree
    weights: PyTree
    arch_opt: PyTree
    weight_opt: PyTree


class Search(given.ByArguments):
    """A search over one space with one method: initial state and jitted epochs.

    Weights are trained on one half of the training set and architecture logits on the
    other, the logits from `method.warmup` of the search on; methods of one level (SNAS)
    train both on the first half. In a step the logits move first. The test set is not a
    parameter.

    Args:
        space: what is chosen.
        method: how.
        train: training examples.
        num_classes: of the labels.
        num_epochs: length of the search; schedules end there. An epoch goes once
            through the half of the weights.
        batch_size: examples in a step, or a half of the set if that is smaller.
        seed: of everything: halves, initial weights, order of the examples, draws.
        augmentation: of the images of a step.
        mesh: shards the examples of a step over its first axis; the draws, and the
            gradients to rounding, are those of one device. Batch normalisation is over
            the whole batch.
        cost: what operations cost, from `gumbax.search.network.cost_tables`, for the
            penalty and the budget.
        penalty: (cross entropy, cost) -> loss of the logits, for example `add_linear`;
            the weights learn from the cross entropy alone.
        budget: largest cost of what is derived, which never exceeds it.

    It pickles, by its arguments and the halves, if the functions of the space and the
    method do: those of a module, not lambdas.

    Raises:
        TypeError: `space`, `method` or a number is of a wrong kind.
        ValueError: a number is too small.
        SearchError: a class has too few examples to be in both halves, or the batch
            cannot be shared out over the mesh; a label is not one of `num_classes`; a
            penalty or a budget has no cost, the table is of another space, or the
            budget is below the cheapest architecture; or the network, or what the
            method makes of its logits, is not what the space says. Nothing is compiled
            for that.

    References:
        Liu, Simonyan, Yang, 2019, Algorithm 1. https://arxiv.org/abs/1806.09055
    """

    def __init__(
        self,
        space: Space,
        method: Method,
        train: Examples,
        *,
        num_classes: int,
        num_epochs: int,
        batch_size: int = 64,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        mesh: Mesh | None = None,
        cost: CostTable | None = None,
        penalty: Penalty | None = None,
        budget: float | None = None,
    ):
        given.check_kinds(space, method)
        cure = "Pass as many as there are."
        num_classes = checks.count("Search", "num_classes", num_classes, 1, cure)
        num_epochs = checks.count("Search", "num_epochs", num_epochs, 1, "Pass 1.")
        batch_size = checks.count("Search", "batch_size", batch_size, 1, "Pass 64.")
        seed = checks.count("Search", "seed", seed, 0, "Any number does.")
        given.check_labels(train, num_classes)
        self.space = space
        self.method = method
        self.num_classes = num_classes
        self.cost = cost
        self.penalty = penalty
        self.budget = budget
        given.check_costs(space, method.rule(space), cost, penalty, budget)
        self.num_epochs = num_epochs
        self.seed = seed
        self.augmentation = augmentation
        self.mesh = mesh
        self.weight_half, self.arch_half = split(train, train.size // 2, seed=seed)
        # The halves may differ by an example, and their numbers of batches by one.
        smaller = min(self.weight_half.size, self.arch_half.size)
        self.batch_size = min(batch_size, smaller)
        self.steps_per_epoch = smaller // self.batch_size
        self.num_steps = num_epochs * self.steps_per_epoch
        self._given = tuple(vars(self))
        self._prepare()

    def _prepare(self) -> None:
        """What follows from the arguments."""
        space, method, num_epochs = self.space, self.method, self.num_epochs
        keys = jax.random.split(jax.random.key(self.seed), 3)
        init_key, arch_key, self.key = keys
        shape = self.weight_half.inputs.shape[1:]
        self._supernet = Supernet(
            space, shape, self.num_classes, rngs=nnx.Rngs(init_key)
        )
        parts: tuple[Any, ...] = nnx.split(self._supernet.network, nnx.Param, ...)
        self.graphdef, self._weights, self._rest = parts
        self._arch = _first_logits(space, method, arch_key)
        lengths = (num_epochs, self.steps_per_epoch)
        self.temperature = method.temperature(*lengths)
        self._rate = method.weights.schedule(*lengths)
        self._weight_optimizer = method.weights.make(*lengths)
        self._warmup = method.warmup * self.num_steps
        self._arch_optimizer = (
            optax.set_to_zero()
            if method.arch is None
            else method.arch.make(self._warmup, self.num_steps)
        )
        mesh = self.mesh
        self._sharding = None if mesh is None else _over(mesh, self.batch_size)
        self._check()

    def _check(self) -> None:
        """Traces one forward pass, as in a step."""
        space, method, arch = self.space, self.method, self._arch
        temperature = jnp.asarray(self.temperature(0), jnp.float32)
        given.check_edges(space, self._supernet.network)
        draw = functools.partial(self._draw, self.key, arch, temperature)
        given.check_weights("sampler", space, draw)
        soft = functools.partial(soft_weights, arch, temperature, method.soft)
        given.check_weights("soft", space, soft)

        def scores(x):
            key = self.key if method.uses_key else None
            context = Context(weights=draw(), operation=method.operation, key=key)
            network = nnx.merge(self.graphdef, self._weights, self._rest, copy=True)
            return network(x, context)

        size, num_classes = self.batch_size, self.num_classes
        given.check_scores(scores, self.weight_half, size, num_classes)

    def init(self) -> SearchState:
        """The state before the first step."""
        return SearchState(
            step=jnp.zeros((), jnp.int32),
            arch=self._arch,
            weights=self._weights,
            arch_opt=self._arch_optimizer.init(self._arch),
            weight_opt=self._weight_optimizer.init(self._weights),
        )

    def supernet(self, state: SearchState) -> Supernet:
        """The supernet with the weights and logits of a state."""
        supernet = nnx.clone(self._supernet)
        nnx.update(supernet.network, state.weights)
        for name, logits in state.arch.items():
            supernet.arch[name][...] = logits
        return supernet

    def genotype(self, arch: Mapping[str, jax.Array]) -> Genotype:
        """The architecture that logits stand for: by the method, within the budget."""
        if self.cost is None or self.budget is None:
            return self.method.genotype(arch, self.space)
        return within_budget(
            arch,
            self.space,
            table=self.cost,
            budget=self.budget,
            rule=self.method.rule(self.space),
        )

    def epoch(self, state: SearchState) -> tuple[SearchState, dict[str, jax.Array]]:
        """Runs one epoch; returns the new state and its metrics, means of its steps."""
        halves = (self.weight_half, self.arch_half)
        return self._epoch(state, self._rest, *halves)

    def gap(self, state: SearchState) -> dict[str, float]:
        """Accuracies of what is trained and of what is kept, fractions.

        They are measured on up to 1,000 examples of the half of the architecture: of
        the soft network at the temperature of the step, of a network drawn from the
        logits (straight-through), and of the argmax network, each normalised by the
        statistics of its own batches.
        """
        key = jax.random.fold_in(jax.random.fold_in(self.key, 2), state.step)
        examples = jax.tree.map(lambda a: a[:GAP_EXAMPLES], self.arch_half)
        return network_accuracies(
            self.graphdef,
            state.weights,
            self._rest,
            soft_weights(state.arch, self.temperature(state.step), self.method.soft),
            draw_choices(key, state.arch, hard=True).weights,
            self.genotype(state.arch).weights(self.space),
            examples,
            self.batch_size,
        )

    @functools.cached_property
    def _epoch(self):
        @jax.jit
        def epoch(state, rest, weight_half, arch_half):
            number = state.step // self.steps_per_epoch
            keys = jax.random.split(jax.random.fold_in(self.key, 0))
            orders = [
                epoch_order(key, number, half.size, self.batch_size)
                for key, half in zip(keys, (weight_half, arch_half), strict=True)
            ]

            def step(state, rows):
                batches = [
                    Examples(inputs=half.inputs[row], labels=half.labels[row])
                    for half, row in zip((weight_half, arch_half), rows, strict=True)
                ]
                return self.step(state, rest, *batches)

            rows = tuple(order[: self.steps_per_epoch] for order in orders)
            state, (metrics, gradients) = jax.lax.scan(step, state, rows)
            means = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
            return state, means | diagnostics.of_gradients(gradients)

        return epoch

    def step(
        self,
        state: SearchState,
        rest: PyTree,
        weight_batch: Examples,
        arch_batch: Examples,
    ) -> tuple[SearchState, tuple[dict[str, jax.Array], PyTree]]:
        """One step of the logits, then one of the weights.

        Returns:
            The new state, the metrics of the step, and the gradient of the logits.
        """
        method, step = self.method, state.step
        key = jax.random.fold_in(self.key, 1)
        key = jax.random.fold_in(key, step)
        valid_key, train_key = jax.random.split(key)
        temperature = jnp.asarray(self.temperature(step), jnp.float32)

        def loss(key, examples, penalty, arch, weights):
            augment_key, draw_key, edge_key = jax.random.split(key, 3)
            x = self._placed(examples.inputs)
            if self.augmentation is not None:
                x = self.augmentation(augment_key, x)
            network = nnx.merge(self.graphdef, weights, rest, copy=True)
            drawn = self._draw(draw_key, arch, temperature)
            context = Context(
                weights=drawn,
                operation=method.operation,
                key=edge_key if method.uses_key else None,
            )
            value, accuracy = loss_and_accuracy(network(x, context), examples.labels)
            if penalty is not None and self.cost is not None:
                mean = soft_weights(arch, jnp.ones(()), method.soft)
                value = penalty(value, step_cost(self.cost, drawn, mean))
            return value, accuracy

        together = method.bilevel is bilevel.single_level
        of_train = self.penalty if together else None
        problem = Problem(
            # An unrolled step is the one that the weights take: same images and draws.
            train=functools.partial(loss, train_key, weight_batch, of_train),
            valid=functools.partial(loss, valid_key, arch_batch, self.penalty),
        )
        inner = method.weights.inner_step(state.weight_opt, self._rate(step))
        (arch_loss, arch_accuracy), gradient = self._of_logits(problem, state, inner)
        updates, arch_opt = self._arch_optimizer.update(
            gradient, state.arch_opt, state.arch
        )
        arch = optax.apply_updates(state.arch, updates)
        # One level: both gradients at the same point, with the same draw.
        (value, accuracy), weight_gradient = jax.value_and_grad(
            functools.partial(
                loss, train_key, weight_batch, None, state.arch if together else arch
            ),
            has_aux=True,
        )(state.weights)
        updates, weight_opt = self._weight_optimizer.update(
            weight_gradient, state.weight_opt, state.weights
        )
        new_state = SearchState(
            step=step + 1,
            arch=arch,
            weights=optax.apply_updates(state.weights, updates),
            arch_opt=arch_opt,
            weight_opt=weight_opt,
        )
        metrics = {
            "loss": value,
            "accuracy": accuracy,
            "arch_loss": arch_loss,
            "arch_accuracy": arch_accuracy,
            "temperature": temperature,
        }
        return new_state, (metrics, gradient)

    def _of_logits(self, problem: Problem, state: SearchState, inner: InnerStep):
        """(loss, accuracy), gradient: 0, which costs nothing, while the logits rest."""

        def moving():
            return self.method.bilevel(problem, state.arch, state.weights, inner)

        def resting():
            single = self.method.bilevel is bilevel.single_level
            loss = problem.train if single else problem.valid
            still = jax.tree.map(jnp.zeros_like, state.arch)
            return loss(state.arch, state.weights), still

        if self.method.arch is None:
            return resting()
        if not self._warmup:
            return moving()
        return jax.lax.cond(state.step >= self._warmup, moving, resting)

    def _draw(self, key, arch, temperature) -> Mapping[str, jax.Array]:
        """One draw for each name of a choice: the key is folded with the name's."""

        def sampler(key, logits):
            return self.method.sampler(key, logits, temperature)

        return draw_choices(key, arch, sampler=sampler).weights

    def _placed(self, x: jax.Array) -> jax.Array:
        if self._sharding is None:
            return x
        return jax.lax.with_sharding_constraint(x, self._sharding)


def _first_logits(space: Space, method: Method, key: jax.Array) -> dict[str, jax.Array]:
    mean, deviation = method.init
    logits = {}
    for name, choice in space.choices.items():
        own = jax.random.fold_in(key, diagnostics.stable_hash(name))
        logits[name] = mean + deviation * jax.random.normal(own, choice.shape)
    return logits


def _over(mesh: Mesh, batch_size: int) -> NamedSharding:
    """Examples over the first axis of a mesh, whatever the kinds of its axes."""
    axis = mesh.axis_names[0]
    if batch_size % mesh.shape[axis]:
        raise search_error(
            "batch_size",
            f"be a multiple of the {mesh.shape[axis]} devices of the mesh",
            batch_size,
            "Change it, or use fewer devices.",
        )
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(axis))
