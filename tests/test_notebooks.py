"""Every notebook runs from top to bottom, and is fit to be published.

At smoke size (the environment variable GUMBAX_SMOKE, which each notebook reads);
`pytest tests/test_notebooks.py --full-notebooks` runs the full size.
"""

import ast
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks` is missing")
nbclient = pytest.importorskip("nbclient", reason="the extra `notebooks` is missing")
pytest.importorskip("ipykernel", reason="the extra `notebooks` is missing")

from jupyter_client import AsyncKernelManager  # noqa: E402
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager  # noqa: E402

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_FOR_A_CELL = 600
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{name}/blob/main/notebooks/{file})"
)
# Whatever the kernel wants, jax and jaxlib keep the versions that they have.
INSTALL = """\
from importlib import metadata, util

if util.find_spec("gumbax") is None:
    # jax and jaxlib stay as they are: they were chosen for this machine's accelerator.
    present = [d for d in metadata.distributions() if d.name in ("jax", "jaxlib")]
    pins = " ".join(f"{d.name}=={d.version}" for d in present)
    %pip install -q {pins} "gumbax%EXTRA% @ git+%REPOSITORY%\""""
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def repository():
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"]


class ThisInterpreter(KernelSpecManager):
    """One kernel: the interpreter that runs the tests."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(
            argv=[
                sys.executable,
                *("-m", "ipykernel_launcher", "-f", "{connection_file}"),
            ],
            display_name=kernel_name,
            language="python",
        )


def environment(folder, *, smoke):
    """That of a user with one CPU device, and no start-up files of theirs."""
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "MPLBACKEND")}
    return kept | {
        "GUMBAX_SMOKE": "1" if smoke else "0",
        "JAX_PLATFORMS": "cpu",
        "IPYTHONDIR": str(folder / "ipython"),
    }


def run(notebook, folder, *, smoke=True):
    manager = AsyncKernelManager(kernel_spec_manager=ThisInterpreter())
    client = nbclient.NotebookClient(
        notebook,
        km=manager,
        timeout=SECONDS_FOR_A_CELL,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment(folder, smoke=smoke))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert PATHS


@each_notebook
def test_runs(path, tmp_path, pytestconfig):
    notebook = nbformat.read(path, as_version=4)
    run(notebook, tmp_path, smoke=not pytestconfig.getoption("full_notebooks"))
    assert all(cell.execution_count for cell in code_cells(notebook))


def test_failing_assertion_is_seen(tmp_path):
    cells = [nbformat.v4.new_code_cell("assert 1 + 1 == 3, 'planted'")]
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="planted"):
        run(nbformat.v4.new_notebook(cells=cells), tmp_path)


def test_kernel_is_this_interpreter_with_one_device(tmp_path):
    source = f"import sys, jax\nassert sys.executable == {sys.executable!r}\n"
    source += "assert jax.device_count() == 1"
    cells = [nbformat.v4.new_code_cell(source)]
    run(nbformat.v4.new_notebook(cells=cells), tmp_path)


@each_notebook
def test_is_stripped_and_normal(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert all(cell.metadata == {} for cell in notebook.cells)


@each_notebook
def test_begins_with_title_badge_and_install_cell(path, repository):
    title, install, *_ = nbformat.read(path, as_version=4).cells
    name = repository.removeprefix("https://github.com/")
    assert re.match(rf"# {path.stem[0]}\. \S", title.source)
    assert BADGE.format(name=name, file=path.name) in title.source
    assert title.source.count("colab.research.google.com/github/") == 1
    expected = re.escape(INSTALL).replace("%EXTRA%", r"(\[[a-z,]+\])?")
    expected = expected.replace("%REPOSITORY%", re.escape(repository))
    assert re.fullmatch(expected, install.source)


@each_notebook
def test_names_no_other_repository(path, repository):
    text = path.read_text("utf-8")
    addresses = set(re.findall(r"git\+(https?://[^\s\"\\]+)", text))
    assert addresses == {repository}


@each_notebook
def test_reads_the_size_and_ends_with_assertions(path):
    _, setup, *_, last = code_cells(nbformat.read(path, as_version=4))
    assert 'os.environ.get("GUMBAX_SMOKE"' in setup.source
    asserted = [
        node.test
        for node in ast.walk(ast.parse(last.source))
        if isinstance(node, ast.Assert)
    ]
    assert asserted
    assert not any(isinstance(test, ast.Constant) for test in asserted)
