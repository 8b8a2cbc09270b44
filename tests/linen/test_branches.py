"""What the Linen face keeps of the variables of its branches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gumbax.linen import ARCH, MixedOp
from tests.helpers import sweep

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 8))
FIRST, SECOND = jnp.eye(2)


class Expert(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Dense(8)(x)
        self.sow("losses", "aux", jnp.mean(y**2))
        return y


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False, momentum=0.5)(x)


def without(variables, collection):
    return {c: v for c, v in variables.items() if c != collection}


# Collections


def test_collection_that_init_returned_grows():
    op = MixedOp([Expert(), Expert()])
    made = op.init(KEY, X)
    _, found = op.apply(made, X, weights=SECOND, mutable=["losses"])
    for i, own in made["losses"].items():
        (before,), after = own["aux"], found["losses"][i]["aux"]
        np.testing.assert_array_equal(after, [before, before * (i == "branches_1")])


def test_collection_that_is_not_mutable_costs_nothing():
    op = MixedOp([Expert(), Expert()])
    made = without(op.init(KEY, X), "losses")
    assert op.apply(made, X, weights=FIRST).shape == X.shape


def test_value_that_replaces_another_stays_if_the_branch_does_not_run():
    class Last(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("last", "x", x, reduce_fn=lambda _, new: new, init_fn=lambda: None)
            return x

    op = MixedOp([Last(), Last()])
    made = op.init(KEY, X)
    _, found = op.apply(made, 2 * X, weights=SECOND, mutable="last")
    first, second = jax.tree.leaves(found["last"])
    np.testing.assert_array_equal(first, X)
    np.testing.assert_array_equal(second, 2 * X)


@pytest.mark.parametrize("mutable", [True, nn.DenyList(["losses"]), "cache"])
def test_any_filter_of_collections(mutable):
    class Cached(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("losses", "aux", x.mean())
            total = self.variable("cache", "total", jnp.zeros, ())
            total.value = total.value + x.sum()
            return x

    op = MixedOp([Cached(), Cached()])
    _, found = op.apply({}, X, weights=SECOND, mutable=mutable)
    first, second = jax.tree.leaves(found["cache"])
    np.testing.assert_allclose([first, second], [0, X.sum()], rtol=1e-5)
    assert ("losses" in found) == (mutable is True)


def test_captured_outputs_are_those_of_the_branches():
    op = MixedOp([nn.Sequential([nn.Dense(8)]), nn.Dense(8)])
    made = op.init(KEY, X)
    y, found = op.apply(made, X, weights=FIRST, capture_intermediates=True)
    outputs = found["intermediates"]
    chex.assert_trees_all_close(
        [outputs["__call__"][0], outputs["branches_0"]["layers_0"]["__call__"][0]],
        [y, y],
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        outputs["branches_1"]["__call__"][0], np.zeros((4, 8))
    )


def test_perturbation_has_the_gradient_of_the_value():
    class Perturbed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return self.perturb("before", x) ** 2

    op = MixedOp([Perturbed(), Perturbed()])
    made = op.init(KEY, X)

    def loss(perturbations):
        given = {**made, "perturbations": perturbations}
        return jnp.sum(op.apply(given, X, weights=SECOND))

    first, second = jax.tree.leaves(jax.grad(loss)(made["perturbations"]))
    np.testing.assert_array_equal(first, np.zeros_like(X))
    np.testing.assert_allclose(second, 2 * X, rtol=1e-5)


def test_operation_that_runs_twice_has_its_own_statistics_the_second_time():
    class Net(nn.Module):
        def setup(self):
            self.op = MixedOp([Norm(), nn.Dense(8)])

        def __call__(self, x):
            return self.op(self.op(x, weights=FIRST), weights=FIRST)

    class Alone(nn.Module):
        def setup(self):
            self.norm = Norm()

        def __call__(self, x):
            return self.norm(self.norm(x))

    made = Net().init(KEY, X)
    own = {c: {"norm": made[c]["op"]["branches_0"]} for c in ("params", "batch_stats")}
    y, found = Net().apply(made, X, mutable=["batch_stats"])
    expected, after = Alone().apply(own, X, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(
        found["batch_stats"]["op"]["branches_0"],
        after["batch_stats"]["norm"],
        rtol=1e-4,
        atol=1e-6,
    )


# Errors by name


def test_statistics_that_may_not_change():
    op = MixedOp([nn.Dense(8), Norm()])
    made = op.init(KEY, X)
    message = r'mutable collections alone, got Norm: .*"mean".*`mutable=\["batch_stats"'
    with pytest.raises(ValueError, match=message):
        op.apply(made, X, weights=SECOND)


def test_shared_module_that_changes():
    shared = Norm()
    op = MixedOp([shared, shared])
    made = op.init(KEY, X)
    message = r"got batch_stats.BatchNorm_0.mean of branch 1, which is part of branch 0"
    with pytest.raises(ValueError, match=message):
        op.apply(made, X, weights=FIRST, mutable=["batch_stats"])


@pytest.mark.parametrize("held", ["relu", nn.relu, np.array(["relu"])])
def test_parameter_that_holds_no_array(held):
    class Named(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.param("kind", lambda key: held)
            return x

    op = MixedOp([nn.Dense(8), Named()])
    made = op.init(KEY, X)
    with pytest.raises(TypeError, match=r"in params.kind of branch 1 \(Named\)"):
        op.apply(made, X, weights=FIRST)


def test_sown_text():
    class Says(nn.Module):
        def __call__(self, x):
            self.sow("notes", "text", "hello")
            return x

    op = MixedOp([nn.Dense(8), Says()])
    made = without(op.init(KEY, X), "notes")
    with pytest.raises(TypeError, match=r"got str in notes.text.0 of branch 1 \(Says"):
        op.apply(made, X, weights=FIRST, mutable=["notes"])


def test_module_with_an_attribute_that_has_no_hash():
    class Table(nn.Module):
        table: np.ndarray

        @nn.compact
        def __call__(self, x):
            return nn.Dense(8)(x) * self.table[None]

    op = MixedOp([Table(np.arange(8.0, dtype=np.float32)), nn.Dense(8)])
    made = op.init(KEY, X)
    dense = made["params"]["branches_0"]["Dense_0"]
    found = op.apply(made, X, weights=FIRST)
    np.testing.assert_allclose(
        found, (X @ dense["kernel"]) * np.arange(8)[None], 1e-4, 1e-5
    )


# Flags, streams and keys


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        assert isinstance(train, bool)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(8)(x))


def test_train_flag_beside_a_branch_without_one():
    op = MixedOp([Block(), nn.Dense(8)])
    made = op.init(KEY, X, train=False)
    evaluated = op.apply(made, X, weights=FIRST, train=False)
    assert not (evaluated == 0).any()
    trained, changed = op.apply(
        made,
        X,
        weights=FIRST,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": KEY},
    )
    assert (trained == 0).any()
    mean = changed["batch_stats"]["branches_0"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, X.mean(axis=0) / 2, rtol=1e-4, atol=1e-6)


def test_flag_with_a_name_of_ours():
    op = MixedOp([nn.Dropout(0.5), nn.Dropout(0.5)])

    def run(deterministic):
        return op.apply(
            {},
            X,
            weights=FIRST,
            branch_kwargs={"deterministic": deterministic},
            rngs={"dropout": KEY},
        )

    np.testing.assert_array_equal(run(True), X)
    assert (run(False) == 0).any()


@pytest.mark.exhaustive
def test_nested_operation_has_the_options_and_a_key_of_its_own():
    functions = [lambda x: x, lambda x: 2 * x]
    op = MixedOp([MixedOp(functions), MixedOp(functions)])
    made = op.init(KEY, X)
    soft = op.apply(made, X, hard=False, deterministic=True)
    np.testing.assert_allclose(soft, 1.5 * X, rtol=1e-5)

    def factors(draw, **options):
        keys = [jax.random.key(i) for i in range(12)]
        found = [op.apply(made, X, **draw(key), **options) / X for key in keys]
        return {round(float(y.mean()), 3) for y in found}

    by_stream, by_key = (lambda k: {"rngs": {ARCH: k}}), (lambda k: {"key": k})
    assert factors(by_stream) == factors(by_key) == {1.0, 2.0}
    assert factors(by_stream, weights=FIRST) == {1.0, 2.0}
    assert factors(by_key, weights=FIRST) == {1.0, 2.0}
    assert factors(by_key, deterministic=True) == {1.0}

    def loss(variables):
        return jnp.sum(op.apply(variables, X, key=KEY) ** 2)

    gradient = jax.grad(loss)(made)[ARCH]
    inner = [gradient[f"branches_{i}"]["logits"] for i in range(2)]
    assert sum(bool(np.any(own)) for own in inner) == 1


def test_operation_inside_the_module_of_a_branch_has_a_key():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return MixedOp([nn.Dense(8), nn.Dense(8)])(x)

    op = MixedOp([Inner(), nn.Dense(8)])
    made = op.init(KEY, X)
    assert op.apply(made, X, weights=FIRST, rngs={ARCH: KEY}).shape == X.shape
    with pytest.raises(TypeError, match="`key` must come with the call"):
        op.apply(made, X, weights=FIRST)


# Transformations


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, weights):
        return x + MixedOp([Expert(), Expert()], name="op")(x, weights=weights), None


@pytest.mark.exhaustive
def test_sown_losses_in_scan_and_remat_are_trained():
    weights = jnp.stack([FIRST, SECOND, FIRST])
    cells = nn.scan(
        nn.remat(Cell),
        variable_axes={"params": 0, "losses": 0},
        split_rngs={"params": True},
        length=3,
    )()
    made = without(cells.init(KEY, X, weights), "losses")

    def scanned(variables):
        _, found = cells.apply(variables, X, weights, mutable=["losses"])
        return sum(map(jnp.sum, jax.tree.leaves(found)))

    def loop(variables):
        x, total = X, 0
        for i, own in enumerate(weights):
            taken = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
            (x, _), found = Cell().apply(taken, x, own, mutable=["losses"])
            total = total + sum(jax.tree.leaves(found))
        return total

    found = jax.jit(jax.value_and_grad(scanned))(made)
    expected = jax.value_and_grad(loop)(made)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(leaf.any() for leaf in jax.tree.leaves(found[1]))


class Both(nn.Module):
    """Sows a loss and its output, and has statistics."""

    @nn.compact
    def __call__(self, x):
        y = Expert()(Norm()(x))
        self.sow("losses", "output", y)
        return y


@pytest.mark.eight_devices
@pytest.mark.parametrize("kind", sweep(["Explicit"], ["Auto", "by hand"]))
def test_on_a_mesh(kind):
    """What is sown, and statistics, lie as the batch does."""
    by_hand = kind == "by hand"
    types = (getattr(AxisType, "Auto" if by_hand else kind),)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=types)
    x = jax.random.normal(jax.random.key(2), (16, 8))
    op = MixedOp([Both(), Both()])
    made = without(op.init(KEY, x), "losses")
    collections = ["losses", "batch_stats"]

    def loss(params, x, module, **options):
        given = {**made, "params": params} if options else params
        y, found = module.apply(given, x, mutable=collections, **options)
        losses = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(found)]
        total = jnp.sum(y**3) + sum(losses)
        return jax.lax.psum(total, "batch") if by_hand else total

    def gradient(module, **options):
        def run(params, x):
            return loss(params, x, module, **options)

        if by_hand:
            specs = PartitionSpec(), PartitionSpec("batch")
            run = jax.shard_map(
                run, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()
            )
        return jax.jit(jax.grad(run))

    alone = {c: values["branches_1"] for c, values in without(made, ARCH).items()}
    expected = gradient(Both())(alone, x)["params"]
    found = gradient(op, weights=SECOND)
    if by_hand:
        gradients = found(made["params"], x)
    else:
        with jax.set_mesh(mesh):
            place = NamedSharding(mesh, PartitionSpec())
            divided = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
            gradients = found(jax.device_put(made["params"], place), divided)
    chex.assert_trees_all_close(gradients["branches_1"], expected, rtol=1e-3, atol=1e-4)
    first = jax.tree.map(jnp.zeros_like, made["params"]["branches_0"])
    chex.assert_trees_all_equal(gradients["branches_0"], first)


def test_vmap_over_cells_and_over_the_operation():
    weights = jnp.stack([FIRST, SECOND, FIRST])
    axes = {"params": 0, "losses": 0}
    cells = nn.vmap(
        Cell, in_axes=(None, 0), variable_axes=axes, split_rngs={"params": True}
    )()
    made = without(cells.init(KEY, X, weights), "losses")
    (found, _), losses = cells.apply(made, X, weights, mutable=["losses"])
    for i, own in enumerate(weights):
        taken = jax.tree.map(lambda leaf, i=i: leaf[i], made)
        (expected, _), sown = Cell().apply(taken, X, own, mutable=["losses"])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], losses), sown, rtol=1e-5
        )


def test_remat_of_the_operation():
    op = nn.remat(MixedOp)([nn.Dense(8), nn.LayerNorm()])
    made = op.init(KEY, X)
    plain = MixedOp([nn.Dense(8), nn.LayerNorm()])

    def loss(variables, module):
        return jnp.sum(module.apply(variables, X, key=KEY) ** 2)

    found, expected = (jax.grad(loss)(made, module) for module in (op, plain))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="`hard` must be True or False"):
        op.apply(made, X, key=KEY, hard=False)
