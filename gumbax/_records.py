"""Frozen records that are pytrees."""

from typing import TypeVar, dataclass_transform

import chex

Record = TypeVar("Record")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls: type[Record]) -> type[Record]:
    """A frozen dataclass whose fields are the children of a pytree."""
    return chex.dataclass(cls, frozen=True)
