"""Builds the documentation: the pages of the repository, its notebooks, its docstrings.

    pip install -e ".[docs,test]"
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
import sys
import tempfile
import types
from pathlib import Path

import flax.linen

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
    ".docs/recipes.md": "recipes",
    ".docs/questions.md": "questions",
    ".docs/precision.md": "precision",
    ".docs/beside_others.md": "beside_others",
    ".github/CONTRIBUTING.md": "contributing",
    "gumbax/CHANGELOG.md": "changes",
}
# Title of a page of the API -> the faces whose names it lists.
ROOMS = {
    "gumbax: samplers and the edge": ["gumbax", "gumbax.logit_gradients"],
    "gumbax.gumbel: the distribution": ["gumbax.gumbel"],
    "gumbax.concrete: laws of samples": ["gumbax.concrete"],
    "gumbax.logistic: noise of bits": ["gumbax.logistic"],
    "gumbax.schedules: temperatures": ["gumbax.schedules"],
    "gumbax.nnx and gumbax.linen: modules as choices": ["gumbax.nnx", "gumbax.linen"],
    "gumbax.convolution and gumbax.pooling": ["gumbax.convolution", "gumbax.pooling"],
    "gumbax.search: architecture search": [
        "gumbax.search",
        *(f"gumbax.search.{room}" for room in ("spaces", "methods", "network")),
        *(f"gumbax.search.{room}" for room in ("loops", "genotype", "data")),
        *(f"gumbax.search.{room}" for room in ("report", "store", "command")),
    ],
}
# Of every Linen module.
FLAX_FIELDS = ("parent", "name")
CONF = {
    "project": "gumbax",
    "project_copyright": "the gumbax developers",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    "html_theme": "furo",
    "html_title": "gumbax",
    "html_static_path": ["_static"],
    "html_css_files": ["narrow.css"],
    "html_use_index": False,  # the theme does not lead to it
    "pygments_dark_style": "github-dark",  # the theme's underlines modules, as links
    "smartquotes_action": "D",  # dashes alone: "SAME" and [..., K] are code
    "default_role": "code",
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
    "napoleon_use_rtype": False,
    "napoleon_use_ivar": True,
    "napoleon_attr_annotations": False,
    "autodoc_typehints": "none",
    "autodoc_preserve_defaults": True,
}
# The name of a module in one line of a telephone.
NARROW = "@media (max-width: 46em) { h1 { font-size: 2em } h2 { font-size: 1.5em } }"


def plain(lines: list[str]) -> list[str]:
    """Plain text as reStructuredText: outside of examples a star or bar is no markup.

    Of several references, which come last, each has a line of its own.
    """
    example, references, found = False, False, []
    for line in lines:
        text = line.lstrip()
        indent = line[: len(line) - len(text)]
        example = text.startswith(">>>") or (example and text != "")
        if references and text:
            before = ["", *found[-1].split()][-1]
            ended = before.startswith("http") or before.endswith((".", "References:"))
            indent += "| " if ended and not text.startswith("http") else "  "
        references = references or text == "References:"
        if not example:
            text = text.replace("*", r"\*").replace("|", r"\|")
        found.append(indent + text)
    return found


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


def module(face: str) -> types.ModuleType:
    """A face by its name; some are modules of a room with another name."""
    return functools.reduce(getattr, face.split(".")[1:], gumbax)


def public(face: str) -> dict[str, object]:
    """The public names of a face, modules left out.

    A room shows what it imports; a module shows what it defines.
    """
    own = module(face)
    found = {
        name: value
        for name, value in vars(own).items()
        if not (name.startswith("_") or isinstance(value, types.ModuleType))
    }
    if hasattr(own, "__path__"):
        return found
    return {
        name: value
        for name, value in found.items()
        if name.isupper() or getattr(value, "__module__", None) == own.__name__
    }


def undocumented(cls: type) -> list[str]:
    """The public fields, methods and properties of a class that no docstring names.

    Sphinx would leave them out without a word.
    """
    fields = [name for name in inspect.get_annotations(cls) if name not in FLAX_FIELDS]
    described = re.findall(r"^ *(\w+):", inspect.getdoc(cls) or "", re.MULTILINE)
    members = [
        name
        for name, value in vars(cls).items()
        if name not in fields
        and isinstance(value, (property, staticmethod, classmethod, types.FunctionType))
    ]
    missing = {name for name in fields if name not in described}
    missing |= {name for name in members if not inspect.getdoc(getattr(cls, name))}
    return sorted(n for n in missing if not n.startswith("_") or n == "__call__")


def called(cls: type) -> str:
    """How a class is called; in place of a default that is no short text, dots."""

    class Text(str):
        __repr__ = str.__str__

    def short(parameter: inspect.Parameter) -> inspect.Parameter:
        default = parameter.default
        if default is not parameter.empty:
            text = getattr(default, "__name__", repr(default))
            hidden = len(text) > 20 or text[:1] in "<_"
            default = Text("..." if hidden else text)
        return parameter.replace(default=default, annotation=parameter.empty)

    if issubclass(cls, BaseException):
        return ""
    own = cls.__init__ is not object.__init__  # which a metaclass may hide
    call = inspect.signature(functools.partial(cls.__init__, None) if own else cls)
    text = str(
        inspect.Signature(
            short(each)
            for name, each in call.parameters.items()
            if name not in FLAX_FIELDS or not issubclass(cls, flax.linen.Module)
        )
    )
    return text if text != "(*args, **kwargs)" else "()"  # of a protocol


def comment(name: str, value: object) -> str:
    """The comment above a constant, where the package assigns it."""
    modules = [each for key, each in sys.modules.items() if key.startswith("gumbax.")]
    for module in modules:
        if vars(module).get(name) is value:
            found = re.search(
                rf"((?:^# .*\n)+){name}\b.* = ", inspect.getsource(module), re.MULTILINE
            )
            if found:
                return found[1].replace("# ", "").strip()
    return ""


def is_ours(value: object) -> bool:
    """A class of this package, and no other's under a name of ours."""
    return inspect.isclass(value) and value.__module__.startswith("gumbax")


def entry(face: str, name: str, value: object) -> str:
    """The directive of a public name."""
    full = f"{face}.{name}"
    if inspect.isroutine(value) or is_ours(value):
        if not (inspect.getdoc(value) or "").strip():
            raise SystemExit(f"{full} has no docstring")
        if inspect.isroutine(value):
            return f".. autofunction:: {full}\n"
        for member in undocumented(value):
            raise SystemExit(f"{full}.{member} has no docstring")
        # Fields are described by the class; some have a docstring of another's.
        return (
            f".. autoclass:: {full}{called(value)}\n"
            "   :members:\n"
            "   :special-members: __call__\n"
            f"   :exclude-members: {', '.join(inspect.get_annotations(value))}\n"
        )
    text = inspect.getdoc(value) if is_ours(type(value)) else comment(name, value)
    if not (text or "").strip():
        raise SystemExit(f"{full} has no docstring, and no comment above it")
    lines = plain(text.splitlines())
    if isinstance(value, (dict, tuple)):
        lines += ["", "In order: " + ", ".join(f"`{key}`" for key in value) + "."]
    elif isinstance(value, str):
        lines += ["", f"`{value!r}`"]
    body = "\n".join(f"   {line}".rstrip() for line in lines)
    return f".. py:data:: {name}\n   :module: {face}\n\n{body}\n"


def write_sources(site: Path, notebooks: Path) -> None:
    """All pages, as Sphinx reads them."""
    for page, name in PAGES.items():
        text = copied(page, (ROOT / page).read_text("utf-8"), site)
        if name == "index":
            text += contents(notebooks)
        (site / f"{name}.md").write_text(text, "utf-8")
    (site / "_static").mkdir()
    (site / "_static/narrow.css").write_text(NARROW, "utf-8")
    (site / "notebooks").mkdir()
    for path in sorted(notebooks.glob("*.ipynb")):
        shutil.copy(path, site / "notebooks")
    (site / "api").mkdir()
    for title, faces in ROOMS.items():
        seen: list[object] = []
        parts = [f"{title}\n{'=' * len(title)}\n"]
        for face in faces:
            if len(faces) > 1:
                parts.append(f"{face}\n{'-' * len(face)}\n")
            about = inspect.getdoc(module(face)) or ""
            parts.append("\n".join(plain(about.splitlines())) + "\n")
            # What the room itself shows is not shown again under one of its parts.
            for name, value in sorted(public(face).items()):
                if not any(value is other for other in seen):
                    parts.append(entry(face, name, value))
                seen.append(value)
        (site / "api" / f"{faces[0]}.rst").write_text("\n".join(parts), "utf-8")


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
            "recipes",
            "questions",
            "precision",
        ],
        "Notebooks": names,
        "API": [f"api/{faces[0]}" for faces in ROOMS.values()],
        "More": ["benchmarks", "beside_others", "contributing", "changes"],
    }
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        + "\n".join(own)
        + "\n```\n"
        for caption, own in groups.items()
    ]
    return "\n" + "\n".join(trees)


def write_site(site: Path, out: Path) -> int:
    """All pages in HTML; the number of warnings, which Sphinx shows."""
    from sphinx.application import Sphinx  # an extra
    from sphinx.domains.python import PyObject

    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    conf = "\n".join(f"{name} = {value!r}" for name, value in CONF.items())
    (site / "conf.py").write_text(conf, "utf-8")
    app = Sphinx(
        site, site, out, site / ".doctrees", "html", status=None, warningiserror=True
    )

    def docstring(app, what, name, value, options, lines):
        lines[:] = plain(lines)

    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.build()
    return app.statuscode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        write_sources(site, options.notebooks.resolve())
        return write_site(site, options.out)


if __name__ == "__main__":
    sys.exit(main())
