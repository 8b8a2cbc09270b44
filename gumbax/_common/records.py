"""Frozen records that are pytrees."""

import dataclasses
from typing import TypeVar, dataclass_transform

import jax

Record = TypeVar("Record")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls: type[Record]) -> type[Record]:
    """A frozen dataclass whose fields are the children of a pytree."""
    record: type = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    # Checkpoints hold the leaves in this order.
    names = sorted(field.name for field in dataclasses.fields(record))
    return jax.tree_util.register_dataclass(record, names, [])
