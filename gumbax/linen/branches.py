"""Linen modules as the branches of an edge: functions of their variables."""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from flax import linen as nn
from flax.core import DenyList
from flax.errors import ModifyScopeVariableError
from flax.linen import module as linen_module

from gumbax._common import checks
from gumbax.edge.modules.arguments import Frame
from gumbax.edge.modules.changes import KeyPath
from gumbax.edge.modules.stateful import Module

PyTree = Any
Path = tuple[str, ...]
# Collection -> variables, by the names of modules and their own.
Variables = dict[str, Any]


class Function(nn.Module):
    """A function as a module, to which the modules belong that it makes."""

    function: Callable[..., Any]

    @nn.compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def name(module: nn.Module) -> str:
    """Name of a branch in messages."""
    if isinstance(module, Function):
        return getattr(module.function, "__name__", type(module.function).__name__)
    return type(module).__name__


@dataclasses.dataclass(frozen=True)
class Standalone:
    """A bound module apart from its parents.

    Modules in its fields may belong to a parent: those made inside a `compact` method
    do. Their variables are put where this module, alone, looks for them.

    Attributes:
        bound: the module.
        module: the same, unbound.
        variables: what `module.apply` takes.
        elsewhere: places in `variables`, and the bound modules to which they belong.
    """

    bound: nn.Module
    module: nn.Module
    variables: Variables
    elsewhere: tuple[tuple[Path, nn.Module], ...]

    @classmethod
    def of(cls, bound: nn.Module) -> "Standalone":
        module, given = bound.unbind()
        variables = _copied(given)
        elsewhere = []
        if any(_is_elsewhere(bound, inner) for inner in _nested(bound)):
            for inner, copy in _pairs(bound, module.bind(given)):
                if _is_elsewhere(bound, inner):
                    elsewhere.append((copy.path, inner))
                    for collection, own in inner.variables.items():
                        top = variables.setdefault(collection, {})
                        _subtree(top, copy.path).update(_copied(own))
        return cls(bound, module, variables, tuple(elsewhere))

    def place(self, path: KeyPath) -> Hashable:
        """Where the variable at a path in `variables` is, for everybody."""
        collection, *rest = (getattr(key, "key", key) for key in path)
        for start, module in self._owners():
            if tuple(rest[: len(start)]) == start:
                return collection, *module.path, *rest[len(start) :]
        raise AssertionError("the last owner is that of everything")

    def _owners(self) -> list[tuple[Path, nn.Module]]:
        """Starts of paths and the modules there, the innermost first."""
        inner_first = sorted(self.elsewhere, key=lambda pair: -len(pair[0]))
        return [*inner_first, ((), self.bound)]

    def put(self, variables: Variables) -> None:
        """Gives variables to the modules to which they belong."""
        variables = _copied(variables)
        for path, module in self._owners():
            for collection, top in variables.items():
                own = _subtree(top, path)
                for key in list(own):
                    value = own.pop(key)
                    if not (isinstance(value, dict) and not value):
                        module.put_variable(collection, key, value)


def _copied(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {key: _copied(value) for key, value in tree.items()}


def _subtree(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for key in path:
        tree = tree.setdefault(key, {})
    return tree


def _is_elsewhere(bound: nn.Module, inner: nn.Module) -> bool:
    return inner.scope is not None and inner.path[: len(bound.path)] != bound.path


def check_parents(module: nn.Module) -> None:
    """Refuses modules that are bound by a parent which is there no more."""
    for inner in _nested(module):
        if inner.scope is not None and inner.parent is None:
            raise ValueError(
                checks.message(
                    "MixedOp.derive",
                    "branches",
                    "belong to a module that is there",
                    f"{name(inner)} of a module that was deleted",
                    "Keep the parent: `bound = parent.bind(variables)`, then "
                    "`bound.op.derive()`.",
                )
            )


def _nested(module: nn.Module) -> Iterator[nn.Module]:
    for inner in _in_fields(module):
        yield inner
        yield from _nested(inner)


def _pairs(module: nn.Module, copy: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The modules nested in one, and those in the same places of its bound copy."""
    # A bound module gives names to its fields when it is asked for what it has not.
    getattr(copy, "_", None)
    for inner, other in zip(_in_fields(module), _in_fields(copy), strict=True):
        yield inner, other
        yield from _pairs(inner, other)


def _in_fields(module: nn.Module) -> list[nn.Module]:
    names = [field.name for field in dataclasses.fields(module)]
    values = [getattr(module, n) for n in names if n not in ("parent", "name")]
    return list(_modules(values))


def _modules(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        parts = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _modules(part)


@dataclasses.dataclass(frozen=True)
class Call:
    """How a branch is called. Static: equal calls share a trace.

    Attributes:
        module: unbound.
        taken: the keywords of the call that it takes.
        frame: the arguments of the call.
        own_frame: keywords for this branch alone.
        mutable: collections that may change, as `mutable` returns them.
        capture: `capture_intermediates` of `nn.Module.apply`.
    """

    module: nn.Module
    taken: tuple[str, ...]
    frame: Frame
    own_frame: Frame
    mutable: tuple[bool, tuple[str, ...]]
    capture: Any

    @property
    def functions(self) -> tuple[Any, ...]:
        """The branch, if it is a function."""
        return (self.module.function,) if isinstance(self.module, Function) else ()

    def with_functions(self, functions: Sequence[Any]) -> "Call":
        """The same call with another in its place."""
        if not functions:
            return self
        module = self.module.copy(function=functions[0])
        return dataclasses.replace(self, module=module)

    def __call__(
        self, changing: Variables, own: tuple[Variables, list[Any]], inputs: Any
    ) -> tuple[PyTree, Variables]:
        """Output, and what is then in the mutable collections."""
        fixed, own_arrays = own
        x, arrays, keys = inputs
        args, every = self.frame.filled(arrays)
        kwargs = {key: every[key] for key in self.taken}
        kwargs.update(self.own_frame.filled(own_arrays)[1])
        all_but, names = self.mutable
        try:
            found = self.module.apply(
                {**fixed, **changing},
                rngs=keys,
                # Not as keywords of `apply`, which has some of the same names.
                method=lambda module: module(x, *args, **kwargs),
                mutable=DenyList(list(names)) if all_but else list(names) or False,
                capture_intermediates=self.capture,
            )
        except ModifyScopeVariableError as error:
            raise ValueError(
                checks.message(
                    "MixedOp",
                    "branches",
                    "change variables in mutable collections alone",
                    f"{name(self.module)}: {error}",
                    'Name the collection in `apply`, as `mutable=["batch_stats"]`.',
                )
            ) from error
        if not self.is_stateful:
            return found, {}
        return found[0], _copied(found[1])

    @property
    def is_stateful(self) -> bool:
        """Whether anything may change."""
        all_but, names = self.mutable
        return all_but or bool(names) or bool(self.capture)

    def divided(self, variables: Variables) -> tuple[Variables, Variables]:
        """The variables in fixed collections, and those in the mutable ones."""
        all_but, names = self.mutable

        def changes(collection: str) -> bool:
            if collection == "intermediates" and self.capture:
                return True
            return (collection in names) != all_but

        return (
            {c: v for c, v in variables.items() if not changes(c)},
            {c: v for c, v in variables.items() if changes(c)},
        )


def branch(alone: Standalone, call: Call, own_arrays: list[Any]) -> Module:
    """A bound module as a branch."""
    fixed, changing = call.divided(alone.variables)
    return Module(
        name(call.module),
        call,
        call.is_stateful,
        changing,
        (fixed, own_arrays),
        alone.place,
        alone.put,
    )


def mutable(module: nn.Module, *fixed: str) -> tuple[bool, tuple[str, ...]]:
    """Collections that may change: True with all others, or False with the names.

    Args:
        module: bound.
        *fixed: collections that do not change in any case.
    """
    assert module.scope is not None
    all_but, names = _normal(module.scope.mutable)
    names = names | set(fixed) if all_but else names - set(fixed)
    return all_but, tuple(sorted(names))


def _normal(collections: Any) -> tuple[bool, frozenset[str]]:
    if isinstance(collections, DenyList):
        all_but, names = _normal(collections.deny)
        return not all_but, names
    if isinstance(collections, bool):
        return collections, frozenset()
    if isinstance(collections, str):
        return False, frozenset({collections})
    return False, frozenset(collections)


def capture() -> Any:
    """`capture_intermediates` of the running `apply`, which Flax tells nobody."""
    stack = linen_module._context.capture_stack
    return stack[-1] if stack else False
