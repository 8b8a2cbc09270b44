"""What decides the result of a run: options, from the command line or a TOML file."""

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Dataset
from gumbax.search.loops.training import TrainingOptions
from gumbax.search.methods.methods import METHODS, Method
from gumbax.search.methods.optimizers import AdamW, Sgd
from gumbax.search.network.counting import Cost, multiply_adds, weights
from gumbax.search.network.latency import Latency
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.named import SPACES
from gumbax.search.spaces.space import Space
from gumbax.search.store.errors import search_error

FEWEST_EPOCHS = 8
# Those that a run counts, asked for or not, and those that it measures if asked.
COUNTED: Mapping[str, Cost] = {"weights": weights, "multiply_adds": multiply_adds}
COSTS: Mapping[str, Cost] = {**COUNTED, "latency": Latency()}


@dataclass(frozen=True)
class Lengths:
    """What is enough in a space, unless asked for otherwise or published.

    Attributes:
        search: steps of a search.
        training: steps of a training from scratch.
        learning_rate: of the weights at the start; the method's if None.
    """

    search: int = 1500
    training: int = 1000
    learning_rate: float | None = None


# After 1,500 steps a supernet of sequences has learned nothing.
LENGTHS: Mapping[str, Lengths] = {
    "sequences": Lengths(search=6000, training=6000, learning_rate=0.01)
}


@dataclass(frozen=True)
class Options:
    """The options of a run; None stands for a default that depends on others.

    Attributes:
        dataset: name of a data set, or path of a file or folder.
        space: name of the space; by the data if None.
        channels: of the first stage; those of the space if None.
        cells: in a stage (in all, for darts); those of the space if None.
        method: name of the search method.
        published: the optimisers and schedules of the method's publication, and the
            epochs of its search.
        seed: of everything random.
        epochs: of the search; if None those published, or enough for 1,500 steps (in
            the space of sequences 6,000), and 8 or more.
        batch_size: examples in a step.
        learning_rate: of the weights at the start; if None the method's, or 0.01 in the
            space of sequences.
        arch_learning_rate: of the architecture logits; the method's if None.
        warmup: share of the search before the logits move; the method's if None.
        train_epochs: of every training from scratch; if None enough for 1,000 steps (in
            the space of sequences 6,000), and 8 or more.
        random_architectures: how many to compare with.
        constant_architectures: whether to compare with one operation everywhere; if
            None, where there are random ones.
        crop: pixels that images are padded with before a random crop.
        flip: mirror images at random.
        cutout: side of the square that is blanked in training from scratch, in pixels.
        drop_path: probability of dropped operations at the end of such a training.
        auxiliary: weight of an auxiliary head in such a training, where the space has
            one.
        limit: number of training examples to use; all if None.
        label: name of the label column of a CSV file.
        cost: what operations cost: weights, multiply_adds or latency.
        cost_weight: nats that the loss of the logits has for a network of the cost of
            the costliest architecture; None for no penalty.
        budget: largest cost of what is derived.
    """

    dataset: str
    space: str | None = None
    channels: int | None = None
    cells: int | None = None
    method: str = "gumbel"
    published: bool = False
    seed: int = 0
    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    arch_learning_rate: float | None = None
    warmup: float | None = None
    train_epochs: int | None = None
    random_architectures: int = 5
    constant_architectures: bool | None = None
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    drop_path: float = 0.0
    auxiliary: float = 0.0
    limit: int | None = None
    label: str = "label"
    cost: str | None = None
    cost_weight: float | None = None
    budget: float | None = None

    @property
    def run_id(self) -> str:
        """A name for the run, equal for equal options."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def check(self) -> None:
        """Raises SearchError for a value that no run can have."""
        named: dict[str, tuple[str, Mapping[str, Any]]] = {
            "--method": (self.method, METHODS)
        }
        if self.space is not None:
            named["--space"] = (self.space, SPACES)
        if self.cost is not None:
            named["--cost"] = (self.cost, COSTS)
        for name, (value, known) in named.items():
            if value not in known:
                cure = f"Known: {', '.join(known)}."
                raise search_error(name, "be a known one", repr(value), cure)
        for field, (least, most) in _RANGES.items():
            value = getattr(self, field)
            if value is not None and not least <= value <= most:
                shown = "2**31 - 1" if most == _MOST else most
                must = f"be from {least} to {shown}"
                cure = "Pass another number, or leave it out for the default."
                raise search_error(_option(field), must, value, cure)
        for field in ("cost_weight", "budget"):
            if getattr(self, field) is not None and self.cost is None:
                must, cure = f"be given with {_option(field)}", ", ".join(COSTS)
                raise search_error("--cost", must, "none", f"Known: {cure}.")

    def make_space(self, dataset: Dataset) -> Space:
        """The space, as wide and deep as asked for."""
        shape = dataset.train.inputs.shape[1:]
        name = self._space_name(dataset)
        space = SPACES[name]()
        changes: dict[str, Any] = {}
        if self.channels is not None:
            changes["channels"] = self.channels
        if self.cells is not None:
            darts = isinstance(space, DartsSpace)
            changes["num_cells" if darts else "cells_per_stage"] = self.cells
        if changes and not isinstance(space, CellSpace | DartsSpace):
            cure = "Leave out --channels and --cells."
            raise search_error("--space", "have cells and channels", name, cure)
        if {"mlp": 1, "sequences": 2}.get(name, 3) != len(shape):
            kind = {1: "rows of features", 2: "sequences"}.get(len(shape), "images")
            cure = "Leave out --space for one that fits."
            raise search_error("--space", f"be one for {kind}", name, cure)
        self._check_images(space, shape)
        try:
            return dataclasses.replace(space, **changes)  # type: ignore[type-var]
        except ValueError as error:
            cure = "Change --channels or --cells."
            raise search_error("--space", "be possible", str(error), cure) from error

    def _space_name(self, dataset: Dataset) -> str:
        if self.space is not None:
            return self.space
        shape = dataset.train.inputs.shape[1:]
        small = "small_images" if shape[0] <= 16 else "nasbench201"
        return {1: "mlp", 2: "sequences"}.get(len(shape), small)

    def _lengths(self, dataset: Dataset) -> Lengths:
        """What is enough in the space, with the learning rate asked for."""
        found = LENGTHS.get(self._space_name(dataset), Lengths())
        rate = None if self.published else found.learning_rate
        if self.learning_rate is not None:
            rate = self.learning_rate
        return dataclasses.replace(found, learning_rate=rate)

    def _check_images(self, space: Space, shape: tuple[int, ...]) -> None:
        """Refuses options that need images, or larger ones."""
        if len(shape) != 3:
            for field in ("crop", "flip", "cutout"):
                if value := getattr(self, field):
                    must = "be left out for data that are not images"
                    raise search_error(_option(field), must, value, "Leave it out.")
        elif self.auxiliary and isinstance(space, DartsSpace) and min(shape[:2]) < 5:
            must = "be 0 for images of less than 5 pixels"
            got = f"{self.auxiliary} for images of shape {shape}"
            cure = "Train without the auxiliary head."
            raise search_error("--auxiliary", must, got, cure)

    def make_method(self, dataset: Dataset) -> Method:
        """The method, with the learning rates of the space or those asked for."""
        method = METHODS[self.method]
        if self.published:
            method = method.as_published()
        changes: dict[str, Any] = {}
        if (rate := self._lengths(dataset).learning_rate) is not None:
            changes["weights"] = dataclasses.replace(method.weights, learning_rate=rate)
        if self.arch_learning_rate is not None and method.arch is not None:
            changes["arch"] = dataclasses.replace(
                method.arch, learning_rate=self.arch_learning_rate, travel=None
            )
        if self.warmup is not None:
            changes["warmup"] = self.warmup
        return dataclasses.replace(method, **changes)

    def search_epochs(self, dataset: Dataset) -> int:
        """Epochs of the search: of half of the training set."""
        given = self.epochs
        if given is None and self.published:
            given = METHODS[self.method].preset.num_epochs
        steps = self._lengths(dataset).search
        return _epochs(given, steps, dataset.train.size // 2, self.batch_size)

    def augmentation(self, *, cutout: bool) -> Augmentation | None:
        """Of images; cutout in training alone, as published."""
        size = self.cutout if cutout else 0
        if not (self.crop or self.flip or size):
            return None
        return Augmentation(crop_padding=self.crop, flip=self.flip, cutout=size)

    def training(self, dataset: Dataset) -> TrainingOptions:
        """Of every training from scratch."""
        optimizer: AdamW | Sgd = Sgd(final=0.0) if self.published else AdamW()
        lengths = self._lengths(dataset)
        if (rate := lengths.learning_rate) is not None:
            optimizer = dataclasses.replace(optimizer, learning_rate=rate)
        return TrainingOptions(
            num_epochs=_epochs(
                self.train_epochs,
                lengths.training,
                dataset.train.size,
                self.batch_size,
            ),
            batch_size=self.batch_size,
            optimizer=optimizer,
            augmentation=self.augmentation(cutout=True),
            drop_path=self.drop_path,
            auxiliary=self.auxiliary,
        )


_MOST = 2**31 - 1
_RANGES: Mapping[str, tuple[float, float]] = {
    "channels": (1, 2**14),  # memory for more is not there
    "cells": (1, 2**10),
    "seed": (0, _MOST),
    "epochs": (1, _MOST),
    "batch_size": (1, _MOST),
    "learning_rate": (0.0, 1e3),
    "arch_learning_rate": (0.0, 1e3),
    "warmup": (0.0, 1.0),
    "train_epochs": (1, _MOST),
    "random_architectures": (0, _MOST),
    "crop": (0, 1024),
    "cutout": (0, 1024),
    "drop_path": (0.0, 0.95),
    "auxiliary": (0.0, 1e3),
    "limit": (1, _MOST),
    "cost_weight": (0.0, 1e6),
    "budget": (0.0, 1e18),
}


def _option(field: str) -> str:
    return field if field == "dataset" else f"--{field.replace('_', '-')}"


def _epochs(given: int | None, steps: int, num_examples: int, batch_size: int) -> int:
    if given is not None:
        return given
    per_epoch = max(1, num_examples // min(batch_size, max(1, num_examples)))
    return max(FEWEST_EPOCHS, math.ceil(steps / per_epoch))


def read_toml(path: Path) -> dict[str, Any]:
    """The options of a TOML file, names with dashes or underscores.

    Raises:
        SearchError: the file cannot be read, a name or a type is wrong, or an option is
            there twice.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise search_error(
            "--config", "be a TOML file", f"{path} ({error})", "Mend or rename it."
        ) from error
    found = {name.replace("-", "_"): value for name, value in content.items()}
    names = [name.replace("-", "_") for name in content]
    if len(found) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        cure = "Write it once, with dashes or with underscores."
        raise search_error(_option(twice), "be there once", f"two in {path}", cure)
    return typed(found, str(path))


def typed(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Checks names and types of options that were read from a file.

    Raises:
        SearchError: one does not fit.
    """
    fields = {field.name: field.type for field in dataclasses.fields(Options)}
    found = {}
    for name, value in values.items():
        if name not in fields:
            cure = f"Known: {', '.join(fields)}."
            raise search_error("options", "be known ones", f"{name} in {source}", cure)
        kinds = get_args(fields[name]) or (fields[name],)
        exact = float(value) if float in kinds and type(value) is int else value
        if type(exact) not in kinds:
            wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
            raise search_error(
                _option(name), f"be {wanted}", f"{value!r} in {source}", "Change it."
            )
        found[name] = exact
    return found
