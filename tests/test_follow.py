"""What is logged on stderr while following."""

import asyncio

import pytest

from agent import follow as follow_module
from agent.follow import Follower
from agent.stream.feed import Feed

from .fakeproc import FakeProc, inet_row
from .feeding import AGENT

INTERVAL_SECONDS = 0.05
GARBAGE = b"0: garbage\n"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines on stderr."""
    lines: list[str] = []
    monkeypatch.setattr(follow_module, "log", lines.append)
    monkeypatch.setattr(
        follow_module, "warn", lambda coverage: lines.append(f"first: {coverage.missing}")
    )
    return lines


async def follow(fake: FakeProc, *polls: dict[str, list[bytes]]) -> None:
    """Follow tables whose contents are ``polls``, one after the other."""
    polled = asyncio.Event()
    follower = Follower(fake.poller(), Feed(AGENT), on_progress=lambda: None, on_poll=polled.set)
    tables = iter(polls)
    for name, rows in next(tables).items():
        fake.table(name, *rows)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(follower.run(INTERVAL_SECONDS))
        for changed in tables:
            await polled.wait()
            polled.clear()
            for name, rows in changed.items():
                fake.table(name, *rows)
        await polled.wait()
        polled.clear()
        await polled.wait()  # A whole poll since the last change.
        task.cancel()


async def test_what_is_missing_in_the_first_poll_is_logged_once(
    fake: FakeProc, logged: list[str]
) -> None:
    await follow(fake, {"tcp": [GARBAGE]}, {"tcp": [GARBAGE, b"1: more\n"]})
    (line,) = logged
    assert line.startswith("first: ('1 malformed rows of tcp ")


async def test_what_is_missing_later_is_logged_once_for_each_kind(
    fake: FakeProc, logged: list[str]
) -> None:
    await follow(
        fake,
        {"tcp": [inet_row(11)]},
        {"tcp": [GARBAGE]},
        {"tcp": []},
        {"tcp": [GARBAGE, b"1: more\n"], "udp": [GARBAGE]},
    )
    assert logged[0] == "first: ()"
    assert [line.partition(" of network")[0] for line in logged[1:]] == [
        "warning: 1 malformed rows of tcp",
        "warning: 1 malformed rows of udp",
    ]
