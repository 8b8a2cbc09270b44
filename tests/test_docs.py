"""Every example of the documentation runs as it stands."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gumbax
from tests.helpers import sweep

README = Path(__file__).parents[1] / "README.md"
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


EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize(
    "code",
    sweep(
        [code for code in EXAMPLES if "search.fit" not in code],
        [code for code in EXAMPLES if "search.fit" in code],
    ),
)
def test_readme_examples_run(code):
    exec(compile(code, "README.md", "exec"), {})


def test_readme_has_both_examples_and_both_commands():
    text = README.read_text("utf-8")
    assert text.count("```python\n") >= 2
    assert 'pip install -e ".[search]" && gumbax search digits --out' in text
    assert 'pip install -e ".[test]" && pytest' in text
