"""An architecture: the chosen primitive of every edge of a cell."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from gumbax import _checks
from gumbax.search.space import CellSpace


@dataclass(frozen=True)
class Genotype:
    """The chosen primitive of every edge, in the order of `CellSpace.edges`.

    Attributes:
        space: name of the space it belongs to.
        operations: one primitive name for each edge.
    """

    space: str
    operations: tuple[str, ...]

    @classmethod
    def most_probable(cls, arch_logits: jax.Array, space: CellSpace) -> "Genotype":
        """The argmax of each edge, `none` allowed; ties go to the first."""
        return cls.from_indices(jnp.argmax(arch_logits, axis=-1), space)

    @classmethod
    def random(cls, key: jax.Array, space: CellSpace) -> "Genotype":
        """Uniform over all architectures of the space."""
        shape = (space.num_edges,)
        indices = jax.random.randint(key, shape, 0, len(space.primitives))
        return cls.from_indices(indices, space)

    @classmethod
    def from_indices(cls, indices: jax.Array, space: CellSpace) -> "Genotype":
        """From the index of the primitive on each edge."""
        names = tuple(space.primitives[int(i)] for i in indices)
        return cls(space=space.name, operations=names)

    def indices(self, space: CellSpace) -> tuple[int, ...]:
        """Index of the primitive on each edge."""
        self.check(space)
        return tuple(space.primitives.index(name) for name in self.operations)

    def check(self, space: CellSpace) -> None:
        """Raises ValueError if this is not an architecture of the space."""
        foreign = [name for name in self.operations if name not in space.primitives]
        same_size = len(self.operations) == space.num_edges
        if self.space != space.name or foreign or not same_size:
            raise ValueError(
                _checks.message(
                    "Genotype",
                    "operations",
                    f"name {space.num_edges} primitives of the space {space.name!r}",
                    f"{list(self.operations)} of the space {self.space!r}",
                    f"Its primitives: {', '.join(space.primitives)}.",
                )
            )

    def __str__(self) -> str:
        """The form of NAS-Bench-201: |op~source| for each edge, + between nodes."""
        nodes: list[str] = []
        remaining = list(self.operations)
        while remaining:
            count = len(nodes) + 1
            inputs = [f"{name}~{i}" for i, name in enumerate(remaining[:count])]
            nodes.append(f"|{'|'.join(inputs)}|")
            remaining = remaining[count:]
        return "+".join(nodes)

    def to_json(self) -> str:
        fields = {"space": self.space, "operations": list(self.operations)}
        return json.dumps(fields | {"text": str(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: the text is not a genotype.
        """
        try:
            fields = json.loads(text)
            operations = tuple(map(str, fields["operations"]))
            return cls(space=str(fields["space"]), operations=operations)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                _checks.message(
                    "Genotype.from_json",
                    "text",
                    'be JSON with the fields "space" and "operations"',
                    f"{text[:60]!r} ({error})",
                    "Use the genotype.json that a search wrote.",
                )
            ) from error

    @classmethod
    def load(cls, path: Path) -> "Genotype":
        """Reads a genotype file."""
        return cls.from_json(path.read_text(encoding="utf-8"))
