"""Every example of the documentation runs as it stands."""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gumbax
from gumbax.search.command import cli
from tests.helpers import sweep

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    Path(gumbax.__file__).parent / "search/README.md",
    ROOT / "tests/benchmarks/README.md",
    ROOT / ".github/CONTRIBUTING.md",
    *sorted((ROOT / ".docs").glob("*.md")),
]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(gumbax.__path__, "gumbax.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize(
    "name",
    sweep(
        [name for name in MODULES if ".network." not in name],
        [name for name in MODULES if ".network." in name],  # they build supernets
    ),
)
def test_docstring_examples_give_what_they_show(name):
    module = importlib.import_module(name)
    names = {"gumbax": gumbax, "jax": jax, "jnp": jnp, "nnx": nnx}
    result = doctest.testmod(module, extraglobs=names)
    assert result.failed == 0


def test_doctests_are_found():
    tests = doctest.DocTestFinder().find(
        importlib.import_module("gumbax.samplers.relaxation")
    )
    assert sum(len(test.examples) for test in tests) >= 2


def examples(page):
    """The blocks of Python on a page."""
    text = page.read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


EXAMPLES = [(page, code) for page in PAGES for code in examples(page)]


@pytest.mark.parametrize(
    ("page", "code"),
    sweep(
        [(page, code) for page, code in EXAMPLES if "search.fit" not in code],
        [(page, code) for page, code in EXAMPLES if "search.fit" in code],
    ),
)
def test_examples_of_the_pages_run(page, code):
    for package in ("numpyro", "distrax", "equinox", "haiku", "mctx"):
        if f"import {package}" in code:
            pytest.importorskip(package, reason=f"a recipe for {package}, not here")
    exec(compile(code, str(page), "exec"), {})


def test_examples_are_found():
    assert {page.name for page, _ in EXAMPLES} == {
        "README.md",
        "questions.md",
        "recipes.md",
        "start.md",
    }
    assert {page.parent.name for page, _ in EXAMPLES} >= {"search", ".docs"}
    assert sum(page == README for page, _ in EXAMPLES) == 3


def commands(page):
    """The lines of a page's shell blocks that call `gumbax`, as words."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(
        r"^```(?:bash|text)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    lines = re.split(r"\n|&&", "\n".join(blocks).replace("$seed", "0"))
    return [
        shlex.split(line, comments=True)[1:]
        for line in lines
        if line.strip().startswith("gumbax ")
    ]


def test_commands_of_the_pages_are_understood():
    found = [words for page in PAGES for words in commands(page)]
    assert len(found) > 12
    for words in found:
        cli.parser().parse_args(words)


PACKAGE = Path(gumbax.__file__).parent


def in_repository(page):
    """Where a page is there; the package is elsewhere where its wheel is tested."""
    if page.is_relative_to(PACKAGE):
        return Path("gumbax") / page.relative_to(PACKAGE)
    return page.relative_to(ROOT)


def links_of(page):
    """Paths in the repository that a page leads to."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    folder = in_repository(page).parent
    return [
        Path(os.path.normpath(folder / link))
        for link in links
        if not link.startswith("https://")
    ]


def test_readme_leads_to_every_page():
    assert set(map(in_repository, PAGES[1:])) <= set(links_of(README))


def test_readme_is_of_one_sitting():
    text = README.read_text("utf-8")
    assert len(text.split()) <= 1500
    assert len(text[: text.index("```python\n")].split()) <= 150
    assert len(re.findall(r"^\|[-|]+\|$", text, re.MULTILINE)) <= 3
    lines = [line for line in examples(README)[0].splitlines() if line]
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 88
    assert 'pip install -e ".[search]" && gumbax search digits --out' in text
    assert 'pip install -e ".[test]" && pytest' in text


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}"
)
def test_links_lead_somewhere(page):
    for path in links_of(page):
        inside = path.parts[0] == "gumbax"
        target = PACKAGE.joinpath(*path.parts[1:]) if inside else ROOT / path
        assert target.exists(), path
