import gc

import pytest


@pytest.fixture(autouse=True)
def _collected():
    """What a test leaves behind is collected, and complained of, in that test."""
    yield
    gc.collect()
