"""What is printed of the records of remote agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from agent.config import Config, Network, View
from agent.log import LIMIT_LINES
from agent.outputs import RemoteOutput
from agent.publish.terminal.stream_log import FOLLOWING
from agent.stream.filters import Filter

from .make import records
from .recorded import DATA, UTC, printed, words


async def chunks(*given_chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in given_chunks:
        yield chunk


def of_remote(
    output: str,
    *given_chunks: bytes,
    filters: dict[str, list[str]] | None = None,
    quiet: bool = False,
) -> tuple[bool, bytes]:
    chosen = Config(
        filter=Filter(filters), view=View(quiet=quiet), network=Network(connect=("ws://a:1",))
    )
    return printed(RemoteOutput(chunks(*given_chunks), chosen, output, UTC))


def in_chunks(data: bytes, lines: int) -> Iterable[bytes]:
    found = data.splitlines(keepends=True)
    return [b"".join(found[at : at + lines]) for at in range(0, len(found), lines)]


@pytest.mark.parametrize("lines", [1, 3, 100])
def test_the_records_of_remote_agents_are_printed_as_they_come(lines: int) -> None:
    assert of_remote("ndjson", *in_chunks(DATA, lines)) == (True, DATA)


@pytest.mark.parametrize("lines", [1, 3, 100])
def test_the_log_of_remote_agents(lines: int) -> None:
    matched, data = of_remote("log", *in_chunks(DATA, lines))
    first, *changes = data.decode().splitlines()
    assert matched
    assert first == f"host: 2 sockets of 1 process; {FOLLOWING}"
    assert words("\n".join(changes).encode()) == ["open", "update", "close", "coverage"]


def test_without_a_match() -> None:
    assert of_remote("ndjson", DATA, filters={"port": ["9"]})[0] is False
    matched, data = of_remote("log", DATA, filters={"port": ["9"]})
    assert not matched
    assert len(data.splitlines()) == 2


@pytest.mark.parametrize("output", ["ndjson", "log"])
def test_quiet_ends_at_the_first_match(output: str) -> None:
    taken: list[bytes] = []

    async def endless() -> AsyncIterator[bytes]:
        for chunk in in_chunks(DATA, 1):
            taken.append(chunk)
            yield chunk
        await asyncio.Event().wait()

    chosen = Config(
        filter=Filter({"port": ["3"]}),
        view=View(quiet=True),
        network=Network(connect=("ws://a:1",)),
    )
    assert printed(RemoteOutput(endless(), chosen, output, UTC)) == (True, b"")
    assert records(taken[-1])[0]["event"] == "open"


def test_quiet_without_a_match_ends_with_the_records() -> None:
    assert of_remote("log", DATA, filters={"port": ["9"]}, quiet=True) == (False, b"")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines on stderr."""
    lines: list[str] = []
    monkeypatch.setattr("agent.log.log", lines.append)
    return lines


def test_a_record_that_cannot_be_read_is_warned_of(logged: list[str]) -> None:
    lines = DATA.splitlines(keepends=True)
    data = b"".join([*lines[:5], b"[]\n", *lines[5:]])
    assert of_remote("log", data) == of_remote("log", DATA)
    (warning,) = logged
    assert warning.startswith("warning: a record of a remote agent is left out: ")


def test_warnings_of_many_records_are_limited(logged: list[str]) -> None:
    bad = b"[]\n" * LIMIT_LINES
    assert of_remote("log", bad, bad, DATA, bad) == of_remote("log", DATA)
    assert len(logged) == LIMIT_LINES
