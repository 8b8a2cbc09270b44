"""Training of one architecture from scratch, with the published options."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gumbax._common import checks
from gumbax._common.records import pytree
from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Examples, epoch_order
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops import given
from gumbax.search.loops.diagnostics import stable_hash
from gumbax.search.loops.evaluation import (
    accuracy,
    all_finite,
    loss_and_accuracy,
    predict,
)
from gumbax.search.methods.optimizers import AdamW, Sgd
from gumbax.search.network.derivation import keep, new_network
from gumbax.search.network.supernet import Network, path_operation
from gumbax.search.spaces.edges import Context
from gumbax.search.spaces.space import Space
from gumbax.search.store.errors import SearchError

PyTree = Any
_WEIGHTS = AdamW()


@dataclass(frozen=True)
class TrainingOptions:
    """How one network is trained.

    Attributes:
        num_epochs: length; an incomplete batch at the end of an epoch is dropped.
        batch_size: examples in a step.
        optimizer: of the weights.
        augmentation: of the images of a step; None for none.
        drop_path: probability at the end of training that an operation is left out
            for an example; it grows linearly by the epoch. DARTS: 0.2.
        auxiliary: weight of the loss of an auxiliary head, where the space has one;
            0 for no such head. DARTS: 0.4.
    """

    num_epochs: int
    batch_size: int = 64
    optimizer: AdamW | Sgd = _WEIGHTS
    augmentation: Augmentation | None = None
    drop_path: float = 0.0
    auxiliary: float = 0.0


@pytree
class TrainingState:
    """All that changes; the order of the examples follows from (seed, step).

    Attributes:
        step: number of the next step, an int32 scalar.
        weights: parameters of the network.
        rest: its other state: statistics of batch normalisation, random streams.
        opt: state of the optimiser.
    """

    step: jax.Array
    weights: PyTree
    rest: PyTree
    opt: PyTree


class Training(given.ByArguments):
    """The training of one architecture: initial state and jitted epochs.

    Batch normalisation tracks its statistics, and `network` evaluates with them.

    Args:
        space: the space of the genotype; may be wider or deeper than in the search.
        genotype: the architecture.
        train: training examples.
        num_classes: of the labels.
        options: how.
        seed: of the initial weights, the order of the examples and the draws.
        shared: one program for all architectures of the space: the network has every
            candidate, of which those of the genotype run, and `of` compiles nothing.
            For networks that have weights alone, no statistics of batch normalisation
            and no random streams, without dropped paths and auxiliary head.

    It pickles, by its arguments, if the functions of the space do.

    Raises:
        ValueError: the genotype is of another space, or the program cannot be shared.
        SearchError: a label is not one of `num_classes`.

    References:
        Liu, Simonyan, Yang, 2019 (DARTS), Sec. 3.2. https://arxiv.org/abs/1806.09055
    """

    def __init__(
        self,
        space: Space,
        genotype: Genotype,
        train: Examples,
        *,
        num_classes: int,
        options: TrainingOptions,
        seed: int,
        shared: bool = False,
    ):
        given.check_labels(train, num_classes)
        shape = train.inputs.shape[1:]
        if shared and not can_share(space, shape, num_classes, options):
            must = (
                "be False where a network has more state than weights (batch "
                "normalisation, random streams), dropped paths or an auxiliary head"
            )
            cure = "Train each architecture with a program of its own."
            raise ValueError(checks.message("Training", "shared", must, shared, cure))
        self.space = space
        self.genotype = genotype
        self.train = train
        self.num_classes = num_classes
        self.options = options
        self.seed = seed
        self.shared = shared
        self._given = tuple(vars(self))
        self._prepare()

    def _prepare(self) -> None:
        """What follows from the arguments."""
        options, train = self.options, self.train
        # Not the keys of a search of this seed.
        own = jax.random.fold_in(jax.random.key(self.seed), stable_hash("training"))
        init_key, self.key = jax.random.split(own)
        self._choices = self.genotype.weights(self.space) if self.shared else None
        network = new_network(
            self.space,
            None if self.shared else self.genotype,
            train.inputs.shape[1:],
            self.num_classes,
            rngs=nnx.Rngs(init_key),
            auxiliary=options.auxiliary > 0,
        )
        split: tuple[Any, ...] = nnx.split(network, nnx.Param, ...)
        self._graphdef, self._weights, self._rest = split
        self._batch_size = min(options.batch_size, train.size)
        self.steps_per_epoch = train.size // self._batch_size
        self._optimizer = options.optimizer.make(
            options.num_epochs, self.steps_per_epoch
        )

    def init(self) -> TrainingState:
        """The state before the first step."""
        return TrainingState(
            step=jnp.zeros((), jnp.int32),
            weights=self._weights,
            rest=self._rest,
            opt=self._optimizer.init(self._weights),
        )

    def network(self, state: TrainingState) -> Network:
        """The network of a state, in evaluation mode."""
        network = nnx.merge(self._graphdef, state.weights, state.rest, copy=True)
        network.eval()
        return keep(network, self.space, self.genotype) if self.shared else network

    def predict(self, state: TrainingState, x: jax.Array) -> np.ndarray:
        """Predicted classes [n] of x; a shared training compiles one program."""
        if not self.shared:
            return predict(self.network(state), x)
        network = nnx.merge(self._graphdef, state.weights, state.rest, copy=True)
        return predict(network, x, weights=self._choices, operation=path_operation)

    def of(self, genotype: Genotype, *, seed: int) -> "Training":
        """That of another architecture, with the program of this shared one."""
        if not self.shared:
            must, cure = "be True", "Make this training with it."
            raise ValueError(checks.message("Training.of", "shared", must, False, cure))
        other = Training(
            self.space,
            genotype,
            self.train,
            num_classes=self.num_classes,
            options=self.options,
            seed=seed,
            shared=True,
        )
        vars(other)["_epoch"] = self._epoch
        return other

    def epoch(self, state: TrainingState) -> tuple[TrainingState, jax.Array]:
        """Runs one epoch; returns the new state and the mean loss."""
        return self._epoch(state, self.train, self.key, self._choices)

    @functools.cached_property
    def _epoch(self):
        @jax.jit
        def epoch(state, train, key, choices):
            number = state.step // self.steps_per_epoch
            order_key = jax.random.fold_in(key, 0)
            rows = epoch_order(order_key, number, train.size, self._batch_size)
            share = number / max(self.options.num_epochs, 1)

            def step(state, row):
                batch = Examples(inputs=train.inputs[row], labels=train.labels[row])
                return self._step(state, batch, share, key, choices)

            state, losses = jax.lax.scan(step, state, rows)
            return state, jnp.mean(losses)

        return epoch

    def _step(self, state, batch, share, key, choices):
        key = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)
        augment_key, drop_key = jax.random.split(key)
        x = batch.inputs
        if self.options.augmentation is not None:
            x = self.options.augmentation(augment_key, x)
        context = Context(
            weights=choices,
            operation=None if choices is None else path_operation,
            key=drop_key,
            drop_path=self.options.drop_path * share
            if self.options.drop_path
            else None,
            training=True,
        )

        def loss(weights):
            network = nnx.merge(self._graphdef, weights, state.rest, copy=True)
            scores = network(x, context)
            split: tuple[Any, ...] = nnx.split(network, nnx.Param, ...)
            rest = split[2]
            if isinstance(scores, tuple):
                scores, extra = scores
                beside, _ = loss_and_accuracy(extra, batch.labels)
                value, _ = loss_and_accuracy(scores, batch.labels)
                return value + self.options.auxiliary * beside, rest
            return loss_and_accuracy(scores, batch.labels)[0], rest

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
        updates, opt = self._optimizer.update(gradient, state.opt, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        new = TrainingState(step=state.step + 1, weights=weights, rest=rest, opt=opt)
        return new, value


def can_share(
    space: Space,
    input_shape: tuple[int, ...],
    num_classes: int,
    options: TrainingOptions,
) -> bool:
    """Whether trainings of a space can be `shared`; nothing is compiled for that."""
    if options.drop_path or options.auxiliary:
        return False
    make = functools.partial(new_network, space, None, input_shape, num_classes)
    network = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    split: tuple[Any, ...] = nnx.split(network, nnx.Param, ...)
    return not jax.tree.leaves(split[2])


def train(
    training: Training,
    state: TrainingState | None = None,
    on_epoch: Callable[[TrainingState, dict[str, float]], None] = lambda s, row: None,
) -> TrainingState:
    """Runs a training from a state to its end.

    Args:
        training: the training.
        state: where to go on from; the first state if None.
        on_epoch: called after every epoch with the new state and its metrics.

    Returns:
        The final state.

    Raises:
        SearchError: the loss or the state is not finite. `on_epoch` has not seen that
            state.
    """
    state = training.init() if state is None else state
    length = training.options.num_epochs
    while (done := int(state.step) // training.steps_per_epoch) < length:
        state, loss = training.epoch(state)
        value = float(np.asarray(loss))
        # The last step of an epoch can break the weights, and no loss shows it yet.
        if not np.isfinite(value) or not all_finite(state):
            raise SearchError(
                f"The loss became {value}, or a weight NaN, in epoch {done + 1} of "
                "training. What was saved before is kept. Lower the learning rate."
            )
        on_epoch(state, {"epoch": done + 1, "loss": value})
    return state


def train_and_test(
    training: Training,
    test: Examples,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> float:
    """Trains one architecture and then measures it once.

    Args:
        training: the training.
        test: seen after the last step only.
        on_epoch: called with the number of epochs done.

    Returns:
        Test accuracy in percent.
    """
    state = train(training, on_epoch=lambda state, row: on_epoch(int(row["epoch"])))
    return accuracy(training.predict(state, test.inputs), test.labels)
