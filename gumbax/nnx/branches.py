"""NNX modules as the branches of an edge: functions of their variables."""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.tree_util import GetAttrKey

from gumbax._common import checks
from gumbax.edge.modules.arguments import Frame
from gumbax.edge.modules.changes import KeyPath
from gumbax.edge.modules.stateful import Module

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class ByValue:
    """A graph definition whose static attributes have no hash, as lists and dicts.

    It is a copy, which later changes of the attributes do not reach.
    """

    graphdef: Any

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByValue):
            return False
        try:
            return bool(self.graphdef == other.graphdef)
        except ValueError:
            # Arrays of NumPy have no truth value.
            return False


def split(module: Any) -> tuple[Hashable, PyTree]:
    """What of a module or function is static, and its variables."""
    if not isinstance(module, nnx.Module):
        return module, {}
    graphdef, state = nnx.split(module)
    try:
        hash(graphdef)
    except TypeError:
        kept: dict[int, Any] = {}
        _keep_parts(graphdef, kept)
        return ByValue(copy.deepcopy(graphdef, kept)), state
    return graphdef, state


def _keep_parts(value: Any, kept: dict[int, Any]) -> None:
    """Notes what is not to be copied with it: all that has a hash."""
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("flax."):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for part in value:
            _keep_parts(part, kept)
        return
    with contextlib.suppress(TypeError):
        hash(value)
        kept[id(value)] = value


def merge(static: Hashable, state: PyTree) -> Callable[..., Any]:
    """Undoes `split`."""
    if isinstance(static, ByValue):
        static = static.graphdef
    if isinstance(static, nnx.GraphDef):
        # The variables of the module are new ones, not those of the state.
        return nnx.merge(static, jax.tree.map(lambda leaf: leaf, state))
    function: Any = static
    return function


def name(module: Any) -> str:
    """Name of a branch in messages."""
    if isinstance(module, nnx.Module):
        return type(module).__name__
    return getattr(module, "__name__", type(module).__name__)


@dataclasses.dataclass(frozen=True)
class Call:
    """How a branch is called. Static: equal calls share a trace.

    Attributes:
        static: the module without variables.
        taken: the keywords of the call that it takes.
        frame: the arguments of the call.
        own_frame: keywords for this branch alone.
    """

    static: Hashable
    taken: tuple[str, ...]
    frame: Frame
    own_frame: Frame

    @property
    def functions(self) -> tuple[Any, ...]:
        """The branch, if it is a function."""
        return () if isinstance(self.static, nnx.GraphDef | ByValue) else (self.static,)

    def with_functions(self, functions: Sequence[Any]) -> "Call":
        """The same call with another in its place."""
        return dataclasses.replace(self, static=functions[0]) if functions else self

    def __call__(
        self, variables: PyTree, own_arrays: list[Any], inputs: Any
    ) -> tuple[PyTree, PyTree]:
        """Output, and the variables afterwards."""
        x, arrays = inputs
        args, every = self.frame.filled(arrays)
        kwargs = {key: every[key] for key in self.taken}
        kwargs.update(self.own_frame.filled(own_arrays)[1])
        module = merge(self.static, variables)
        output = module(x, *args, **kwargs)
        return output, split(module)[1]


def branch(module: Any, call: Call, variables: PyTree, own_arrays: list[Any]) -> Module:
    """A module or function as a branch."""
    owner = Owner(module)
    is_stateful = isinstance(module, nnx.Module)
    return Module(
        name(module), call, is_stateful, variables, own_arrays, owner.place, owner.put
    )


@dataclasses.dataclass(frozen=True)
class Owner:
    """A module, to find and to set its variables by their paths."""

    module: Any

    def place(self, path: KeyPath) -> Hashable:
        """What two modules have in common that share the variable at this path."""
        at = variable_path(path)
        owner = self._owner(at)
        variable = _get(owner, at[-1])
        inside = path[len(at) :]
        if isinstance(variable, nnx.Variable):
            return id(variable), inside
        return id(owner), at[-1], inside

    def put(self, variables: PyTree) -> None:
        """Keeps the variables afterwards."""
        before, after = (
            {path for path, _ in nnx.to_flat_state(state)}
            for state in (nnx.state(self.module), variables)
        )
        nnx.update(self.module, variables)
        for path in before - after:
            owner: Any = self._owner(path)
            last: Any = path[-1]
            if _by_item(owner, last):
                del owner[last]
            else:
                delattr(owner, last)

    def _owner(self, path: tuple[Any, ...]) -> Any:
        owner = self.module
        for part in path[:-1]:
            owner = _get(owner, part)
            if owner is None:
                raise ValueError(
                    checks.message(
                        "MixedOp",
                        "branches",
                        "make their modules before the call",
                        f"{'.'.join(map(str, path))}, made in a call of "
                        + name(self.module),
                        "Make it in `__init__`.",
                    )
                )
        return owner


def variable_path(path: KeyPath) -> tuple[Any, ...]:
    """Path of the variable in which a leaf of a state is."""
    to_variable = itertools.takewhile(lambda k: not isinstance(k, GetAttrKey), path)
    return tuple(key.key for key in to_variable)


def _get(owner: Any, name: Any) -> Any:
    """The part of a module of this name, or None."""
    if not _by_item(owner, name):
        return getattr(owner, name, None)
    try:
        return owner[name]
    except (KeyError, IndexError):
        return None


def _by_item(owner: Any, name: Any) -> bool:
    return isinstance(owner, dict) or not isinstance(name, str)


def given(tree: PyTree) -> PyTree:
    """Arguments for the branches, with random streams of their own in place of ours.

    A branch has a copy of each argument: what it draws from one is not seen outside.
    """

    def one(value: Any) -> Any:
        if isinstance(value, nnx.Rngs | nnx.RngStream):
            return value.fork()
        if isinstance(value, nnx.Module):
            raise TypeError(
                checks.message(
                    "MixedOp",
                    "args",
                    "hold arrays and Python values",
                    f"a module, {type(value).__name__}",
                    "Make it a part of the branches that use it.",
                )
            )
        return value

    return jax.tree.map(
        one,
        tree,
        is_leaf=lambda v: isinstance(v, nnx.Module | nnx.Rngs | nnx.RngStream),
    )
