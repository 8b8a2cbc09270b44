"""Every public function on every kind of mesh axis equals itself on one device.

Values, first and second derivatives: on automatic axes, on explicit ones (what
`jax.make_mesh` gives), and inside `jax.shard_map` with its default check of varying
axes. The whole table runs with `--exhaustive`, as CI does once; else some functions of
each room meet rows and categories on explicit axes, and three `jax.shard_map`.
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
ALWAYS_IN_SHARDS = ("gumbel_softmax", "convolution", "single_path")


def marked(often):
    return () if often else pytest.mark.exhaustive


def table():
    """Functions with their layouts: for some one that is always run, for all the rest.

    One test has all further layouts of a function, whose derivatives on one device
    they share.
    """
    for name, case in CASES.items():
        letters = "".join(dims for dims, _ in case.operands.values())
        layouts = [
            layout
            for layout, (_, rows, _) in LAYOUTS.items()
            if (name in FIRST.values() or layout in ONE_OF_EACH_KIND)
            and (rows is not None or "k" in letters)
        ]
        if name in ALWAYS:
            layouts.remove("explicit")
            yield pytest.param(name, ["explicit"], id=f"{name}, explicit")
        yield pytest.param(name, layouts, id=name, marks=pytest.mark.exhaustive)


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


def weighted(weights, array):
    return jnp.sum((waves(array.shape) if weights is None else weights) * array)


def derivatives(case, function, *, of=None):
    """(value, first derivatives, second derivatives) of a loss of the function.

    The second ones are those of the first ones of the operands `of`, of all by default.
    """
    numbers = smooth_operands(case)

    def every(*arrays, weights=None):
        """`weights` are those of the value and of each first derivative, or waves."""
        of_value, of_gradients = weights or (None, (None,) * len(numbers))

        def loss(*arrays):
            y = function(*arrays)
            finite = jnp.where(jnp.isfinite(y), y, 0)
            return weighted(of_value, finite) + jnp.sum(finite**2) / 2

        def slope(*arrays):
            gradients = jax.grad(loss, numbers)(*arrays)
            sloping = zip(numbers, of_gradients, gradients, strict=True)
            terms = [weighted(w, g) for i, w, g in sloping if of is None or i in of]
            return sum(terms)

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


@pytest.mark.eight_devices
@pytest.mark.parametrize(("name", "layouts"), list(table()))
def test_on_a_mesh_as_on_one_device(name, layouts):
    for layout in layouts:
        check_layout(name, *LAYOUTS[layout])


def check_layout(name, types, rows, categories):
    case = CASES[name]
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


def split(array, axis):
    """A part for each shard, or the whole for each."""
    return [array] * SHARDS if axis == -1 else np.split(array, SHARDS, axis)


def join(parts, axis):
    return sum(parts) if axis == -1 else np.concatenate(parts, axis)


def waves_of_shards(shape, axis):
    """The waves that each shard has on its own, one after the other."""
    own = waves((*shape[:axis], shape[axis] // SHARDS, *shape[axis + 1 :]))
    return np.concatenate([own] * SHARDS, axis)


def shard_by_shard(run, arrays, axes, weights, axes_found):
    """What `derivatives` finds with the rows of each shard alone, joined or added up.

    `weights` are those of all shards; `axes_found` are the axes of rows of the value,
    and of each first derivative.
    """
    of_value, of_gradients = weights
    parts = zip(*map(split, arrays, axes), strict=True)
    found = [
        run(*part, weights=(own_of_value, own_of_gradients))
        for part, own_of_value, *own_of_gradients in zip(
            parts,
            *map(split, (of_value, *of_gradients), axes_found),
            strict=True,
        )
    ]
    value, *derivatives = zip(*jax.device_get(found), strict=True)
    return join(value, axes_found[0]), *(
        tuple(map(join, zip(*own, strict=True), axes_found[1:])) for own in derivatives
    )


@pytest.mark.eight_devices
@pytest.mark.parametrize("name", IN_SHARDS)
def test_in_shard_map_as_on_one_device(name):
    """Derivatives taken inside it, and outside of it."""
    case = CASES[name]
    smooth = smooth_operands(case)
    mesh = jax.make_mesh((SHARDS, 2), ("a", "b"))
    specs = tuple(spec(dims, "a", None) for dims, _ in case.operands.values())
    arrays = [array for _, array in case.operands.values()]
    placed = [
        jax.device_put(array, NamedSharding(mesh, own))
        for array, own in zip(arrays, specs, strict=True)
    ]
    # The rows are the first axis of the output, but for an axis of samples.
    samples = len(case.options.get("sample_shape", ()))
    output = P(*(None,) * samples, "a")
    gradients = tuple(specs[i] for i in smooth)
    axes = [dims.find("r") for dims, _ in case.operands.values()]
    axes_found = [samples, *(axes[i] for i in smooth)]
    run = jax.jit(derivatives(case, case.run))

    def divide(function, outputs):
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=outputs)

    def assert_as_by_hand(found, weights):
        expected = shard_by_shard(run, arrays, axes, weights, axes_found)
        hard = "hard" in name and "concrete" not in name
        assert_equal(found, expected, exact=hard)

    whole = jax.jit(derivatives(case, divide(case.run, output)))(*placed)
    shapes = [whole[0].shape, *(arrays[i].shape for i in smooth)]
    of_value, *of_gradients = map(waves, shapes)
    assert_as_by_hand(whole, (of_value, of_gradients))
    divided = tuple(i for i in smooth if axes[i] != -1)
    inside = derivatives(case, case.run, of=divided)
    found = jax.jit(divide(inside, (output, gradients, gradients)))(*placed)
    of_value, *of_gradients = (
        np.zeros(shape, np.float32) if axis == -1 else waves_of_shards(shape, axis)
        for shape, axis in zip(shapes, axes_found, strict=True)
    )
    assert_as_by_hand(found, (of_value, of_gradients))
