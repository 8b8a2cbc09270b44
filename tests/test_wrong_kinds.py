"""Arguments of a wrong kind: every public function, and the page of what they say."""

import re

import pytest

from tests import wrong_kinds
from tests.test_conformance import PUBLIC

ROWS = wrong_kinds.rows()


def test_every_public_function_and_argument_has_a_row():
    functions = {function for function, _ in ROWS.values()}
    # It gives the errors of the function of JAX whose place it takes.
    assert {f.__name__ for f in set(PUBLIC) - functions} == {"conv_general_dilated"}


@pytest.fixture(scope="module")
def page():
    return wrong_kinds.page()


def test_the_page_is_what_is_said(page):
    assert page == wrong_kinds.PAGE.read_text("utf-8"), "see tests/wrong_kinds.py"


def test_no_error_is_that_of_something_inside(page):
    form = re.compile(
        r"[^:]+: (accepted|an error of the function itself"
        r"|(TypeError|ValueError): `[\w.]+`: `[\w`, ]+` must .*, got .*\. .*\.)"
    )
    lines = [line for line in page.splitlines() if line and not line.startswith("==")]
    assert len(lines) > 1000
    assert [line for line in lines if not form.fullmatch(line)] == []
