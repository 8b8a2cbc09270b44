"""The folder of a run: opened, refused, resumed, and whole when the disk is full."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import gumbax
from gumbax.search.command import cli, run, start
from gumbax.search.command.options import Options
from gumbax.search.store import folder, lines
from gumbax.search.store.errors import SearchError
from tests.helpers import enable_x64
from tests.search.small_run import GENOTYPE, files, full_disk, refused, write_rows

DECIDING = ("jax", "jaxlib", "flax", "optax", "scikit-learn")

OPTIONS = Options("digits", seed=3, epochs=4, warmup=0.25, flip=True)


@pytest.fixture
def out(tmp_path):
    """A folder with the record of a search."""
    start.record(tmp_path / "run", OPTIONS)
    return tmp_path / "run"


def message(make):
    """Of a refusal in the form of all errors."""
    with pytest.raises(
        SearchError, match=r"(?s)`.*` must .*, got .*\. .*\.$"
    ) as caught:
        make()
    return str(caught.value)


def settled(out, resume=False, **given):
    return start.settle(out, given, resume=resume)


def change(out, edit):
    path = out / "run.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# A new run


def test_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    program = (
        "import sys, pathlib; from gumbax.search.store import folder\n"
        "with folder.alone(pathlib.Path(sys.argv[1])): print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "in\n"
    busy = pytest.raises(SearchError, match="`--out` must be the folder of one process")
    with busy, folder.alone(tmp_path):
        pass
    other.kill()  # whatever ends it
    other.communicate()
    with folder.alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_start_settles_the_options_and_writes_nothing(tmp_path):
    found = settled(tmp_path / "new" / "run", dataset="digits", seed=3)
    assert found == Options("digits", seed=3)
    assert not list(tmp_path.iterdir())
    empty = tmp_path / "empty"
    empty.mkdir()
    assert settled(empty, dataset="digits") == Options("digits")


def test_record_is_read_back_with_the_versions(out):
    options, versions = start.read(out)
    assert options == OPTIONS
    assert versions.pop("gumbax") == gumbax.__version__
    assert versions.pop("JAX_ENABLE_X64") == "False"
    assert versions == {name: metadata.version(name) for name in DECIDING}
    assert [path.name for path in out.iterdir()] == ["run.json"]


def test_run_goes_on_with_the_data_that_it_began_with(tmp_path):
    """A path can have new content."""
    out = tmp_path / "run"
    start.record(out, OPTIONS, data="1234")
    before = files(out)
    start.record(out, OPTIONS, data="1234")
    for call in (
        lambda: start.record(out, OPTIONS, data="5678"),
        lambda: folder.check_data(out, "5678"),
    ):
        found = message(call)
        assert f"`dataset` must hold what it did when the run in {out} began" in found
        assert "got other examples (5678). Put the old files back" in found
    assert files(out) == before


def test_record_is_written_once(out):
    before = files(out)
    start.record(out, OPTIONS)
    assert "`dataset` must be left" in message(
        lambda: start.record(out, Options("other"))
    )
    assert files(out) == before


def test_record_that_was_stopped_on_the_way_does_not_count(tmp_path):
    (tmp_path / "run.json.tmp").write_text('{"comm')
    assert settled(tmp_path, dataset="digits") == Options("digits")
    start.record(tmp_path, OPTIONS)
    assert start.read(tmp_path)[0] == OPTIONS


@pytest.mark.parametrize("name", ["notes.txt", "metrics.jsonl.tmp", ".hidden"])
def test_folder_with_other_files_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    found = message(lambda: settled(tmp_path, dataset="digits"))
    assert "`--out` must be a new or empty folder" in found
    assert f"{tmp_path}, which holds other files. Pass another --out." in found


def test_folder_with_a_run_is_refused_without_resume(out):
    before = files(out)
    found = message(lambda: settled(out, dataset="digits"))
    assert f"got {out}, which holds another run. Pass --resume to go on" in found
    assert files(out) == before


@pytest.mark.parametrize("resume", [False, True])
def test_file_in_place_of_the_folder_is_refused(tmp_path, resume):
    path = tmp_path / "file"
    path.write_text("mine")
    found = message(lambda: settled(path, resume, dataset="digits"))
    assert f"`--out` must be a folder, got the file {path}" in found


def test_options_are_checked_before_a_run_starts(tmp_path):
    found = message(lambda: settled(tmp_path / "run", dataset="digits", epochs=0))
    assert "`--epochs` must be from 1" in found


# Resumption


def test_resumed_run_has_the_options_of_its_start(out):
    assert settled(out, resume=True) == OPTIONS
    same = {"dataset": "digits", "seed": 3, "flip": True, "batch_size": 64}
    assert settled(out, resume=True, **same) == OPTIONS


@pytest.mark.parametrize(
    ("name", "value", "option", "had"),
    [
        ("seed", 4, "--seed", "3"),
        ("dataset", "rows.npz", "dataset", "'digits'"),
        ("batch_size", 32, "--batch-size", "64"),
        ("flip", False, "--flip", "True"),
        ("channels", 8, "--channels", "None"),
    ],
)
def test_resume_with_another_option_is_refused(out, name, value, option, had):
    before = files(out)
    found = message(lambda: settled(out, resume=True, **{name: value}))
    assert f"`{option}` must be left as it was" in found
    assert f"got {value!r}, the run has {had}. Leave it out" in found
    assert files(out) == before


@pytest.mark.parametrize("name", ["gumbax", *DECIDING])
@pytest.mark.parametrize("version", ["0.0.1", None])
def test_resume_with_another_version_is_refused(out, name, version):
    change(out, lambda content: content["versions"].update({name: version}))
    before = files(out)
    found = message(lambda: settled(out, resume=True))
    current = gumbax.__version__ if name == "gumbax" else metadata.version(name)
    assert f"`--resume` must find a run of {name} {current}" in found
    assert f"got {out / 'run.json'} of {name} {version}. Install that version" in found
    assert files(out) == before


def test_resume_with_other_floats_is_refused(out):
    before = files(out)
    with enable_x64():
        found = message(lambda: settled(out, resume=True))
    assert "find a run with JAX_ENABLE_X64=True, got" in found
    assert "with JAX_ENABLE_X64=False. Set JAX_ENABLE_X64 as it was" in found
    assert files(out) == before
    change(out, lambda content: content["versions"].pop("JAX_ENABLE_X64"))
    assert settled(out, resume=True) == OPTIONS  # a run of an earlier version


def test_record_without_versions_is_not_resumed(out):
    change(out, lambda content: content.pop("versions"))
    assert "of gumbax None" in message(lambda: settled(out, resume=True))


def test_resume_needs_a_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        found = message(lambda path=path: settled(path, resume=True, dataset="digits"))
        assert (
            f"`--resume` must find a run in --out, got no run.json in {path}" in found
        )
        assert "Leave out --resume" in found


def test_run_of_another_command_is_not_resumed(out):
    found = message(lambda: start.settle(out, {}, resume=True, command=start.RETRAIN))
    assert "`run` must be the folder of `gumbax retrain`" in found
    assert "of `gumbax search`. Pass another folder" in found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"command": "search", "opt',
        b"\xff\xfe",
        b"[]",
        b"3",
        b"{}",
        b'{"options": []}',
        b'{"options": {}}',
        b'{"options": {"dataset": "digits", "mine": 1}}',
        b'{"options": {"dataset": "digits", "seed": "3"}}',
        b'{"options": {"dataset": "digits"}, "versions": 3}',
    ],
)
def test_record_that_cannot_be_read_is_refused(out, content):
    (out / "run.json").write_bytes(content)
    for make in (lambda: settled(out, resume=True), lambda: start.read(out)):
        found = message(make)
        assert "`run` must have its options in run.json" in found
        assert f"{out / 'run.json'}, which cannot be read (" in found
        assert "Restore the file" in found
    assert (out / "run.json").read_bytes() == content


def test_record_with_a_value_out_of_range_is_refused(out):
    change(out, lambda content: content["options"].update(epochs=0))
    assert "`--epochs` must be from 1" in message(lambda: settled(out, resume=True))


# Whole or not there


def test_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file.txt"
    folder.write(path, "old")
    folder.write(path, "new ±")
    assert path.read_text(encoding="utf-8") == "new ±"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


def test_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    folder.write(path, "old")
    monkeypatch.setattr(Path, "write_text", full_disk(Path.write_text))
    with pytest.raises(OSError, match="No space left on device"):
        folder.write(path, "something new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


def test_full_disk_leaves_the_lines_that_were_kept(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", full_disk(Path.write_text))
    with pytest.raises(OSError, match="No space left on device"):
        lines.keep(path, {})
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert lines.keep(path, {}, lambda row: row["epoch"] < 2) == [{"epoch": 1}]
    assert path.read_text() == '{"epoch": 1}\n'


@pytest.fixture
def retrain(tmp_path):
    """Arguments of a training from scratch of one epoch, and its folder."""
    rows = write_rows(tmp_path)
    path = tmp_path / "genotype.json"
    path.write_text(GENOTYPE.to_json())
    out = tmp_path / "run"
    return ["retrain", path, rows, "--train-epochs", "1", "--out", out], out


def test_full_disk_at_the_record_leaves_a_folder_that_can_start(
    capsys, retrain, monkeypatch
):
    arguments, out = retrain
    monkeypatch.setattr(Path, "write_text", full_disk(Path.write_text))
    error = refused(capsys, *arguments)
    assert "No space left on device" in error
    assert not list(out.iterdir())
    monkeypatch.undo()
    assert settled(out, dataset="digits") == Options("digits")


@pytest.mark.exhaustive
def test_full_disk_at_the_result_loses_nothing(capsys, retrain, monkeypatch):
    arguments, out = retrain

    def wanted(path):
        return "result.json" in path.name

    monkeypatch.setattr(Path, "write_text", full_disk(Path.write_text, wanted))
    error = refused(capsys, *arguments)
    assert error == (
        "gumbax: No space left on device. Pass --resume to go on from the last "
        "checkpoint.\n"
    )
    names = {path.name for path in out.iterdir()}
    assert names == {"run.json", "genotype.json", "checkpoints"}
    monkeypatch.undo()
    monkeypatch.delattr("gumbax.search.loops.training.Training.epoch")  # it is done
    assert cli.main(list(map(str, [*arguments, "--resume"]))) == 0
    result = json.loads((out / "result.json").read_text())
    assert f"test accuracy {result['test_accuracy']:.2f} %" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_full_disk_in_a_search_leaves_the_rows_before(capsys, tmp_path, monkeypatch):
    """The search itself is left out: epochs end at once, with the state as it is."""
    rows, out = write_rows(tmp_path), tmp_path / "run"
    full = True

    def fit(search, state, on_epoch):
        shown = ("loss", "accuracy", "argmax_accuracy", "temperature")
        values = dict.fromkeys(shown, 0.5)
        (first, *_) = [row["epoch"] for row in lines.read(metrics, {})[::-1]] or [0]
        for epoch in range(first + 1, 5):
            on_epoch(state, values | {"epoch": epoch})
        raise SearchError("Enough.")

    def append(file, row):
        if full and row["epoch"] == 3:
            file.write('{"epoch": 3, "lo')
            raise OSError(28, "No space left on device", str(metrics))
        lines_append(file, row)

    metrics, lines_append = out / "metrics.jsonl", lines.append
    monkeypatch.setattr(run, "fit", fit)
    monkeypatch.setattr(lines, "append", append)
    monkeypatch.setattr(run, "SECONDS_PER_CHECKPOINT", 0.0)
    arguments = ["search", rows, "--epochs", "6", "--out", out]
    error = refused(capsys, *arguments)
    assert re.search(
        r"No space left on device \(.*metrics.jsonl\)\. Pass --resume", error
    )
    assert [row["epoch"] for row in lines.read(metrics, {})] == [1, 2]
    assert not metrics.read_text().endswith("\n")
    full = False
    assert "Enough." in refused(capsys, *arguments, "--resume")
    for name in ("metrics.jsonl", "choices.jsonl"):
        text = (out / name).read_text()
        assert [json.loads(line)["epoch"] for line in text.splitlines()] == [1, 2, 3, 4]
