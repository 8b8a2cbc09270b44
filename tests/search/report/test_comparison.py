"""One report of several searches: means over the seeds, and what cannot be compared."""

import json

import numpy as np
import pytest

from gumbax.search.command import cli
from gumbax.search.command.options import Options
from gumbax.search.report import gap
from gumbax.search.report.comparison import compare, for_plot, read_report
from gumbax.search.report.gap import Row
from gumbax.search.store.errors import SearchError
from tests.search.small_run import refused

ACCURACIES = {0: (97.25, 88.5, 93.0), 1: (95.5, 91.25, 94.5), 2: (98.0, 86.0, 91.75)}


def write_run(out, seed=0, soft=97.0, argmax=88.0, retrained=93.0, **options):
    """The report of a finished search."""
    options = {"dataset": "digits", "seed": seed, "method": "gumbel"} | options
    rows = (
        Row(gap.SOFT, (soft,)),
        Row(gap.DRAWN, (argmax - 1, argmax + 3)),
        Row(gap.ARGMAX, (argmax,)),
        Row(gap.RETRAINED, (retrained,)),
        Row(gap.RANDOM, (80.0 + seed, 84.0 + 2 * seed)),
    )
    out.mkdir()
    content = {"options": options, "rows": gap.to_json(rows)}
    (out / "report.json").write_text(json.dumps(content))
    return out


@pytest.fixture
def runs(tmp_path):
    """One method with three seeds."""
    return [
        write_run(tmp_path / f"seed{seed}", seed, *values)
        for seed, values in ACCURACIES.items()
    ]


def line(text, name):
    (found,) = [
        one for one in text.splitlines() if one.startswith(f"  {name} ") and "%" in one
    ]
    return found


@pytest.mark.parametrize(
    ("name", "column"), [(gap.SOFT, 0), (gap.ARGMAX, 1), (gap.RETRAINED, 2)]
)
def test_means_and_deviations_are_those_over_the_seeds(runs, name, column):
    values = np.array(list(ACCURACIES.values()))[:, column]
    expected = f"{values.mean():.2f} % ± {values.std(ddof=1):.2f}"
    text = compare(runs)
    assert expected in line(text, name)
    assert line(text, name).endswith("(3)")
    assert text.startswith("Method gumbel, 3 runs\n")


def test_drawn_networks_count_by_the_run_and_random_architectures_all(runs):
    text = compare(runs)
    drawn = np.array([values[1] + 1 for values in ACCURACIES.values()])
    expected = f"{drawn.mean():.2f} % ± {drawn.std(ddof=1):.2f}"
    assert expected in line(text, gap.DRAWN)
    others = np.array([[80 + seed, 84 + 2 * seed] for seed in ACCURACIES])
    expected = f"{others.mean():.2f} % ± {others.std(ddof=1):.2f}"
    assert expected in line(text, gap.RANDOM)
    assert line(text, gap.RANDOM).endswith("(6)")


def test_gap_is_that_of_the_means(runs):
    values = np.array(list(ACCURACIES.values())).mean(axis=0)
    assert f"{values[0] - values[1]:+.2f}" in compare(runs)


def test_order_of_the_folders_does_not_matter(runs):
    assert compare(runs[::-1]) == compare(runs)


def test_methods_have_tables_of_their_own_and_the_files_are_written(runs, tmp_path):
    other = write_run(tmp_path / "darts", method="darts", epochs=7)
    out = tmp_path / "all" / "of them"
    text = compare([*runs, other], out)
    assert "Method gumbel, 3 runs" in text
    assert "Method darts, 1 run\n" in text
    assert "±" not in text[text.index("Method darts") :].split(gap.RETRAINED)[1][:30]
    assert (out / "gap.txt").read_text() == text
    names = {"gap.txt", "gap.svg", "gap.png", "report.html"}
    assert {p.name for p in out.iterdir()} == names


def test_report_is_read_as_it_was_written(runs):
    found = read_report(runs[1])
    assert (found.experiment, found.options["seed"]) == ("gumbel", 1)
    assert for_plot(found.rows)[gap.SOFT] == (95.5, None)
    mean, deviation = for_plot(found.rows)[gap.RANDOM]
    assert (mean, deviation) == (83.5, pytest.approx(np.std([81, 86], ddof=1)))


# What cannot be compared


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 9}, {"dataset": "mnist"}, {"flip": True, "space": "darts"}],
)
def test_runs_that_differ_in_more_than_the_seed_are_refused(runs, tmp_path, changes):
    other = write_run(tmp_path / "other", 3, **changes)
    with pytest.raises(SearchError, match="differ from the others") as caught:
        compare([*runs, other])
    message = str(caught.value)
    assert f"another {', '.join(changes)} in {other} than in {runs[0]}" in message
    assert "(gumbel)" in message
    assert message.endswith("Report them apart.")


def test_every_option_but_the_seed_counts(tmp_path):
    first = vars(Options("digits"))
    for name in sorted(first):
        runs = [write_run(tmp_path / f"{name}{i}", i) for i in range(2)]
        for i, run in enumerate(runs):
            content = json.loads((run / "report.json").read_text())
            changed = {name: f"value {i}", "seed": i} if name != "seed" else {"seed": i}
            content["options"] = first | changed
            (run / "report.json").write_text(json.dumps(content))
        if name in ("seed", "method", "budget", "cost_weight"):
            assert "Method" in compare(runs)
            continue
        with pytest.raises(SearchError, match=f"another {name} in"):
            compare(runs)


def test_budgets_and_weights_of_a_cost_stand_side_by_side(tmp_path):
    """The Pareto front of what was kept for each of them."""
    of_weights = {"cost": "weights", "budget": None, "cost_weight": None}
    runs = []
    for i, changes in enumerate(({}, {"budget": 3e5}, {"cost_weight": 0.5})):
        for seed in (0, 1):
            out = write_run(tmp_path / f"{i}{seed}", seed, **of_weights | changes)
            content = json.loads((out / "report.json").read_text())
            kept = {
                "name": "derived",
                "accuracy": 90.0 + i,
                "costs": {"weights": 5 - i},
            }
            content["architectures"] = [kept]
            (out / "report.json").write_text(json.dumps(content))
            runs.append(out)
    text = compare(runs, tmp_path / "all")
    for name in ("", ", within 300,000 weights", ", 0.5 nats for weights"):
        assert f"Method gumbel{name}, 2 runs\n" in text
    page = (tmp_path / "all/report.html").read_text()
    assert "kept by gumbel, within 300,000 weights" in page
    assert (
        "Nothing beats gumbel, 0.5 nats for weights, seed 0, derived: 92.00 %" in page
    )
    # A mean over two of them would be of no experiment.
    (runs[1] / "report.json").write_text((runs[3] / "report.json").read_text())
    with pytest.raises(SearchError, match=r"within 300,000 weights.*seed 1 in"):
        compare(runs)


def test_report_among_the_runs_is_none_of_them(capsys, runs, tmp_path):
    out = tmp_path / "all"
    for folders in (runs, [*runs, out]):
        assert cli.main(["report", *map(str, folders), "--out", str(out)]) == 0
        assert "3 runs" in capsys.readouterr().out
    # Alone it is the folder that has no search.
    assert "be the folder of a finished search" in refused(
        capsys, "report", out, "--out", out
    )
    # A run may take the report into its own folder, and is one of them still.
    for _ in range(2):
        arguments = ["report", *map(str, runs), "--out", str(runs[0])]
        assert cli.main(arguments) == 0
        assert "3 runs" in capsys.readouterr().out


def test_same_data_in_another_place_are_the_same(tmp_path):
    runs = [
        write_run(tmp_path / str(i), i, dataset=f"/data/{i}/rows.npz") for i in range(2)
    ]
    assert "2 runs" in compare(runs)


def test_seed_that_is_there_twice_is_refused(runs, tmp_path):
    again = write_run(tmp_path / "again", 1)
    with pytest.raises(SearchError, match="have a seed of its own") as caught:
        compare([*runs, again])
    assert f"seed 1 in {runs[1]} and in {again}" in str(caught.value)
    with pytest.raises(SearchError, match="Name each run once"):
        compare([runs[0], runs[0]])


def test_same_seed_of_two_methods_is_compared(runs, tmp_path):
    other = write_run(tmp_path / "darts", 0, method="darts")
    assert "Method darts" in compare([*runs, other])


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "",
        "{}",
        "[]",
        '{"options": 3, "rows": []}',
        '{"options": {"method": "gumbel", "seed": 0, "dataset": "x"}, "rows": []}',
        '{"options": {"method": "gumbel"}, "rows": []}',
    ],
)
def test_folder_without_a_whole_report_is_refused(runs, damage):
    path = runs[1] / "report.json"
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    with pytest.raises(SearchError, match="folder of a finished search") as caught:
        compare(runs)
    assert str(path) in str(caught.value)
    assert "Finish it: `gumbax search --resume --out`" in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "mine", "values": [1.0]},
        {"name": gap.SOFT, "values": []},
        {"name": gap.SOFT, "values": ["many"]},
        {"name": gap.SOFT, "values": 3},
        {"name": gap.SOFT},
        3,
    ],
)
def test_row_that_is_none_is_refused(runs, row):
    path = runs[0] / "report.json"
    content = json.loads(path.read_text())
    content["rows"][0] = row
    path.write_text(json.dumps(content))
    with pytest.raises(SearchError, match="cannot be read"):
        read_report(runs[0])


def test_refusal_writes_nothing(capsys, runs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "all"
    error = refused(capsys, "report", *runs, empty, "--out", out)
    assert "be the folder of a finished search" in error
    assert not out.exists()
    assert cli.main(["report", *map(str, runs)]) == 0
    assert "3 runs" in capsys.readouterr().out
