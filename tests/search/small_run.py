"""What the tests of folders share: small data and spaces, and refusals."""

import errno
import os

import numpy as np

from gumbax.search.command import cli
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.chain_space import mlp_space

# Layers of the `mlp` space; the identity is what compiles fastest.
EDGES = (("skip_connect", 0, 1), ("tanh", 1, 2), ("skip_connect", 2, 3))
GENOTYPE = Genotype("mlp", {"layers": EDGES})
OTHER = Genotype("mlp", {"layers": (("relu", 0, 1), *EDGES[1:])})
# Built-in ones, smaller, for processes that trace and compile anew.
SMALL_SPACES = {
    "mlp": lambda: mlp_space((8, 8)),
    "small_images": lambda: CellSpace(
        *("small_images", ("none", "max_pool_3x3", "nor_conv_1x1")),
        num_nodes=2,
        num_stages=1,
        norm="group",
    ),
}


def write_rows(folder):
    """An .npz file of rows of features of three classes."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 48), ("test", 30)):
        x = generator.normal(size=(count, 5)).astype(np.float32)
        arrays[f"x_{part}"] = x
        arrays[f"y_{part}"] = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    path = folder / "rows.npz"
    np.savez(path, **arrays)
    return path


def refused(capsys, *arguments):
    """The message of a refusal: exit code 2, one line, no traceback."""
    assert cli.main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gumbax: ")
    assert captured.err.count("\n") == 1
    return captured.err


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def full_disk(write, wanted=lambda path: True):
    """`write` of a path, on a disk that takes half of the content."""

    def half(path, content, **options):
        if not wanted(path):
            return write(path, content, **options)
        write(path, content[: len(content) // 2], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return half
