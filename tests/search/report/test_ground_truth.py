"""Published accuracies: read, checked, and found for what runs keep."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gumbax.search.command import cli
from gumbax.search.genotype.genotype import Genotype, constant_architectures
from gumbax.search.network import costs
from gumbax.search.network.costs import CostTable
from gumbax.search.report import ground_truth
from gumbax.search.report.comparison import compare
from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.named import SPACES, nasbench201
from gumbax.search.store.errors import SearchError
from tests.search.report.test_comparison import write_run
from tests.search.small_run import refused

TABLE = Path(__file__).parents[3].parent / "shared/data/nb201.npz"
# Three edges of three operations, so 27 architectures.
SMALL = CellSpace("small", ("none", "skip_connect", "nor_conv_3x3"), num_nodes=3)
NAMES = ("nor_conv_3x3", "none", "skip_connect")  # another order than the space has


def arrays(seed=0):
    """A table in an order of its own."""
    generator = np.random.default_rng(seed)
    digits = np.array(list(itertools.product(range(3), repeat=3)), np.int8)
    return {
        "op_names": np.array(NAMES),
        "edge_ops": generator.permutation(digits),
        "cifar10_test": generator.uniform(10, 95, 27).astype(np.float32),
        "one_shot": generator.uniform(10, 95, 27).astype(np.float32),
    }


def save(path, **changes):
    np.savez(path, **{k: v for k, v in (arrays() | changes).items() if v is not None})
    return path


def text_of(digits):
    a, b, c = (NAMES[d] for d in digits)
    return f"|{a}~0|+|{b}~0|{c}~1|"


def test_accuracies_are_found_by_the_architecture(tmp_path):
    truth = ground_truth.load_table(save(tmp_path / "t.npz"), SMALL)
    assert list(truth.accuracies) == ["cifar10"]  # one_shot is no test accuracy
    given = arrays()
    for digits, value in zip(given["edge_ops"], given["cifar10_test"], strict=True):
        genotype = Genotype.from_nasbench201(text_of(digits), space="small")
        assert truth.of(genotype) == {"cifar10": pytest.approx(value)}


def test_percentile_counts_those_that_are_not_better(tmp_path):
    truth = ground_truth.load_table(save(tmp_path / "t.npz"), SMALL)
    values = np.sort(truth.accuracies["cifar10"])
    assert truth.percentile("cifar10", values[-1]) == 100
    assert truth.percentile("cifar10", values[0]) == pytest.approx(100 / 27)
    assert truth.percentile("cifar10", 0.0) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_ops": None}, "hold op_names, edge_ops and accuracies"),
        ({"cifar10_test": None}, "hold op_names, edge_ops and accuracies"),
        ({"op_names": np.array(["a", "b", "c"])}, "be of the operations none, skip"),
        ({"op_names": np.array("none")}, "be of the operations none, skip"),
        ({"edge_ops": arrays()["edge_ops"][:26]}, r"integers \[27, 3\] as edge_ops"),
        ({"edge_ops": arrays()["edge_ops"] + 1}, "edge_ops from 0 to 2, got.*1 to 3"),
        ({"edge_ops": np.zeros((27, 3), int)}, r"each architecture once, got.*none \|"),
        ({"cifar10_test": np.ones(26)}, "27 finite numbers as cifar10_test"),
        ({"cifar10_test": np.full(27, np.nan)}, "27 finite numbers as cifar10_test"),
    ],
    ids=str,
)
def test_table_of_another_space_or_with_missing_rows_is_refused(
    changes, message, tmp_path
):
    path = save(tmp_path / "t.npz", **changes)
    with pytest.raises(SearchError, match=rf"`--table` must.*{message}"):
        ground_truth.load_table(path, SMALL)


@pytest.mark.parametrize("space", ["darts", "mlp"])
def test_spaces_that_are_not_one_cell_are_refused(space, tmp_path):
    with pytest.raises(SearchError, match="`--table` must be of"):
        ground_truth.load_table(save(tmp_path / "t.npz"), SPACES[space]())


def test_no_table_is_refused(tmp_path):
    whole = save(tmp_path / "whole.npz").read_bytes()
    contents = {
        "text.npz": b"text",
        "empty.npz": b"",
        "half.npz": whole[: len(whole) // 2],
        "flipped.npz": whole[:100]
        + bytes(b ^ 255 for b in whole[100:200])
        + whole[200:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in (*contents, "array.npy", "missing.npz"):
        with pytest.raises(SearchError, match=r"be an \.npz file"):
            ground_truth.load_table(tmp_path / name, SMALL)


def test_nats_bench_gives_the_same_table(tmp_path):
    """The interface of its topology object: arch, get_more_info, len."""
    given, asked = arrays(), []

    class Api:
        def __len__(self):
            return 27

        def arch(self, row):
            return text_of(given["edge_ops"][row])

        def get_more_info(self, row, dataset, hp, is_random):
            asked.append((dataset, hp, is_random))
            return {"test-accuracy": float(given["cifar10_test"][row])}

    class Part(Api):
        def __len__(self):
            return 26

    with pytest.raises(
        SearchError, match="all 27 architectures on cifar10, got none of"
    ):
        ground_truth.from_nats_bench(Part(), SMALL, ("cifar10",))
    asked.clear()
    found = ground_truth.from_nats_bench(Api(), SMALL, ("cifar10",))
    assert set(asked) == {("cifar10", "200", False)}
    expected = ground_truth.load_table(save(tmp_path / "t.npz"), SMALL)
    np.testing.assert_array_equal(
        found.accuracies["cifar10"], expected.accuracies["cifar10"]
    )


PROBABILITIES = [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]
KEPT = Genotype.from_nasbench201(
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|", space="small"
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Finished runs of two seeds, of two epochs each, and a table of their space."""
    monkeypatch.setitem(SPACES, "small", lambda: SMALL)
    folders = [write_run(tmp_path / f"seed{seed}", seed) for seed in (0, 1)]
    for one in folders:
        (one / "genotype.json").write_text(KEPT.to_json())
        rows = [
            {"epoch": epoch, "probabilities": {"cell": values}}
            for epoch, values in ((1, np.eye(3).tolist()), (2, PROBABILITIES))
        ]
        (one / "choices.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folders, save(tmp_path / "table.npz")


def test_report_shows_what_is_published_of_what_was_kept(runs, tmp_path):
    folders, table = runs
    out = tmp_path / "all"
    text = compare(folders, out, table)
    truth = ground_truth.load_table(table, SMALL)
    accuracy = truth.of(KEPT)["cifar10"]
    place = truth.percentile("cifar10", accuracy)
    lines = text.splitlines()
    (line,) = [one for one in lines if one.startswith(f"  {folders[1]}")]
    assert line.endswith(f"{accuracy:.2f} ({place:.1f})")
    assert any("gumbel, mean of 2 " in one for one in lines)
    for name, genotype in constant_architectures(SMALL).items():
        (line,) = [one for one in lines if one.startswith(f"  {name} everywhere")]
        assert f"{truth.of(genotype)['cifar10']:.2f}" in line
    assert (out / "truth.svg").exists()
    content = json.loads((out / "truth.json").read_text())
    first = Genotype.from_nasbench201(
        "|none~0|+|skip_connect~0|nor_conv_3x3~1|", space="small"
    )
    assert content["runs"][0]["epochs"] == [1, 2]
    assert content["runs"][0]["accuracy_by_epoch"] == [truth.of(first), truth.of(KEPT)]
    assert "Published test accuracy" in (out / "report.html").read_text()


def test_accuracies_that_are_there_already_make_the_same_report(runs, tmp_path):
    folders, table = runs
    truth = ground_truth.load_table(table, SMALL)
    assert compare(folders, table=truth) == compare(folders, table=table)


def test_after_each_epoch_it_is_what_the_budget_leaves(runs, tmp_path):
    """A convolution costs more than there is; without a budget there is one in each."""
    folders, table = runs
    options = {"cost": "weights", "budget": 4.0}
    out = write_run(tmp_path / "within", 2, **options)
    for name in ("genotype.json", "choices.jsonl"):
        (out / name).write_text((folders[0] / name).read_text())
    (choice,) = SMALL.choices.values()
    of_edge = [5.0 * (name == "nor_conv_3x3") for name in choice.primitives]
    rows = np.array([of_edge] * len(choice.edges))
    costs.write(
        out,
        {"weights": CostTable("weights", "small", 2.0, SMALL.choices, {"cell": rows})},
    )
    read = ground_truth.read_kept(out, "gumbel", SMALL, **options)
    free = ground_truth.read_kept(out, "gumbel", SMALL)
    assert [str(one).count("conv") for one in free.by_epoch] == [1, 1]
    assert [str(one).count("conv") for one in read.by_epoch] == [0, 0]
    # Of the first edge the second most probable operation, the others as they are.
    assert str(read.by_epoch[1]) == str(free.by_epoch[1]).replace(
        "nor_conv_3x3~0|+", "skip_connect~0|+"
    )
    compare([out], tmp_path / "all", table)
    (content,) = json.loads((tmp_path / "all/truth.json").read_text())["runs"]
    truth = ground_truth.load_table(table, SMALL)
    assert content["accuracy_by_epoch"] == [truth.of(one) for one in read.by_epoch]
    (out / "costs.json").unlink()
    with pytest.raises(SearchError, match=r"have the weights of its budget in costs"):
        compare([out], table=table)


def test_bad_tables_end_with_a_line_and_write_nothing(runs, tmp_path, capsys):
    folders, table = runs
    save(table, op_names=np.array(["a", "b", "c"]))
    out = tmp_path / "all"
    text = refused(capsys, "report", *folders, "--out", out, "--table", table)
    assert "be of the operations none, skip_connect, nor_conv_3x3" in text
    assert not out.exists()
    (folders[0] / "genotype.json").unlink()
    assert "have a genotype.json" in refused(
        capsys, "report", *folders, "--out", out, "--table", table
    )


def test_runs_of_two_spaces_have_no_table(runs, capsys):
    folders, table = runs
    other = SimpleNamespace(**vars(SMALL) | {"name": "nasbench201"})
    genotype = constant_architectures(nasbench201())["none"]
    assert other.name == genotype.space
    (folders[1] / "genotype.json").write_text(genotype.to_json())
    text = refused(capsys, "report", *folders, "--table", table)
    assert "be for runs of one space that has a name" in text


@pytest.mark.skipif(not TABLE.exists(), reason="needs the NAS-Bench-201 table")
def test_published_table_gives_the_published_figures():
    truth = ground_truth.load_table(TABLE, nasbench201())
    found = truth.of(constant_architectures(truth.space)["nor_conv_3x3"])
    assert found == {
        "cifar10": pytest.approx(93.76, abs=5e-3),
        "cifar100": pytest.approx(71.11, abs=5e-3),
    }
    assert 100 - truth.percentile("cifar10", found["cifar10"]) == pytest.approx(
        1.06, abs=5e-3
    )
    assert (
        cli.parser().parse_args(["report", "a", "--table", str(TABLE)]).table == TABLE
    )
