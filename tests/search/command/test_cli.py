"""The command line, in processes of its own where it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

import gumbax
from gumbax.search.command import cli, run
from gumbax.search.spaces.named import SPACES
from tests.helpers import NOT_OPTIMISED
from tests.search.small_run import SMALL_SPACES, write_rows

NUM_EPOCHS = 16
OPTIONS = ("--train-epochs", "1", "--random-architectures", "1")
OPTIONS += ("--no-constant-architectures",)
# As the command, with a checkpoint after every epoch, and small networks: the processes
# trace and compile anew.
LAUNCHER = """
import signal, sys
from gumbax.search.command import cli, run
from gumbax.search.spaces.named import SPACES
from tests.search.small_run import SMALL_SPACES
# Shells start background processes with ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
run.SECONDS_PER_CHECKPOINT = 0.0
SPACES |= SMALL_SPACES
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def environment():
    """One CPU device, as a user has, and programs as optimised as those here."""
    own = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return own | {NOT_OPTIMISED.upper(): str(jax.config.values[NOT_OPTIMISED])}


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    """As in the launcher."""
    for name, space in SMALL_SPACES.items():
        monkeypatch.setitem(SPACES, name, space)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A data set of features: their networks compile faster than those of images."""
    return write_rows(tmp_path_factory.mktemp("data"))


def start(out, environment, *options):
    command = [sys.executable, "-c", LAUNCHER, "search", "--out", str(out)]
    return subprocess.Popen(
        [*command, *map(str, options)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment, rows):
    """The folder and the output of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = start(out, environment, rows, "--epochs", NUM_EPOCHS, *OPTIONS)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return out, output


def without_clock(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def check_run(out, output, num_epochs):
    pictures = {f"{n}.{e}" for n in ("cell", "curves", "gap") for e in ("svg", "png")}
    records = {"run.json", "metrics.jsonl", "choices.jsonl", "genotype.json"}
    records |= {"trainings.jsonl", "report.json", "report.txt", "report.html"}
    records |= {"checkpoints", "space.json"}
    for name in pictures | records:
        assert (out / name).exists(), name
    assert (out / "report.txt").read_text() in output
    assert [row["epoch"] for row in without_clock(out / "metrics.jsonl")] == list(
        range(1, num_epochs + 1)
    )


@pytest.mark.exhaustive
def test_run_leaves_everything_it_promises(whole):
    check_run(*whole, NUM_EPOCHS)


def stop(process, how, out, num_rows):
    """Sends a signal once there are so many rows of metrics; returns the output."""
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() or metrics.read_text().count("\n") < num_rows:
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
        file.write('{"epoch": 16, "lo')  # what a kill in the middle of a line leaves
    return output


@pytest.mark.exhaustive
def test_stopped_run_resumes_to_the_same_result_bit_for_bit(
    whole, environment, rows, tmp_path
):
    """Killed once, and interrupted after it went on."""
    out = tmp_path / "run"
    process = start(out, environment, rows, "--epochs", NUM_EPOCHS, *OPTIONS)
    stop(process, signal.SIGKILL, out, 4)
    done = (out / "metrics.jsonl").read_text().count("\n")
    resumed = start(out, environment, "--resume")
    output = stop(resumed, signal.SIGINT, out, done + 2)
    assert "resumed from epoch" in output
    resumed = start(out, environment, "--resume")
    output, _ = resumed.communicate(timeout=900)
    assert resumed.returncode == 0, output
    assert "resumed from epoch" in output
    expected, _ = whole
    for name in ("report.json", "report.txt", "genotype.json", "trainings.jsonl"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    for name in ("metrics.jsonl", "choices.jsonl"):
        assert without_clock(out / name) == without_clock(expected / name)


def check_commands(out, config, tmp_path, capsys):
    """Derives from a run, reports, draws, and trains with the options of `config`."""
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
    path = tmp_path / "options.toml"
    path.write_text(config)
    again = tmp_path / "again"
    arguments = ["retrain", str(out), "--config", str(path), "--out", str(again)]
    assert cli.main(arguments) == 0
    result = json.loads((again / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 100


@pytest.mark.exhaustive
def test_derive_report_plot_and_retrain(whole, rows, tmp_path, capsys):
    config = f"dataset = '{rows}'\ntrain-epochs = 1\nbatch-size = 16\n"
    check_commands(whole[0], config, tmp_path, capsys)


@pytest.mark.exhaustive
def test_run_of_images_and_its_commands(environment, tmp_path, capsys):
    out = tmp_path / "run"
    cells = ("--channels", 4, "--cells", 1)
    process = start(out, environment, "digits", "--epochs", 2, *OPTIONS, *cells)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    check_run(out, output, 2)
    config = 'dataset = "digits"\ntrain-epochs = 1\nchannels = 4\n'
    check_commands(out, config, tmp_path, capsys)


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


@pytest.mark.exhaustive
def test_folder_that_is_not_empty_is_left_alone(capsys, whole, tmp_path):
    out, _ = whole
    error = refused(capsys, "search", "digits", "--out", out)
    assert "holds another run. Pass --resume" in error
    (tmp_path / "mine.txt").write_text("mine")
    assert "other files" in refused(capsys, "search", "digits", "--out", tmp_path)


@pytest.mark.exhaustive
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
