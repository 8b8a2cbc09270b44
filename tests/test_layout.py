"""The rooms of the package: what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gumbax
from tests.conftest import slow_tests

ROOT = Path(gumbax.__file__).parent

# Downwards: a module imports its own room and those below it, never one above.
ROOMS = (
    "gumbax.__main__",
    "gumbax.search.command",
    "gumbax.search.report",
    "gumbax.search.loops",
    "gumbax.search.methods",
    "gumbax.search.network",
    "gumbax.search.genotype",
    "gumbax.search.spaces",
    "gumbax.search.data",
    "gumbax.search.store",
    "gumbax.linen",
    "gumbax.nnx",
    "gumbax.edge.modules",
    "gumbax.edge",
    "gumbax.samplers",
    "gumbax.gumbel",
    "gumbax.layers",
    "gumbax.schedules",
    "gumbax._noise",
    "gumbax._common",
)
# Who may import them, and nobody else.
LIMITED = {
    "flax": ("gumbax.search", "gumbax.linen", "gumbax.nnx", "gumbax._common.versions"),
    "matplotlib": ("gumbax.search.report",),
    "rich": ("gumbax.search.command",),
    "sklearn": ("gumbax.search.data",),
    "mnist1d": ("gumbax.search.data",),
    "orbax": ("gumbax.search.store",),
}


def sources():
    """Name of a module -> its text, the faces of rooms too."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ("gumbax", *path.relative_to(ROOT).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def within(name, room):
    return name == room or name.startswith(room + ".")


def room_of(name):
    return max((room for room in ROOMS if within(name, room)), key=len, default=None)


def imports(text, modules):
    """The modules that a text names in its imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else node.module)
    return found


def faults(modules):
    """What is wrong with the imports of these modules, in words."""
    graph = {name: imports(text, modules) for name, text in modules.items()}
    found = []
    for name, targets in graph.items():
        room = room_of(name)
        for target in targets:
            for package, allowed in LIMITED.items():
                if within(target, package) and not any(
                    within(name, place) for place in allowed
                ):
                    found.append(f"{name} imports {package}")
            # The two outer faces, of gumbax and of its search, bring rooms together.
            if room is None or not within(target, "gumbax"):
                continue
            below = room_of(target)
            if below is None:
                found.append(f"{name} imports {target}, which is above every room")
            elif ROOMS.index(below) < ROOMS.index(room):
                found.append(f"{name} imports {target}, a room above")
    return found + circles(graph)


def circles(graph):
    """Modules that import each other, whatever the way round."""
    left = {name: targets & graph.keys() for name, targets in graph.items()}
    size = None
    while size != len(left):
        size = len(left)
        imported = set().union(*left.values())
        left = {
            name: targets & left.keys()
            for name, targets in left.items()
            if targets & left.keys() and name in imported
        }
    return [f"a circle: {', '.join(sorted(left))}"] if left else []


def test_every_module_is_in_a_room():
    outside = {name for name in sources() if room_of(name) is None}
    assert outside == {"gumbax", "gumbax.search"}


def test_imports_run_downwards_and_in_no_circle():
    assert faults(sources()) == []


def test_planted_faults_are_found():
    modules = sources()
    planted = {
        "gumbax._noise.threefry": "from gumbax.samplers import scores",
        "gumbax.search.spaces.space": "from gumbax.search.genotype import Genotype",
        "gumbax.samplers.scores": "from gumbax.samplers.rules import index",
        "gumbax.edge.choices": "import flax",
        "gumbax.search.loops.fit": "def f():\n    import orbax.checkpoint",
        "gumbax.layers.pooling": "import gumbax",
        "gumbax.layers.windows": "from gumbax.layers import pooling",
        "gumbax._noise.logarithm": "from gumbax import _noise",
    }
    for name, line in planted.items():
        changed = modules | {name: f"{modules[name]}\n{line}\n"}
        assert any(name in fault for fault in faults(changed)), name


def test_rooms_are_few():
    def entries(folder):
        return [path.name for path in folder.iterdir() if path.name != "__pycache__"]

    assert len(entries(ROOT)) <= 14
    assert len(entries(ROOT / "search")) <= 11


# Flax itself brings rich and orbax.
@pytest.mark.parametrize(
    ("face", "heavy"),
    [("gumbax", LIMITED.keys()), ("gumbax.search", {"matplotlib", "sklearn"})],
)
def test_faces_bring_nothing_heavy(face, heavy):
    code = f"import sys, {face}; print({{m.partition('.')[0] for m in sys.modules}})"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not heavy & ast.literal_eval(run.stdout)


def test_slow_tests_are_there():
    """An entry that matches nothing leaves nothing out."""
    for name in slow_tests():
        file, _, test = name.partition("::")
        text = (Path(__file__).parent / file).read_text("utf-8")
        assert f"def {test.partition('[')[0]}(" in text, name
