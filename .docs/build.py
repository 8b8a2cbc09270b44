"""Builds the documentation: the pages of the repository, its notebooks, its docstrings.

    pip install -e ".[docs]"
    GUMBAX_EXECUTED=build/executed pytest tests/test_notebooks.py --exhaustive
    python .docs/build.py build/docs --notebooks build/executed

A page stays where it is read on GitHub; here it is copied to the site, and its links
lead to the pages of the site, or else to the repository. Nothing is downloaded. A
warning, a link that leads nowhere, or a public name without a docstring fails.
"""

import argparse
import functools
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import gumbax.linen
import gumbax.nnx
import gumbax.search

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/gumbax/gumbax/blob/main/"
# Page of the repository -> page of the site.
PAGES = {
    "README.md": "index",
    ".docs/start.md": "start",
    ".docs/how_to_choose.md": "how_to_choose",
    "gumbax/search/README.md": "architecture_search",
    "tests/benchmarks/README.md": "benchmarks",
    ".docs/questions.md": "questions",
    ".docs/precision.md": "precision",
    ".docs/beside_others.md": "beside_others",
    ".github/CONTRIBUTING.md": "contributing",
    "gumbax/CHANGELOG.md": "changes",
}
# Title of a page of the API -> the faces whose names it lists.
ROOMS = {
    "gumbax: samplers and the edge": ["gumbax"],
    "gumbax.gumbel: the distribution": ["gumbax.gumbel"],
    "gumbax.concrete: densities of samples": ["gumbax.concrete"],
    "gumbax.schedules: temperatures": ["gumbax.schedules"],
    "gumbax.nnx and gumbax.linen: modules as choices": ["gumbax.nnx", "gumbax.linen"],
    "gumbax.convolution and gumbax.pooling": ["gumbax.convolution", "gumbax.pooling"],
    "gumbax.search": [
        "gumbax.search",
        *(f"gumbax.search.{room}" for room in ("spaces", "methods", "network")),
        *(f"gumbax.search.{room}" for room in ("loops", "genotype", "data")),
        *(f"gumbax.search.{room}" for room in ("report", "store", "command")),
    ],
}
CONF = '''
project = "gumbax"
copyright = "the gumbax developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["jupyter_execute"]
html_theme = "furo"
html_title = "gumbax"
html_static_path = []
default_role = "code"
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = "none"


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text: a star or a bar is no markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = line.replace("*", r"\\*").replace("|", r"\\|")


def setup(app):
    app.connect("autodoc-process-docstring", plain, priority=400)
'''


def copied(page: str, text: str, site: Path) -> str:
    """The text of a page with links that lead to the site or to the repository."""
    folder = (ROOT / page).parent

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if target.startswith("https://") or not target:
            return match[0]
        path = Path(os.path.normpath(folder / target))
        if not path.exists():
            raise SystemExit(f"{page}: the link {target} leads nowhere")
        own = path.relative_to(ROOT).as_posix()
        if own in PAGES:
            new = f"{PAGES[own]}.md"
        elif path.suffix == ".ipynb":
            new = f"notebooks/{path.name}"
        elif path.suffix == ".svg":
            shutil.copy(path, site / path.name)
            new = path.name
        else:
            new = REPOSITORY + own
        return f"]({new}{anchor})"

    return re.sub(r"\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)]*)?\)", link, text)


def public(face: str) -> dict[str, object]:
    """The public names of a face, modules left out.

    A room shows what it imports; a module shows what it defines.
    """
    module = functools.reduce(getattr, face.split(".")[1:], gumbax)
    found = {
        name: value
        for name, value in vars(module).items()
        if not (name.startswith("_") or isinstance(value, types.ModuleType))
    }
    if hasattr(module, "__path__"):
        return found
    return {
        name: value
        for name, value in found.items()
        if name.isupper() or getattr(value, "__module__", None) == module.__name__
    }


def entry(face: str, name: str, value: object) -> str:
    """The directive of a public name."""
    full = f"{face}.{name}"
    if inspect.isclass(value) or inspect.isroutine(value):
        if not (inspect.getdoc(value) or "").strip():
            raise SystemExit(f"{full} has no docstring")
        kind = "autoclass" if inspect.isclass(value) else "autofunction"
        members = "\n   :members:" if kind == "autoclass" else ""
        return f".. {kind}:: {full}{members}\n"
    if isinstance(value, (dict, tuple)):
        text = "In order: " + ", ".join(f"`{key}`" for key in value) + "."
    elif type(value).__module__.startswith("gumbax"):
        text = inspect.getdoc(value) or ""
        if not text.strip():
            raise SystemExit(f"{full} has no docstring")
    else:
        text = f"`{value}`"
    body = "\n".join(f"   {line}".rstrip() for line in text.splitlines())
    return f".. py:data:: {full}\n\n{body}\n"


def write_sources(site: Path, notebooks: Path) -> None:
    """All pages, as Sphinx reads them."""
    for page, name in PAGES.items():
        text = copied(page, (ROOT / page).read_text("utf-8"), site)
        if name == "index":
            text += contents(notebooks)
        (site / f"{name}.md").write_text(text, "utf-8")
    (site / "notebooks").mkdir()
    for path in sorted(notebooks.glob("*.ipynb")):
        shutil.copy(path, site / "notebooks")
    (site / "api").mkdir()
    for number, (title, faces) in enumerate(ROOMS.items()):
        seen: list[object] = []
        parts = [f"{title}\n{'=' * len(title)}\n"]
        for face in faces:
            if len(faces) > 1:
                parts.append(f"{face}\n{'-' * len(face)}\n")
            # What the room itself shows is not shown again under one of its parts.
            for name, value in sorted(public(face).items()):
                if not any(value is other for other in seen):
                    parts.append(entry(face, name, value))
                seen.append(value)
        (site / "api" / f"{number}.rst").write_text("\n".join(parts), "utf-8")
    (site / "conf.py").write_text(CONF, "utf-8")


def contents(notebooks: Path) -> str:
    """The table of contents, hidden: the theme shows it beside each page."""
    names = [f"notebooks/{path.stem}" for path in sorted(notebooks.glob("*.ipynb"))]
    if not names:
        raise SystemExit(f"no notebooks in {notebooks}")
    groups = {
        "Use it": [
            "start",
            "how_to_choose",
            "architecture_search",
            "questions",
            "precision",
        ],
        "Notebooks": names,
        "API": [f"api/{number}" for number in range(len(ROOMS))],
        "More": ["benchmarks", "beside_others", "contributing", "changes"],
    }
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        + "\n".join(own)
        + "\n```\n"
        for caption, own in groups.items()
    ]
    return "\n" + "\n".join(trees)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        write_sources(site, options.notebooks.resolve())
        command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        return subprocess.run(
            [sys.executable, *command, str(site), str(options.out)], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
