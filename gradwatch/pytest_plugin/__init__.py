"""The fixture ``gradwatch_check`` and its options; torch is imported only where it is used."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from gradwatch.pytest_plugin.fixture import GradWatchFixture
from gradwatch.pytest_plugin.settings import (
    MARKER_HELP,
    Settings,
    add_options,
    check_options,
    read_settings,
)

__all__ = ["GradWatchFixture", "Settings"]

_KEY = pytest.StashKey[GradWatchFixture]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a suite or a run of it may choose."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what means nothing at once, and not in the middle of a run."""
    config.addinivalue_line("markers", MARKER_HELP)
    check_options(config)


@pytest.fixture
def gradwatch_check(request: pytest.FixtureRequest) -> Generator[GradWatchFixture]:
    """Call it with what ``gradwatch.check`` takes, or use its ``watch``; no pass fails the test."""
    try:
        fixture = GradWatchFixture(read_settings(request.config, request.node))
    except pytest.UsageError as error:  # its marker's: one line, and no traceback of ours
        pytest.fail(str(error), pytrace=False)
    request.node.stash[_KEY] = fixture
    yield fixture
    del request.node.stash[_KEY]  # a test that is run again is judged by its new reports alone
    fixture.close()
    if fixture.has_later_reports:  # made by another fixture's teardown
        _fail_by(fixture, request.node)


@pytest.fixture
def gradwatch(gradwatch_check: GradWatchFixture) -> GradWatchFixture:
    """The older name of ``gradwatch_check``, which hides the package of that name in a test."""
    return gradwatch_check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail the test itself, and not its teardown, where it saw an unhealthy report."""
    try:
        result = yield
    except BaseException:  # the test's own failure, or a skip, says all
        if _KEY in item.stash:
            item.stash[_KEY].take_reports()
        raise
    if _KEY in item.stash:
        _fail_by(item.stash[_KEY], item)
    return result


def _fail_by(fixture: GradWatchFixture, item: pytest.Item) -> None:
    failure = fixture.judge()
    if failure is None:
        return
    if failure.details:
        item.add_report_section("call", "gradwatch layers", failure.details)
    page = fixture.write_page(item.nodeid, failure)
    pytest.fail("\n".join(filter(None, (failure.message, page))), pytrace=False)
