"""What every public function says of arguments of a wrong kind.

`python -m tests.wrong_kinds` writes `wrong_kinds.txt` anew: read what has changed.
"""

import inspect
from pathlib import Path

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gumbax
import gumbax.linen
import gumbax.nnx
from gumbax import convolution, gumbel, logistic, schedules
from tests.mesh_cases import CASES

PAGE = Path(__file__).with_suffix(".txt")
KEY = jax.random.key(0)
ROWS, CATEGORIES = 2, 3
BRANCHES = (lambda params, x: params * x, lambda params, x: x)
EDGE = {
    "branches": BRANCHES,
    "params": (jnp.ones(()), None),
    "x": jnp.ones(2),
    "has_state": False,
}


def small(dims, array):
    """A few rows and categories of an operand of a mesh case."""
    sizes = {"r": ROWS, "k": CATEGORIES, "h": 3, "w": 3}
    place = tuple(slice(sizes.get(letter)) for letter in dims)
    return jnp.asarray(np.asarray(array)[place])


def arguments_of(case):
    """Keywords with which a function can be called."""
    operands = {name: small(*given) for name, given in case.operands.items()}
    return operands | dict(case.options)


def bound(function, given):
    """The same, and its own defaults."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return {p.name: given.get(p.name, p.default) for p in named}


def schedule(function, *args, **options):
    signature = inspect.signature(function)
    return function, dict(signature.bind(*args, **options).arguments)


def nnx_op():
    return gumbax.nnx.MixedOp([nnx.Linear(2, 2, rngs=nnx.Rngs(0)), lambda x: x])


def of_nnx(**arguments):
    return nnx_op()(**arguments)


def of_linen(**arguments):
    op = gumbax.linen.MixedOp([flax.linen.Dense(2), lambda x: x])
    variables = op.init(jax.random.key(0), jnp.ones((1, 2)))
    return op.apply(variables, **arguments)


def nnx_derive(**arguments):
    return nnx_op().derive(**arguments)


def linen_derive(**arguments):
    op = gumbax.linen.MixedOp([jnp.sin, jnp.cos])
    return op.derive(op.init(jax.random.key(0), jnp.ones(2)), **arguments)


CALL = {
    "x": jnp.ones((1, 2)),
    "temperature": 1.0,
    "hard": True,
    "deterministic": False,
    "weights": None,
    "branch_kwargs": None,
}
# Name in messages -> function and its arguments, where a mesh case does not give them.
GIVEN = {
    "gumbel.sample": (
        gumbel.sample,
        bound(gumbel.sample, {"key": KEY, "shape": (ROWS, CATEGORIES)}),
    ),
    "gumbel.sample_truncated": (
        gumbel.sample_truncated,
        bound(
            gumbel.sample_truncated,
            {"key": KEY, "shape": (ROWS, CATEGORIES), "upper": 0.5},
        ),
    ),
    "logistic.sample": (
        logistic.sample,
        bound(logistic.sample, {"key": KEY, "shape": (ROWS, CATEGORIES)}),
    ),
    "draw": (
        gumbax.draw,
        bound(gumbax.draw, {"key": KEY, "logits": jnp.zeros((ROWS, CATEGORIES))}),
    ),
    "schedules.constant": schedule(schedules.constant, 0.5),
    "schedules.linear": schedule(schedules.linear, 1.0, 0.1, 100),
    "schedules.exponential": schedule(
        schedules.exponential, 1.0, 0.1, floor=0.1, every=2
    ),
    "schedules.cosine": schedule(schedules.cosine, 1.0, 0.1, 100),
    "schedules.preset": schedule(
        schedules.preset, "gdas", num_epochs=3, steps_per_epoch=2
    ),
    "mixed_op": (gumbax.mixed_op, {"weights": jnp.array([0.5, 0.5])} | EDGE),
    "single_path": (
        gumbax.single_path,
        {"one_hot": jnp.array([0.0, 1.0])}
        | EDGE
        | {"logit_gradient": gumbax.subset(1), "key": KEY},
    ),
    "subset": (gumbax.subset, {"num_others": 1}),
    "draw_choices": (
        gumbax.draw_choices,
        {
            "key": KEY,
            "logits": {"a": jnp.zeros((ROWS, CATEGORIES))},
            "sampler": gumbax.gumbel_softmax,
            "num_examples": 2,
        },
    ),
    "scan_edges": (
        gumbax.scan_edges,
        {
            "edge": lambda own, x: own * x,
            "per_edge": jnp.ones(1),
            "nodes": jnp.ones((2, 3)),
            "edges": [(0, 1)],
            "inputs": None,
        },
    ),
    "pure_branches": (
        gumbax.nnx.pure_branches,
        {"modules": [nnx.Linear(2, 2, rngs=nnx.Rngs(0))]},
    ),
    "nnx.MixedOp": (
        gumbax.nnx.MixedOp,
        {
            "branches": [lambda x: x, lambda x: x],
            "sampler": gumbax.gumbel_softmax,
            "logit_gradient": gumbax.exact,
            "own_logits": True,
        },
    ),
    "nnx.MixedOp.__call__": (of_nnx, CALL | {"rngs": KEY}),
    "linen.MixedOp.__call__": (of_linen, CALL | {"key": KEY}),
    "nnx.MixedOp.derive": (nnx_derive, {"index": 0}),
    "linen.MixedOp.derive": (linen_derive, {"weights": jnp.array([0.2, 0.8])}),
}


def rows():
    """Name -> function and arguments with which it can be called."""
    found = {}
    for case in CASES.values():
        # Those that are called as they are; the first case of each is enough.
        if case.call is None and case.function is not convolution.conv_general_dilated:
            given = bound(case.function, arguments_of(case))
            found.setdefault(name_of(case.function), (case.function, given))
    return found | GIVEN


def name_of(function):
    room = function.__module__.split(".")
    parts = {name: f"{name}." for name in ("concrete", "gumbel", "logistic")}
    prefix = next((parts[part] for part in reversed(room) if part in parts), "")
    return prefix + function.__name__


# What no argument is, what some are, and what is often given by mistake.
KINDS = {
    "a string": "0.5",
    "None": None,
    "True": True,
    "an integer": 3,
    "a negative number": -0.5,
    "NaN": float("nan"),
    "a list of arrays": [jnp.ones(2), jnp.ones(3)],
    "a complex array": jnp.ones(3, complex),
    "an array of integers": jnp.ones(3, int),
    "an array of another shape": jnp.ones((7, 5)),
    "a PRNG key": jax.random.key(1),
    "a function": lambda x: x,
}
# Of arguments of a name.
OF_NAME = {
    "key": {
        "a seed": 0,
        "a batch of keys": jax.random.split(KEY, ROWS),
        "a batch of legacy keys": np.ones((ROWS, 2), np.uint32),
        "nnx.Rngs": nnx.Rngs(0),
    },
    "temperature": {"[B] for logits [B, K]": jnp.ones(ROWS)},
    "where": {"an integer mask": jnp.ones(CATEGORIES, int)},
    "axis": {"a float": 1.0, "a tuple": (0,), "out of range": 5},
    "sample_shape": {"a number": 4, "floats": (2.0,), "a negative length": (-1,)},
    "shape": {"a number": 5, "floats": (2.0,), "a negative length": (-1, 3)},
    "dtype": {"int32": jnp.int32, "complex64": jnp.complex64},
    "offset": {"one number": 3, "three numbers": (0, 0, 0), "floats": (0.5, 0.5)},
    "num_examples": {"a float": 2.0},
    "edges": {"numbers": [1, 2], "triples": [(0, 1, 2)]},
    "logits": {"an array of booleans": jnp.ones(CATEGORIES, bool)},
}
OF_NAME["rngs"] = OF_NAME["key"] | {"nnx.Rngs": nnx.Rngs(params=0)}


# What these say of some values is said by the functions that are given to them.
LEFT_TO_OTHERS = {
    "mixed_op": {"x"},
    "single_path": {"x"},
    "nnx.MixedOp.__call__": {"x"},
    "linen.MixedOp.__call__": {"x"},
    "scan_edges": {"edge", "per_edge"},
    "draw_choices": {"sampler"},
}


def outcome(name, argument, function, arguments):
    """The message, or that there is none."""
    try:
        if name.endswith("derive"):
            function(**arguments)
        else:
            # Traced, and not compiled.
            jax.eval_shape(lambda: jax.tree.leaves(function(**arguments)) and None)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        others = argument in LEFT_TO_OTHERS.get(name, ())
        if others and f"`{argument}` must " not in text:
            return "an error of the function itself"
        return text
    return "accepted"


def said_by(name, function, arguments):
    """(argument, (kind, message) of each kind) of a function, called F."""
    own = name.removeprefix("nnx.").removeprefix("linen.").removesuffix(".__call__")
    for argument in arguments:
        said = []
        for kind, value in (KINDS | OF_NAME.get(argument, {})).items():
            text = outcome(name, argument, function, arguments | {argument: value})
            said.append((kind, text.replace(f"`{own}`", "`F`")))
        yield argument, tuple(said)


def page():
    """What all functions say, by arguments; those that say the same together."""
    found = {}
    for name, (function, arguments) in rows().items():
        for argument, said in said_by(name, function, arguments):
            found.setdefault((argument, said), []).append(name)
    parts = []
    for (argument, said), names in sorted(found.items()):
        lines = [f"{kind}: {text}" for kind, text in said]
        parts.append(f"== {argument} of {', '.join(names)}\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
