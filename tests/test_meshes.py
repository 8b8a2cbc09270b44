"""Every public function on every kind of mesh axis equals itself on one device.

Values, first and second derivatives: on automatic axes, on explicit ones (what
`jax.make_mesh` gives), and inside `jax.shard_map` with its default check of varying
axes. The whole table runs with `--exhaustive`, as CI does once; else some functions of
each room meet rows and categories on explicit axes, and two run inside `jax.shard_map`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gumbax.nnx
from tests.mesh_cases import CASES
from tests.test_conformance import PUBLIC

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
# name -> (types of the axes a, b, c; what divides rows; what divides categories)
LAYOUTS = {
    "explicit": ((EXPLICIT,) * 3, "a", "b"),
    "explicit rows": ((EXPLICIT,) * 3, "a", None),
    "explicit categories": ((EXPLICIT,) * 3, None, "b"),
    "explicit, all on categories": ((EXPLICIT,) * 3, None, ("a", "b", "c")),
    "explicit, mixed": ((EXPLICIT,) * 3, ("c", "a"), "b"),
    "explicit rows, automatic categories": ((EXPLICIT, AUTO, AUTO), "a", "b"),
    "automatic": ((AUTO,) * 3, "a", "b"),
}
# Where a function of each element, or a further call of one, is at home.
ONE_OF_EACH_KIND = ("explicit", "automatic")
# The first case of each public function that is not of single elements.
FIRST = {
    case.function: name
    for name, case in reversed(CASES.items())
    if not case.elementwise
}
ALWAYS = (
    *("gumbel_softmax", "gumbel_softmax hard", "gumbel_max", "categorical"),
    *("sample", "concrete.binary_log_prob", "mixed_op", "single_path"),
    *("draw_choices", "convolution"),
)
ALWAYS_IN_SHARDS = ("gumbel_softmax", "convolution")


def marked(often):
    return () if often else pytest.mark.exhaustive


def table():
    for name, case in CASES.items():
        letters = "".join(dims for dims, _ in case.operands.values())
        for layout, (types, rows, categories) in LAYOUTS.items():
            if name not in FIRST.values() and layout not in ONE_OF_EACH_KIND:
                continue
            if rows is None and "k" not in letters:
                continue
            del types, categories
            marks = marked(name in ALWAYS and layout == "explicit")
            yield pytest.param(name, layout, id=f"{name}, {layout}", marks=marks)


def test_every_public_function_is_in_the_table():
    # The Flax faces have tests of their own, in `test_meshes_flax.py`.
    missing = set(PUBLIC) - {case.function for case in CASES.values()}
    assert missing == {gumbax.nnx.pure_branches}


def smooth_operands(case):
    floats = [jnp.issubdtype(a.dtype, jnp.floating) for _, a in case.operands.values()]
    return tuple(i for i, smooth in enumerate(floats) if smooth and case.smooth)


def waves(shape):
    """Constant numbers of both signs, so that each element has a weight of its own."""
    return np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)


def loss_of(y):
    finite = jnp.where(jnp.isfinite(y), y, 0)
    return jnp.sum(waves(y.shape) * finite + finite**2 / 2)


def derivatives(case, function, *, of=None):
    """(value, first derivatives, second derivatives) of a loss of the function.

    The second ones are those of the first ones of the operands `of`, of all by default.
    """
    numbers = smooth_operands(case)
    sloping = tuple(i for i in numbers if of is None or i in of)

    def loss(*arrays):
        return loss_of(function(*arrays))

    def slope(*arrays):
        gradients = jax.grad(loss, sloping)(*arrays)
        return sum(jnp.sum(waves(g.shape) * g) for g in gradients)

    def every(*arrays):
        if not numbers:
            return function(*arrays), (), ()
        first = jax.grad(loss, numbers)(*arrays)
        return function(*arrays), first, jax.grad(slope, numbers)(*arrays)

    return every


def assert_equal(found, expected, *, exact):
    found, expected = jax.tree.map(np.asarray, (found, expected))
    if exact or found[0].dtype.kind == "i":
        np.testing.assert_array_equal(found[0], expected[0])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = np.max(np.abs(b), initial=1e-3, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6 * scale)


@functools.cache
def on_one_device(name):
    case = CASES[name]
    arrays = [array for _, array in case.operands.values()]
    return jax.jit(derivatives(case, case.run))(*arrays)


def spec(dims, rows, categories):
    axes = {"r": rows, "k": categories}
    return P(*(axes.get(letter) for letter in dims))


@pytest.mark.parametrize(("name", "layout"), list(table()))
def test_on_a_mesh_as_on_one_device(name, layout):
    case = CASES[name]
    types, rows, categories = LAYOUTS[layout]
    mesh = jax.make_mesh((2, 2, 2), ("a", "b", "c"), axis_types=types)
    expected = on_one_device(name)
    with jax.set_mesh(mesh):
        arrays = [
            jax.device_put(array, NamedSharding(mesh, spec(dims, rows, categories)))
            for dims, array in case.operands.values()
        ]
        found = jax.jit(derivatives(case, case.run))(*arrays)
    for gradients in found[1:]:
        for i, gradient in zip(smooth_operands(case), gradients, strict=True):
            assert EXPLICIT not in types or (
                jax.typeof(gradient).sharding.spec
                == jax.typeof(arrays[i]).sharding.spec
            )
    assert_equal(found, expected, exact="hard" in name and "concrete" not in name)


# Rows divided by `jax.shard_map`: every device is as one that has its rows alone.

SHARDS = 4
IN_SHARDS = [
    pytest.param(name, marks=marked(name in ALWAYS_IN_SHARDS))
    for name, case in CASES.items()
    if any("r" in dims for dims, _ in case.operands.values())
]


def shard_by_shard(case, function, specs):
    """A function of divided operands whose results are divided like these specs."""
    axes = [dims.find("r") for dims, _ in case.operands.values()]
    in_axes = tuple(None if axis == -1 else axis for axis in axes)

    def by_hand(*arrays):
        parts = [
            array
            if axis == -1
            else array.reshape(
                *array.shape[:axis], SHARDS, -1, *array.shape[axis + 1 :]
            )
            for array, axis in zip(arrays, axes, strict=True)
        ]

        def join(spec, leaf):
            if "a" not in spec:
                return leaf.sum(axis=0)
            axis = tuple(spec).index("a")
            shape = leaf.shape[1:]
            whole = (*shape[:axis], SHARDS * shape[axis], *shape[axis + 1 :])
            return jnp.moveaxis(leaf, 0, axis).reshape(whole)

        found = jax.vmap(function, in_axes)(*parts)
        return jax.tree.map(join, specs, found, is_leaf=lambda v: isinstance(v, P))

    return by_hand


@pytest.mark.parametrize("name", IN_SHARDS)
def test_in_shard_map_as_on_one_device(name):
    """Derivatives taken inside it, and outside of it."""
    case = CASES[name]
    mesh = jax.make_mesh((SHARDS, 2), ("a", "b"))
    specs = tuple(spec(dims, "a", None) for dims, _ in case.operands.values())
    arrays = [array for _, array in case.operands.values()]
    placed = [
        jax.device_put(array, NamedSharding(mesh, own))
        for array, own in zip(arrays, specs, strict=True)
    ]
    # The rows are the first axis of the output, but for an axis of samples.
    output = P(*(None,) * len(case.options.get("sample_shape", ())), "a")
    gradients = tuple(specs[i] for i in smooth_operands(case))
    outputs = (output, gradients, gradients)
    exact = "hard" in name and "concrete" not in name

    def divide(function, outputs):
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=outputs)

    inside = derivatives(
        case, case.run, of=tuple(i for i in range(len(specs)) if any(specs[i]))
    )
    found = jax.jit(divide(inside, outputs))(*placed)
    expected = jax.jit(shard_by_shard(case, inside, outputs))(*arrays)
    assert_equal(found, expected, exact=exact)
    outside = derivatives(case, divide(case.run, output))
    by_hand = derivatives(case, shard_by_shard(case, case.run, output))
    assert_equal(jax.jit(outside)(*placed), jax.jit(by_hand)(*arrays), exact=exact)
