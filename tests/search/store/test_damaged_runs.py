"""A run folder that was damaged: what reads it says where; nothing is lost."""

import json
import re

import numpy as np
import pytest

from gumbax.search.command import cli, run
from gumbax.search.network import cost_tables, costs, weights
from gumbax.search.report.comparison import REPORT
from gumbax.search.report.run_folder import write_space
from gumbax.search.spaces.named import SPACES
from gumbax.search.store import lines, records
from gumbax.search.store.errors import SearchError
from tests.search.report.test_comparison import write_run
from tests.search.small_run import GENOTYPE, files, refused, write_rows

DEEP = "[" * 100_000
# What a field is put to; one of them is of the right kind at times.
WRONG = (None, True, -1, 3, 1.5, "text", [], [[]], {}, {"a": 1}, [1, "x"])


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes its time; what is read is checked before."""
    for draw in ("draw_genotype", "draw_curves", "draw_choices", "draw_gap"):
        monkeypatch.setattr(run.plots, draw, lambda *arguments: None)


@pytest.fixture
def damaged(tmp_path):
    """The folder of a finished search of rows, without its networks."""
    data = write_rows(tmp_path)
    out = write_run(tmp_path / "run", dataset=str(data), space="mlp")
    options = json.loads((out / REPORT).read_text())["options"]
    space = SPACES["mlp"]()
    (choice,) = space.choices.values()
    (out / "run.json").write_text(json.dumps({"command": "search", "options": options}))
    (out / "genotype.json").write_text(GENOTYPE.to_json())
    write_space(out, space, options)
    costs.write(out, cost_tables(space, (5,), 3, {"weights": weights}))
    probabilities = np.full(choice.shape, 1 / choice.shape[1]).tolist()
    for name, row in (
        ("metrics.jsonl", {"loss": 0.5, "accuracy": 0.25, "seconds": 3.0}),
        ("choices.jsonl", {"probabilities": {"layers": probabilities}}),
    ):
        rows = [json.dumps({"epoch": epoch} | row) for epoch in (1, 2, 3)]
        (out / name).write_text("\n".join(rows) + "\n")
    return out


def places(value, path=()):
    """Every place in a JSON value, the whole of it first; of a list the first two."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for number in range(min(2, len(value))):
            yield from places(value[number], (*path, number))


def put(value, path, new):
    """A copy with another value at a place, or without it."""
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    inner = copy
    for part in path[:-1]:
        inner = inner[part]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copy


def damages(text, by_line):
    """Texts of a file: of each field something else or nothing, half, empty, deep."""
    rows = text.splitlines()
    content = json.loads(rows[0] if by_line else text)

    def whole(new):
        return "\n".join([json.dumps(new), *rows[1:]]) if by_line else json.dumps(new)

    for path in places(content):
        for new in (*WRONG, *([...] if path else [])):
            yield f"{path} = {new!r}", whole(put(content, path, new))
    half = rows[0][: len(rows[0]) // 2]
    for name, line in (("half", half), ("empty", ""), ("deep", DEEP), ("text", "\0x")):
        yield name, "\n".join([line, *rows[1:]]) if by_line else line


FILES = {
    "metrics.jsonl": ("plot",),
    "choices.jsonl": ("plot",),
    "genotype.json": ("plot",),
    "report.json": ("plot", "report"),
    "run.json": ("plot",),
    "space.json": ("report",),
}


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("name", FILES)
def test_every_command_ends_with_a_line_and_changes_nothing(name, damaged, capsys):
    path = damaged / name
    original = path.read_text()
    fields = set()
    for what, text in damages(original, name.endswith("jsonl")):
        path.write_text(text)
        before = files(damaged)
        for command in FILES[name]:
            code = cli.main([command, str(damaged)])
            captured = capsys.readouterr()
            assert code in (0, 2), what
            if code == 2:
                assert captured.err.startswith("gumbax: "), what
                assert captured.err.count("\n") == 1, what
                assert re.search(r"`.*` must .*, got .*\. ", captured.err), what
                fields.add(what.partition(" = ")[0])
                assert files(damaged) == before, what
    if name != "space.json":  # a page without choices then
        assert {"half", "empty", "deep"} & fields
        assert len(fields) > 3


def test_costs_are_whole_or_refused(damaged, capsys):
    path, messages = damaged / costs.COSTS, []
    for what, text in damages(path.read_text(), by_line=False):
        path.write_text(text)
        try:
            costs.read(damaged)
        except ValueError as error:
            messages.append(f"{what}: {error}")
    assert len(messages) > 50
    assert all(f"{path}, which cannot be read" in one for one in messages)
    assert "`costs.json` must be readable" in refused(capsys, "derive", damaged)


def test_lines_are_named_with_their_number(damaged, capsys):
    path = damaged / "metrics.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], '{"epoch": 2, "loss": "low"}', rows[2]]) + "\n")
    assert "loss = 'low' in line 2 of" in refused(capsys, "plot", damaged)
    path.write_text("\n".join([rows[0], '{"epoch": 2, "lo', rows[2]]) + "\n")
    message = refused(capsys, "plot", damaged)
    assert f"in line 2 of {path}" in message
    path.write_text("\n".join([*rows, '{"epoch": 4, "lo']))  # of a process that ended
    assert len(records.metrics(damaged)) == 3


def test_nothing_is_dropped_from_a_damaged_file(damaged):
    path = damaged / "choices.jsonl"
    path.write_text('{"epoch": 1}\n' + path.read_text())
    before = files(damaged)
    with pytest.raises(SearchError, match="no probabilities in line 1 of"):
        records.keep_until(damaged, 1)
    assert files(damaged) == before


def test_rows_after_the_checkpoint_are_dropped(damaged):
    assert [row["epoch"] for row in records.keep_until(damaged, 2)] == [1, 2]
    assert [row["epoch"] for row in records.choices(damaged)] == [1, 2]


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lines.COUNT, (1, 7.0), (0, -1, 1.5, True, "1", None, float("nan"))),
        (lines.NUMBER, (0, -1.5, float("inf")), (True, "1", None, [1])),
        (lines.TEXT, ("", "a"), (1, None, ["a"])),
        (lines.TABLE, ({}, {"a": [[1, 2.0], [0, 1]]}), ([], {"a": []}, {"a": [1]})),
        (lines.TABLE, ({"a": [[0.5]]},), ({"a": [[1], [1, 2]]}, {"a": [["x"]]})),
    ],
)
def test_checks(check, good, bad):
    _, fits = check
    assert all(map(fits, good))
    assert not any(map(fits, bad))
