"""What a module takes: its weights, and its multiply-adds, counted in its program."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
from flax import nnx

from gumbax._common import checks
from gumbax.search.network.derivation import num_weights

PyTree = Any
# (name of the primitive, None for what is not chosen; module; shape of its input of one
# example) -> number >= 0
Cost = Callable[[str | None, nnx.Module, PyTree], float]

# A value in a program is a weight, or what a product just gave: their sum is a bias.
_WEIGHT = "weight"
_PRODUCT = "product"
_MOVES = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "reshape",
    "squeeze",
    "transpose",
}
# What has products inside that a program does not tell.
_OPAQUE = {
    "custom_call",
    "ffi_call",
    "fft",
    "io_callback",
    "pallas_call",
    "pure_callback",
    "ragged_dot",
    "ragged_dot_general",
}


class _Uncounted(Exception):
    """What of a program cannot be counted."""


def weights(primitive: str | None, module: nnx.Module, x: PyTree) -> int:
    """The number of trained weights.

    Args:
        primitive: for errors alone.
        module: the operation; its variables may be abstract.
        x: its input, not looked at.

    Returns:
        The number of elements of all `nnx.Param`.

    Example:
        >>> weights("dense", nnx.Linear(3, 4, rngs=nnx.Rngs(0)), None)
        16

    References:
        `gumbax.search.network.num_weights`.
    """
    del primitive, x
    return num_weights(module)


def multiply_adds(primitive: str | None, module: nnx.Module, x: PyTree) -> int:
    """The multiply-adds of one example: those of convolutions and matrix products.

    They are counted in the program that JAX traces, without running it, so a primitive
    of your own needs nothing. As in the published counters a multiplication and an
    addition are one, a bias is one for each number that it is added to, the margin of a
    convolution counts as image, and normalisation, pooling and sums of nodes count
    nothing. A `scan` counts as often as it goes round, a branch as the largest.

    Args:
        primitive: for errors alone.
        module: the operation, a module of x; its variables may be abstract.
        x: its input, an array or a `jax.ShapeDtypeStruct`, the batch included.

    Returns:
        The number.

    Raises:
        ValueError: the program has a part whose products are not to be seen.

    Example:
        >>> x = jax.ShapeDtypeStruct((1, 3), "float32")
        >>> multiply_adds("dense", nnx.Linear(3, 4, rngs=nnx.Rngs(0)), x)
        16

    References:
        Dong, Yang, 2020 (NAS-Bench-201), whose figures these are, to the last digit.
        https://arxiv.org/abs/2001.00326
    """
    run, params, rest = program(module)
    traced = jax.make_jaxpr(run)(params, rest, x).jaxpr
    count = len(jax.tree.leaves(params))
    marks = [_WEIGHT if i < count else None for i in range(len(traced.invars))]
    try:
        return _count(traced, marks)[0]
    except _Uncounted as error:
        name = "the part that is not chosen" if primitive is None else repr(primitive)
        raise ValueError(
            checks.message(
                "multiply_adds",
                "module",
                "be of operations whose products can be counted",
                f"`{error}` in {name}",
                "Give its count: a cost is any function (primitive, module, x) -> "
                "number, and can call this one for the others.",
            )
        ) from None


def program(module: nnx.Module) -> tuple[Callable[..., PyTree], PyTree, PyTree]:
    """A module in evaluation as a function of (weights, other variables, input)."""
    module.eval()
    split: tuple[Any, ...] = nnx.split(module, nnx.Param, ...)
    graphdef, params, rest = split

    def run(params: PyTree, rest: PyTree, x: PyTree) -> PyTree:
        return nnx.merge(graphdef, params, rest, copy=True)(x)

    return run, params, rest


def _count(jaxpr: Any, marks: Iterable[str | None]) -> tuple[int, list[str | None]]:
    """Multiply-adds of a program, and the marks of its outputs."""
    known: dict[Any, str | None] = dict(zip(jaxpr.invars, marks, strict=True))

    def mark(atom: Any) -> str | None:
        return None if hasattr(atom, "val") else known.get(atom)

    total = 0
    for step in jaxpr.eqns:
        name, found = step.primitive.name, [mark(atom) for atom in step.invars]
        outputs: list[str | None] = [None] * len(step.outvars)
        inner = list(_programs(step.params))
        if name in _OPAQUE:
            raise _Uncounted(name)
        if inner:
            counts = []
            for one in inner:
                # What comes first is the index of a branch.
                of_one = found[len(found) - len(one.invars) :]
                count, marked = _count(one, of_one)
                counts.append(count)
                if len(marked) == len(outputs):
                    outputs = marked
            if name == "while" and any(counts):
                raise _Uncounted(name)
            times = step.params["length"] if name == "scan" else 1
            total += times * max(counts)
        elif name in _PRODUCTS:
            total += _PRODUCTS[name](step)
            outputs = [_PRODUCT]
        elif name in _MOVES:
            outputs = found[:1]
        elif name in ("add", "add_any") and set(found) == {_WEIGHT, _PRODUCT}:
            total += step.outvars[0].aval.size
        known |= dict(zip(step.outvars, outputs, strict=True))
    return total, [mark(atom) for atom in jaxpr.outvars]


def _programs(params: Mapping[str, Any]) -> Iterator[Any]:
    """The programs inside a step: of a jit, a loop, a branch, a rule of its own."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


def _of_dot_general(step: Any) -> int:
    (contracted, _), _ = step.params["dimension_numbers"]
    shape = step.invars[0].aval.shape
    return step.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _of_convolution(step: Any) -> int:
    x, kernel = (atom.aval for atom in step.invars[:2])
    y = step.outvars[0].aval
    layout = step.params["dimension_numbers"]
    of_one = kernel.size // kernel.shape[layout.rhs_spec[0]]
    if math.prod(step.params["lhs_dilation"]) == 1:
        return y.size * of_one
    # Transposed: zeros lie between the inputs, each of which meets the whole kernel.
    places = math.prod(x.shape[axis] for axis in layout.lhs_spec[2:])
    return x.shape[layout.lhs_spec[0]] * places * kernel.size


_PRODUCTS = {
    "dot_general": _of_dot_general,
    "conv_general_dilated": _of_convolution,
}
