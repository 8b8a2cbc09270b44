import json
import os
import signal
import subprocess
import sys
import time

import pytest

import gumbax
from gumbax.search import cli, run

OPTIONS = ("--steps", "240", "--train-steps", "40", "--random-architectures", "1")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One CPU device, as a user has, and one compilation for all runs."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | cache


def start(out, environment, *options):
    command = [sys.executable, "-m", "gumbax", "search", "digits", "--out", str(out)]
    return subprocess.Popen(
        [*command, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    """The folder and the output of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = start(out, environment, *OPTIONS)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return out, output


def rows(out):
    return [
        json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]


def without_clock(out):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out)]


def files(out):
    return {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_run_leaves_everything_it_promises(whole):
    out, output = whole
    pictures = {"cell.svg", "cell.png", "curves.png"}
    records = {"run.json", "metrics.jsonl", "genotype.json", "trainings.jsonl"}
    for name in pictures | records | {"checkpoints", "report.json", "report.txt"}:
        assert (out / name).exists(), name
    assert (out / "report.txt").read_text() in output
    for word in ("loss", "accuracy", "temperature", "entropy"):
        assert word in output
    assert [row["step"] for row in rows(out)] == list(range(20, 241, 20))
    report = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == [
        "soft network",
        "straight-through network",
        "argmax, inherited weights",
        "derived, retrained",
        "random architectures",
    ]


def test_killed_run_resumes_to_the_same_result_bit_for_bit(
    whole, environment, tmp_path
):
    out = tmp_path / "run"
    process = start(out, environment, *OPTIONS)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 300
    # Past the first checkpoint, at 100 steps, and before the end.
    while not metrics.exists() or metrics.read_text().count("\n") < 7:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "report.json").exists()
    with metrics.open("a") as file:
        file.write('{"step": 160, "lo')  # what a kill in the middle of a line leaves
    resumed = start(out, environment, "--resume")
    output, _ = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, output
    assert "resumed from step" in output
    expected, _ = whole
    for name in ("report.json", "report.txt", "genotype.json", "trainings.jsonl"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert without_clock(out) == without_clock(expected)


def test_finished_run_resumes_to_its_report(whole, capsys):
    out, _ = whole
    before = (out / "report.txt").read_text()
    assert cli.main(["search", "digits", "--out", str(out), "--resume"]) == 0
    assert before in capsys.readouterr().out


def refused(capsys, *arguments):
    """The message of a refusal: exit code 2, no traceback."""
    assert cli.main(["search", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gumbax: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "got 'mnist'. Known: digits"),
        (["digits", "--method", "drats"], "got 'drats'. Known: gumbel, darts"),
        (["digits", "--steps", "0"], "`--steps` must be from 1"),
        (["digits", "--train-steps", "0"], "`--train-steps` must be from 1"),
        (["digits", "--seed", "-1"], "`--seed` must be from 0"),
        (["digits", "--random-architectures", "-1"], "must be from 0"),
        (["digits", "--resume"], "no run.json"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    capsys, tmp_path, arguments, message
):
    out = tmp_path / "run"
    assert message in refused(capsys, *arguments, "--out", out)
    assert not out.exists()


def test_folder_of_another_run_is_refused(capsys, whole):
    out, _ = whole
    before = files(out)
    message = refused(capsys, "digits", "--out", out)
    assert "which holds another run. Pass --resume" in message
    assert files(out) == before


def test_folder_with_other_files_is_refused(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "other files" in refused(capsys, "digits", "--out", tmp_path)
    assert files(tmp_path) == {tmp_path / "thesis.tex": b"precious"}
    message = refused(capsys, "digits", "--out", tmp_path / "thesis.tex")
    assert "`--out` must be a folder" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "darts"], "got 'darts', the run has 'gumbel'"),
        (["--steps", "500"], "got 500, the run has 240"),
        (["--seed", "1"], "got 1, the run has 0"),
    ],
)
def test_options_that_would_change_the_run_are_refused(capsys, whole, options, message):
    out, _ = whole
    before = files(out)
    assert message in refused(capsys, "digits", "--out", out, "--resume", *options)
    assert files(out) == before


@pytest.mark.parametrize("text", ["", "{}", '{"options": {"dataset": 3}}'])
def test_damaged_record_of_the_run_is_refused(capsys, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert "run.json" in refused(capsys, "digits", "--out", tmp_path, "--resume")
    assert (tmp_path / "run.json").read_text() == text


def test_damaged_checkpoint_is_refused_and_kept(capsys, whole, tmp_path):
    out = tmp_path / "run"
    subprocess.run(["cp", "-r", whole[0], out], check=True)
    for path in (out / "checkpoints" / "240").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])
    before = files(out)
    message = refused(capsys, "digits", "--out", out, "--resume")
    assert "resumes from that of step 200" in message
    assert files(out) == before


def test_interrupt_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupted)
    assert cli.main(["search", "digits", "--out", str(tmp_path / "run")]) == 130
    assert "--resume" in capsys.readouterr().err


def test_missing_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    error = ModuleNotFoundError("no", name="sklearn.datasets")

    def missing(*_):
        raise error

    monkeypatch.setattr(run, "run", missing)
    assert cli.main(["search", "digits", "--out", str(tmp_path / "run")]) == 2
    assert 'pip install "gumbax[search]"' in capsys.readouterr().err


def test_help_and_version(capsys):
    assert cli.main([]) == 0
    assert "gumbax search digits --out runs/digits" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gumbax {gumbax.__version__}\n"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["search", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in ("--out", "--method", "--seed", "--steps", "--resume"):
        assert option in text


def test_unknown_option_exits_with_2():
    with pytest.raises(SystemExit) as stopped:
        cli.main(["search", "digits", "--out", "x", "--fast"])
    assert stopped.value.code == 2
