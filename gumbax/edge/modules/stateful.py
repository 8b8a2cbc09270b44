"""Modules as the branches of an edge, with the variables that they change."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path

from gumbax._common import checks, lifetimes
from gumbax.edge.branches import Branch
from gumbax.edge.modules.changes import (
    Changes,
    KeyPath,
    PyTree,
    check_arrays,
    path_name,
    trace,
    types,
)
from gumbax.edge.modules.mixed import Choice


class Call(Protocol):
    """How a branch is called. Equal calls share a trace.

    Attributes:
        functions: those in it, with which what is remembered of it dies.
    """

    @property
    def functions(self) -> tuple[Any, ...]: ...

    def with_functions(self, functions: Sequence[Any]) -> Self:
        """The same call with others in their places."""

    def __call__(
        self, variables: PyTree, own: Any, inputs: Any, /
    ) -> tuple[PyTree, PyTree]:
        """Output, and the variables afterwards."""


_memory = lifetimes.Memory()


def _remembered(call: Call, key: Hashable, make: Callable[[Call], Any]) -> Any:
    """`make(call)`, once for each key; each time for a key that has no hash."""
    functions = call.functions
    without = call.with_functions((None,) * len(functions))
    # The width of numbers that a trace makes is not in the types of its operands.
    key = jnp.result_type(float), without, key
    return _memory.once(functions, key, lambda own: make(call.with_functions(own)))


@dataclasses.dataclass(frozen=True)
class Module:
    """A module as a branch.

    Attributes:
        name: in messages.
        call: (variables, own, inputs) -> (output, variables afterwards).
        is_stateful: whether a call may change variables.
        variables: those that may change, a pytree.
        own: other operands of this branch alone, pytrees.
        place: path in `variables` -> what modules have in common that share what is
            there.
        put: keeps the variables afterwards.
    """

    name: str
    call: Call
    is_stateful: bool
    variables: PyTree
    own: Sequence[PyTree]
    place: Callable[[KeyPath], Hashable]
    put: Callable[[PyTree], None]


def apply(choice: Choice, modules: Sequence[Module], inputs: PyTree) -> PyTree:
    """Output of the choice; what the branches change, make and delete is kept."""
    branches, params, found = [], [], []
    for number, module in enumerate(modules):
        label = f"{number} ({module.name})"
        for part in (module.variables, *module.own):
            check_arrays("MixedOp", label, part)
        before = jax.tree.leaves(module.variables)
        changes = _changes_of(label, module, inputs) if module.is_stateful else None
        if changes and choice.is_conditional:
            changes.check_conditional("MixedOp", label, before)
        found.append((before, changes))
        branches.append(_branch(module, changes))
        unrun = changes.unrun(before) if changes else []
        params.append(((module.variables, module.own), unrun))
    _check_shared(modules, [changes for _, changes in found])
    output, states = choice.operation(
        choice.weights, branches, params, inputs, has_state=True
    )
    for module, (before, changes), new in zip(modules, found, states, strict=True):
        if changes:
            module.put(changes.after(before, new))
    return output


def _changes_of(label: str, module: Module, inputs: PyTree) -> Changes:
    operands = (module.own, inputs)

    def make(call: Call) -> Changes:
        def run(variables: PyTree, operands: PyTree) -> PyTree:
            return call(variables, *operands)[1]

        return trace("MixedOp", label, run, module.variables, operands)

    key = label, types((module.variables, operands))
    return _remembered(module.call, key, make)


def _branch(module: Module, changes: Changes | None) -> Branch:
    """A function: equal calls give the same one, and share traces."""
    name = module.name

    def make(call: Call) -> Branch:
        def branch(params: PyTree, inputs: PyTree) -> tuple[PyTree, list[jax.Array]]:
            (variables, own), _ = params
            output, after = call(variables, own, inputs)
            return output, changes.select(after) if changes else []

        branch.__name__ = name
        return branch

    return _remembered(module.call, (name, changes), make)


def _check_shared(modules: Sequence[Module], changes: Sequence[Changes | None]) -> None:
    """Refuses a variable that one module changes and another has too."""
    if not any(changes):
        return
    owner: dict[Hashable, int] = {}
    for number, (module, own) in enumerate(zip(modules, changes, strict=True)):
        paths = [path for path, _ in tree_flatten_with_path(module.variables)[0]]
        written = own.paths if own else ()
        for path in [*paths, *written]:
            first = owner.setdefault(module.place(path), number)
            if first != number and path in written:
                raise ValueError(
                    checks.message(
                        "MixedOp",
                        "branches",
                        "own the variables that they change",
                        f"{path_name(path)} of branch {number}, which is "
                        f"part of branch {first} too",
                        "Give each module a variable or random stream of its own.",
                    )
                )
