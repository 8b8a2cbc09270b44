"""The costs of a run: read from its folder, or counted and measured once."""

from collections.abc import Mapping
from pathlib import Path

from gumbax.search.command.options import COSTS, COUNTED
from gumbax.search.network import costs
from gumbax.search.network.costs import CostTable
from gumbax.search.network.pricing import cost_tables
from gumbax.search.spaces.space import Space
from gumbax.search.store.errors import search_error


def known_costs(
    out: Path,
    space: Space,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    asked: str | None = None,
    started: bool = False,
) -> dict[str, CostTable]:
    """What a run knows of costs. Nothing is written.

    Args:
        out: folder of the run, which need not be there.
        space: its space.
        input_shape: of one example.
        num_classes: outputs.
        asked: name of a cost that it needs.
        started: the run has been searching: a latency is not measured again, since it
            would be another one.

    Returns:
        Name -> table: of what is in the folder, of weights and multiply-adds where
        they can be counted, and of the one that is asked for.

    Raises:
        SearchError: the file cannot be read or is of another space, the cost that is
            asked for is not known of a primitive, or its table is gone.
    """
    cure = f"Restore {out / costs.COSTS}; nothing was changed."
    try:
        found = costs.read(out)
    except ValueError as error:
        raise search_error(costs.COSTS, "be readable", str(error), cure) from error
    for table in found.values():
        if (table.space, table.choices) != (space.name, dict(space.choices)):
            must = f"be of the choices of {space.name!r}"
            raise search_error(costs.COSTS, must, f"those of {table.space!r}", cure)
    if asked is not None and asked not in (*found, *COUNTED) and started:
        must = f"find the {asked} that this run was begun with"
        raise search_error("--cost", must, "none", cure)
    missing = dict.fromkeys([*COUNTED, *([asked] if asked else [])])
    for name in missing:
        if name in found:
            continue
        one = {name: COSTS[name]}
        try:
            found |= cost_tables(space, input_shape, num_classes, one)
        # A TypeError where a space of one's own asks for values while it is traced.
        except (ValueError, TypeError) as error:
            if name == asked:
                must, cure = "be known of every primitive", "Pass another --cost."
                raise search_error("--cost", must, str(error), cure) from error
    return found


def keep_costs(out: Path, tables: Mapping[str, CostTable]) -> None:
    """Writes what the folder of a run does not hold yet."""
    if tables.keys() - costs.read(out).keys():
        costs.write(out, tables)
