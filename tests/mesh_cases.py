"""One call at least of every public function, with its operands' axes by letters."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

import gumbax
from gumbax import concrete, convolution, gumbel, logistic, pooling, schedules

ROWS, CATEGORIES = 8, 16
KEY = jax.random.key(3)


@dataclasses.dataclass(frozen=True)
class Case:
    """A call by keywords, and what of it can be divided.

    Attributes:
        function: the public function.
        operands: name -> (a letter for each axis, array). The letter r is an axis of
            rows, k one of categories, any other is not divided.
        call: of the operands; the function itself if None.
        options: further keywords of the function.
        smooth: it has derivatives.
        elementwise: one layout shows as much as many.
    """

    function: Callable[..., Any]
    operands: Mapping[str, tuple[str, np.ndarray]]
    call: Callable[..., Any] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smooth: bool = True
    elementwise: bool = False

    def run(self, *arrays: jax.Array) -> Any:
        named = dict(zip(self.operands, arrays, strict=True))
        return (self.call or self.function)(**named, **self.options)


def _normal(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=shape).astype(np.float32)


def _positive(number: int, *shape: int) -> np.ndarray:
    uniform = np.random.default_rng(number).uniform(0.3, 0.9, size=shape)
    return uniform.astype(np.float32)


LOGITS = ("rk", _normal(0, ROWS, CATEGORIES))
OTHERS = ("rk", _normal(1, ROWS, CATEGORIES))
GIVEN_NOISE = ("k", _normal(6, CATEGORIES))
MASK = ("k", np.arange(CATEGORIES) % 5 != 1)
OF_ROWS = ("r1", _positive(2, ROWS, 1))
OF_ALL = ("", np.float32(0.7))
POINTS = ("rk", scipy.special.softmax(_normal(7, ROWS, CATEGORIES), axis=-1))
GATES = ("rk", _positive(8, ROWS, CATEGORIES))
# More than one block of the two-level maximum, and more than `categorical` draws
# directly.
WIDE = ("rk", _normal(5, ROWS, 1024))
WIDEST = ("rk", _normal(9, ROWS, 8192))
IMAGES = ("rhwk", _normal(10, ROWS, 6, 6, 8))


def _samplers():
    key = {"key": KEY}
    masked = {"logits": LOGITS, "where": MASK}
    for name, function, options in (
        ("gumbel_softmax", gumbax.gumbel_softmax, {}),
        ("gumbel_softmax hard", gumbax.gumbel_softmax, {"hard": True}),
        ("log_gumbel_softmax", gumbax.log_gumbel_softmax, {}),
    ):
        yield (
            name,
            Case(function, masked | {"temperature": OF_ROWS}, options=key | options),
        )
        operands = masked | {"temperature": OF_ALL, "gumbels": GIVEN_NOISE}
        given = {"key": None, "sample_shape": (2,)}
        yield f"{name}, given", Case(function, operands, options=given | options)
        yield f"{name}, wide", Case(function, {"logits": WIDE}, options=key | options)
    for name, function, options in (
        ("relaxed_bernoulli", gumbax.relaxed_bernoulli, {}),
        ("relaxed_bernoulli hard", gumbax.relaxed_bernoulli, {"hard": True}),
        ("logit_relaxed_bernoulli", gumbax.logit_relaxed_bernoulli, {}),
        ("hard_concrete", gumbax.hard_concrete, {}),
    ):
        operands = {"logits": LOGITS, "temperature": OF_ROWS}
        yield name, Case(function, operands, options=key | options)
        operands = {"logits": LOGITS, "temperature": OF_ALL, "logistics": GIVEN_NOISE}
        yield (
            f"{name}, given",
            Case(function, operands, options={"key": None} | options),
        )
    indices = {"smooth": False, "options": key}
    yield "gumbel_max", Case(gumbax.gumbel_max, masked, **indices)
    yield "gumbel_max, wide", Case(gumbax.gumbel_max, {"logits": WIDE}, **indices)
    yield "categorical", Case(gumbax.categorical, masked, **indices)
    yield "categorical, wide", Case(gumbax.categorical, {"logits": WIDEST}, **indices)
    index = ("r", np.arange(ROWS) % CATEGORIES)
    given_index = {"logits": LOGITS, "index": index}
    yield (
        "sample_given_index",
        Case(gumbel.sample_given_index, given_index, options=key),
    )
    masked_index = given_index | {"where": ("k", np.ones(CATEGORIES, bool))}
    yield (
        "sample_given_index, masked",
        Case(gumbel.sample_given_index, masked_index, options=key),
    )
    yield "logistic.sample", Case(logistic.sample, {"like": LOGITS}, call=_beside)
    bits = {"logits": LOGITS, "bit": ("k", np.arange(CATEGORIES) % 2 == 0)}
    yield "sample_given_bit", Case(logistic.sample_given_bit, bits, options=key)
    operands = masked | {"temperature": OF_ROWS}
    yield "draw", Case(gumbax.draw, operands, call=_drawn)
    yield "categorical_log_prob", Case(gumbax.categorical_log_prob, index_of(masked))
    yield "categorical_entropy", Case(gumbax.categorical_entropy, masked)
    yield (
        "probs_to_logits",
        Case(gumbax.probs_to_logits, {"probs": GATES}, elementwise=True),
    )
    law = {"loc": LOGITS, "scale": OF_ROWS}
    for name, operands in (
        ("sample", law),
        ("sample_truncated", law | {"upper": ("k", _normal(11, CATEGORIES))}),
    ):
        function = getattr(gumbel, name)

        def call(function=function, **operands):
            return function(KEY, operands["loc"].shape, **operands)

        yield name, Case(function, operands, call=call)


def _drawn(**operands):
    """All forms, as one array."""
    y = gumbax.draw(KEY, operands.pop("logits"), **operands)
    return y.one_hot + 2 * y.relaxed + y.index[..., None]


def _beside(like):
    return like + logistic.sample(KEY, like.shape)


def index_of(operands):
    return {"index": ("r", np.arange(ROWS) % CATEGORIES)} | operands


def _densities():
    for name in (
        *("log_prob", "prob", "cdf", "log_cdf"),
        *("survival_function", "log_survival_function"),
    ):
        operands = {"x": LOGITS, "loc": GIVEN_NOISE, "scale": OF_ROWS}
        yield f"gumbel.{name}", Case(getattr(gumbel, name), operands, elementwise=True)
    operands = {"q": GATES, "loc": GIVEN_NOISE, "scale": OF_ROWS}
    yield "gumbel.quantile", Case(gumbel.quantile, operands, elementwise=True)
    operands = {"loc": LOGITS, "scale": OF_ROWS}
    for name in ("mean", "mode", "median", "variance", "stddev", "entropy"):
        yield f"gumbel.{name}", Case(getattr(gumbel, name), operands, elementwise=True)
    others = {"other_loc": OTHERS, "other_scale": OF_ALL}
    yield (
        "gumbel.kl_divergence",
        Case(gumbel.kl_divergence, operands | others, elementwise=True),
    )
    law = {"logits": GIVEN_NOISE, "temperature": OF_ROWS}
    for function, argument, value in (
        (concrete.log_prob, "x", POINTS),
        (concrete.exp_log_prob, "y", OTHERS),
        (concrete.binary_log_prob, "x", GATES),
        (concrete.binary_logit_log_prob, "logit", OTHERS),
        (concrete.hard_log_prob, "z", GATES),
        (concrete.binary_cdf, "x", GATES),
        (concrete.binary_log_cdf, "x", GATES),
        (concrete.stretched_cdf, "s", GATES),
        (concrete.stretched_log_cdf, "s", GATES),
        (concrete.hard_cdf, "z", GATES),
        (concrete.hard_log_cdf, "z", GATES),
    ):
        yield f"concrete.{function.__name__}", Case(function, {argument: value} | law)
    for function, operands in (
        (gumbax.hard_concrete_penalty, {"logits": LOGITS, "temperature": OF_ROWS}),
        (gumbax.hard_concrete_gate, {"logits": LOGITS}),
    ):
        yield function.__name__, Case(function, operands, elementwise=True)
    count = {"count": ("", np.int32(3))}
    for function, schedule in (
        (schedules.constant, schedules.constant(0.5)),
        (schedules.linear, schedules.linear(1.0, 0.1, 100)),
        (schedules.exponential, schedules.exponential(1.0, 0.01, floor=0.1)),
        (schedules.cosine, schedules.cosine(1.0, 0.1, 100)),
        (schedules.preset, schedules.preset("gdas", num_epochs=10)),
    ):
        call = functools.partial(_at, schedule)
        options = {"call": call, "smooth": False, "elementwise": True}
        yield f"schedules.{function.__name__}", Case(function, count, **options)


def _at(schedule, count):
    return schedule(count)


def _dense(params, x):
    return jnp.tanh(x @ params)


def _scaled(params, x):
    return params[None] * jnp.sin(x)


def _none(params, x):
    return jnp.zeros(x.shape, x.dtype)


BRANCHES = (_dense, _scaled, _dense)
PARAMS = {
    "first": ("io", _normal(12, CATEGORIES, CATEGORIES) / 4),
    "second": ("i", _normal(13, CATEGORIES)),
    "third": ("io", _normal(14, CATEGORIES, CATEGORIES) / 4),
}
INPUT = ("ri", _normal(15, ROWS, CATEGORIES))


def _edges():
    edge = PARAMS | {"x": INPUT}
    weights = {"weights": ("b", np.array([0.2, 0.5, 0.3], np.float32))}
    rows = {"weights": ("rb", scipy.special.softmax(_normal(16, ROWS, 3), axis=-1))}

    def mixed(weights, first, second, third, x):
        return gumbax.mixed_op(weights, BRANCHES, (first, second, third), x)

    yield "mixed_op", Case(gumbax.mixed_op, weights | edge, call=mixed)
    yield "mixed_op of examples", Case(gumbax.mixed_op, rows | edge, call=mixed)
    logits = {"logits": ("b", np.array([0.2, 0.5, -0.3, 0.1], np.float32))}
    for name, record, function in (
        ("single_path", gumbax.exact, gumbax.single_path),
        ("single_path, sampled", gumbax.sampled, gumbax.single_path),
        ("single_path, gdas", gumbax.gdas, gumbax.single_path),
        ("single_path, subset", gumbax.subset(1), gumbax.subset),
        ("draw_choices", gumbax.exact, gumbax.draw_choices),
    ):

        def single(logits, first, second, third, x, record=record):
            choices = gumbax.draw_choices(KEY, {"edge": logits}, hard=True)
            return gumbax.single_path(
                choices["edge"],
                (*BRANCHES, _none),
                (first, second, third, None),
                x,
                logit_gradient=record,
                key=KEY,
            )

        yield name, Case(function, logits | edge, call=single)
    own = {
        "logits": ("eb", _normal(17, 2, 2)),
        "params": ("eio", _normal(18, 2, CATEGORIES, CATEGORIES) / 4),
        "x": INPUT,
    }

    def cell(logits, params, x):
        def edge(own, x):
            logits, params = own
            weights = gumbax.gumbel_softmax(KEY, logits, hard=True)
            scale = params[0]
            return gumbax.single_path(weights, BRANCHES[:2], (params, scale), x)

        # Not stacked: a second derivative of that fails in JAX 0.8 under `shard_map`.
        first = np.arange(3)[:, None, None] == 0
        nodes = jnp.where(first, x[None], jnp.zeros_like(x)[None])
        return gumbax.scan_edges(edge, (logits, params), nodes, [(0, 1), (1, 2)])[2]

    yield "scan_edges", Case(gumbax.scan_edges, own, call=cell)


def _layers():
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    padding = {"window_strides": (1, 1), "padding": "SAME"}
    for name, shape, options in (
        ("convolution", (3, 3, 8, 8), {}),
        ("pointwise convolution", (1, 1, 8, 8), {}),
        ("strided convolution", (3, 3, 8, 8), {"window_strides": (2, 2)}),
        ("depthwise convolution", (3, 3, 1, 8), {"feature_group_count": 8}),
    ):
        operands = {"lhs": IMAGES, "rhs": ("hwik", _normal(19, *shape))}
        every = layout | padding | options
        yield name, Case(convolution.conv_general_dilated, operands, options=every)
    for function in (pooling.max_pool, pooling.avg_pool):
        options = {"window_shape": (3, 3), "padding": "SAME"}
        yield function.__name__, Case(function, {"x": IMAGES}, options=options)


CASES = dict([*_samplers(), *_densities(), *_edges(), *_layers()])
