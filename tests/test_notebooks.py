"""Every notebook runs from top to bottom, and is fit to be published.

At smoke size (the environment variable GUMBAX_SMOKE, which each notebook reads);
`pytest tests/test_notebooks.py --full-notebooks --exhaustive` runs the full size.
"""

import ast
import os
import re
import sys
import tomllib
from pathlib import Path

import jax
import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks` is missing")
nbclient = pytest.importorskip("nbclient", reason="the extra `notebooks` is missing")
pytest.importorskip("ipykernel", reason="the extra `notebooks` is missing")

from jupyter_client import AsyncKernelManager  # noqa: E402
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager  # noqa: E402

from tests.helpers import sweep  # noqa: E402

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_FOR_A_CELL = 600
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{name}/blob/main/notebooks/{file})"
)
# The same in all but the extra.
INSTALL = """\
import glob
from importlib import metadata, util

if util.find_spec("gumbax") is None:
    # The JAX that is here was chosen for this accelerator: nothing of it is replaced.
    names = sorted({str(d.name) for d in metadata.distributions()})
    kept = [n for n in names if n.startswith(("jax", "flax", "libtpu"))]
    pins = " ".join(f"{n}=={metadata.version(n)}" for n in kept)
    %pip install -q {pins} "gumbax%EXTRA% @ git+%REPOSITORY%"

import jax

kind = jax.devices()[0].device_kind
print(f"JAX {jax.__version__} on {jax.device_count()} x {kind}")
chips = [glob.glob(f"/dev/{name}[0-9]*") for name in ("nvidia", "accel", "vfio/")]
if jax.default_backend() == "cpu" and any(chips):
    print("JAX does not see this machine's accelerator: take a new runtime.")"""
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}

SMOKE_NOTE = "*Executed at the small sizes of the tests; the text has the full ones.*"

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
    # A kernel whose manager is ours is not ended by itself.
    client.execute(env=environment(folder, smoke=smoke), cleanup_kc=True)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert PATHS


@pytest.mark.parametrize(
    "path",
    sweep([PATHS[1]], [PATHS[0], *PATHS[2:]]),
    ids=lambda path: path.stem,
)
def test_runs(path, tmp_path, pytestconfig):
    notebook = nbformat.read(path, as_version=4)
    smoke = not pytestconfig.getoption("full_notebooks")
    run(notebook, tmp_path, smoke=smoke)
    assert all(cell.execution_count for cell in code_cells(notebook))
    # The docs show these copies.
    if executed := os.environ.get("GUMBAX_EXECUTED"):
        Path(executed).mkdir(parents=True, exist_ok=True)
        if smoke:
            notebook.cells.insert(1, nbformat.v4.new_markdown_cell(SMOKE_NOTE))
        nbformat.write(notebook, Path(executed) / path.name)


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


# A machine with no gumbax, a CUDA plug-in, and what an earlier pip left of another;
# `asked` is what it would install.
STAGE = """\
import glob, importlib.util, sys
from IPython import get_ipython

asked = []
get_ipython().register_magic_function(asked.append, "line", "pip")
importlib.util.find_spec = lambda name: None
sys.path[:0] = {sites!r}
present = glob.glob
glob.glob = lambda pattern: {chips!r} if "nvidia" in pattern else present(pattern)
"""
CHECK = """\
import shlex, flax, jax, jaxlib

(line,) = asked
install, quiet, *pins, gumbax = shlex.split(line)
assert (install, quiet) == ("install", "-q")
want = {"jax-cuda12-plugin==0.7.2"}
want |= {f"{m.__name__}=={m.__version__}" for m in (flax, jax, jaxlib)}
assert want <= set(pins), pins
assert len(pins) == len({pin.split("==")[0] for pin in pins}), pins
assert gumbax == "gumbax @ git+%REPOSITORY%"
"""


@pytest.mark.parametrize("chips", [[], ["/dev/nvidia0"]], ids=["cpu", "unseen GPU"])
def test_installs_beside_the_jax_that_is_there(tmp_path, repository, chips):
    sites = []
    for version in ("0.7.2", "0.6.0"):
        folder = tmp_path / version / f"jax_cuda12_plugin-{version}.dist-info"
        folder.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: jax-cuda12-plugin\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)
        sites.append(str(folder.parent))
    stage = STAGE.format(sites=sites, chips=chips)
    install = INSTALL.replace("%EXTRA%", "").replace("%REPOSITORY%", repository)
    sources = [stage, install, CHECK.replace("%REPOSITORY%", repository)]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    run(notebook, tmp_path)
    (printed,) = notebook.cells[1].outputs
    found, *rest = printed.text.splitlines()
    assert found == f"JAX {jax.__version__} on 1 x cpu"
    assert bool(rest) == bool(chips)


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
