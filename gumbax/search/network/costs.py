"""What every operation of a network costs, and so every architecture of a space."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gumbax._common import checks
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.network.counting import Cost, program
from gumbax.search.spaces.edges import PLAIN, Context, MakeModule, Pair
from gumbax.search.spaces.layers import Layers
from gumbax.search.spaces.space import Choice, Space
from gumbax.search.store import folder

PyTree = Any
Shapes = tuple[tuple[int, ...], ...]
COSTS = "costs.json"


class OperationCost(NamedTuple):
    """What one operation costs at one place of the network.

    Attributes:
        primitive: its name.
        inputs: shapes of its input, of one example; a single one but for trees.
        outputs: those of its output. Both together tell the stride.
        cost: of one example.
        uses: edges of the network where it can stand so.
    """

    primitive: str
    inputs: Shapes
    outputs: Shapes
    cost: float
    uses: int


class GenotypeCost(NamedTuple):
    """What an architecture costs.

    Attributes:
        total: of the whole network.
        fixed: of what is not chosen: stem, reductions between cells, head.
        primitives: of the kept operations, by the name of their primitive.
    """

    total: float
    fixed: float
    primitives: dict[str, float]


@dataclass(frozen=True, eq=False)
class CostTable:
    """The cost of every operation that a space can keep, all cells together.

    Attributes:
        name: of the cost: "weights", "multiply_adds", "latency" or your own.
        space: name of the space.
        fixed: cost of what is not chosen: stem, preprocessing, reductions, head.
        choices: those of the space.
        costs: choice -> float64 [E, K], each entry the sum over the cells that have the
            edge.
        operations: what single operations cost; the sums are made of these.
    """

    name: str
    space: str
    fixed: float
    choices: Mapping[str, Choice]
    costs: Mapping[str, np.ndarray]
    operations: tuple[OperationCost, ...] = field(default=(), repr=False)

    def of(self, genotype: Genotype) -> GenotypeCost:
        """The cost of an architecture, exact for whole numbers.

        Numbers are added in one order, the fixed part first, then edge by edge in the
        order of the space: equal architectures cost the same to the last bit.

        Raises:
            ValueError: the genotype is of another space.
        """
        space: Any = SimpleNamespace(name=self.space, choices=self.choices)
        genotype.check(space)
        total = float(self.fixed)
        primitives: dict[str, float] = {}
        for name, choice in self.choices.items():
            kept = [
                (choice.edges.index(edge[1:]), edge[0]) for edge in genotype.cells[name]
            ]
            for row, primitive in sorted(kept):
                cost = float(self.costs[name][row, choice.primitives.index(primitive)])
                total += cost
                primitives[primitive] = primitives.get(primitive, 0.0) + cost
        return GenotypeCost(total, float(self.fixed), primitives)

    def expected(self, weights: Mapping[str, jax.Array]) -> jax.Array:
        """Fixed cost + sum over the edges of <weights, costs>, float32.

        With the one-hot rows of a draw it is the cost of the network drawn, every edge
        of the space counted; with probabilities its expectation, as edges are drawn
        independently.

        Args:
            weights: choice -> [E, K].

        Returns:
            Scalar, differentiable in the weights.
        """
        total = jnp.asarray(self.fixed, jnp.float32)
        for name, costs in self.costs.items():
            total += jnp.sum(weights[name] * jnp.asarray(costs, jnp.float32))
        return total


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
    once for all places that are alike; `none` costs nothing.

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
        >>> from gumbax.search.network import multiply_adds
        >>> from gumbax.search.spaces import nasbench201
        >>> costs = {"multiply_adds": multiply_adds}
        >>> table = cost_tables(nasbench201(), (32, 32, 3), 10, costs)["multiply_adds"]
        >>> text = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
        >>> found = table.of(Genotype.from_nasbench201(text))
        >>> int(found.total), int(found.primitives["nor_conv_1x1"])
        (11715370, 3932160)

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


# Files


def write(out: Path, tables: Mapping[str, CostTable]) -> None:
    """Writes the costs that a run knows, `costs.json` in its folder, whole or not.

    Args:
        out: the folder.
        tables: name of a cost -> its table, all of one space.
    """
    (first, *_) = tables.values()
    content = {
        "space": first.space,
        "choices": {name: one.to_json() for name, one in first.choices.items()},
        "costs": {
            name: {
                "fixed": _short(table.fixed),
                "edges": {
                    choice: [[_short(cost) for cost in row] for row in rows.tolist()]
                    for choice, rows in table.costs.items()
                },
                "operations": [
                    one._replace(cost=_short(one.cost))._asdict()
                    for one in table.operations
                ],
            }
            for name, table in tables.items()
        },
    }
    folder.write(out / COSTS, json.dumps(content, indent=1) + "\n")


def read(out: Path) -> dict[str, CostTable]:
    """The costs that a run knows, name -> table; none where there is no file.

    Args:
        out: folder of a run.

    Raises:
        ValueError: the file cannot be read.
    """
    path = out / COSTS
    if not path.exists():
        return {}
    try:
        content = folder.read_json(path)
        choices = {
            name: Choice.from_json(found) for name, found in content["choices"].items()
        }
        return {
            name: _table(name, str(content["space"]), choices, found)
            for name, found in content["costs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            checks.message(
                "costs.read",
                COSTS,
                "hold the costs that a search wrote",
                f"{path}, which cannot be read ({error})",
                "Restore the file.",
            )
        ) from error


def _table(
    name: str, space: str, choices: Mapping[str, Choice], found: Mapping[str, Any]
) -> CostTable:
    costs = {n: np.asarray(found["edges"][n], np.float64) for n in choices}
    for n, choice in choices.items():
        if costs[n].shape != choice.shape or not np.isfinite(costs[n]).all():
            raise ValueError(f"costs of {name!r} for {n!r} that do not fit")
    operations = [
        OperationCost(
            str(one["primitive"]),
            tuple(map(tuple, one["inputs"])),
            tuple(map(tuple, one["outputs"])),
            float(one["cost"]),
            int(one["uses"]),
        )
        for one in found["operations"]
    ]
    return CostTable(
        name, space, float(found["fixed"]), choices, costs, tuple(operations)
    )


def _short(number: float) -> float | int:
    """Whole numbers without a fraction."""
    return int(number) if number == int(number) else number
