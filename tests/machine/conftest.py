"""Fixtures of the tests on the real machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from .anyone import Anyone, unprivileged
from .helpers import Holder

if not sys.platform.startswith("linux"):
    collect_ignore_glob = ["test_*.py"]


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
