"""One run in one folder: search, derivation, report; whatever stops it, it resumes."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gumbax.search.command import comparisons, start
from gumbax.search.command.known_costs import keep_costs, known_costs
from gumbax.search.command.options import Options
from gumbax.search.command.progress import Progress, Silent
from gumbax.search.data import datasets
from gumbax.search.data.dataset import Dataset
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.genotype.genotype import constant_architectures as all_constant
from gumbax.search.loops.diagnostics import probabilities, stable_hash
from gumbax.search.loops.fit import fit
from gumbax.search.loops.search import Search, SearchState
from gumbax.search.loops.training import TrainingOptions
from gumbax.search.methods.budgets import bounds
from gumbax.search.methods.derive_rules import Rule
from gumbax.search.methods.penalties import add_linear
from gumbax.search.network.costs import CostTable
from gumbax.search.network.derivation import derive
from gumbax.search.network.supernet import Network
from gumbax.search.report import costing, gap, page, pictures, plots, run_folder
from gumbax.search.report.comparison import REPORT
from gumbax.search.report.costing import Trained
from gumbax.search.store import folder, lines, records
from gumbax.search.store.checkpoint import Checkpoints
from gumbax.search.store.errors import SearchError, search_error

OnEpoch = Callable[[SearchState, dict[str, float]], None]
SECONDS_PER_CHECKPOINT = 5.0
CHECKPOINTS = "checkpoints"


def load_data(options: Options) -> Dataset:
    """The data set of a run."""
    return datasets.load(
        options.dataset,
        label=options.label,
        limit=options.limit,
        sequences=options.space == "sequences",
    )


def make_search(
    out: Path,
    options: Options,
    dataset: Dataset,
    *,
    started: bool,
    rule: Rule | None = None,
) -> tuple[Search, dict[str, CostTable]]:
    """The search of a run, and what is known of costs; nothing is written.

    Args:
        out: folder of the run.
        options: of the run.
        dataset: its data.
        started: the run has been searching with this cost, see `known_costs`.
        rule: derive by this one and not by the method's own.

    Raises:
        SearchError: the space does not fit the data, a cost is not known, or the budget
            is below the cheapest architecture.
    """
    space, method = options.make_space(dataset), options.make_method(dataset)
    tables = known_costs(
        out,
        space,
        dataset.train.inputs.shape[1:],
        dataset.num_classes,
        asked=options.cost,
        started=started,
    )
    cost = None if options.cost is None else tables[options.cost]
    penalty = None
    if cost is not None and options.cost_weight:
        costliest = cost.of(bounds(space, cost)[1]).total
        # Where nothing costs anything, whatever the unit.
        penalty = add_linear(weight=options.cost_weight, reference=costliest or 1.0)
    search = Search(
        space,
        method if rule is None else replace(method, derive=rule),
        dataset.train,
        num_classes=dataset.num_classes,
        num_epochs=options.search_epochs(dataset),
        batch_size=options.batch_size,
        seed=options.seed,
        augmentation=options.augmentation(cutout=False),
        cost=cost,
        penalty=penalty,
        budget=options.budget,
    )
    return search, tables


def run(out: Path, options: Options, progress: Progress | None = None) -> str:
    """Searches, derives, retrains and reports, from wherever the folder stands.

    Args:
        out: folder that `start.settle` has looked into.
        options: what it returned.
        progress: where to show how far it is.

    Returns:
        The gap report as text. The folder holds run.json and what `run_search` writes.

    Raises:
        SearchError: the data or a checkpoint cannot be used, or the loss is not finite.
    """
    dataset = load_data(options)
    started = (out / CHECKPOINTS).exists()
    search, tables = make_search(out, options, dataset, started=started)
    with folder.alone(out):
        start.record(out, options, data=dataset.fingerprint())
        return _run(
            out,
            search,
            dataset,
            tables,
            training=options.training(dataset),
            random_architectures=options.random_architectures,
            constant_architectures=options.constant_architectures,
            options=asdict(options),
            run_id=options.run_id,
            progress=progress or Silent(),
        )


def run_search(
    out: Path,
    search: Search,
    dataset: Dataset,
    *,
    training: TrainingOptions,
    random_architectures: int = 5,
    constant_architectures: bool | None = None,
    options: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch = lambda state, row: None,
) -> str:
    """Runs a search of your own making in a folder; called again, it resumes.

    Args:
        out: folder, made if it is not there.
        search: any space, method, data and seed.
        dataset: what the search was made with; its test set is seen after the search.
        training: of the derived architecture and of the random ones.
        random_architectures: how many to compare with.
        constant_architectures: whether to compare with one operation everywhere, for
            each operation but `none`; if None, where there are random ones.
        options: for the report; method, seed and name of the data set if None.
        run_id: checkpoints of another one are refused. If None, by the data, seed and
            lengths, and by the names, choices and hyper-parameters of space and method:
            give your own where functions behind a name have changed.
        progress: where to show how far it is: `gumbax.search.command.RichProgress`.
        on_epoch: called after every epoch of the search with the state and its metrics.

    Returns:
        The gap report as text. The folder holds metrics.jsonl, choices.jsonl,
        checkpoints, genotype.json, trainings.jsonl, report.json, report.txt, the
        pictures of `draw`, and report.html, which is written after every epoch.

    Raises:
        SearchError: a checkpoint cannot be used, the loss is not finite, or another
            process runs in the folder.
    """
    out = Path(out)
    method, seed = search.method, search.seed
    if options is None:
        options = {"method": method.name, "seed": seed, "dataset": dataset.name}
    shape, num_classes = dataset.train.inputs.shape[1:], dataset.num_classes
    tables = known_costs(out, search.space, shape, num_classes)
    if search.cost is not None:
        tables[search.cost.name] = search.cost
    with folder.alone(out):
        return _run(
            out,
            search,
            dataset,
            tables,
            training=training,
            random_architectures=random_architectures,
            constant_architectures=constant_architectures,
            options=options,
            run_id=_run_id(search, dataset) if run_id is None else run_id,
            progress=progress or Silent(),
            on_epoch=on_epoch,
        )


def _run(
    out: Path,
    search: Search,
    dataset: Dataset,
    tables: Mapping[str, CostTable],
    *,
    training: TrainingOptions,
    random_architectures: int,
    constant_architectures: bool | None,
    options: Mapping[str, Any],
    run_id: str,
    progress: Progress,
    on_epoch: OnEpoch = lambda state, row: None,
) -> str:
    """`run_search`, in a folder where no other process runs."""
    method, seed = search.method, search.seed
    run_folder.write_space(out, search.space, options)
    keep_costs(out, tables)
    state = _search(out, search, run_id, progress, on_epoch)
    genotype = search.genotype(state.arch)
    folder.write(out / run_folder.GENOTYPE, genotype.to_json())
    progress.say(plots.genotype_text(genotype, search.space))

    supernet = search.supernet(state)
    derived = derive(supernet, genotype)
    if not gap.agrees(supernet, derived, genotype, dataset.test.inputs):
        raise SearchError(
            "The derived network does not predict what the supernet does for these "
            "choices: this is a fault of gumbax, please report it."
        )
    draw_key, calibration_key, random_key = _keys(seed)
    temperature = search.temperature(search.num_steps)
    rows = gap.evaluate_supernet(
        supernet, genotype, dataset.test, temperature, draw_key, soft=method.soft
    )
    rows += gap.evaluate_derived(derived, dataset.train, dataset.test, calibration_key)
    others = comparisons.others(search, genotype, random_architectures, random_key)
    if constant_architectures is None:
        constant_architectures = random_architectures > 0
    constants = all_constant(search.space) if constant_architectures else {}
    named = comparisons.named(genotype, others, constants)
    results = comparisons.trainings(out, search, named, dataset, training, progress)
    rows += comparisons.rows(results)
    trained = [
        Trained(name, results[name], {n: t.of(one).total for n, t in tables.items()})
        for name, one in named.items()
    ]
    equal = (
        f"{dataset.name}, {search.space.name} "
        f"({search.space.num_architectures:,} architectures), "
        f"{search.num_epochs} epochs of search, {training.num_epochs} of training; "
        f"accuracy on {dataset.test.size:,} test examples"
    )
    title = f"Gap report: method {method.name}, seed {seed}; {equal}"
    text = gap.format_table(rows, title) + costing.format_costs(trained)
    content = {
        "options": dict(options),
        "space": search.space.name,
        "genotype": str(genotype),
        "title": title,
        "equal": equal,
        "rows": gap.to_json(rows),
        "architectures": [asdict(one) for one in trained],
    }
    folder.write(out / REPORT, json.dumps(content, indent=2) + "\n")
    folder.write(out / "report.txt", text)
    pictures.draw(out, search.space)
    page.write_page([out], out / page.PAGE)
    return text


def _run_id(search: Search, dataset: Dataset) -> str:
    space, method = search.space, search.method
    of_space = (space.name, dict(space.choices))
    of_method = (method.name, method.weights, method.arch, method.init, method.warmup)
    lengths = (search.num_epochs, search.batch_size, search.augmentation)
    of_cost: tuple[Any, ...] = ()
    if search.penalty is not None or search.budget is not None:
        of_cost = (search.penalty, search.budget, *_numbers(search.cost))
    facts = (of_space, of_method, lengths, search.seed, dataset.fingerprint(), *of_cost)
    text = repr(facts)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _numbers(cost: CostTable | None) -> tuple[Any, ...]:
    assert cost is not None
    return cost.fixed, {name: rows.tolist() for name, rows in cost.costs.items()}


def _keys(seed: int) -> jax.Array:
    """Of the draws, the calibration and the random architectures of a report."""
    own = jax.random.fold_in(jax.random.key(seed), stable_hash("report"))
    return jax.random.split(own, 3)


def _search(
    out: Path, search: Search, run_id: str, progress: Progress, then: OnEpoch
) -> SearchState:
    """Runs or resumes the search; returns its last state."""
    checkpoints = Checkpoints(out / CHECKPOINTS, run_id)
    state = search.init()
    first = 0
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore(state)
        if restored is not None:
            first, state = restored
            progress.say(f"resumed from epoch {first}")
        paths = (out / records.METRICS, out / records.CHOICES)
        # What was written after the checkpoint is done again.
        rows = records.keep_until(out, first)
        seconds = rows[-1].get("seconds", 0.0) if rows else 0.0
        began = saved = time.perf_counter()
        with (
            paths[0].open("a", encoding="utf-8") as metrics_file,
            paths[1].open("a", encoding="utf-8") as choices_file,
            progress.phase(f"search ({search.method.name})", search.num_epochs) as show,
        ):
            if first:
                show(first)

            def on_epoch(state: SearchState, row: dict[str, float]) -> None:
                nonlocal saved
                now = time.perf_counter()
                epoch = int(row["epoch"])
                chosen = {
                    name: np.round(np.asarray(p, np.float64), 6).tolist()
                    for name, p in probabilities(state.arch).items()
                }
                row = row | {"seconds": round(seconds + now - began, 3)}
                lines.append(metrics_file, row)
                lines.append(choices_file, {"epoch": epoch, "probabilities": chosen})
                last = epoch == search.num_epochs
                if last or now - saved >= SECONDS_PER_CHECKPOINT:
                    checkpoints.save(epoch, state)
                    saved = now
                shown = ("loss", "accuracy", "argmax_accuracy", "temperature")
                show(epoch, **{name: row[name] for name in shown})
                page.write_page([out], out / page.PAGE, running=True)
                then(state, row)

            return fit(search, state, on_epoch)


def derive_again(
    out: Path,
    rule: Rule | None = None,
    *,
    cost: str | None = None,
    budget: float | None = None,
) -> tuple[Search, Genotype, Network]:
    """Derives from the last checkpoint of a run.

    Args:
        out: folder of the run.
        rule: a rule of `gumbax.search.methods`; the method's own if None.
        cost: of the budget; that of the run if None.
        budget: largest cost; that of the run if None.

    Returns:
        The search, the genotype, and the network with the weights of the search, which
        predicts one example alone as it does in a batch.

    Raises:
        SearchError: the folder has no run or no checkpoint, the data have changed, or
            the budget cannot be met.
    """
    options, _ = start.read(out)
    if cost is not None and budget is None:  # that of the run is in its own units
        must, cure = "be given with --cost", "Pass both, or neither."
        raise search_error("--budget", must, "none", cure)
    asked = options
    if budget is not None:
        asked = replace(options, cost=cost or options.cost, budget=budget)
    asked.check()
    dataset = load_data(options)
    folder.check_data(out, dataset.fingerprint())
    started = asked.cost == options.cost
    search, tables = make_search(out, asked, dataset, started=started, rule=rule)
    checkpoints = Checkpoints(out / CHECKPOINTS, options.run_id)
    with contextlib.closing(checkpoints):
        restored = checkpoints.restore(search.init())
    if restored is None:
        raise search_error(
            "run",
            "have a checkpoint",
            f"none in {out / CHECKPOINTS}",
            "Search first: `gumbax search --resume --out` and the folder.",
        )
    keep_costs(out, tables)
    _, state = restored
    try:
        genotype = search.genotype(state.arch)
        network = derive(search.supernet(state), genotype)
    except ValueError as error:
        cure = "Use another rule."
        raise search_error("--rule", "fit the space", str(error), cure) from error
    calibration_key = _keys(options.seed)[1]
    return search, genotype, gap.calibrate(network, dataset.train, calibration_key)
