"""What a search is given is checked before it starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gumbax.search import METHODS, SPACES, Search, SearchError, from_arrays
from gumbax.search.genotype import Genotype
from gumbax.search.loops import Training, TrainingOptions
from gumbax.search.methods import Method
from gumbax.search.spaces import mlp_space
from gumbax.search.spaces.chain_space import ChainSpace

X = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
LABELS = np.arange(32) % 4
TRAIN = from_arrays("mine", X, LABELS, X, LABELS).train
SPACE = mlp_space((4, 4))


def search(space=SPACE, method=METHODS["gumbel"], train=TRAIN, num_classes=4):
    return Search(
        space, method, train, num_classes=num_classes, num_epochs=1, batch_size=8
    )


def with_labels(labels):
    return dataclasses.replace(TRAIN, labels=labels)


@pytest.mark.parametrize(
    ("labels", "num_classes", "match"),
    [
        (LABELS, 3, "`num_classes` must be more than every label.* the label 3"),
        (LABELS - 1, 4, "`num_classes` must be .*no label negative.* the label -1"),
        (LABELS.astype(np.float32), 4, r"`labels` must be 32 integers.*float32\[32\]"),
        (LABELS[:, None], 4, r"`labels` must be 32 integers.*\[32, 1\]"),
        (LABELS[:31], 4, r"`labels` must be 32 integers.*\[31\]"),
    ],
)
def test_labels(labels, num_classes, match):
    train = with_labels(jnp.asarray(labels))
    with pytest.raises(SearchError, match=match):
        search(train=train, num_classes=num_classes)
    genotype = Genotype.random(jax.random.key(0), SPACE)
    options = TrainingOptions(num_epochs=1)
    with pytest.raises(SearchError, match=match):
        Training(
            SPACE, genotype, train, num_classes=num_classes, options=options, seed=0
        )


@pytest.mark.parametrize(
    ("argument", "value", "match"),
    [
        ("space", "mlp", r'`space` must be a space, got .*SPACES\["'),
        ("space", SPACES["mlp"], "`space` must be a space, got the function"),
        ("method", "gumbel", r'`method` must be a method, got .*METHODS\["'),
        ("num_classes", 4.0, "`num_classes` must be an integer"),
        ("num_classes", None, "`num_classes` must be an integer"),
        ("num_epochs", 0, "`num_epochs` must be at least 1"),
        ("batch_size", -1, "`batch_size` must be at least 1"),
        ("seed", "a", "`seed` must be an integer"),
    ],
)
def test_kinds(argument, value, match):
    given = {"num_classes": 4, "num_epochs": 1, "seed": 0, "batch_size": 8}
    objects = {"space": SPACE, "method": METHODS["gumbel"], "train": TRAIN}
    with pytest.raises((TypeError, ValueError), match=match):
        Search(**(objects | given | {argument: value}))


class TwoOutputs(ChainSpace):
    """Its network has another head than it is asked for."""

    def build(self, make_edges, input_shape, num_classes, **options):
        return super().build(make_edges, input_shape, num_classes + 1, **options)


class Strayed(ChainSpace):
    """Its network reads a row of logits that is not there."""

    def build(self, make_edges, input_shape, num_classes, **options):
        def make(choice, rows, *rest):
            return make_edges(choice, [row + 1 for row in rows], *rest)

        return super().build(make, input_shape, num_classes, **options)


def of_kind(kind):
    fields = {f.name: getattr(SPACE, f.name) for f in dataclasses.fields(SPACE)}
    return kind(**fields)


def wide(c_in, c_out, *, stride, layers, rngs):
    return nnx.Linear(c_in + 1, c_out, rngs=rngs)


@pytest.mark.parametrize(
    ("space", "match"),
    [
        (of_kind(TwoOutputs), r"one floating score for each of 4 .*float32\[8, 5\]"),
        (of_kind(Strayed), r"`space` must build edges of the 1 rows.*rows \(1,\)"),
        (
            dataclasses.replace(SPACE, stem=wide),
            r"`space` must build a network of inputs \[8, 5\], got TypeError",
        ),
        (SPACES["small_images"](), r"`space` must build a network of inputs \[8, 5\]"),
    ],
    ids=["outputs", "rows", "stem", "images"],
)
def test_space(space, match):
    with pytest.raises(SearchError, match=match):
        search(space)


def first_row(key, logits, temperature):
    return logits[0]


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (
            dataclasses.replace(METHODS["gumbel"], sampler=first_row),
            r"`sampler` must give floating weights \[1, 4\] for `layers`.*float32\[4\]",
        ),
        (
            dataclasses.replace(METHODS["gumbel"], soft=lambda a, t: a.argmax(-1)),
            r"`soft` must give floating weights \[1, 4\] for `layers`.*int32\[1\]",
        ),
    ],
    ids=["sampler", "soft"],
)
def test_method(method, match):
    assert isinstance(method, Method)
    with pytest.raises(SearchError, match=match):
        search(method=method)
