"""Fixtures of the tests on the real machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..browser import Browser, Tab, find_browser
from .anyone import Anyone, unprivileged
from .background import Background
from .churning import churn
from .container import is_available, prepare
from .groups import IN_CONTAINER, REST, group_of
from .helpers import Holder, must_have, need_root

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]


CHURN = pytest.StashKey[Background[None]]()
SELECTED = pytest.StashKey[set[str]]()  # The names of the files of tests that are selected.
ROOT_OF_CONTAINER = pytest.StashKey[Background[Path]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the churn after the tests of the service, which use another machine, a container."""
    churning = [item for item in items if item.path.name == "test_churn.py"]
    service = [place for place, item in enumerate(items) if item.path.name == "test_service.py"]
    if churning and service:
        rest = [item for item in items if item not in churning]
        place = rest.index(items[service[-1]]) + 1
        items[:] = [*rest[:place], *churning, *rest[place:]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what is selected."""
    session.config.stash[SELECTED] = {item.path.name for item in session.items}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start preparing the container with the first test of its group, as it takes long; start the
    churn with the tests of the service."""
    stash = item.config.stash
    selected = stash[SELECTED]
    is_needed = group_of(item.path.name) == REST and bool(selected & IN_CONTAINER)
    if is_needed and ROOT_OF_CONTAINER not in stash and is_available():
        stash[ROOT_OF_CONTAINER] = Background(prepare)
    is_its_time = item.path.name in ("test_service.py", "test_churn.py")
    if is_its_time and "test_churn.py" in selected and CHURN not in stash:
        stash[CHURN] = Background(churn)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Wait for the churn and the container."""
    for begun in (
        session.config.stash.get(CHURN, None),
        session.config.stash.get(ROOT_OF_CONTAINER, None),
    ):
        if begun is not None:
            begun.end()


@pytest.fixture
def holder() -> Iterator[Holder]:
    """A process that opens and closes sockets on request."""
    with Holder() as holder:
        yield holder


@pytest.fixture
def alone(holder: Holder) -> Holder:
    """Such a process, alone in a network namespace whose loopback is up."""
    need_root()
    holder.do("leave_network()")
    return holder


@pytest.fixture(scope="session")
def anyone() -> Iterator[Anyone]:
    """The command as run by an unprivileged user."""
    with unprivileged() as anyone:
        yield anyone


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    must_have(find_browser(), "chromium is not installed")
    with Browser() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab of the browser, in a profile of its own."""
    with browser.tab() as tab:
        yield tab
