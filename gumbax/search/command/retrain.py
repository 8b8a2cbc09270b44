"""Training of one architecture in a folder, resumed from its checkpoints."""

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from gumbax.search.command import start
from gumbax.search.command.options import Options
from gumbax.search.command.progress import Progress, Silent
from gumbax.search.command.run import CHECKPOINTS, load_data
from gumbax.search.data.dataset import Dataset
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops.evaluation import accuracy, predict
from gumbax.search.loops.training import Training, TrainingState, train
from gumbax.search.network.export import export
from gumbax.search.report.run_folder import GENOTYPE
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.named import SPACES
from gumbax.search.store import folder
from gumbax.search.store.checkpoint import Checkpoints
from gumbax.search.store.errors import search_error

SECONDS_PER_CHECKPOINT = 30.0


def read_genotype(source: str, space: str | None = None) -> Genotype:
    """A genotype from a file, a folder of a run, or its text.

    Args:
        source: a path or a text.
        space: name of the space that is asked for: a text |...~0|+... is of it where
            it has such cells, else of nasbench201.

    Raises:
        SearchError: it is none of these.
    """
    path = Path(source)
    shown = source[:80]  # a text may be long
    try:
        try:
            known = path.exists()
        except OSError:  # a text may be too long for the name of a file
            known = False
        if known:
            shown = source
        if known and path.is_dir():
            return Genotype.load(path / GENOTYPE)
        if known:
            text = path.read_text(encoding="utf-8")
            if text.lstrip().startswith("{"):
                return Genotype.from_json(text)
            source = text.strip()
        if source.startswith("|"):
            return Genotype.from_nasbench201(source, space=_of_one_cell(space))
        if "normal" in source:
            return Genotype.from_darts(source)
        wanted = "not a text of DARTS or NAS-Bench-201"
        raise ValueError(wanted if known else f"no such file, and {wanted}")
    except (OSError, ValueError) as error:
        raise search_error(
            "genotype",
            "be a genotype file, the folder of a search, or a text",
            f"{shown!r} ({error})",
            "Pass the genotype.json that a search wrote.",
        ) from error


def retrain(
    out: Path, genotype: Genotype, options: Options, progress: Progress | None = None
) -> float:
    """Trains an architecture from scratch and measures it on the test set.

    Args:
        out: folder that `start.settle` has looked into.
        genotype: the architecture.
        options: what `start.settle` returned; `train_epochs` is the length.
        progress: where to show how far it is.

    Returns:
        Test accuracy in percent. The folder holds run.json, genotype.json,
        checkpoints, result.json and network.stablehlo, which
        `jax.export.deserialize` reads.

    Raises:
        SearchError: the genotype is of another space, the data or a checkpoint cannot
            be used, or the loss is not finite.
    """
    progress = progress or Silent()
    asked = options
    if options.space is None:
        options = replace(options, space=genotype.space)
        options.check()
    dataset = load_data(options)
    space = options.make_space(dataset)
    try:
        genotype.check(space)
    except ValueError as error:
        raise search_error(
            "genotype", f"be of the space {space.name}", str(error), "Change --space."
        ) from error
    training_options = options.training(dataset)
    training = Training(
        space,
        genotype,
        dataset.train,
        num_classes=dataset.num_classes,
        options=training_options,
        seed=options.seed,
    )
    with folder.alone(out):
        _check_same(out, genotype)
        start.record(out, asked, start.RETRAIN, data=dataset.fingerprint())
        folder.write(out / GENOTYPE, genotype.to_json())
        return _train(out, genotype, training, options, dataset, progress)


def _train(
    out: Path,
    genotype: Genotype,
    training: Training,
    options: Options,
    dataset: Dataset,
    progress: Progress,
) -> float:
    """Trains, measures and exports, in a folder where no other process runs."""
    num_epochs = training.options.num_epochs
    run_id = hashlib.sha256((options.run_id + str(genotype)).encode()).hexdigest()[:12]
    checkpoints = Checkpoints(out / CHECKPOINTS, run_id)
    state, first = training.init(), 0
    with (
        contextlib.closing(checkpoints),
        progress.phase("train from scratch", num_epochs) as advance,
    ):
        restored = checkpoints.restore(state)
        if restored is not None:
            first, state = restored
            advance(first)
        saved = time.perf_counter()

        def on_epoch(state: TrainingState, row: dict[str, float]) -> None:
            nonlocal saved
            epoch, now = int(row["epoch"]), time.perf_counter()
            last = epoch == num_epochs
            if last or now - saved >= SECONDS_PER_CHECKPOINT:
                checkpoints.save(epoch, state)
                saved = now
            advance(epoch, loss=row["loss"])

        state = train(training, state, on_epoch)
    network = training.network(state)
    result = accuracy(predict(network, dataset.test.inputs), dataset.test.labels)
    content = {
        "options": asdict(options),
        "genotype": str(genotype),
        "test_accuracy": result,
    }
    folder.write(out / "result.json", json.dumps(content, indent=2) + "\n")
    export(network, dataset.train.inputs.shape[1:], out / "network.stablehlo")
    return result


def _of_one_cell(space: str | None) -> str:
    if space is not None and isinstance(SPACES.get(space, lambda: None)(), CellSpace):
        return space
    return "nasbench201"


def _check_same(out: Path, genotype: Genotype) -> None:
    """Refuses to go on with another architecture than the folder's."""
    path = out / GENOTYPE
    if path.exists() and (before := read_genotype(str(path))) != genotype:
        raise search_error(
            "genotype",
            f"be that of {out}, {before}",
            str(genotype),
            "Pass that one, or another --out.",
        )
