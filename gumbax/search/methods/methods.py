"""Search methods, as records of functions.

A method of your own is one more record: a sampler of weights, an operation that uses
them, a schedule, a bilevel rule and a derive rule. tests/search/own_methods.py makes
some that are not here.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from gumbax import _noise, schedules
from gumbax.edge import logit_gradients
from gumbax.edge.logit_gradients import LogitGradient
from gumbax.edge.mixed_op import single_path
from gumbax.samplers.relaxation import gumbel_softmax
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.methods import derive_rules
from gumbax.search.methods.bilevel import Rule as BilevelRule
from gumbax.search.methods.bilevel import (
    finite_difference,
    first_order,
    single_level,
    unrolled,
)
from gumbax.search.methods.derive_rules import Rule as DeriveRule
from gumbax.search.methods.optimizers import AdamW, ArchAdam, Sgd
from gumbax.search.network.supernet import dense_operation
from gumbax.search.spaces.edges import Operation
from gumbax.search.spaces.space import Space

# (key, logits [E, K], temperature) -> weights [E, K]
Sampler = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (logits [E, K], temperature) -> weights [E, K]
Soft = Callable[[jax.Array, jax.Array], jax.Array]
# (number of epochs, steps in an epoch) -> schedule by the step
TemperatureOf = Callable[[int, int], optax.Schedule]


def softened(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """Probabilities at this temperature."""
    temperature = _noise.positive(jnp.asarray(temperature, logits.dtype))
    return jax.nn.softmax(logits / temperature)


def _one(num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
    del num_epochs, steps_per_epoch
    return schedules.constant(1.0)


_SGD = Sgd()
_PUBLISHED_ARCH = ArchAdam()


@dataclass(frozen=True)
class Preset:
    """The hyper-parameters of a publication.

    Attributes:
        weights: optimiser of the weights.
        arch: optimiser of the logits.
        temperature: (number of epochs, steps in an epoch) -> schedule by the step.
        init: (mean, standard deviation) of the first logits.
        num_epochs: length of the search, in batches of 64.
    """

    weights: Sgd = _SGD
    arch: ArchAdam = _PUBLISHED_ARCH
    temperature: TemperatureOf = _one
    init: tuple[float, float] = (0.0, 1e-3)
    num_epochs: int = 50


# For searches of a few epochs: what a supernet of small images learns with. Weighted
# sums need larger steps of the logits than draws do: their logits move little.
_WEIGHTS = AdamW()
_ARCH = ArchAdam(learning_rate=0.03, weight_decay=0.0, travel=30.0)
_ARCH_OF_SUMS = ArchAdam(learning_rate=1.0, weight_decay=0.0)
_PRESET = Preset()


@dataclass(frozen=True)
class Method:
    """A search method.

    Attributes:
        name: its name on the command line and in saved files.
        sampler: (key, logits [E, K], temperature) -> weights [E, K].
        operation: how an edge uses its weights.
        temperature: (number of epochs, steps in an epoch) -> schedule by the step.
        bilevel: how the gradient of the logits is made.
        derive: logits -> genotype, argmax of each edge if the space keeps all edges.
        soft: (logits [E, K], temperature) -> weights [E, K], those of the soft network
            of the gap.
        weights: optimiser of the weights.
        arch: optimiser of the logits; None leaves them as they are.
        init: (mean, standard deviation) of the first logits.
        warmup: share of the search before the logits begin to move, so that operations
            with weights are not dropped while these are still random. Until then their
            gradient is not computed.
        uses_key: the operation draws.
        preset: what was published.
    """

    name: str
    sampler: Sampler
    operation: Operation
    temperature: TemperatureOf
    bilevel: BilevelRule = first_order
    derive: DeriveRule | None = None
    soft: Soft = softened
    weights: AdamW | Sgd = _WEIGHTS
    arch: ArchAdam | None = _ARCH
    init: tuple[float, float] = (0.0, 0.0)
    warmup: float = 0.3
    uses_key: bool = False
    preset: Preset = _PRESET

    def as_published(self) -> "Method":
        """With the hyper-parameters of the publication, and no warm-up."""
        preset = self.preset
        return dataclasses.replace(
            self,
            weights=preset.weights,
            arch=None if self.arch is None else preset.arch,
            temperature=preset.temperature,
            init=preset.init,
            warmup=0.0,
        )

    def genotype(self, logits: Mapping[str, jax.Array], space: Space) -> Genotype:
        """The architecture that the logits stand for."""
        return self.rule(space)(logits, space)

    def rule(self, space: Space) -> DeriveRule:
        """How the architecture is derived: `derive`, or what is usual in the space."""
        if self.derive is not None:
            return self.derive
        every = space.inputs_per_node is None
        return derive_rules.argmax_per_edge if every else derive_rules.top_two_edges


def path(logit_gradient: LogitGradient = logit_gradients.exact) -> Operation:
    """An operation that runs the chosen candidate alone, with these credits."""
    return _Path(logit_gradient)


@dataclass(frozen=True)
class _Path:
    logit_gradient: LogitGradient

    def __call__(self, weights, branches, params, x, *, key=None):
        record = self.logit_gradient
        return single_path(weights, branches, params, x, logit_gradient=record, key=key)


def straight_through(key, logits, temperature):
    """One-hot rows with the gradient of the relaxed sample."""
    return gumbel_softmax(key, logits, temperature=temperature, hard=True)


def relaxed(key, logits, temperature):
    """Relaxed rows."""
    return gumbel_softmax(key, logits, temperature=temperature)


def softmax(key, logits, temperature):
    """No draw: probabilities at this temperature."""
    del key
    return softened(logits, temperature)


def uniform(key, logits, temperature):
    """One-hot rows, every choice alike, whatever the logits."""
    del temperature
    return gumbel_softmax(key, jnp.zeros_like(logits), hard=True)


def _annealed(num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
    return schedules.cosine(2.0, 0.2, num_epochs * steps_per_epoch)


@dataclass(frozen=True)
class _Published:
    """The schedule of this name, of any length."""

    name: str

    def __call__(self, num_epochs: int, steps_per_epoch: int) -> optax.Schedule:
        return schedules.preset(
            self.name, num_epochs=num_epochs, steps_per_epoch=steps_per_epoch
        )


_NAS_BENCH_SGD = Sgd(nesterov=True, weight_decay=5e-4)
_GDAS = Preset(weights=_NAS_BENCH_SGD, temperature=_Published("gdas"), num_epochs=250)

_darts = functools.partial(
    Method,
    sampler=softmax,
    operation=dense_operation,
    temperature=_one,
    arch=_ARCH_OF_SUMS,
)
_gdas = functools.partial(
    Method, sampler=straight_through, temperature=_annealed, preset=_GDAS
)

# Name on the command line -> method.
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        # Ours: the network that is trained is the one that is kept, exact credits.
        Method(
            name="gumbel",
            sampler=straight_through,
            operation=path(),
            temperature=_annealed,
            preset=_GDAS,
        ),
        _darts(name="darts"),
        _darts(name="darts_second_order", bilevel=finite_difference),
        _darts(name="darts_unrolled", bilevel=unrolled),
        Method(
            name="snas",
            sampler=relaxed,
            operation=dense_operation,
            temperature=_annealed,
            bilevel=single_level,
            preset=Preset(
                arch=ArchAdam(clip=10.0),
                temperature=_Published("snas"),
                init=(1.0, 0.01),
                num_epochs=150,
            ),
        ),
        _gdas(name="gdas", operation=path(logit_gradients.gdas)),
        _gdas(name="gdas_sampled", operation=path(logit_gradients.sampled)),
        # Weights as in SETN: uniform paths. The architecture is one at random.
        Method(
            name="random",
            sampler=uniform,
            operation=path(logit_gradients.sampled),
            temperature=_one,
            arch=None,
            init=(0.0, 1.0),
            preset=Preset(weights=_NAS_BENCH_SGD, init=(0.0, 1.0), num_epochs=250),
        ),
    )
}
