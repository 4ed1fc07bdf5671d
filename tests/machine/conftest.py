"""Fixtures of the tests on the real machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .anyone import Anyone, unprivileged
from .background import Background
from .churning import churn
from .container import can_be_had, prepare
from .helpers import Holder, need_root

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]


CHURN = pytest.StashKey[Background[None]]()
CHURNS = pytest.StashKey[bool]()  # Whether there is to be one.
ROOT_OF_CONTAINER = pytest.StashKey[Background[Path]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The churn goes on in the container's time, which has a machine of its own."""
    churning = [item for item in items if item.path.name == "test_churn.py"]
    service = [place for place, item in enumerate(items) if item.path.name == "test_service.py"]
    if churning and service:
        rest = [item for item in items if item not in churning]
        place = rest.index(items[service[-1]]) + 1
        items[:] = [*rest[:place], *churning, *rest[place:]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with what takes long."""
    wanted = {item.path.name for item in session.items}
    if session.config.option.collectonly:
        return
    if "test_service.py" in wanted and can_be_had():
        session.config.stash[ROOT_OF_CONTAINER] = Background(prepare)
    session.config.stash[CHURNS] = "test_churn.py" in wanted


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin with the churn."""
    stash = item.config.stash
    its_time = item.path.name in ("test_service.py", "test_churn.py")
    if its_time and stash[CHURNS] and CHURN not in stash:
        stash[CHURN] = Background(churn)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End it."""
    for begun in (
        session.config.stash.get(CHURN, None),
        session.config.stash.get(ROOT_OF_CONTAINER, None),
    ):
        if begun is not None:
            begun.end()


@pytest.fixture
def holder() -> Iterator[Holder]:
    """A process that opens and closes sockets as it is told."""
    with Holder() as holder:
        yield holder


@pytest.fixture
def alone(holder: Holder) -> Holder:
    """Such a process, in a network namespace of its own with its loopback up."""
    need_root()
    holder.do("leave_network()")
    return holder


@pytest.fixture(scope="session")
def anyone() -> Iterator[Anyone]:
    """The command as an unprivileged user runs it."""
    with unprivileged() as anyone:
        yield anyone
