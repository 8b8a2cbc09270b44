"""Costs in a folder: counted or measured once, kept, and kept to."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import pytest
from flax import nnx

from gumbax.search.command import cli, known_costs, options, run
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.network import costs
from gumbax.search.report import pictures
from gumbax.search.spaces.named import SPACES
from gumbax.search.store.errors import SearchError
from tests.search.conftest import CHAIN
from tests.search.small_run import files, refused, write_rows

SKIP = Genotype("chain", {"layers": (("skip_connect", 0, 1),)})


class Measured:
    """A latency that is another one each time; and so shows that it is asked again."""

    def __init__(self):
        self.count = 0

    def __call__(self, primitive, module, x):
        self.count += 1
        return 0.001 * self.count + 5.0 * (primitive not in (None, "skip_connect"))


@pytest.fixture(scope="module", autouse=True)
def measured():
    """The space is that of other tests, whose programs are compiled."""
    latency = Measured()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES, "mlp", lambda: CHAIN)
        patch.setitem(options.COSTS, "latency", latency)
        # Slow, and tested elsewhere.
        patch.setattr(pictures, "draw", lambda out, space: None)
        yield latency


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data"))


def search(out, rows, *further):
    lengths = ("--epochs", 2, "--batch-size", 8, "--train-epochs", 1)
    arguments = ("search", rows, *lengths, "--random-architectures", 0, *further)
    return cli.main([*map(str, arguments), "--out", str(out)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, rows, measured):
    """A run with a measured latency, which only the skip is quick enough for."""
    out = tmp_path_factory.mktemp("run") / "run"
    budget = ("--cost", "latency", "--budget", 1, "--cost-weight", 0.1)
    assert search(out, rows, *budget) == 0
    return out


def test_run_keeps_its_costs_and_its_budget(whole):
    tables = costs.read(whole)
    assert set(tables) == {"weights", "multiply_adds", "latency"}
    kept = Genotype.load(whole / "genotype.json")
    assert kept == SKIP
    assert tables["latency"].of(kept).total <= 1
    assert tables["weights"].of(kept).total == 5 * 6 + 6 + 6 * 3 + 3
    assert tables["multiply_adds"].of(kept).total == 5 * 6 + 6 + 6 * 3 + 3
    metrics = (whole / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(row)["argmax_cost"] <= 1 for row in metrics)
    kept_options = json.loads((whole / "run.json").read_text())["options"]
    assert (kept_options["cost"], kept_options["budget"]) == ("latency", 1.0)


def test_resumed_run_does_not_measure_again(whole, measured, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "run")
    for name in ("genotype.json", "report.json"):
        (out / name).unlink()
    before = measured.count
    assert cli.main(["search", "--resume", "--out", str(out)]) == 0
    assert measured.count == before
    for name in ("costs.json", "genotype.json", "report.json", "metrics.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    (out / "costs.json").unlink()
    there = files(out)
    error = refused(capsys, "search", "--resume", "--out", out)
    assert "`--cost` must find the latency that this run was begun with" in error
    (out / "costs.json").write_text("{")
    error = refused(capsys, "search", "--resume", "--out", out)
    assert "`costs.json` must be readable" in error
    (out / "costs.json").unlink()
    assert files(out) == there
    error = refused(capsys, "search", "--resume", "--budget", 9, "--out", out)
    assert "`--budget` must be left as it was" in error


def test_derive_takes_another_budget(whole, measured, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "run")
    there = files(out)
    asked = ("--cost", "weights", "--budget", 1000)
    assert cli.main(["derive", str(out), *map(str, asked)]) == 0
    made = Genotype.load(out / "genotype-weights-1000.json")
    total = costs.read(out)["weights"].of(made).total
    assert total <= 1000
    assert f"weights {total:g}\n" in capsys.readouterr().out
    assert {path: files(out)[path] for path in there} == there
    assert cli.main(["derive", str(out)]) == 0  # within the budget of the run
    assert Genotype.load(out / "genotype.json") == SKIP


def test_derive_measures_once(whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "run")
    energy = Measured()
    monkeypatch.setitem(options.COSTS, "energy", energy)
    asked = ("derive", str(out), "--cost", "energy", "--budget")
    assert cli.main([*asked, "1"]) == 0
    measured, table = energy.count, costs.read(out)["energy"]
    assert measured == len(table.operations) + 1
    assert cli.main([*asked, "2"]) == 0
    assert energy.count == measured
    for budget in (1, 2):
        made = Genotype.load(out / f"genotype-energy-{budget}.json")
        assert table.of(made).total <= budget


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "9"], "`--cost` must be given with --budget, got none. Known: w"),
        (
            ["--cost-weight", "1"],
            "`--cost` must be given with --cost-weight, got none.",
        ),
        (["--cost", "watts"], "got 'watts'. Known: weights, multiply_adds, latency"),
        (
            ["--cost", "weights", "--budget", "56"],
            "be at least 57 weights, the cost of",
        ),
    ],
)
def test_search_that_cannot_be_is_refused(rows, tmp_path, capsys, arguments, message):
    out = tmp_path / "run"
    assert message in refused(capsys, "search", rows, *arguments, "--out", out)
    assert not out.exists()


def test_derivation_that_cannot_be_is_refused(whole, capsys):
    there = files(whole)
    for arguments, message in (
        (["--cost", "weights"], "`--budget` must be given with --cost, got none."),
        (["--budget", "0.0001"], "latency, the cost of the cheapest architecture"),
        (["--rule", "threshold"], "must maximise a product of probabilities"),
        (["--cost", "watts", "--budget", "1"], "`--cost` must be a known one"),
    ):
        assert message in refused(capsys, "derive", whole, *arguments)
    assert files(whole) == there


def test_file_of_another_space_is_refused(whole, tmp_path):
    wider = dataclasses.replace(CHAIN, widths=(6, 6, 6))
    shutil.copy(whole / "costs.json", tmp_path)
    with pytest.raises(
        SearchError, match=r"`costs\.json` must be of the choices of 'c"
    ):
        run.known_costs(tmp_path, wider, (5,), 3)


class Spectral(nnx.Module):
    def __call__(self, x):
        return jnp.fft.fft(x).real


def uncounted():
    def spectral(c_in, c_out, *, stride, layers, rngs):
        return Spectral()

    primitives = {**CHAIN.primitives, "spectral": spectral}
    return dataclasses.replace(CHAIN, primitives=primitives)


def test_primitive_that_cannot_be_counted_needs_a_count_if_it_is_asked_for(tmp_path):
    found = run.known_costs(tmp_path, uncounted(), (5,), 3)
    assert set(found) == {"weights"}
    with pytest.raises(
        SearchError, match=r"`fft` in 'spectral'\. Give its count: a cost"
    ):
        run.known_costs(tmp_path, uncounted(), (5,), 3, asked="multiply_adds")


def test_costs_of_a_space_that_cannot_be_traced_are_left_out(tmp_path, monkeypatch):
    """The search itself may run: its own costs are then nobody's question."""

    def untraceable(*arguments):
        raise TypeError("a value was asked for")

    monkeypatch.setattr(known_costs, "cost_tables", untraceable)
    assert known_costs.known_costs(tmp_path, CHAIN, (5,), 3) == {}
    with pytest.raises(SearchError, match="`--cost` must be known of every primitive"):
        known_costs.known_costs(tmp_path, CHAIN, (5,), 3, asked="weights")
