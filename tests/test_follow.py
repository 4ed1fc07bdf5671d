"""What is logged on stderr while following."""

import asyncio

import pytest

from agent import follow as following_module
from agent.config import Config
from agent.follow import Follower
from agent.stream.encoder import AgentInfo

from .fakeproc import FakeProc, inet_row

INTERVAL_SECONDS = 0.05
GARBAGE = b"0: garbage\n"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines on stderr."""
    lines: list[str] = []
    monkeypatch.setattr(following_module, "log", lines.append)
    monkeypatch.setattr(
        following_module, "warn", lambda coverage: lines.append(f"first: {coverage.missing}")
    )
    return lines


async def follow(fake: FakeProc, *polls: dict[str, list[bytes]]) -> None:
    """Follow tables that read so, poll after poll."""
    config = Config(interval=INTERVAL_SECONDS)
    following = Follower(fake.poller(), AgentInfo("host", None, "epoch", 1.0), config)
    polled = asyncio.Event()
    following.polled = polled.set
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tables = iter(polls)
        for name, rows in next(tables).items():
            fake.table(name, *rows)
        (task,) = [group.create_task(work) for work in following.work()]
        for changed in tables:
            await polled.wait()
            polled.clear()
            for name, rows in changed.items():
                fake.table(name, *rows)
        await polled.wait()
        polled.clear()
        await polled.wait()  # A whole poll since the last change.
        task.cancel()


async def test_what_was_missing_at_first_is_logged_once(fake: FakeProc, logged: list[str]) -> None:
    await follow(fake, {"tcp": [GARBAGE]}, {"tcp": [GARBAGE, b"1: more\n"]})
    (line,) = logged
    assert line.startswith("first: ('1 malformed rows of tcp ")


async def test_what_is_missing_later_is_logged_once_for_its_kind(
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
