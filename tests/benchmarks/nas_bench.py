"""Methods at one equal time on NAS-Bench-201's cells, and the published accuracies.

    python -m tests.benchmarks.nas_bench runs/nb201 ../shared/data

The folder of data has `cifar10_jpeg.npz` and `nb201.npz`. Each search has a half of
20,000 images for the weights and one for the logits, 8 channels, one cell a stage, and
as many epochs as should take half an hour on one core of an AMD EPYC, by the times of
single epochs; what a run did take is printed. Stopped at any moment, the same command
goes on; two of them, with methods or seeds of their own, share a folder once one has
decoded the images.
"""

import argparse
import io
import itertools
import json
from pathlib import Path

import numpy as np

from gumbax.search.command import run, start
from gumbax.search.command.progress import RichProgress
from gumbax.search.report import comparison
from gumbax.search.store.records import METRICS

EPOCHS = {"gumbel": 90, "darts": 43, "gdas": 130, "random": 156}
SIZE = {"space": "nasbench201", "channels": 8, "cells": 1, "limit": 20_000}
AUGMENTED = {"crop": 4, "flip": True}
# Nothing of the table is trained here: it has every architecture.
NO_TRAINING = {
    "train_epochs": 1,
    "random_architectures": 0,
    "constant_architectures": False,
}


def parser():
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("out", type=Path, help="folder of the runs")
    made.add_argument("data", type=Path, help="folder of the two files")
    made.add_argument("--methods", nargs="+", default=list(EPOCHS), choices=EPOCHS)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return made


def decoded(path, part, count=None):
    """The first images of a part, uint8 [n, 32, 32, 3], and their labels."""
    from PIL import Image

    with np.load(path) as file:
        stored, ends = file[f"{part}_jpeg"], file[f"{part}_offsets"]
        labels = file[f"{part}_labels"][:count]
    pixels = [
        np.asarray(Image.open(io.BytesIO(stored[start:end].tobytes())))
        for start, end in itertools.pairwise(ends[: len(labels) + 1])
    ]
    return np.stack(pixels), labels


def images(out, data):
    """The path of the decoded images."""
    path = out / "cifar10.npz"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        found = {}
        for part in ("train", "test"):
            pixels, labels = decoded(data / "cifar10_jpeg.npz", part)
            found |= {f"x_{part}": pixels, f"y_{part}": labels}
        whole = path.with_name("part-of-cifar10.npz")
        np.savez(whole, **found)
        whole.rename(path)
    return path


def searched(folder, dataset, method, seed):
    """The folder of a run, once it is done."""
    given = {"method": method, "seed": seed, "epochs": EPOCHS[method]}
    given |= {"dataset": str(dataset)} | SIZE | AUGMENTED | NO_TRAINING
    options = start.settle(folder, given, resume=(folder / "run.json").exists())
    if not (folder / "report.json").exists():
        run.run(folder, options, RichProgress())
    return folder


def minutes(folder):
    last = (folder / METRICS).read_text(encoding="utf-8").splitlines()[-1]
    return json.loads(last)["seconds"] / 60


def main():
    given = parser().parse_args()
    dataset = images(given.out, given.data).resolve()
    pairs = itertools.product(given.seeds, given.methods)
    folders = [
        searched(given.out / f"{method}-{seed}", dataset, method, seed)
        for seed, method in pairs
    ]
    table = given.data / "nb201.npz"
    print(comparison.compare(folders, given.out / "all", table))
    for folder in folders:
        print(f"{folder.name}: {minutes(folder):.0f} minutes of search")


if __name__ == "__main__":
    main()
