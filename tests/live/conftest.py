"""A page of a live stream, for the tests of it."""

import pytest
from tiny_page import serving


@pytest.fixture
def served():
    with serving() as found:
        yield found
