"""What would make the documentation wrong stops its build."""

import importlib.util
from pathlib import Path

import pytest

import gumbax.linen
import gumbax.nnx
from gumbax import search

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("docs_build", ROOT / ".docs/build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def test_links_lead_to_the_site_or_to_the_repository(tmp_path):
    text = "[a](.docs/start.md#the-samplers) ![b](.assets/gap.svg) [c](pyproject.toml)"
    text += " [d](notebooks/4_search.ipynb) [e](https://arxiv.org/abs/1611.01144)"
    assert build.copied("README.md", text, tmp_path) == (
        "[a](start.md#the-samplers) ![b](gap.svg) "
        f"[c]({build.REPOSITORY}pyproject.toml) "
        "[d](notebooks/4_search.ipynb) [e](https://arxiv.org/abs/1611.01144)"
    )
    assert (tmp_path / "gap.svg").exists()


@pytest.mark.parametrize("target", ["nowhere.md", ".assets/nowhere.svg"])
def test_link_that_leads_nowhere_stops_it(target, tmp_path):
    with pytest.raises(SystemExit, match=rf"README.md: the link {target}"):
        build.copied("README.md", f"![a]({target})", tmp_path)


def test_public_name_without_a_docstring_stops_it():
    def bare():
        pass

    with pytest.raises(SystemExit, match=r"gumbax.bare has no docstring"):
        build.entry("gumbax", "bare", bare)
    assert ".. autofunction:: gumbax.gumbel_max" in build.entry(
        "gumbax", "gumbel_max", build.public("gumbax")["gumbel_max"]
    )


def test_member_without_a_docstring_stops_it():
    class Bare:
        """A record.

        Attributes:
            named: described.
        """

        named: int
        silent: int

        def method(self):
            pass

        def __call__(self):
            pass

        @property
        def told(self):
            """Described."""

    assert build.undocumented(Bare) == ["__call__", "method", "silent"]
    Bare.__module__ = "gumbax"
    with pytest.raises(SystemExit, match=r"gumbax.Bare.__call__ has no docstring"):
        build.entry("gumbax", "Bare", Bare)


def test_constant_without_a_comment_stops_it():
    with pytest.raises(SystemExit, match=r"gumbax.BARE has no docstring, and no"):
        build.entry("gumbax", "BARE", ("a", "b"))
    text = build.entry("gumbax.schedules", "PRESETS", gumbax.schedules.PRESETS)
    assert "Name -> published schedule" in text
    assert "In order: `jang2017`, `gdas`" in text


def test_docstrings_are_plain_text_outside_of_examples():
    lines = """Sum of a * b, |a| > 0.

    Example:
        >>> f(*args) | g
        'a|*b'

    References:
        Jang, Gu,
        Poole, 2017:
        Sec. 2.
        https://arxiv.org/abs/1611.01144
        Maddison, Mnih, Teh.""".splitlines()
    assert build.plain(lines) == [
        r"Sum of a \* b, \|a\| > 0.",
        *lines[1:7],
        "        | Jang, Gu,",
        "          Poole, 2017:",
        "          Sec. 2.",
        "          https://arxiv.org/abs/1611.01144",
        "        | Maddison, Mnih, Teh.",
    ]


def test_classes_are_shown_as_they_are_called():
    """Not as their metaclass is, nor with what Flax adds, nor with whole records."""
    called = build.called
    sampler = "sampler=gumbel_softmax, logit_gradient=Exact()"
    assert called(gumbax.nnx.MixedOp) == f"(branches, *, {sampler}, own_logits=True)"
    assert called(gumbax.linen.MixedOp) == f"(branches, {sampler})"
    assert called(search.genotype.Edge) == "(primitive, source, target)"
    assert "bilevel=first_order, derive=None" in called(search.Method)
    assert "weights=..., arch=..., init=(0.0, 0.0)" in called(search.Method)
    assert called(search.SearchError) == ""


def test_fields_are_not_listed_as_members():
    text = build.entry("gumbax.linen", "MixedOp", gumbax.linen.MixedOp)
    assert ":exclude-members: branches, sampler, logit_gradient" in text
    assert ":special-members: __call__" in text


def test_no_notebooks_stop_it(tmp_path):
    with pytest.raises(SystemExit, match="no notebooks in"):
        build.contents(tmp_path)


def test_every_face_is_on_a_page():
    """All public functions, and nothing that a module only uses."""
    names = {
        f"{face}.{name}"
        for own in build.ROOMS.values()
        for face in own
        for name in build.public(face)
    }
    from tests.test_conformance import PUBLIC

    found = {
        id(value)
        for own in build.ROOMS.values()
        for face in own
        for value in build.public(face).values()
    }
    assert {id(function) for function in PUBLIC} <= found
    assert "gumbax.concrete.ArrayLike" not in names
    assert "gumbax.search.SPACES" in names
    assert "gumbax.logit_gradients.LogitGradient" in names
