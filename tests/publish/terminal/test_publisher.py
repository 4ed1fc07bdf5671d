"""The event log of a feed on a pipe, and the answer whether a socket came."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from agent.publish import stdout
from agent.publish.terminal.options import Options
from agent.publish.terminal.publisher import LogPublisher, MatchPublisher, encode_lines
from agent.publish.terminal.stream_log import StreamLog
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from ...feeding import AGENT, ONE, THREE, TWO, Source
from ...make import FULL_COVERAGE

TIMEOUT = 10.0  # Seconds.


class Pipe:
    """A pipe whose ends are closed once."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}

    def close(self, *ends: int) -> None:
        for end in self._open & set(ends):
            os.close(end)
            self._open.remove(end)

    async def read(self) -> bytes:
        """Read what is written next; b"" at the end."""
        return await asyncio.wait_for(asyncio.to_thread(os.read, self.reading, 65_536), TIMEOUT)

    async def read_lines(self, count: int) -> list[str]:
        data = b""
        while data.count(b"\n") < count:
            data += await self.read()
        return data.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close(made.reading, made.writing)


def stopping_source() -> Source:
    """A feed that sends no heartbeats in a test: each is a turn of the loop."""
    source = Source()
    source.feed = Feed(AGENT, clock=lambda: 0.0)
    return source


def log_publisher(source: Source, pipe: Pipe, chosen: Filter | None = None) -> LogPublisher:
    log = StreamLog(chosen or Filter(), Options(utc=True), "hint")
    return LogPublisher(source.feed, "web1", log, pipe.writing)


# The event log.


async def follow(pipe: Pipe) -> None:
    source = stopping_source()
    source.poll(ONE, TWO)
    printer = log_publisher(source, pipe, Filter({"port": ["1,3"]}))
    running = asyncio.create_task(printer.run())
    assert await pipe.read_lines(1) == ["web1: 1 socket of 1 process; hint"]
    source.poll(ONE)  # Closes a socket that the filter hides.
    source.poll(ONE, THREE)
    (line,) = await pipe.read_lines(1)
    assert line.split()[1] == "open"
    source.poll(THREE)
    source.feed.stop()
    await asyncio.wait_for(running, TIMEOUT)
    await printer.stop()
    (line,) = await pipe.read_lines(1)
    assert line.split()[1] == "close"
    pipe.close(pipe.writing)
    assert await pipe.read() == b""


def test_the_log_of_a_feed(pipe: Pipe) -> None:
    asyncio.run(follow(pipe))


def test_a_reader_that_leaves_ends_the_log(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "STOP_SECONDS", 10 * TIMEOUT)

    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        printer = log_publisher(source, pipe)
        running = asyncio.create_task(printer.run())
        await pipe.read_lines(1)
        pipe.close(pipe.reading)
        source.poll(ONE, TWO)
        await asyncio.wait_for(running, TIMEOUT)
        await asyncio.wait_for(printer.stop(), TIMEOUT)

    asyncio.run(run())


def test_stop_waits_for_what_is_left(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "STOP_SECONDS", 10 * TIMEOUT)

    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        printer = log_publisher(source, pipe)
        running = asyncio.create_task(printer.run())
        await pipe.read_lines(1)
        source.poll(ONE, TWO)
        source.feed.stop()
        await asyncio.wait_for(printer.stop(), TIMEOUT)
        (line,) = await pipe.read_lines(1)
        assert line.split()[1] == "open"
        await asyncio.wait_for(running, TIMEOUT)

    asyncio.run(run())


def test_stop_does_not_wait_forever(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "STOP_SECONDS", 0.01)

    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        printer = log_publisher(source, pipe)
        running = asyncio.create_task(printer.run())
        await pipe.read_lines(1)
        await asyncio.wait_for(printer.stop(), TIMEOUT)  # The feed goes on.
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(printer.stop(), TIMEOUT)

    asyncio.run(run())


def test_lines_are_utf8_with_an_end() -> None:
    assert encode_lines(["a \u2192 b", "\udce9"]) == b"a \xe2\x86\x92 b\n\\udce9\n"
    assert encode_lines([]) == b""


# Whether a socket came.


async def turns() -> None:
    """Let a publisher read all that a feed has."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_first_match_ends_it() -> None:
    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        match = MatchPublisher(source.feed, Filter({"port": ["3"]}), once=True)
        running = asyncio.create_task(match.run())
        await turns()
        source.poll(ONE, TWO)
        await turns()
        assert not running.done()
        assert not match.matched
        source.poll(ONE, TWO, THREE)
        await asyncio.wait_for(running, TIMEOUT)
        assert match.matched

    asyncio.run(run())


def test_a_socket_that_is_there_is_a_match() -> None:
    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        match = MatchPublisher(source.feed, Filter({"port": ["1"]}), once=True)
        await asyncio.wait_for(match.run(), TIMEOUT)
        assert match.matched

    asyncio.run(run())


def test_a_socket_that_was_open_before_did_not_open() -> None:
    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        match = MatchPublisher(source.feed, Filter({"event": ["open"]}), once=True)
        running = asyncio.create_task(match.run())
        await turns()
        assert not running.done()
        source.poll(ONE, TWO)
        await asyncio.wait_for(running, TIMEOUT)
        assert match.matched

    asyncio.run(run())


@pytest.mark.parametrize(("port", "expected"), [("1", True), ("2", True), ("9", False)])
def test_otherwise_it_goes_on_until_the_feed_stops(port: str, expected: bool) -> None:
    async def run() -> None:
        source = stopping_source()
        source.poll(ONE)
        match = MatchPublisher(source.feed, Filter({"port": [port]}), once=False)
        running = asyncio.create_task(match.run())
        await turns()
        source.poll(ONE, TWO, coverage=FULL_COVERAGE._replace(processes=2))
        source.poll(ONE)
        await turns()
        assert not running.done()
        source.feed.stop()
        await asyncio.wait_for(running, TIMEOUT)
        await match.stop()
        assert match.matched == expected

    asyncio.run(run())
