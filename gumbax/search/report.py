"""The gap report: what was trained in the search against what is kept."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gumbax import mixed_op, single_path
from gumbax._relaxation import gumbel_softmax
from gumbax.search.data import Dataset, Examples
from gumbax.search.genotype import Genotype
from gumbax.search.network import Supernet
from gumbax.search.space import CellSpace
from gumbax.search.training import accuracy, train_from_scratch

NUM_DRAWS = 20


@dataclass(frozen=True)
class Row:
    """One line of the report; accuracies in percent of the test set.

    Attributes:
        name: what was measured.
        mean: test accuracy.
        std: sample standard deviation, None for a single value.
        count: number of values.
    """

    name: str
    mean: float
    std: float | None
    count: int


@dataclass(frozen=True)
class SupernetAccuracies:
    """Test accuracies of the searched network, in percent."""

    soft: float
    straight_through: tuple[float, ...]
    argmax: float


@nnx.jit(static_argnames="operation")
def predict(
    supernet: Supernet, images: jax.Array, weights: jax.Array, *, operation
) -> jax.Array:
    """Predicted classes of a supernet with these weights on its edges."""
    return supernet(images, weights, operation).argmax(axis=-1)


def evaluate_supernet(
    supernet: Supernet, test: Examples, key: jax.Array
) -> SupernetAccuracies:
    """Measures one network in the three ways of using its logits.

    Args:
        supernet: the searched network.
        test: the test set.
        key: of the 20 draws of the straight-through network.

    Returns:
        Accuracy of the weighted sum of all operations (softmax of the logits), of each
        drawn network, and of the most probable one.
    """
    logits = supernet.arch_logits[...]

    def measure(weights: jax.Array, operation) -> float:
        predictions = predict(supernet, test.images, weights, operation=operation)
        return accuracy(predictions, test.labels)

    draws = [
        gumbel_softmax(one, logits, hard=True)
        for one in jax.random.split(key, NUM_DRAWS)
    ]
    most_probable = gumbel_softmax(None, logits, hard=True, gumbels=0.0)
    return SupernetAccuracies(
        soft=measure(jax.nn.softmax(logits), mixed_op),
        straight_through=tuple(measure(draw, single_path) for draw in draws),
        argmax=measure(most_probable, single_path),
    )


def random_genotypes(
    space: CellSpace, count: int, key: jax.Array
) -> tuple[Genotype, ...]:
    """The architectures to compare with."""
    return tuple(Genotype.random(one, space) for one in jax.random.split(key, count))


def train_all(
    space: CellSpace,
    genotypes: Mapping[str, Genotype],
    dataset: Dataset,
    *,
    num_steps: int,
    seed: int,
    record: Path,
    on_progress: Callable[[str, int], None] = lambda name, step: None,
) -> dict[str, float]:
    """Trains networks from scratch and equally, each once.

    Args:
        space: the space of the genotypes.
        genotypes: name -> architecture.
        dataset: trained on all of its training set.
        num_steps: length of each training.
        seed: of the first training; each further one takes the next number.
        record: JSON-lines file of finished trainings. What it holds is not done again.
        on_progress: called with the name and the number of steps done.

    Returns:
        name -> test accuracy in percent.
    """
    done = {row["name"]: row for row in read_lines(record)}
    results = {}
    for i, (name, genotype) in enumerate(genotypes.items()):
        if name in done and done[name]["operations"] == list(genotype.operations):
            results[name] = done[name]["test_accuracy"]
            on_progress(name, num_steps)
            continue
        trained = train_from_scratch(
            space,
            genotype,
            dataset.train,
            dataset.test,
            num_steps=num_steps,
            seed=seed + i,
            on_progress=functools.partial(on_progress, name),
        )
        results[name] = trained.test_accuracy
        row = {
            "name": name,
            "operations": list(genotype.operations),
            "test_accuracy": trained.test_accuracy,
        }
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return results


def read_lines(path: Path) -> list[dict]:
    """Rows of a JSON-lines file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def make_rows(
    searched: SupernetAccuracies, retrained: float, others: Sequence[float]
) -> tuple[Row, ...]:
    """The lines of the gap report."""

    def several(name: str, values: Sequence[float]) -> Row:
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return Row(name=name, mean=float(np.mean(values)), std=std, count=len(values))

    rows = [
        Row(name="soft network", mean=searched.soft, std=None, count=1),
        several("straight-through network", searched.straight_through),
        Row(name="argmax, inherited weights", mean=searched.argmax, std=None, count=1),
        Row(name="derived, retrained", mean=retrained, std=None, count=1),
    ]
    if others:
        rows.append(several("random architectures", others))
    return tuple(rows)


def format_table(rows: Sequence[Row], title: str) -> str:
    """The report as text."""
    notes = {
        "soft network": "softmax-weighted sum of all operations",
        "straight-through network": "networks drawn from the logits",
        "argmax, inherited weights": "most probable network, weights of the search",
        "derived, retrained": "the same network, trained from scratch",
        "random architectures": "same space, trained equally",
    }
    lines = [title, ""]
    for row in rows:
        spread = "" if row.std is None else f" ± {row.std:.2f}"
        number = f"{row.mean:6.2f} %{spread}"
        count = f" ({row.count})" if row.count > 1 else ""
        lines.append(f"  {row.name:<26}{number:<18}{notes[row.name]}{count}")
    by_name = {row.name: row.mean for row in rows}
    kept = by_name["argmax, inherited weights"]
    lines += ["", "  discretisation gap (as searched minus argmax, in points)"]
    for name in ("soft network", "straight-through network"):
        lines.append(f"  {name:<26}{by_name[name] - kept:+6.2f}")
    return "\n".join(lines) + "\n"


def check_derived(
    supernet: Supernet, derived: nnx.Module, genotype: Genotype, images: jax.Array
) -> bool:
    """Whether the derived network predicts what the supernet's argmax does."""
    weights = jax.nn.one_hot(
        jnp.asarray(genotype.indices(supernet.space)), len(supernet.space.primitives)
    )
    expected = predict(supernet, images, weights, operation=single_path)
    found = nnx.jit(lambda network, x: network(x).argmax(axis=-1))(derived, images)
    return bool(jnp.array_equal(expected, found))
