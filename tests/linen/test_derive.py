"""Linen branches that belong to a parent, or are functions, and their derivation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import gumbax
from gumbax.linen import ARCH, MixedOp

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 8))
FIRST, SECOND = jnp.eye(2)


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False, momentum=0.5)(x)


def without(variables, collection):
    return {c: v for c, v in variables.items() if c != collection}


# Modules that belong to a parent


class Inline(nn.Module):
    derived: bool = False

    @nn.compact
    def __call__(self, x, **options):
        inner = nn.Sequential([Norm(), nn.Sequential([nn.Dense(8), nn.relu])])
        op = MixedOp([nn.Dense(8), inner], name="op")
        return op.derive() if self.derived else op(x, **options)


class Prepared(nn.Module):
    def setup(self):
        self.dense = nn.Dense(8)
        inner = nn.Sequential([Norm(), nn.Sequential([nn.Dense(8), nn.relu])])
        self.op = MixedOp([self.dense, inner])

    def __call__(self, x, **options):
        return self.op(x, **options)


def choose(variables, logits):
    return {**variables, ARCH: {"op": {"logits": jnp.array(logits)}}}


@pytest.mark.parametrize("net", [Inline(), Prepared()])
def test_branches_that_hold_modules_of_a_parent(net):
    made = net.init(KEY, X)
    y, changed = net.apply(made, X, weights=SECOND, mutable=["batch_stats"])
    dense = made["params"]["op" if isinstance(net, Prepared) else "Dense_0"]
    if isinstance(net, Prepared):
        dense = dense["branches_1"]["layers_1"]["layers_0"]
    own = {"params": {"BatchNorm_0": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}}
    own["batch_stats"] = {
        "BatchNorm_0": {"mean": jnp.zeros(8), "var": jnp.ones(8)},
    }
    expected, after = Norm().apply(own, X, mutable=["batch_stats"])
    expected = nn.relu(expected @ dense["kernel"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(
        made["batch_stats"]
    )
    chex.assert_trees_all_close(
        jax.tree.leaves(changed), jax.tree.leaves(after), rtol=1e-4, atol=1e-6
    )

    def loss(params):
        return jnp.sum(net.apply({**made, "params": params}, X, **options)[0] ** 2)

    options = {"weights": SECOND, "mutable": ["batch_stats"]}
    gradient = jax.grad(loss)(made["params"])
    found = jax.tree.leaves_with_path(gradient)
    moving = [path for path, leaf in found if np.any(leaf)]
    assert len(moving) == 4
    options = {"weights": FIRST, "mutable": ["batch_stats"]}
    first = jax.tree.leaves_with_path(jax.grad(loss)(made["params"]))
    assert len([path for path, leaf in first if np.any(leaf)]) == 2


@pytest.mark.parametrize("logits", [[1.0, 0.0], [0.0, 1.0]])
def test_derive_where_the_branches_belong_to_a_parent(logits):
    inline = choose(Inline().init(KEY, X), logits)
    prepared = choose(Prepared().init(KEY, X), logits)
    bound = Prepared().bind(prepared)
    pairs = [
        (Inline(), inline, Inline(derived=True).apply(inline, X)),
        (Prepared(), prepared, bound.op.derive()),
    ]
    mutable = ["batch_stats"]
    for net, variables, (module, own) in pairs:
        expected, _ = net.apply(variables, X, deterministic=True, mutable=mutable)
        found, _ = module.apply(own, X, mutable=mutable)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_derive_refuses_the_variables_of_a_parent():
    variables = choose(Inline().init(KEY, X), [1.0, 0.0])
    own = {c: values.get("op", values) for c, values in variables.items()}
    message = r"with branches_0, got Dense_0, Dense_1, Norm_0. .* `derive\(\)`"
    with pytest.raises(ValueError, match=message):
        MixedOp([nn.Dense(8), nn.Dense(8)]).derive(own)


def test_derive_refuses_a_parent_that_is_gone():
    made = choose(Prepared().init(KEY, X), [1.0, 0.0])
    with pytest.raises(ValueError, match="got Dense of a module that was deleted"):
        Prepared().bind(made).op.derive()


# Functions and derivation


def test_functions_that_make_modules():
    op = MixedOp([lambda x: nn.relu(nn.Dense(8)(x)), nn.relu])
    made = op.init(KEY, X)
    assert set(made["params"]) == {"branches_0"}
    found = op.apply(made, X, weights=FIRST)
    dense = made["params"]["branches_0"]["Dense_0"]
    np.testing.assert_allclose(found, nn.relu(X @ dense["kernel"]), 1e-4, 1e-6)
    module, own = op.derive(made, index=0)
    np.testing.assert_allclose(module.apply(own, X), found, rtol=1e-5, atol=1e-6)
    module, own = op.derive(made, weights=SECOND)
    np.testing.assert_array_equal(module.apply(own, X), nn.relu(X))


def test_function_over_a_module_of_the_parent():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(8)
            return MixedOp([lambda x: 2 * dense(x), nn.relu])(x, weights=FIRST)

    made = Net().init(KEY, X)
    with pytest.raises(TypeError, match="which closes over a traced value"):
        jax.grad(lambda v: Net().apply(v, X).sum())(made)


def test_shared_choice_needs_no_logits():
    weights = gumbax.draw_choices(KEY, {"a": jnp.array([0.0, 9.0])}, hard=True)["a"]
    op = MixedOp([nn.Dense(8), nn.LayerNorm()])
    made = op.init(KEY, X, weights=weights)
    assert set(made) == {"params"}
    y = op.apply(made, X, weights=weights)
    with pytest.raises(ValueError, match="`weights` must be given to a module"):
        op.apply(made, X, key=KEY)
    with pytest.raises(ValueError, match="`weights` must be given for a module"):
        op.derive(made)
    module, own = op.derive(made, weights=weights)
    assert isinstance(module, nn.LayerNorm)
    np.testing.assert_allclose(module.apply(own, X), y, rtol=1e-5, atol=1e-6)


def test_derive_refuses_logits_that_were_never_used():
    op = MixedOp([nn.Dense(8), nn.LayerNorm()])
    made = op.init(KEY, X)
    op.apply(made, X, weights=SECOND)
    with pytest.raises(ValueError, match=r"`logits` must make one.*2 times 0.0"):
        op.derive(made)
    with pytest.raises(ValueError, match="`variables` must be given"):
        op.derive()
    # Without the collection that is not used.
    op.apply(without(made, ARCH), X, weights=SECOND)
