"""What both Flax faces do with their branches, once for each face."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import gumbax.linen
import gumbax.nnx

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 8))
FIRST, SECOND = jnp.eye(2)

pytestmark = pytest.mark.filterwarnings(
    # In Flax 0.12 too it keeps what it is told.
    "ignore:\\s*Using 'Module.sow..' outside of:DeprecationWarning"
)


class Loss(nnx.Variable):
    """Losses that experts sow."""


class NnxExpert(nnx.Module):
    def __init__(self, seed, **sow):
        self.dense = nnx.Linear(8, 8, rngs=nnx.Rngs(seed))
        self.how = sow

    def __call__(self, x):
        y = self.dense(x)
        self.sow(Loss, "aux", jnp.mean(y**2), **self.how)
        return y


class LinenExpert(nn.Module):
    sow_in: Callable[..., Any] | None = None

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(8)(x)
        how = {} if self.sow_in is None else {"reduce_fn": self.sow_in}
        if how:
            how["init_fn"] = functools.partial(jnp.zeros, ())
        self.sow("losses", "aux", jnp.mean(y**2), **how)
        return y


@dataclasses.dataclass
class Face:
    """An operation on two experts, as a function of their parameters."""

    reduce: Callable[..., Any] | None = None

    def nnx(self):
        how = {}
        if self.reduce is not None:
            how = {"init_fn": lambda: jnp.zeros(()), "reduce_fn": self.reduce}
        op = gumbax.nnx.MixedOp([NnxExpert(i, **how) for i in range(2)])
        graphdef, params, arch = nnx.split(op, nnx.Param, ...)

        def run(kernels, calls):
            # Copies, which belong to this trace.
            states = jax.tree.map(jnp.asarray, (params, arch))
            op = nnx.merge(graphdef, *states)
            for branch, kernel in zip(op.branches, kernels, strict=True):
                branch.dense.kernel[...] = kernel
            for options in calls:
                op(X, **options)
            return [jax.tree.leaves(branch.aux) for branch in op.branches]

        return run

    def linen(self):
        op = gumbax.linen.MixedOp([LinenExpert(self.reduce) for _ in range(2)])
        made = op.init(KEY, X)
        made = {c: made[c] for c in made if c != "losses"}

        def run(kernels, calls):
            params = {
                f"branches_{i}": {"Dense_0": {"kernel": k, "bias": jnp.zeros(8)}}
                for i, k in enumerate(kernels)
            }
            variables = {**made, "params": params}
            for options in calls:
                _, changed = op.apply(variables, X, mutable=["losses"], **options)
                variables = {**variables, **changed}
            losses = variables["losses"]
            return [jax.tree.leaves(losses[f"branches_{i}"]) for i in range(2)]

        return run


FACES = pytest.mark.parametrize("face", ["nnx", "linen"])
KERNELS = list(jax.random.normal(jax.random.key(2), (2, 8, 8)))


def by_hand(kernel):
    return jnp.mean((X @ kernel) ** 2)


@FACES
def test_soft_choice_keeps_what_every_branch_sows(face):
    run = getattr(Face(), face)()
    found = run(KERNELS, [{"hard": False, "deterministic": True}])
    for (loss,), kernel in zip(found, KERNELS, strict=True):
        np.testing.assert_allclose(loss, by_hand(kernel), rtol=1e-5)


@FACES
def test_hard_choice_keeps_what_the_chosen_branch_sows(face):
    """Zeros stand for what the other one would have sown: a sum is right."""
    run = getattr(Face(), face)()
    first, second = run(KERNELS, [{"weights": SECOND}, {"weights": FIRST}])
    expected = [by_hand(kernel) for kernel in KERNELS]
    np.testing.assert_allclose(first, [0, expected[0]], rtol=1e-5)
    np.testing.assert_allclose(second, [expected[1], 0], rtol=1e-5)


@FACES
def test_what_is_sown_into_one_value_stays_if_the_branch_does_not_run(face):
    run = getattr(Face(lambda total, loss: total + loss), face)()
    calls = [{"weights": SECOND}, {"weights": FIRST}, {"weights": SECOND}]
    (first,), (second,) = run(KERNELS, calls)
    np.testing.assert_allclose(first, by_hand(KERNELS[0]), rtol=1e-5)
    np.testing.assert_allclose(second, 2 * by_hand(KERNELS[1]), rtol=1e-5)


@FACES
@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_sown_losses_are_trained(face, hard, jitted):
    run = getattr(Face(), face)()

    def loss(kernels):
        options = {"weights": SECOND} if hard else {"deterministic": True}
        return sum(jax.tree.leaves(run(kernels, [{"hard": hard, **options}])))

    gradient = jax.grad(loss)
    found = (jax.jit(gradient) if jitted else gradient)(KERNELS)
    expected = [jax.grad(by_hand)(kernel) for kernel in KERNELS]
    if hard:
        expected[0] = jnp.zeros_like(expected[0])
    for own, gradient in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, gradient, rtol=1e-4, atol=1e-5)


# Arguments


def make(face, *functions):
    """(arguments, options) -> output of an operation on functions of x."""
    if face == "nnx":
        return gumbax.nnx.MixedOp(functions)
    op = gumbax.linen.MixedOp(functions)

    def run(*args, rngs=None, **options):
        variables = op.init(KEY, *args, **options)
        return op.apply(variables, *args, key=rngs, **options)

    return run


@FACES
def test_functions_are_branches(face):
    run = make(face, jnp.tanh, lambda x: 2 * x)
    np.testing.assert_allclose(run(X, weights=FIRST), jnp.tanh(X), rtol=1e-5)
    np.testing.assert_array_equal(run(X, weights=SECOND), 2 * X)


@FACES
def test_flags_stay_python_values_and_arrays_have_gradients(face):
    seen = []

    def scaled(x, scale, *, train, mask=None, mode="sum", deterministic):
        seen.append((train, mode, deterministic))
        return x * scale if mask is None else x * scale * mask

    run = make(face, scaled, scaled)

    def loss(scale, mask):
        options = {"train": True, "mask": {"of_x": mask}["of_x"], "mode": "mean"}
        own = {"deterministic": 1}
        y = run(X, scale, weights=FIRST, branch_kwargs=own, **options)
        return jnp.sum(y)

    mask = jnp.arange(4.0)[:, None]
    found = jax.jit(jax.grad(loss, (0, 1)))(jnp.float32(3), mask)
    np.testing.assert_allclose(found[0], jnp.sum(X * mask), rtol=1e-5)
    np.testing.assert_allclose(found[1], 3 * X.sum(axis=1, keepdims=True), rtol=1e-5)
    assert set(seen) == {(True, "mean", 1)}
    assert all(isinstance(own[0], bool) for own in seen)


@FACES
def test_flags_that_are_equal_but_of_another_type_do_not_share_a_trace(face):
    def scaled(x, flag):
        return 2 * x if flag is True else x

    run = make(face, scaled, scaled)
    for flag, factor in ((1, 1), (True, 2), (1, 1)):
        np.testing.assert_array_equal(run(X, flag, weights=FIRST), factor * X)


@FACES
def test_keywords_reach_the_branches_that_take_them(face):
    run = make(face, lambda x, scale=1.0: scale * x, lambda x: x)
    np.testing.assert_array_equal(run(X, weights=FIRST, scale=3.0), 3 * X)
    np.testing.assert_array_equal(run(X, weights=SECOND, scale=3.0), X)


@FACES
@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((), {"scla": 1}, TypeError, "`kwargs` must be keywords.*got scla, which none"),
        ((1, 2), {}, TypeError, r"take 3 positional.*got branch 1 \(<lambda>\): too"),
        (
            (),
            {"scale": 1, "branch_kwargs": {"scale": 2}},
            ValueError,
            "`branch_kwargs` must have names that.*got scale in both",
        ),
        ((), {"scale": {1, 2}}, TypeError, r"`kwargs` must hold.*set at \['scale'\]"),
    ],
)
def test_bad_arguments(face, args, options, error, message):
    run = make(face, lambda x, *args, scale=1.0: x, lambda x, scale=1.0: x)
    with pytest.raises(error, match=message):
        run(X, *args, weights=FIRST, **options)


@FACES
def test_traced_flags_of_ours_are_an_error(face):
    run = make(face, jnp.tanh, jnp.sin)
    for name in ("hard", "deterministic"):
        message = f"`{name}` must be True or False, got dtype bool with shape"
        with pytest.raises(TypeError, match=message):
            jax.jit(lambda flag, name=name: run(X, rngs=KEY, **{name: flag}))(True)


@FACES
def test_branch_that_cannot_be_called_is_an_error(face):
    with pytest.raises(TypeError, match=r"be functions or modules, got 3 as branch 1"):
        make(face, jnp.tanh, 3)(X, weights=FIRST)
