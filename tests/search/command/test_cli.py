"""The command line, in processes of its own where it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import gumbax
from gumbax.search.command import cli, run

OPTIONS = ("--epochs", "14", "--train-epochs", "1", "--random-architectures", "1")
OPTIONS += ("--channels", "4", "--cells", "1")
# As the command, with a checkpoint after every epoch.
LAUNCHER = """
import signal, sys
from gumbax.search import cli, run
# Shells start background processes with ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
run.SECONDS_PER_CHECKPOINT = 0.0
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One CPU device, as a user has, and one compilation for all runs."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | cache


def start(out, environment, *options):
    command = [sys.executable, "-c", LAUNCHER, "search", "digits", "--out", str(out)]
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
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return out, output


def without_clock(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_run_leaves_everything_it_promises(whole):
    out, output = whole
    pictures = {f"{n}.{e}" for n in ("cell", "curves", "gap") for e in ("svg", "png")}
    records = {"run.json", "metrics.jsonl", "choices.jsonl", "genotype.json"}
    records |= {"trainings.jsonl", "report.json", "report.txt", "checkpoints"}
    for name in pictures | records:
        assert (out / name).exists(), name
    assert (out / "report.txt").read_text() in output
    assert [row["epoch"] for row in without_clock(out / "metrics.jsonl")] == list(
        range(1, 15)
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_run_resumes_to_the_same_result_bit_for_bit(
    whole, environment, tmp_path, how
):
    out = tmp_path / "run"
    process = start(out, environment, *OPTIONS)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() or metrics.read_text().count("\n") < 4:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    output, _ = process.communicate(timeout=120)
    assert not (out / "report.json").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130, output
        assert "Pass --resume" in output
    with metrics.open("a") as file:
        file.write('{"epoch": 14, "lo')  # what a kill in the middle of a line leaves
    resumed = start(out, environment, "--resume")
    output, _ = resumed.communicate(timeout=900)
    assert resumed.returncode == 0, output
    assert "resumed from epoch" in output
    expected, _ = whole
    for name in ("report.json", "report.txt", "genotype.json", "trainings.jsonl"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    for name in ("metrics.jsonl", "choices.jsonl"):
        assert without_clock(out / name) == without_clock(expected / name)


def test_derive_report_plot_and_retrain(whole, tmp_path, capsys):
    out, _ = whole
    exported = tmp_path / "network.stablehlo"
    options = ["--rule", "argmax", "--export", str(exported)]
    kept = (out / "genotype.json").read_bytes()
    assert cli.main(["derive", str(out), *options]) == 0
    found = json.loads((out / "genotype-argmax.json").read_text())
    assert found["text"] in capsys.readouterr().out
    assert (out / "cell-argmax.svg").exists()
    assert (out / "genotype.json").read_bytes() == kept  # what the report is about
    assert cli.main(["derive", str(out)]) == 0
    assert (out / "genotype.json").read_bytes() == kept
    together = tmp_path / "all"
    assert cli.main(["report", str(out), "--out", str(together)]) == 0
    assert "Method gumbel, 1 run" in capsys.readouterr().out
    assert (together / "gap.svg").exists()
    (out / "curves.svg").unlink()
    assert cli.main(["plot", str(out)]) == 0
    assert (out / "curves.svg").exists()
    config = tmp_path / "options.toml"
    config.write_text('dataset = "digits"\ntrain-epochs = 1\nchannels = 4\n')
    again = tmp_path / "again"
    arguments = ["retrain", str(out), "--config", str(config), "--out", str(again)]
    assert cli.main(arguments) == 0
    result = json.loads((again / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 100


def refused(capsys, *arguments):
    """The message of a refusal: exit code 2, no traceback."""
    assert cli.main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gumbax: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_data"], "no_such_data"),
        (["digits", "--method", "drats"], "got 'drats'. Known: gumbel, darts"),
        (["digits", "--space", "nats"], "got 'nats'. Known: small_images"),
        (["digits", "--space", "mlp"], "be one for images"),
        (["digits", "--epochs", "0"], "`--epochs` must be from 1"),
        (["digits", "--seed", "-1"], "`--seed` must be from 0"),
        (["digits", "--warmup", "2"], "`--warmup` must be from 0.0 to 1.0"),
    ],
)
def test_options_that_no_run_can_have(capsys, tmp_path, arguments, message):
    out = tmp_path / "run"
    assert message in refused(capsys, "search", *arguments, "--out", out)


def test_folder_that_is_not_empty_is_left_alone(capsys, whole, tmp_path):
    out, _ = whole
    error = refused(capsys, "search", "digits", "--out", out)
    assert "holds another run. Pass --resume" in error
    (tmp_path / "mine.txt").write_text("mine")
    assert "other files" in refused(capsys, "search", "digits", "--out", tmp_path)


def test_resume_with_other_options_or_another_version_is_refused(
    capsys, whole, tmp_path
):
    out, _ = whole
    arguments = ["search", "--out", out, "--resume", "--seed", "5"]
    assert "be left as it was" in refused(capsys, *arguments)
    content = json.loads((out / "run.json").read_text())
    content["versions"]["jax"] = "0.1"
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(content))
    assert "Install that version" in refused(
        capsys, "search", "--out", other, "--resume"
    )


def test_full_disk_is_said(capsys, monkeypatch, tmp_path):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "run", full)
    error = refused(capsys, "search", "digits", "--out", tmp_path / "run")
    assert "No space left on device" in error


def test_config_file_errors(capsys, tmp_path):
    config = tmp_path / "options.toml"
    out = tmp_path / "run"
    for text, message in [
        ("epochs = 'many'", "be int or NoneType"),
        ("no-such = 1", "be known ones, got no_such"),
        ("epochs = = 1", "be a TOML file"),
    ]:
        config.write_text(text)
        error = refused(capsys, "search", "digits", "--out", out, "--config", config)
        assert message in error


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert gumbax.__version__ in capsys.readouterr().out
    assert cli.main([]) == 0
    assert "gumbax search digits" in capsys.readouterr().out
