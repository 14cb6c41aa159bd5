"""Fixtures of the tests of evaluation."""

import pytest

from tests.helpers.report_browser import open_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, in which reports are opened; the test is skipped where there is none."""
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found
