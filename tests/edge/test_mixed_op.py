import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import gumbax
from gumbax import convolution, pooling

K = 4


def tanh_layer(params, x):
    return jnp.tanh(x @ params["kernel"])


def square(params, x):
    del params
    return x * x


def sine(params, x):
    return params * jnp.sin(x)


def shifted_layer(params, x):
    return x @ params["kernel"] + params["shift"]


BRANCHES = [tanh_layer, square, sine, shifted_layer]


@pytest.fixture
def edge(x64):
    """Branch parameters of several structures, one of them with an integer, and x."""
    keys = jax.random.split(jax.random.key(0), 3)
    first, second = jax.random.normal(keys[0], (2, 3, 3), jnp.float64)
    params = [
        {"kernel": first},
        None,
        jnp.array(2.0),
        {"kernel": second, "shift": jnp.int32(2)},
    ]
    return params, jax.random.normal(keys[1], (5, 3), jnp.float64)


def straight_through_weights(logits):
    """Noise that chooses the largest logit, in the stop_gradient form."""
    relaxed = jax.nn.softmax(logits / 0.7)
    one_hot = jax.nn.one_hot(jnp.argmax(logits), K, dtype=logits.dtype)
    return relaxed + jax.lax.stop_gradient(one_hot - relaxed)


def ours(logits, kernel, x, params):
    weights = gumbax.gumbel_softmax(
        None, logits, temperature=0.7, hard=True, gumbels=0.0
    )
    own = [{"kernel": kernel}, *params[1:]]
    return jnp.sum(gumbax.single_path(weights, BRANCHES, own, x) ** 3)


def dense(logits, kernel, x, params):
    """The same loss in the form that JAX differentiates."""
    weights = straight_through_weights(logits)
    pairs = zip(BRANCHES, [{"kernel": kernel}, *params[1:]], strict=True)
    outputs = [branch(own, x) for branch, own in pairs]
    return jnp.sum(sum(w * y for w, y in zip(weights, outputs, strict=True)) ** 3)


@functools.cache
def derivatives_of(loss, orders=(jax.jacrev, jax.jacfwd)):
    """First derivatives by (logits, kernel, x), and second ones in these orders."""
    first = jax.grad(loss, (0, 1, 2))
    seconds = [order(first, (0, 1, 2)) for order in orders]
    return jax.jit(lambda *point: (first(*point), *(f(*point) for f in seconds)))


def dense_derivatives(*point):
    return derivatives_of(dense, (jax.jacrev,))(*point)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("chosen", range(K))
def test_value_is_the_chosen_branch_to_the_last_bit(edge, chosen):
    params, x = edge
    y = gumbax.single_path(jnp.eye(K)[chosen], BRANCHES, params, x)
    expected = jax.jit(BRANCHES[chosen])(params[chosen], x)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("chosen", range(K))
def test_first_derivatives_are_the_dense_straight_through_ones(edge, chosen):
    params, x = edge
    logits = 0.3 * jnp.arange(4.0) + 2.0 * jnp.eye(K)[chosen]
    point = logits, params[0]["kernel"], x, params
    found, expected = derivatives_of(ours)(*point)[0], dense_derivatives(*point)[0]
    assert np.abs(expected[0]).max() > 1e-2
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chosen", [0, 2])
def test_second_derivatives_are_those_of_the_stop_gradient_form(edge, chosen):
    params, x = edge
    logits = 0.3 * jnp.arange(4.0) + 2.0 * jnp.eye(K)[chosen]
    point = logits, params[0]["kernel"], x, params
    _, expected = dense_derivatives(*point)
    for second in derivatives_of(ours)(*point)[1:]:
        chex.assert_trees_all_close(second, expected, rtol=1e-8, atol=1e-10)


def test_mixed_second_derivative_is_not_lost(edge):
    """Exactly 0 if the forward rule has no twin."""
    params, x = edge
    logits = jnp.array([2.0, 0.0, 1.0, 0.5])
    _, second, _ = derivatives_of(ours)(logits, params[0]["kernel"], x, params)
    mixed = second[1][0]  # of the kernel's gradient, by the logits
    assert np.abs(mixed).max() > 1e-2


def test_dense_sum_takes_any_weights(edge):
    params, x = edge
    weights = jnp.array([0.5, -1.0, 2.0, 0.25])
    outputs = [b(p, x) for b, p in zip(BRANCHES, params, strict=True)]
    expected = sum(w * y for w, y in zip(weights, outputs, strict=True))
    y = gumbax.mixed_op(weights, BRANCHES, params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def counted(branch, counts, i):
    def count():
        counts[i] += 1

    def counting(params, x):
        jax.debug.callback(count)
        return branch(params, x)

    return counting


def test_forward_pass_runs_the_chosen_branch_alone(edge):
    params, x = edge
    counts = [0] * K
    branches = [counted(b, counts, i) for i, b in enumerate(BRANCHES)]
    run = jax.jit(lambda w: gumbax.single_path(w, branches, params, x))
    jax.block_until_ready(run(jnp.eye(K)[2]))
    jax.effects_barrier()
    assert counts == [0, 0, 1, 0]


LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolution_branch(kernel, x):
    return convolution.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT
    )


@pytest.fixture
def convolutions():
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(6, 3, 3, 8, 8)).astype(np.float32)
    x = rng.normal(size=(8, 12, 12, 8)).astype(np.float32)
    return [convolution_branch] * 6, tuple(map(jnp.asarray, kernels)), jnp.asarray(x)


def computations(text):
    """Name -> lines of every computation of a compiled program."""
    found = {}
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").split(" ")[0].removeprefix("%")
            found[name] = [line]
        elif found:
            found[name].append(line)
    return found


@pytest.mark.cpu_program
@pytest.mark.usefixtures("optimised")
def test_compiled_forward_pass_has_each_convolution_behind_the_conditional(
    convolutions,
):
    branches, params, x = convolutions
    run = jax.jit(lambda w, params, x: gumbax.single_path(w, branches, params, x))
    text = run.lower(jnp.eye(6)[0], params, x).compile().as_text()
    parts = computations(text)
    (entry,) = [lines for lines in parts.values() if lines[0].startswith("ENTRY")]
    assert sum(" conditional(" in line for line in entry) == 1
    assert not any(" convolution(" in line for line in entry)
    (conditional,) = [line for line in entry if " conditional(" in line]
    targets = re.search(r"branch_computations=\{([^}]*)\}", conditional).group(1)
    assert len(targets.split(",")) == 6
    for target in targets.split(","):
        body = "\n".join(parts[target.strip().removeprefix("%")])
        assert body.count(" convolution(") <= 1
    everywhere = len(re.findall(r" convolution\(", text))
    dense = jax.jit(lambda w, params, x: gumbax.mixed_op(w, branches, params, x))
    dense_text = dense.lower(jnp.eye(6)[0], params, x).compile().as_text()
    assert everywhere == len(re.findall(r" convolution\(", dense_text)) == 6


@pytest.mark.usefixtures("optimised")
def test_temporary_memory_is_at_most_half_of_the_dense_form(convolutions):
    branches, params, x = convolutions

    def temporary(operation):
        def loss(weights, params, x):
            return jnp.sum(operation(weights, branches, params, x) ** 2)

        step = jax.jit(jax.grad(loss, (0, 1, 2)))
        compiled = step.lower(jnp.eye(6)[0], params, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(gumbax.single_path) <= temporary(gumbax.mixed_op) / 2


@pytest.mark.parametrize("operation", [gumbax.single_path, gumbax.mixed_op])
def test_any_pytrees_in_and_out(operation):
    def swap(params, x):
        return {"a": x["b"] * params, "b": x["a"]}

    def keep(params, x):
        del params
        return {"a": x["a"], "b": x["b"]}

    x = {"a": jnp.ones(3), "b": 2 * jnp.ones(3), "index": jnp.int32(4)}
    weights = jnp.array([1.0, 0.0])

    def loss(weights, x):
        y = operation(weights, [swap, keep], [jnp.float32(3), None], x)
        return jnp.sum(y["a"] * y["b"]), y

    gradient, y = jax.grad(loss, has_aux=True)(weights, x)
    np.testing.assert_array_equal(y["a"], 6 * np.ones(3))
    np.testing.assert_allclose(gradient, [36.0, 3 * (1 * 1 + 6 * 2)])


def test_zeros_give_zeros_and_nan_gives_nan():
    branches = [lambda params, x: x / 0, lambda params, x: x]
    x = jnp.ones(3)
    zero = gumbax.single_path(jnp.zeros(2), branches, [None, None], x)
    np.testing.assert_array_equal(zero, np.zeros(3))
    nan = gumbax.single_path(jnp.full(2, jnp.nan), branches, [None, None], x)
    assert np.isnan(nan).all()


def test_jit_scan_remat_and_vmap_equal_eager(edge):
    params, x = edge
    choices = jnp.eye(K, dtype=x.dtype)

    def run(weights, x):
        return gumbax.single_path(weights, BRANCHES, params, x)

    expected = jnp.stack([run(w, x) for w in choices])
    for mapped in (
        jnp.stack([jax.jit(run)(w, x) for w in choices]),
        jax.lax.map(lambda w: run(w, x), choices),
        jax.vmap(run, (0, None))(choices, x),
    ):
        np.testing.assert_allclose(mapped, expected, rtol=1e-12)
    loss = lambda x: jnp.sum(run(choices[0], x) ** 2)  # noqa: E731
    np.testing.assert_allclose(
        jax.grad(jax.checkpoint(loss))(x), jax.grad(loss)(x), rtol=1e-12
    )


def test_equal_edges_share_one_trace():
    branch = chex.assert_max_traces(lambda params, x: params * x, n=3)
    branches = (branch, lambda params, x: x)

    @jax.jit
    def chain(weights, x):
        for scale in range(8):
            x = gumbax.single_path(weights, branches, (jnp.float32(scale), None), x)
        return x

    chain(jnp.array([1.0, 0.0]), jnp.ones(3))


# Errors

OPERATIONS = pytest.mark.parametrize(
    "operation", [gumbax.single_path, gumbax.mixed_op], ids=["single_path", "mixed_op"]
)


def closing_over(operation, c):
    def named(params, x):
        del params
        return x * c

    branches = [lambda params, x: x, named]
    return operation(jnp.array([1.0, 0.0]), branches, [None, None], jnp.ones(3)).sum()


@OPERATIONS
@pytest.mark.parametrize(
    "transformed",
    [
        jax.grad,
        jax.jit,
        lambda f: jax.jit(jax.grad(f)),
        lambda f: lambda c: jax.vmap(f)(c * jnp.ones(3)),
        lambda f: lambda c: jax.lax.map(f, c * jnp.ones(3)),
    ],
    ids=["grad", "jit", "jit of grad", "vmap", "map"],
)
def test_branch_that_closes_over_a_traced_value_is_named(operation, transformed):
    run = transformed(functools.partial(closing_over, operation))
    with pytest.raises(TypeError, match=r"branch 1 \(named\), which closes over"):
        run(2.0)


def scalar_sum(params, x):
    del params
    return x.sum()


def halved(params, x):
    del params
    return x.astype(jnp.bfloat16)


def paired(params, x):
    del params
    return x, x


@OPERATIONS
@pytest.mark.parametrize(
    ("other", "described"),
    [
        (scalar_sum, r"float32\[\] from branch 1 \(scalar_sum\)"),
        (halved, r"bfloat16\[3\] from branch 1 \(halved\)"),
        (paired, r"\('float32\[3\]', 'float32\[3\]'\) from branch 1 \(paired\)"),
    ],
)
def test_branches_that_disagree_are_named_with_both_shapes(operation, other, described):
    message = rf"float32\[3\] from branch 0 \(square\) and {described}"
    with pytest.raises(ValueError, match=message):
        operation(jnp.ones(2), [square, other], [None, None], jnp.ones(3))


@OPERATIONS
@pytest.mark.parametrize(
    ("weights", "branches", "params", "message"),
    [
        (np.ones(3), 2, 2, r"have shape \(2,\).*, one weight for each branch, got"),
        (np.ones((4, 5, 2)), 2, 2, r"got shape \(4, 5, 2\)"),
        (np.ones(2, np.int32), 2, 2, "real floating array"),
        (np.ones(2), 2, 3, "`params` must be a sequence of 2 pytrees"),
        (np.ones(0), 0, 0, "`branches` must hold at least one branch"),
    ],
)
def test_bad_arguments(operation, weights, branches, params, message):
    with pytest.raises((TypeError, ValueError), match=message):
        operation(weights, [square] * branches, [None] * params, jnp.ones(3))


def test_all_pairs_of_branches_can_follow_each_other(edge):
    params, x = edge
    eye = jnp.eye(K, dtype=x.dtype)
    for i, j in itertools.product(range(K), repeat=2):
        first = gumbax.single_path(eye[i], BRANCHES, params, x)
        both = gumbax.single_path(eye[j], BRANCHES, params, first)
        expected = BRANCHES[j](params[j], BRANCHES[i](params[i], x))
        np.testing.assert_allclose(both, expected, rtol=1e-12)


def integer_valued(params, x):
    del params
    return (x > 0).astype(jnp.int32)


@OPERATIONS
def test_outputs_must_be_real(operation):
    message = r"return real floating arrays, got int32\[3\] from branch 1 \(integer_val"
    with pytest.raises(TypeError, match=message):
        operation(jnp.ones(2), [square, integer_valued], [None, None], jnp.ones(3))


def test_single_path_says_what_to_use_for_a_choice_per_example():
    message = r"got shape \(5, 2\).*`mixed_op` weights \[examples, branches\]"
    with pytest.raises(ValueError, match=message):
        gumbax.single_path(np.ones((5, 2)), [square] * 2, [None] * 2, jnp.ones((5, 3)))


# A choice for each example


def test_weights_for_each_example_equal_a_loop(edge):
    params, x = edge
    weights = gumbax.gumbel_softmax(
        jax.random.key(0), jnp.zeros((len(x), K)), hard=True
    ).astype(x.dtype)

    def run(weights, x):
        return gumbax.mixed_op(weights, BRANCHES, params, x)

    def loop(weights, x):
        pairs = zip(weights, x, strict=True)
        return jnp.concatenate([run(w, row[None]) for w, row in pairs])

    assert len(np.unique(weights.argmax(axis=-1))) > 1
    np.testing.assert_allclose(run(weights, x), loop(weights, x), rtol=1e-12)
    gradients = [
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 3), (0, 1))(weights, x)
        for f in (run, loop)
    ]
    chex.assert_trees_all_close(*gradients, rtol=1e-9)


def test_number_of_examples_must_agree(edge):
    params, x = edge
    message = r"return arrays with 3 examples on their first axis.*got float64\[5,3\]"
    with pytest.raises(ValueError, match=message):
        gumbax.mixed_op(jnp.ones((3, K)), BRANCHES, params, x)


# State


def normalise(own, x):
    """Batch norm with running statistics and a counter."""
    scale, state = own
    mean = x.mean(axis=0, keepdims=True)
    new = {"mean": 0.9 * state["mean"] + 0.1 * mean[0], "steps": state["steps"] + 1}
    return scale * (x - mean), new


def stateless(own, x):
    params, state = own
    return params * x, state


STATEFUL = (normalise, stateless, normalise)


@pytest.fixture
def stateful():
    states = [{"mean": jnp.zeros(3), "steps": jnp.int32(i)} for i in (0, 5)]
    params = [(jnp.float32(2), states[0]), (jnp.float32(3), None)]
    return STATEFUL, [*params, (jnp.float32(0.5), states[1])]


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True, allow_int=True)
def stateful_step(one_hot, params, x):
    y, states = gumbax.single_path(one_hot, STATEFUL, params, x, has_state=True)
    return jnp.sum(y**2), states


@pytest.mark.parametrize("chosen", range(3))
def test_state_is_new_for_the_chosen_branch_alone(stateful, chosen):
    branches, params = stateful
    x = jax.random.normal(jax.random.key(0), (8, 3))
    expected, state = branches[chosen](params[chosen], x)
    (value, states), gradients = stateful_step(jnp.eye(3)[chosen], params, x)
    np.testing.assert_allclose(value, jnp.sum(expected**2), rtol=1e-5)
    for i, own in enumerate(states):
        after = state if i == chosen else params[i][1]
        chex.assert_trees_all_close(own, after, rtol=1e-6)
    credits = [
        2 * jnp.vdot(expected, b(p, x)[0])
        for b, p in zip(branches, params, strict=True)
    ]
    np.testing.assert_allclose(gradients[0], credits, rtol=1e-4, atol=1e-4)
    for scale, state in gradients[1]:
        assert state is None or not state["mean"].any()
        del scale
    assert gradients[1][chosen][0] != 0


def test_dense_form_returns_all_new_states(stateful):
    branches, params = stateful
    x = jax.random.normal(jax.random.key(0), (8, 3))
    weights = jnp.array([0.2, 0.3, 0.5])
    y, states = gumbax.mixed_op(weights, branches, params, x, has_state=True)
    pairs = zip(branches, params, strict=True)
    outputs, expected = zip(*(b(p, x) for b, p in pairs), strict=True)
    np.testing.assert_allclose(y, jnp.tensordot(weights, jnp.stack(outputs), 1), 1e-5)
    chex.assert_trees_all_close(states, expected, rtol=1e-6)


def test_second_derivatives_with_state(stateful):
    branches, params = stateful
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def loss(x, form):
        y, _ = form(jnp.eye(3)[0], branches, params, x, has_state=True)
        return jnp.sum(y**3)

    hessians = [
        jax.jit(jax.jacrev(jax.grad(lambda x, form=form: loss(x, form))))(x)
        for form in (gumbax.single_path, gumbax.mixed_op)
    ]
    np.testing.assert_allclose(*hessians, rtol=1e-4, atol=1e-4)


def sows(own, x):
    """Leaves in its state a loss of its own, and the steps."""
    scale, state = own
    loss = state["loss"] * 0.9 + jnp.sum((scale * x) ** 3)
    return jnp.sin(scale * x), {"loss": loss, "steps": state["steps"] + 1}


def by_the_chosen(one_hot, branches, params, x, *, has_state):
    """The single path by hand: the state of a branch moves by its weight."""
    del has_state
    runs = [branch(own, x) for branch, own in zip(branches, params, strict=True)]
    outputs, after = zip(*runs, strict=True)
    y = jnp.tensordot(one_hot, jnp.stack(outputs), 1)
    befores = [state for _, state in params]

    def moved(weight, old, new):
        if jnp.issubdtype(new.dtype, jnp.floating):
            return old + weight * (new - old)
        return jnp.where(weight == 0, old, new)

    return y, tuple(
        jax.tree.map(functools.partial(moved, w), *pair)
        for w, pair in zip(one_hot, zip(befores, after, strict=True), strict=True)
    )


@functools.cache
def derivatives_of_states(form):
    """First derivatives, and second ones along a direction, of the states' losses."""

    def loss(moving, reads_output):
        one_hot, scales, losses, x = moving
        own = [
            (scale, {"loss": loss, "steps": jnp.int32(i)})
            for i, (scale, loss) in enumerate(zip(scales, losses, strict=True))
        ]
        y, states = form(one_hot, [sows, sows, sows], own, x, has_state=True)
        kept = [i * state["loss"] ** 2 for i, state in enumerate(states, 1)]
        return sum(kept) + reads_output * jnp.sum(y**2)

    def derivatives(moving, direction, reads_output):
        first = jax.grad(functools.partial(loss, reads_output=reads_output))
        return jax.jvp(first, (moving,), (direction,))

    return jax.jit(derivatives, static_argnums=2)


@pytest.mark.parametrize("chosen", range(3))
@pytest.mark.parametrize("reads_output", [True, False])
def test_states_have_gradients(chosen, reads_output):
    """As losses that branches sow must: the new one, and those that are kept."""
    x = jax.random.normal(jax.random.key(0), (4, 3))
    moving = jnp.eye(3)[chosen], [0.5, 1.5, 0.8], [0.1, 1.1, 2.1], x
    direction = jax.tree.map(lambda a: 1.0 + jnp.sin(a), moving)
    found, expected = (
        derivatives_of_states(form)(moving, direction, reads_output)
        for form in (gumbax.single_path, by_the_chosen)
    )
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected[0][:1]))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


def test_dense_states_have_gradients():
    x = jnp.arange(3.0)

    def loss(scale):
        own = [(scale, {"loss": jnp.float32(1), "steps": 0})] * 2
        weights = jnp.array([0.3, 0.7])
        _, states = gumbax.mixed_op(weights, [sows] * 2, own, x, has_state=True)
        return sum(state["loss"] for state in states)

    expected = 2 * 3 * 2**2 * (x**3).sum()
    np.testing.assert_allclose(jax.grad(loss)(2.0), expected, rtol=1e-5)


@OPERATIONS
def test_state_that_is_only_looked_at_adds_nothing_to_the_gradient(operation):
    """Its own gradient, here that of log(0), may be infinite."""

    def looked_at(own, x):
        scale, _ = own
        return scale * x, jnp.log(scale * x)

    def loss(scale, one_hot):
        own = [(scale, jnp.full(3, -jnp.inf))] * 2
        y, states = operation(
            one_hot, [looked_at] * 2, own, jnp.zeros(3), has_state=True
        )
        return jnp.sum(y + 1), states

    gradients, _ = jax.grad(loss, (0, 1), has_aux=True)(2.0, jnp.array([1.0, 0.0]))
    chex.assert_tree_all_finite(gradients)


@OPERATIONS
@pytest.mark.parametrize(
    ("branch", "own", "message"),
    [
        (stateless, None, "hold a pair .params, state. for each branch.*got None"),
        (
            square,
            (1.0, None),
            r"return a pair \(output, new state\).*float32\[3\]",
        ),
        (
            lambda own, x: (x, own[1].astype(jnp.bfloat16)),
            (1.0, np.ones(2, np.float32)),
            r"keep the structure.*got float32\[2\] before and bfloat16\[2\] after",
        ),
    ],
)
def test_bad_state(operation, branch, own, message):
    with pytest.raises(ValueError, match=message):
        operation(jnp.ones(1), [branch], [own], jnp.ones(3), has_state=True)


def pair(params, x):
    del params
    return Pair(x, 2 * x)


class Pair:
    """A pytree that prints its address."""

    def __init__(self, first, second):
        self.parts = first, second


jax.tree_util.register_pytree_node(
    Pair, lambda pair: (pair.parts, None), lambda _, parts: Pair(*parts)
)


@OPERATIONS
def test_trees_are_compared_by_structure_not_by_text(operation):
    x = jnp.ones(3)
    y = operation(jnp.array([1.0, 0.0]), [pair, pair], [None, None], x)
    np.testing.assert_array_equal(y.parts[1], 2 * x)

    def stepped(own, x):
        return x, Pair(own[1].parts[0] + 1, own[1].parts[1])

    own = [(None, Pair(x, x))] * 2
    _, states = operation(jnp.array([1.0, 0.0]), [stepped] * 2, own, x, has_state=True)
    np.testing.assert_array_equal(states[0].parts[0], 2 * x)


def test_states_of_several_dtypes_share_the_credits(x64):
    """The credits of branches whose states differ in dtype are of one type."""
    x = jnp.ones(3, jnp.float32)
    narrow, wide = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float64)

    def branch(own, x):
        params, state = own
        return params * x, state + params.astype(state.dtype)

    own = [(jnp.float32(2), wide), (jnp.float32(3), narrow)]

    def loss(one_hot):
        y, states = gumbax.single_path(one_hot, [branch] * 2, own, x, has_state=True)
        return jnp.sum(y) + states[0]

    gradient = jax.grad(loss)(jnp.array([1.0, 0.0], jnp.float32))
    np.testing.assert_allclose(gradient, [6 + 2, 9])


def test_no_state_is_new_if_every_branch_is_masked(stateful):
    branches, params = stateful
    x = jax.random.normal(jax.random.key(0), (8, 3))
    y, states = gumbax.single_path(jnp.zeros(3), branches, params, x, has_state=True)
    np.testing.assert_array_equal(y, np.zeros_like(x))
    chex.assert_trees_all_equal(states, tuple(state for _, state in params))


@pytest.mark.exhaustive
def test_gradient_of_the_weights_is_summed_in_float32():
    """In bfloat16 a sum of so many terms stops growing at a fraction of its value."""
    x = jax.random.normal(jax.random.key(0), (256, 1024), jnp.bfloat16)
    branches = [
        lambda params, x: x * x,
        lambda params, x: x + 3,
        lambda params, x: x**2 + jnp.sin(x),
    ]

    def gradient(operation, x):
        def loss(weights):
            y = operation(weights, branches, [None] * 3, x)
            return jnp.mean(y.astype(jnp.float32))

        return jax.jit(jax.grad(loss))(jnp.eye(3)[1])

    expected = gradient(gumbax.mixed_op, x.astype(jnp.float32))
    assert np.abs(expected).min() > 0.5
    dense = gradient(gumbax.mixed_op, x)
    np.testing.assert_allclose(dense, expected, rtol=1e-2)
    np.testing.assert_allclose(gradient(gumbax.single_path, x), dense, rtol=1e-5)


# Branches with rules of their own


def two_layers(kernels, x):
    return convolution_branch(kernels[1], jnp.tanh(convolution_branch(kernels[0], x)))


def pooled(kernels, x):
    return pooling.max_pool(x, (3, 3), padding="SAME") * jnp.mean(kernels)


def nested(kernels, x):
    inner = [lambda p, x: p * jnp.sin(x), lambda p, x: x * x]
    choice = jnp.array([1.0, 0.0], x.dtype)
    return gumbax.single_path(choice, inner, [kernels[0].sum(), None], x)


@pytest.mark.parametrize(
    "branch", [lambda k, x: convolution_branch(k[0], x), two_layers, pooled, nested]
)
def test_forward_over_reverse_takes_branches_with_reverse_rules(branch, x64):
    keys = jax.random.split(jax.random.key(0), 3)
    kernels = jax.random.normal(keys[0], (2, 3, 3, 2, 2), jnp.float64)
    x = jax.random.normal(keys[1], (2, 5, 5, 2), jnp.float64)
    point = jnp.array([1.0, 0.0]), kernels, x
    direction = jnp.array([0.3, -0.7]), jnp.cos(kernels), jnp.sin(x)

    def hessian_vector(operation):
        def loss(weights, kernels, x):
            branches = [branch, lambda p, x: p * x**2]
            y = operation(weights, branches, [kernels, jnp.float64(2)], x)
            return jnp.sum(y**3)

        gradient = jax.grad(loss, (0, 1, 2))
        return jax.jit(lambda *a: jax.jvp(gradient, a, direction)[1])(*point)

    found, expected = map(hessian_vector, (gumbax.single_path, gumbax.mixed_op))
    chex.assert_trees_all_close(found, expected, rtol=1e-8, atol=1e-9)


# Divided over devices by hand


def in_shards(function, out_specs):
    """The function of (weights, params, x), with an eighth of x on each device."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=auto)
    specs = PartitionSpec(), PartitionSpec(), PartitionSpec("batch")
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs)
    )


@pytest.fixture
def divided_edge(edge):
    params, x = edge
    params = [params[0], None, params[2], {"kernel": params[3]["kernel"], "shift": 2.0}]
    return params, jnp.concatenate([x, x[:3] + 0.5])


def derivatives(record, *, roll=None, operation=gumbax.single_path):
    """First derivatives, and second ones in both orders, of a sum over all devices."""

    def loss(weights, params, x):
        if roll is not None:
            weights = jnp.roll(weights, roll())
        y = operation(weights, BRANCHES, params, x, **record)
        return jnp.sum(y**3)

    def total(axes):
        def summed(*operands):
            return jax.lax.psum(loss(*operands), axes) if axes else loss(*operands)

        return jax.grad(summed, (0, 1, 2))

    def first(axes):
        return total(axes)

    def forward(axes):
        dot = 1 + jnp.arange(4.0)
        return lambda w, p, x: jax.jvp(lambda w: total(axes)(w, p, x), (w,), (dot,))[1]

    def reverse(axes):
        def squares(*operands):
            shared = total(axes)(*operands)[:2]
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(shared))

        return jax.grad(squares, (0, 1, 2))

    return first, forward, reverse


ORDERS = [
    pytest.param(0, id="gradient"),
    pytest.param(1, id="forward over reverse"),
    pytest.param(
        2,
        id="reverse over reverse",
        marks=pytest.mark.skipif(
            jax.__version_info__ < (0, 9),
            reason="the second transposition of a stack fails in JAX 0.8",
        ),
    ),
]
RECORDS_AND_ORDERS = [
    pytest.param(
        name,
        *order.values,
        id=f"{name}, {order.id}",
        marks=(
            *order.marks,
            *([pytest.mark.exhaustive] if name != "exact" else []),
        ),
    )
    for name in ("exact", "sampled", "gdas", "subset")
    for order in ORDERS
]
SPECS = PartitionSpec(), PartitionSpec(), PartitionSpec("batch")


@pytest.mark.eight_devices
@pytest.mark.parametrize(("name", "order"), RECORDS_AND_ORDERS)
def test_derivatives_under_shard_map_are_those_of_one_device(divided_edge, name, order):
    params, x = divided_edge
    record = gumbax.subset(2) if name == "subset" else getattr(gumbax, name)
    make = derivatives({"logit_gradient": record, "key": jax.random.key(0)})[order]
    on_one, divided = jax.jit(make(None)), in_shards(make("batch"), SPECS)
    for chosen in (0, 1):
        point = jnp.eye(K)[chosen], params, x
        expected, found = on_one(*point), divided(*point)
        assert np.abs(expected[0]).max() > 1e-2
        chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.eight_devices
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.exhaustive
def test_devices_may_choose_for_themselves_under_shard_map(divided_edge, order):
    """The sum over devices of shared parameters stays outside the switch."""
    params, x = divided_edge
    found, expected = (
        in_shards(
            derivatives(
                {}, roll=lambda: jax.lax.axis_index("batch"), operation=operation
            )[order]("batch"),
            SPECS,
        )(jnp.eye(K)[0], params, x)
        for operation in (gumbax.single_path, gumbax.mixed_op)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-9)
