"""The options of a run: files, the command line, their ranges, and what they make."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.command import run
from gumbax.search.command.cli import main
from gumbax.search.command.options import Options, read_toml, typed
from gumbax.search.data.augment import Augmentation
from gumbax.search.data.dataset import Dataset, Examples
from gumbax.search.methods.methods import METHODS
from gumbax.search.methods.optimizers import AdamW, Sgd
from gumbax.search.store.errors import SearchError
from tests.search.small_run import refused


def dataset(*shape, count=40):
    train = Examples(inputs=jnp.zeros((count, *shape)), labels=jnp.arange(count) % 4)
    return Dataset("made", train, train, num_classes=4)


DIGITS, CIFAR, ROWS = dataset(8, 8, 1), dataset(32, 32, 3), dataset(5)
SEQUENCES = dataset(40, 1)


def message(make):
    """Of a refusal in the form of all errors: option, condition, value, cure."""
    with pytest.raises(SearchError, match=r"`.*` must .*, got .*\. .*\.$") as caught:
        make()
    return str(caught.value)


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "options.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def settled(monkeypatch, tmp_path):
    """Runs `gumbax search` up to its options, and returns them."""

    def search(*arguments):
        seen = []
        monkeypatch.setattr(run, "run", lambda out, o, progress: seen.append(o) or "")
        arguments = ["search", *map(str, arguments), "--out", str(tmp_path / "run")]
        assert main(arguments) == 0
        return seen[0]

    return search


# Files


def test_file_gives_the_options(toml):
    text = 'dataset = "digits"\nbatch-size = 32\ntrain_epochs = 2\nflip = true\n'
    found = Options(**read_toml(toml(text + "warmup = 0\nlearning-rate = 0.5\n")))
    expected = Options(
        "digits",
        batch_size=32,
        train_epochs=2,
        flip=True,
        warmup=0.0,
        learning_rate=0.5,
    )
    assert found == expected
    assert isinstance(found.warmup, float)
    assert found.run_id == expected.run_id


def test_command_line_wins_over_the_file(toml, settled):
    text = 'dataset = "file.npz"\nseed = 1\nbatch-size = 32\nflip = true\n'
    config = toml(text)
    assert settled("--config", config) == Options(
        "file.npz", seed=1, batch_size=32, flip=True
    )
    found = settled("digits", "--config", config, "--seed", 2, "--no-flip")
    assert found == Options("digits", seed=2, batch_size=32, flip=False)


def test_defaults_of_the_command_line_are_those_of_the_options(settled):
    assert settled("digits") == Options("digits")


def test_data_set_must_be_named(capsys, tmp_path, toml):
    out = tmp_path / "run"
    for config in ((), ("--config", toml("seed = 1\n"))):
        error = refused(capsys, "search", *config, "--out", out)
        assert "`dataset` must be given, got none. Name one" in error


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("no-such = 1", ("`options`", "no_such", "Known: dataset, space, channels")),
        ("out = 'x'", ("`options`", "out in", "Known: dataset")),
        ("[search]\nseed = 1", ("`options`", "search in", "Known: dataset")),
        ("seed = '1'", ("`--seed` must be int", "got '1'", "Change it")),
        ("seed = true", ("`--seed` must be int", "got True", "Change it")),
        ("flip = 1", ("`--flip` must be bool", "got 1 in", "Change it")),
        ("epochs = 1.5", ("`--epochs` must be int", "got 1.5", "Change it")),
        ("drop-path = '0'", ("`--drop-path` must be float", "got '0'", "Change it")),
        ("dataset = 3", ("`dataset` must be str", "got 3 in", "Change it")),
        ("method = []", ("`--method` must be str", "got [] in", "Change it")),
        (
            "seed = \n",
            ("`--config` must be a TOML file", "line 1", "Mend or rename it"),
        ),
        ("a = 1\na = 2\nb = 3", ("`--config`", "line 2", "Mend or rename it")),
    ],
)
def test_file_with_something_else(toml, text, pieces):
    path = toml(text)
    found = message(lambda: read_toml(path))
    for piece in (*pieces, str(path)):
        assert piece in found


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "binary.toml"):
        found = message(lambda path=path: read_toml(path))
        assert "`--config` must be a TOML file" in found
        assert str(path) in found


def test_values_of_a_record_keep_their_types():
    given = {"dataset": "digits", "seed": 3, "epochs": None, "warmup": 1, "flip": False}
    found = typed(given, "run.json")
    assert found == given
    assert isinstance(found["warmup"], float)


# Ranges


@pytest.mark.parametrize(
    ("field", "value", "must"),
    [
        ("channels", 0, "be from 1 to 16384"),
        ("channels", 10**16, "be from 1 to 16384"),
        ("epochs", 0, "be from 1 to 2**31 - 1"),
        ("cells", -1, "be from 1 to"),
        ("seed", -1, "be from 0 to"),
        ("seed", 2**31, "be from 0 to 2**31 - 1"),
        ("epochs", 0, "be from 1 to"),
        ("batch_size", 0, "be from 1 to"),
        ("learning_rate", -0.1, "be from 0.0 to 1000.0"),
        ("learning_rate", float("nan"), "be from 0.0 to 1000.0"),
        ("arch_learning_rate", float("inf"), "be from 0.0 to 1000.0"),
        ("warmup", 1.1, "be from 0.0 to 1.0"),
        ("train_epochs", 0, "be from 1 to"),
        ("random_architectures", -1, "be from 0 to"),
        ("crop", -1, "be from 0 to 1024"),
        ("cutout", 2000, "be from 0 to 1024"),
        ("drop_path", 1.0, "be from 0.0 to 0.95"),
        ("auxiliary", -1.0, "be from 0.0 to 1000.0"),
        ("limit", 0, "be from 1 to"),
        ("method", "drats", "be a known one"),
        ("space", "nats", "be a known one"),
        ("cost", "watts", "be a known one"),
        ("cost_weight", -0.1, "be from 0.0 to 1000000.0"),
        ("budget", float("nan"), "be from 0.0 to 1e+18"),
    ],
)
def test_values_out_of_range(field, value, must):
    found = message(Options("digits", **{field: value}).check)
    option = "--" + field.replace("_", "-")
    got = repr(value) if isinstance(value, str) else value
    assert f"`{option}` must {must}" in found
    assert f"got {got}. " in found


def test_values_at_the_ends_of_their_ranges():
    Options("digits").check()
    Options("digits", seed=0, warmup=0.0, drop_path=0.95, crop=0, limit=1).check()
    Options("digits", seed=2**31 - 1, warmup=1.0, drop_path=0.0, crop=1024).check()


# What they make


@pytest.mark.parametrize(
    ("data", "name"), [(DIGITS, "small_images"), (CIFAR, "nasbench201"), (ROWS, "mlp")]
)
def test_space_is_that_of_the_data(data, name):
    assert Options("x").make_space(data).name == name


@pytest.mark.parametrize("name", ["nasbench201", "small_images", "darts", "macro"])
def test_named_space_is_the_one_that_is_made(name):
    assert Options("x", space=name).make_space(DIGITS).name == name
    found = message(lambda: Options("x", space=name).make_space(ROWS))
    assert f"`--space` must be one for rows of features, got {name}" in found
    assert "Leave out --space" in found


def test_mlp_space_is_not_for_images():
    found = message(lambda: Options("x", space="mlp").make_space(DIGITS))
    assert "`--space` must be one for images, got mlp" in found


@pytest.mark.parametrize("space", ["small_images", "mlp"])
def test_sequences_have_a_space_of_their_own(space):
    assert Options("x").make_space(SEQUENCES).name == "sequences"
    found = message(lambda: Options("x", space=space).make_space(SEQUENCES))
    assert f"`--space` must be one for sequences, got {space}" in found
    for data in (DIGITS, ROWS):
        options = Options("x", space="sequences")
        assert "`--space` must be one for" in message(
            functools.partial(options.make_space, data)
        )


def test_channels_and_cells_are_those_asked_for():
    cells = Options("x", channels=8, cells=2).make_space(DIGITS)
    assert (cells.channels, cells.cells_per_stage) == (8, 2)
    darts = Options("x", space="darts", channels=8, cells=6).make_space(DIGITS)
    assert (darts.channels, darts.num_cells) == (8, 6)


@pytest.mark.parametrize("option", ["channels", "cells"])
@pytest.mark.parametrize(("data", "space"), [(ROWS, None), (DIGITS, "macro")])
def test_space_without_cells_has_no_channels(data, space, option):
    options = Options("x", space=space, **{option: 4})
    found = message(lambda: options.make_space(data))
    assert f"`--space` must have cells and channels, got {space or 'mlp'}" in found
    assert "Leave out --channels and --cells." in found


@pytest.mark.parametrize(
    ("options", "piece"),
    [
        ({"channels": 6}, "multiple of 4, got 6"),
        ({"space": "darts", "channels": 3}, "be positive and even, got 3"),
        ({"space": "darts", "cells": 2}, "be at least 3, got 2"),
    ],
)
def test_sizes_that_the_space_cannot_have(options, piece):
    found = message(lambda: Options("x", **options).make_space(DIGITS))
    assert piece in found
    assert "Change --channels or --cells." in found


@pytest.mark.parametrize(
    ("field", "value"), [("crop", 2), ("flip", True), ("cutout", 4)]
)
def test_changes_of_images_are_refused_for_features(field, value):
    options = Options("x", **{field: value})
    options.make_space(DIGITS)
    found = message(lambda: options.make_space(ROWS))
    assert (
        f"`--{field}` must be left out for data that are not images, got {value}"
        in found
    )


def test_auxiliary_head_needs_five_pixels():
    options = Options("x", space="darts", auxiliary=0.4)
    options.make_space(dataset(5, 5, 1))
    found = message(lambda: options.make_space(dataset(9, 4, 1)))
    assert "`--auxiliary` must be 0 for images of less than 5 pixels" in found
    Options("x", space="darts").make_space(dataset(4, 4, 1))
    Options("x", auxiliary=0.4).make_space(dataset(4, 4, 1))  # the space has none


def test_training_has_the_options_of_the_run():
    options = Options("x", batch_size=8, drop_path=0.2, auxiliary=0.4, train_epochs=3)
    found = options.training(DIGITS)
    assert (found.num_epochs, found.batch_size) == (3, 8)
    assert (found.drop_path, found.auxiliary) == (0.2, 0.4)
    assert found.optimizer == AdamW()
    assert found.augmentation is None
    published = Options("x", published=True, learning_rate=0.1).training(DIGITS)
    assert published.optimizer == Sgd(learning_rate=0.1, final=0.0)


def test_cutout_is_for_training_alone():
    options = Options("x", crop=4, flip=True, cutout=16)
    assert options.augmentation(cutout=False) == Augmentation(4, True, 0)
    assert options.training(CIFAR).augmentation == Augmentation(4, True, 16)
    assert Options("x", cutout=16).augmentation(cutout=False) is None


def test_method_has_the_learning_rates_asked_for():
    options = Options("x", learning_rate=0.5, arch_learning_rate=0.25, warmup=0.125)
    found = options.make_method(DIGITS)
    assert found.weights.learning_rate == 0.5
    assert (found.arch.learning_rate, found.arch.travel) == (0.25, None)
    assert found.warmup == 0.125
    plain = Options("x").make_method(DIGITS)
    assert plain.weights.learning_rate != 0.5
    assert plain.warmup != 0.125


def test_epochs_are_enough_for_the_steps_and_at_least_eight():
    """40 examples, halves of 20: batches of 8 are 2 steps of search, 5 of training."""
    options = Options("x", batch_size=8)
    assert options.search_epochs(DIGITS) == np.ceil(1500 / 2)
    assert options.training(DIGITS).num_epochs == np.ceil(1000 / 5)
    many = dataset(5, count=40_000)
    assert Options("x", batch_size=8).search_epochs(many) == 8
    assert Options("x", epochs=3).search_epochs(many) == 3
    assert Options("x", published=True, method="darts").search_epochs(many) == 50
    assert Options("x", published=True, method="gdas").search_epochs(many) == 250
    assert Options("x", published=True, epochs=3).search_epochs(many) == 3


def test_sequences_are_searched_and_trained_for_longer():
    """40 examples, halves of 20: batches of 8 are 2 steps of search, 5 of training."""
    options = Options("x", batch_size=8)
    assert options.search_epochs(SEQUENCES) == 3000
    assert options.training(SEQUENCES).num_epochs == 1200
    assert options.training(SEQUENCES).optimizer.learning_rate == 0.01
    assert options.make_method(SEQUENCES).weights.learning_rate == 0.01
    asked = Options("x", epochs=2, train_epochs=3, learning_rate=0.5)
    assert asked.search_epochs(SEQUENCES) == 2
    assert asked.training(SEQUENCES).num_epochs == 3
    assert asked.make_method(SEQUENCES).weights.learning_rate == 0.5
    published = Options("x", published=True).make_method(SEQUENCES)
    assert published.weights == METHODS["gumbel"].preset.weights


def test_option_that_is_there_twice_is_refused(toml):
    for first, second in (("-", "-"), ("-", "_"), ("_", "-"), ("_", "_")):
        rest = f"arch{first}learning{second}rate"
        other = (
            "arch-learning_rate"
            if rest == "arch-learning-rate"
            else "arch-learning-rate"
        )
        path = toml(f"seed = 1\n{rest} = 0.1\n{other} = 0.2\n")
        found = message(lambda path=path: read_toml(path))
        assert "`--arch-learning-rate` must be there once" in found


@pytest.mark.parametrize("field", ["cost_weight", "budget"])
def test_uses_of_a_cost_need_one(field):
    found = message(Options("digits", **{field: 1.0}).check)
    option = "--" + field.replace("_", "-")
    assert (
        f"`--cost` must be given with {option}, got none. Known: weights, mu" in found
    )
    Options("digits", cost="weights", **{field: 1.0}).check()


def test_run_id_depends_on_every_option():
    changes = {"dataset": "y", "seed": 1, "flip": True, "drop_path": 0.1, "cells": 2}
    names = {Options(**{"dataset": "x"} | {k: v}).run_id for k, v in changes.items()}
    assert len(names | {Options("x").run_id}) == len(changes) + 1
