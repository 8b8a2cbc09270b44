"""Tables of costs, made from the network itself, for any space and any primitives."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gumbax._common import checks
from gumbax.search.network.costs import CostTable, OperationCost, Shapes
from gumbax.search.network.counting import Cost, program
from gumbax.search.spaces.edges import PLAIN, Context, MakeModule, Pair
from gumbax.search.spaces.layers import Layers
from gumbax.search.spaces.space import Choice, Space

PyTree = Any


def cost_tables(
    space: Space,
    input_shape: Sequence[int],
    num_classes: int,
    costs: Mapping[str, Cost],
) -> dict[str, CostTable]:
    """Makes the tables of one or more costs, for any space and any primitives.

    The network is the one that is trained from scratch (`new_network`): its
    normalisation has a scale and a bias, its pools have none. It is built abstractly,
    and every operation is given to the cost functions with the shape that reaches it,
    once for all places that are alike; `none` costs nothing. An edge that a network of
    one's own calls several times is paid as often, its weights too.

    Args:
        space: the space, as wide and deep as the network that is meant.
        input_shape: of one example, [H, W, C] or [D].
        num_classes: outputs.
        costs: name -> (primitive, module, x) -> number, 0 or more: `weights`,
            `multiply_adds`, a `Latency`, or your own of any facts of the module and of
            the shape of x, a batch of one example. What is not chosen is asked for as
            one module, with None for the primitive.

    Returns:
        Name -> table.

    Raises:
        ValueError: a function knows no cost of a primitive, or gives one that is not a
            number, 0 or more.

    Example:
        >>> from gumbax.search.genotype import Genotype
        >>> from gumbax.search.network import multiply_adds
        >>> from gumbax.search.spaces import nasbench201
        >>> costs = {"multiply_adds": multiply_adds}
        >>> table = cost_tables(nasbench201(), (32, 32, 3), 10, costs)["multiply_adds"]
        >>> text = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
        >>> found = table.of(Genotype.from_nasbench201(text))
        >>> int(found.total), int(found.primitives["nor_conv_1x1"])
        (11715210, 3932160)

    References:
        Cai, Zhu, Han, 2019 (ProxylessNAS), Sec. 3.3; Wu et al., 2019 (FBNet), Sec. 3.2:
        tables of operators. https://arxiv.org/abs/1812.03443
    """
    groups = _Groups(space.choices)
    network = nnx.eval_shape(
        lambda: space.build(
            groups.make_edges,
            tuple(input_shape),
            num_classes,
            layers=Layers(norm=space.norm, affine=True, pool_norm=False),
            rngs=nnx.Rngs(0),
        )
    )
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    run, *variables = program(network)
    jax.eval_shape(run, *variables, x)
    calls = list(groups.calls)
    places = _Places(groups, costs)
    tables: dict[str, dict[str, np.ndarray]] = {
        cost: {name: np.zeros(choice.shape) for name, choice in space.choices.items()}
        for cost in costs
    }
    for number, inputs in calls:
        choice, rows, _ = groups.made[number]
        for column, primitive in enumerate(space.choices[choice].primitives):
            if primitive == "none":
                continue
            place = places.find(number, primitive, inputs)
            place.uses += len(rows)
            for cost, found in place.costs.items():
                tables[cost][choice][list(rows), column] += found
    return {
        cost: CostTable(
            name=cost,
            space=space.name,
            fixed=_asked(cost, function, None, network, x),
            choices=space.choices,
            costs=tables[cost],
            operations=places.operations(cost),
        )
        for cost, function in costs.items()
    }


@dataclass
class _Place:
    """An operation at an input of one shape."""

    primitive: str
    inputs: Shapes
    outputs: Shapes
    costs: dict[str, float]
    uses: int = 0


class _Places:
    """Costs of operations, asked for once for all that are alike."""

    def __init__(self, groups: "_Groups", costs: Mapping[str, Cost]):
        self._groups = groups
        self._costs = costs
        self._by_make: dict[Any, _Place] = {}
        self._by_module: dict[Any, _Place] = {}

    def find(self, number: int, primitive: str, inputs: PyTree) -> _Place:
        # To make a module takes most of the time: cells of one stage share `make`.
        make = self._groups.made[number][2]
        key = make, primitive, _fingerprint(inputs)
        if key not in self._by_make:
            module = _abstract(make, primitive)
            alike = primitive, _fingerprint(module), _fingerprint(inputs)
            if alike not in self._by_module:
                self._by_module[alike] = self._new(primitive, module, inputs)
            self._by_make[key] = self._by_module[alike]
        return self._by_make[key]

    def _new(self, primitive: str, module: nnx.Module, inputs: PyTree) -> _Place:
        run, *variables = program(module)
        outputs = jax.eval_shape(run, *variables, inputs)
        costs = {
            name: _asked(name, cost, primitive, module, inputs)
            for name, cost in self._costs.items()
        }
        return _Place(primitive, _shapes(inputs), _shapes(outputs), costs)

    def operations(self, cost: str) -> tuple[OperationCost, ...]:
        return tuple(
            OperationCost(p.primitive, p.inputs, p.outputs, p.costs[cost], p.uses)
            for p in self._by_module.values()
        )


def _asked(
    name: str, cost: Cost, primitive: str | None, module: nnx.Module, x: PyTree
) -> float:
    """The cost that a function gives, if it is one."""
    what = "the part that is not chosen" if primitive is None else repr(primitive)
    cure = "Give one: a cost is any function (primitive, module, x) -> number."
    must = f"know a number, 0 or more, for {what} at inputs of {_shapes(x)}"
    argument = f"costs[{name!r}]"
    try:
        found = cost(primitive, module, x)
    except KeyError as error:
        raise ValueError(
            checks.message("cost_tables", argument, must, f"KeyError({error})", cure)
        ) from error
    if not (isinstance(found, int | float | np.number) and 0 <= found < math.inf):
        raise ValueError(
            checks.message("cost_tables", argument, must, repr(found), cure)
        )
    return float(found)


def _abstract(make: MakeModule, primitive: str) -> nnx.Module:
    return nnx.eval_shape(lambda: make(primitive, nnx.Rngs(0)))


def _fingerprint(tree: PyTree) -> Any:
    """Equal for modules that are alike but for the values of their variables."""
    if isinstance(tree, nnx.Module):
        graphdef, state = nnx.split(tree)
        return graphdef, _fingerprint(state)
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _shapes(x: PyTree) -> Shapes:
    return tuple(tuple(leaf.shape[1:]) for leaf in jax.tree.leaves(x))


class _Groups:
    """Makes a network without its operations, and keeps what reaches each edge.

    Attributes:
        made: of each group of edges its choice, the rows of its logits, and how its
            operations are made.
        calls: number of a group and shapes of its input, in the order of the calls.
    """

    def __init__(self, choices: Mapping[str, Choice]):
        self.made: list[tuple[str, tuple[int, ...], MakeModule]] = []
        self.calls: list[tuple[int, PyTree]] = []
        self._choices = choices

    def make_edges(
        self,
        choice: str,
        rows: Sequence[int],
        pairs: Sequence[Pair],
        make: MakeModule,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        """Edges that have no operations."""
        del rngs
        self.made.append((choice, tuple(rows), make))
        return _LeftOut(self, len(self.made) - 1, tuple(pairs))

    def outputs(self, number: int, x: PyTree) -> PyTree:
        """Shapes of the output of a group's operations, which are equal for all."""
        choice, _, make = self.made[number]
        run, *variables = program(_abstract(make, self._choices[choice].primitives[0]))
        return jax.eval_shape(run, *variables, x)


class _LeftOut(nnx.Module):
    """Edges without operations, in place of `Candidates`.

    An edge gives the mean of its input, so that nothing before it is unused.
    """

    def __init__(self, groups: _Groups, number: int, pairs: Sequence[Pair]):
        self.groups = groups
        self.number = number
        self.pairs = pairs

    def __call__(
        self,
        nodes: Sequence[jax.Array],
        context: Context = PLAIN,
        *,
        inputs: Sequence[jax.Array] | None = None,
    ) -> list[jax.Array]:
        nodes = list(nodes)
        for i, (source, target) in enumerate(self.pairs):
            x = (nodes if inputs is None else inputs)[source]
            if not i:
                self.groups.calls.append((self.number, _structure(x)))
            nodes[target] = nodes[target] + jnp.mean(x)
        return nodes

    def only(self, x: PyTree, context: Context = PLAIN) -> PyTree:
        shapes = _structure(x)
        self.groups.calls.append((self.number, shapes))
        mean = jnp.stack([jnp.mean(leaf) for leaf in jax.tree.leaves(x)]).sum()
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(mean, leaf.shape).astype(leaf.dtype),
            self.groups.outputs(self.number, shapes),
        )


def _structure(x: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
