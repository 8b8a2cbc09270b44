import json

import jax
import numpy as np
import pytest

from gumbax.search.data.dataset import Dataset, Examples
from gumbax.search.genotype.genotype import Genotype
from gumbax.search.loops.training import TrainingOptions
from gumbax.search.report import gap
from gumbax.search.report.gap import Row
from gumbax.search.spaces import mlp_space


def rows(soft, drawn, argmax, others=()):
    found = (
        Row(gap.SOFT, (soft,)),
        Row(gap.DRAWN, drawn),
        Row(gap.ARGMAX, (argmax,)),
        Row(gap.RETRAINED, (95.0,)),
    )
    return (*found, Row(gap.RANDOM, others)) if others else found


def test_means_and_sample_deviations():
    row = Row(gap.DRAWN, (90.0, 94.0))
    assert row.mean == 92
    np.testing.assert_allclose(row.std, np.sqrt(8))
    assert Row(gap.SOFT, (90.0,)).std is None


def test_gap_is_what_was_searched_minus_what_is_kept():
    found = gap.gaps(rows(98.0, (90.0, 92.0), 89.0))
    assert found == {gap.SOFT: 9.0, gap.DRAWN: 2.0}


def test_seeds_are_put_together():
    together = gap.over_seeds(
        [rows(98, (90, 92), 89, (80, 82)), rows(96, (90, 94), 91, (84, 86))]
    )
    by_name = {row.name: row for row in together}
    assert by_name[gap.SOFT].values == (98, 96)
    assert by_name[gap.DRAWN].values == (91, 92)
    assert by_name[gap.RANDOM].values == (80, 82, 84, 86)


def test_gap_over_seeds_has_a_deviation():
    """That of the gaps of the runs, not of the means apart."""
    runs = [(90.0, 80.0, 78.0), (92.0, 81.0, 84.0), (94.0, 88.0, 87.0)]
    rows = tuple(
        Row(name, values)
        for name, values in zip(
            (gap.SOFT, gap.DRAWN, gap.ARGMAX),
            zip(*runs, strict=True),
            strict=True,
        )
    )
    found = gap.gap_over_runs(rows)
    assert found[gap.SOFT] == pytest.approx((9.0, np.std([12, 8, 7], ddof=1)))
    assert found[gap.DRAWN] == pytest.approx((0.0, np.std([2, -3, 1], ddof=1)))
    assert f"+9.00   ± {np.std([12, 8, 7], ddof=1):.2f}" in gap.format_table(rows, "")
    drawn = (Row(gap.SOFT, (1.0,)), Row(gap.DRAWN, (2.0, 4.0)))
    assert gap.gap_over_runs((*drawn, Row(gap.ARGMAX, (1.0,)))) == {
        gap.SOFT: (0.0, None),
        gap.DRAWN: (2.0, None),
    }


def test_json_gives_the_rows_back():
    found = rows(98.0, (90.0, 92.0), 89.0, (80.0, 82.0))
    assert gap.from_json(json.loads(json.dumps(gap.to_json(found)))) == found


def test_json_without_a_row_of_the_gap_is_refused():
    with pytest.raises(ValueError, match="soft network"):
        gap.from_json(gap.to_json(rows(98.0, (90.0,), 89.0)[1:]))


def test_table_shows_every_row_and_both_gaps():
    text = gap.format_table(rows(98.0, (90.0, 92.0), 89.0, (80.0, 82.0)), "Title")
    assert text.startswith("Title\n")
    for piece in ("98.00 %", "91.00 % ± 1.41", "(2)", "+9.00", "+2.00"):
        assert piece in text


@pytest.mark.parametrize(("num_epochs", "shared"), [(500, True), (501, False)])
def test_short_trainings_share_a_program(tmp_path, monkeypatch, num_epochs, shared):
    """Of two steps an epoch: beyond 1,000 steps each has its own, which is faster."""
    seen = []

    def note(training, test, on_epoch):
        seen.append(training)
        return 50.0

    monkeypatch.setattr(gap, "train_and_test", note)
    space, x = mlp_space(), np.ones((32, 5), np.float32)
    examples = Examples(inputs=x, labels=np.arange(32) % 2)
    keys = map(jax.random.key, range(2))
    named = {f"{i}": Genotype.random(key, space) for i, key in enumerate(keys)}
    found = gap.train_all(
        space,
        named,
        Dataset("made", examples, examples, num_classes=2),
        TrainingOptions(num_epochs=num_epochs, batch_size=16),
        seed=0,
        record=tmp_path / "trainings.jsonl",
    )
    assert found == {"0": 50.0, "1": 50.0}
    assert [one.shared for one in seen] == [shared] * 2
    assert (seen[0]._epoch is seen[1]._epoch) == shared
    assert [str(one.genotype) for one in seen] == [str(one) for one in named.values()]
