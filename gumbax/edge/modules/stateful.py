"""Modules as the branches of an edge, with the variables that they change."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import jax
from jax.tree_util import tree_flatten_with_path

from gumbax._common import checks
from gumbax.edge.branches import Branch
from gumbax.edge.modules.changes import (
    Changes,
    KeyPath,
    PyTree,
    check_arrays,
    path_name,
    remembered,
    trace,
    types,
)
from gumbax.edge.modules.mixed import Choice


@dataclasses.dataclass(frozen=True)
class Module:
    """A module as a branch.

    Attributes:
        name: in messages.
        call: (variables, own, inputs) -> (output, variables afterwards). Equal calls
            share a trace.
        is_stateful: whether a call may change variables.
        variables: those that may change, a pytree.
        own: other operands of this branch alone, pytrees.
        place: path in `variables` -> what modules have in common that share what is
            there.
        put: keeps the variables afterwards.
    """

    name: str
    call: Callable[..., tuple[PyTree, PyTree]]
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
    call = module.call

    def run(variables: PyTree, operands: PyTree) -> PyTree:
        return call(variables, *operands)[1]

    operands = (module.own, inputs)
    key = label, call, types((module.variables, operands))
    return remembered(
        key,
        lambda: trace("MixedOp", label, run, module.variables, operands),
    )


def _branch(module: Module, changes: Changes | None) -> Branch:
    """A function: equal calls give the same one, and share traces."""
    name, call = module.name, module.call

    def make() -> Branch:
        def branch(params: PyTree, inputs: PyTree) -> tuple[PyTree, list[jax.Array]]:
            (variables, own), _ = params
            output, after = call(variables, own, inputs)
            return output, changes.select(after) if changes else []

        branch.__name__ = name
        return branch

    return remembered((name, call, changes), make)


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
