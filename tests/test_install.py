"""Installing gumbax where JAX already is replaces nothing there.

It changes an environment, so it runs only when it is given one that holds Colab's
packages, and a wheel: `.ci/run` does.
"""

import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

LIST = Path(__file__).parents[1] / ".ci" / "colab-2026-08.txt"
# What the notebooks and the command line ask for.
EXTRAS = "search,notebooks"

wheel = os.environ.get("GUMBAX_WHEEL")
python = os.environ.get("GUMBAX_WHEEL_PYTHON")


VERSIONS = """
import json
from importlib import metadata
print(json.dumps({d.name: d.version for d in metadata.distributions()}))
"""


@pytest.mark.skipif(not wheel, reason="needs GUMBAX_WHEEL")
def test_page_on_pypi_leads_to_the_repository():
    """Nothing of the README is beside it there: no picture, no page."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        text = file.read(name).decode()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    links = re.findall(r"(?<!!)\[[^]]*\]\(([^)]*)\)", text)
    assert len(pictures) >= 2
    assert len(links) >= 10
    for picture in pictures:
        assert picture.startswith("https://raw.githubusercontent.com/gumbax/gumbax/")
    for link in links:
        assert link.startswith("https://")


def run(*arguments):
    command = [python, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def installed():
    found = json.loads(run("-c", VERSIONS))
    return {re.sub("[-_.]+", "-", n).lower(): version for n, version in found.items()}


@pytest.mark.skipif(
    not (wheel and python),
    reason="needs GUMBAX_WHEEL, and GUMBAX_WHEEL_PYTHON with Colab's packages",
)
def test_no_package_of_colab_changes_its_version():
    lines = [line.split("#")[0].strip() for line in LIST.read_text().splitlines()]
    listed = dict(line.split("==") for line in lines if line)
    assert {"jax", "jaxlib", "flax"} <= listed.keys()
    before = installed()
    assert {name: before.get(name) for name in listed} == listed, "not Colab's packages"
    assert "gumbax" not in before

    run("-m", "pip", "install", f"{wheel}[{EXTRAS}]")

    after = installed()
    changed = {
        name: f"{version} -> {after.get(name)}"
        for name, version in before.items()
        if after.get(name) != version
    }
    assert changed == {}
    assert "gumbax" in after
    run("-m", "pip", "check")
