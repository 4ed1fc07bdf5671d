"""Fixtures of the tests on the real machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from .anyone import Anyone, unprivileged
from .container import PREPARATION, Preparation, can_be_had
from .helpers import Holder

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What takes a minute to prepare is begun with, while other tests run."""
    wanted = any(item.path.name == "test_service.py" for item in session.items)
    if wanted and can_be_had() and not session.config.option.collectonly:
        session.config.stash[PREPARATION] = Preparation()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The end of it."""
    if (preparation := session.config.stash.get(PREPARATION, None)) is not None:
        preparation.remove()


@pytest.fixture
def holder() -> Iterator[Holder]:
    """A process that opens and closes sockets as it is told."""
    with Holder() as holder:
        yield holder


@pytest.fixture(scope="session")
def anyone() -> Iterator[Anyone]:
    """The command as an unprivileged user runs it."""
    with unprivileged() as anyone:
        yield anyone
