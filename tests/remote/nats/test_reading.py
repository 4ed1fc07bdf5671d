"""A consumer at a model of a broker: when hosts are silent, and brokers that are slow or lose what
they have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from agent import log as logging
from agent.remote.nats import budget
from agent.remote.nats import consumer as module
from agent.remote.nats.consumer import Fleet, FleetConsumer, FleetPosition, HostRecords, Start
from agent.remote.nats.pull import StreamMessage
from agent.remote.nats.reports import SessionError
from agent.remote.nats.session import StreamInfo
from agent.stream.filters import Filter
from agent.stream.fleet import encode_body, format_link, parse_broker, subject
from tests.feeding import ONE, THREE, TWO
from tests.fleet import Log, Publisher, Stored, Truth, check
from tests.make import records
from tests.relaying import Agent

URL = "nats://b"
DAY_SECONDS = 86_400.0


class Session:
    """A connection to a model of a broker, which is slow: before each message it lets a second
    pass. It ends when ``cut`` is set."""

    def __init__(self, log: Log, age: float = 0.0) -> None:
        self.log = log
        self.age = age  # Of all messages that are stored now.
        self.stored_to = log.end
        self.cut = asyncio.Event()
        self.current = asyncio.Event()  # All messages were read.
        self.made = "once"
        self.ages: dict[str, float] = {}  # By host.
        self.read: list[int] = []  # The sequences that were sent, with their records.

    async def info(self) -> StreamInfo:
        first = self.log.messages[0].sequence if self.log.messages else 0
        return StreamInfo(first, self.log.end, ("sockagent.>",), self.made)

    async def messages(
        self, start: Mapping[str, object], subject: str | None = None, *, to_end: bool = False
    ) -> AsyncGenerator[StreamMessage | None, None]:
        read_to = int(str(start.get("opt_start_seq", 1))) - 1
        is_newest = start["deliver_policy"] == "last_per_subject"
        while True:
            found = [one for one in self.log.after(read_to) if self.is_wanted(one, subject)]
            if is_newest:
                found = [one for one in found if self.log.newest(one.host) == one]
            for index, one in enumerate(found):
                yield None
                if not is_newest:
                    self.read.append(one.sequence)
                yield self.message(one, len(found) - 1 - index)
                read_to = one.sequence
            if to_end:
                return
            yield None
            if read_to == self.log.end:
                self.current.set()
            if self.cut.is_set():
                self.cut.clear()
                raise SessionError("connection lost")
            await asyncio.sleep(0)

    def is_wanted(self, stored: Stored, wanted: str | None) -> bool:
        return wanted in (None, "sockagent.>", subject("sockagent", stored.host))

    def message(self, stored: Stored, pending: int) -> StreamMessage:
        age = self.age if stored.sequence <= self.stored_to else 0.0
        age = self.ages.get(stored.host, age)
        name = subject("sockagent", stored.host)
        link, body = format_link(stored.link), encode_body(stored.records)
        return StreamMessage(name, stored.sequence, time.time() - age, pending, link, body)


class Host:
    """A host that publishes in a log."""

    def __init__(self, log: Log, truth: Truth, name: str, epoch: str = "") -> None:
        self.agent = Agent(name, epoch or f"e{name}")
        self.agent.poll()
        self.truth = truth
        truth.note(self.agent)
        self.publisher = Publisher(log, 1)
        self.publisher.connect(self.agent)
        self.publisher.publish()

    def poll(self, *polls: tuple[object, ...]) -> None:
        for found in polls:
            self.agent.poll(*found)  # type: ignore[arg-type]
            self.truth.note(self.agent)
            self.publisher.publish()

    def checkpoint(self) -> None:
        self.publisher.checkpoint()
        self.publisher.publish()


class Reading:
    """A consumer that reads sessions of a model of a broker."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        session: Session,
        start: Start,
        chosen: Filter,
        position: FleetPosition | None,
    ) -> None:
        self.session = session
        self.output = b""
        self.silent: list[str] = []
        self.lines: list[str] = []

        @asynccontextmanager
        async def open_session(*_: object) -> AsyncIterator[Session]:
            yield self.session

        monkeypatch.setattr(module, "open_session", open_session)
        monkeypatch.setattr(module, "log", self.lines.append)
        monkeypatch.setattr(module, "MIN_BACKOFF_SECONDS", 0.0)
        fleet = Fleet(URL, parse_broker(URL), chosen, start=start)
        self.consumer = FleetConsumer(fleet, self, position)
        self.task = asyncio.create_task(self.consumer.run())

    def connect(self) -> None:
        pass

    def disconnect(self, reason: str) -> None:
        pass

    async def receive(self, found: HostRecords) -> None:
        self.output += found.records

    def set_silent(self, host: str, *, silent: bool) -> None:
        assert not silent or f'"host":"{host}"'.encode() in self.output
        (self.silent.append if silent else self.silent.remove)(host)

    async def catch_up(self) -> None:
        """Wait until all that there is was read."""
        self.session.current.clear()
        async with asyncio.timeout(10):
            while not self.session.current.is_set():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0)

    async def cut(self) -> None:
        """End the connection, and wait until all that there is was read over the next one."""
        self.session.cut.set()
        while self.session.cut.is_set():  # noqa: ASYNC110 (it is a test's own)
            await asyncio.sleep(0)
        await self.catch_up()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def reading(
    monkeypatch: pytest.MonkeyPatch,
    session: Session,
    start: Start | None = None,
    chosen: Filter | None = None,
    position: FleetPosition | None = None,
) -> AsyncIterator[Reading]:
    started = Reading(monkeypatch, session, start or Start(), chosen or Filter(), position)
    try:
        await started.catch_up()
        yield started
    finally:
        await started.stop()


@pytest.mark.parametrize("start", [Start(), Start(oldest=True)])
async def test_hosts_that_were_silent_before_it_began_are_reported(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    log, truth = Log(), Truth()
    a, _ = Host(log, truth, "a"), Host(log, truth, "b")
    session = Session(log, age=DAY_SECONDS)
    async with reading(monkeypatch, session, start) as started:
        assert started.silent == ["a", "b"]
        assert started.lines == ["no message for 45 s from a, b"]
        a.poll((ONE,))
        await started.catch_up()
        assert started.silent == ["b"]
        assert started.lines[1:] == ["a sends again"]


async def test_hosts_that_send_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    Host(log, Truth(), "a")
    async with reading(monkeypatch, Session(log)) as started:
        assert not started.silent


async def test_hosts_that_are_not_wanted_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    log, truth = Log(), Truth()
    hosts = [Host(log, truth, name) for name in "ab"]
    session = Session(log, age=DAY_SECONDS)
    async with reading(monkeypatch, session, chosen=Filter({"host": ["a"]})) as started:
        hosts[1].poll((ONE,))
        await started.catch_up()
        assert started.silent == ["a"]
        assert {record["host"] for record in records(started.output)} == {"a"}


async def test_a_slow_broker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    log, truth = Log(), Truth()
    hosts = [Host(log, truth, name) for name in "ab"]
    for host in hosts:
        host.poll((ONE,), (TWO,))
    async with reading(monkeypatch, Session(log)) as started:
        found = check(started.output, truth)
        assert {host: one.is_known for host, one in found.items()} == {"a": True, "b": True}
        assert records(started.output)[0]["event"] == "hello"


async def test_what_a_slow_broker_has_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    log, truth = Log(), Truth()
    host = Host(log, truth, "a")
    async with reading(monkeypatch, Session(log)) as started:
        host.poll((ONE,), (TWO,), (THREE,))
        # It gets the last one only, and reads the others again.
        started.consumer._sequence = log.end - 1
        await started.cut()
        found = check(started.output, truth)["a"]
        assert not found.lost
        assert (found.seq, found.is_known) == (host.agent.feed.seq, True)


async def test_a_log_that_has_lost_its_end_is_read_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, truth = Log(), Truth()
    host = Host(log, truth, "a")
    for _ in range(5):
        host.poll((ONE,), (TWO,))
        host.checkpoint()
    async with reading(monkeypatch, Session(log)) as started:
        started.output = b""
        log.lose_end(0)
        again = Host(log, truth, "a", "new")
        again.poll((ONE,))
        assert log.end < started.consumer._skipped["sockagent.a"]
        await started.cut()
        end = log.end
        again.poll((TWO,))
        await started.catch_up()
        hello = [one for one in records(started.output) if one["event"] == "hello"]
        assert [one["epoch"] for one in hello] == ["new"]
        assert records(started.output)[-1]["seq"] == again.agent.feed.seq
        assert started.lines == [
            f"{URL}: the stream has lost its messages after {end}; going back to it"
        ]


async def test_records_that_a_host_writes_as_another_one_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "log", said.append)
    log, truth = Log(), Truth()
    hosts = [Host(log, truth, name) for name in "ab"]
    async with reading(monkeypatch, Session(log)) as started:
        hosts[0].poll((ONE,))
        forged = log.messages[-1]
        log.messages[-1] = forged._replace(records=forged.records.replace(b':"a"', b':"b"'))
        hosts[0].poll((TWO,))
        hosts[0].checkpoint()
        await started.catch_up()
        found = check(started.output, truth)
        assert found["a"].lost
        assert (found["a"].seq, found["a"].is_known) == (hosts[0].agent.feed.seq, True)
        assert (found["b"].seq, found["b"].is_known) == (0, True)
    assert said[0].endswith("cannot be read: they are of another host than a")


async def test_a_stream_that_has_not_what_a_reader_skips_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, truth = Log(), Truth()
    hosts = [Host(log, truth, name) for name in "ab"]
    for _ in range(5):
        hosts[1].poll((ONE,), (TWO,))
    hosts[1].checkpoint()
    async with reading(monkeypatch, Session(log)) as started:
        started.consumer._sequence = 0  # The connection ends before the first message.
        started.output = b""
        log.lose_end(0)
        again = Host(log, truth, "b", "new")
        assert log.end < started.consumer._skipped["sockagent.b"]
        await started.cut()
        again.poll((ONE,))
        await started.catch_up()
        assert records(started.output)[-1]["seq"] == again.agent.feed.seq


async def test_a_stream_that_is_made_anew_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, truth = Log(), Truth()
    Host(log, truth, "a")
    session = Session(log)
    async with reading(monkeypatch, session) as started:
        started.output = b""
        log.lose_end(0)
        hosts = [Host(log, truth, name, f"new{name}") for name in "abc"]
        hosts[0].poll((ONE,), (TWO,))  # It has more than the stream before.
        session.made = "again"
        await started.cut()
        found = check(started.output, truth)
        assert {host: one.is_known for host, one in found.items()} == dict.fromkeys("abc", True)
        assert started.lines == [f"{URL}: the stream was made anew; reading it from its beginning"]
        assert started.consumer.position
        assert started.consumer.position.made == "again"


async def test_a_stream_that_was_made_anew_before_a_reader_goes_on_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, truth = Log(), Truth()
    for name in "ab":
        Host(log, truth, name)
    position = FleetPosition(1, {}, {}, "before")
    async with reading(monkeypatch, Session(log), position=position) as started:
        assert check(started.output, truth).keys() == {"a", "b"}


async def test_hosts_that_ended_long_ago_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    log, truth = Log(), Truth()
    dead, live = Host(log, truth, "dead"), Host(log, truth, "live")
    dead.poll((ONE,))
    for _ in range(50):
        live.poll((ONE,), (TWO,))
    live.checkpoint()
    session = Session(log)
    session.ages["dead"] = DAY_SECONDS
    async with reading(monkeypatch, session) as started:
        found = check(started.output, truth)
        assert {host: one.is_known for host, one in found.items()} == {"dead": True, "live": True}
        assert found["dead"].seq == dead.agent.feed.seq
        assert len(session.read) < 10
        assert started.consumer.position is not None
        live.poll((THREE,))
        dead.poll((TWO,))
        del session.ages["dead"]
        await started.catch_up()
        found = check(started.output, truth)
        assert (found["live"].seq, found["live"].lost) == (live.agent.feed.seq, [])
        assert (found["dead"].seq, found["dead"].lost) == (dead.agent.feed.seq, [])


async def test_a_host_with_gaps_is_not_read_again_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_BYTES", 1)
    said: list[str] = []
    monkeypatch.setattr(logging, "log", said.append)
    log, truth = Log(), Truth()
    host = Host(log, truth, "a")
    session = Session(log)
    async with reading(monkeypatch, session) as started:
        for _ in range(5):
            host.checkpoint()
            host.poll((ONE,), (TWO,), (THREE,))
            log.delete(log.end - 1)
        session.read.clear()
        await started.catch_up()
        assert len(session.read) < len(log.messages) + 10
        host.checkpoint()
        await started.catch_up()
        found = check(started.output, truth)["a"]
        assert (found.seq, found.is_known) == (host.agent.feed.seq, True)
        assert found.lost
    assert said[0].endswith("a sends messages with gaps; they are not read again")


async def test_lines_that_are_no_records_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "log", said.append)
    log, truth = Log(), Truth()
    host = Host(log, truth, "a")
    async with reading(monkeypatch, Session(log)) as started:
        host.poll((ONE,))
        newest = log.messages[-1]
        odd = newest.records + b"\x1b]0;X\x07\n\n[1]\n"
        log.messages[-1] = newest._replace(records=odd)
        await started.catch_up()
        assert check(started.output, truth)["a"].seq == host.agent.feed.seq
        assert b"\x1b" not in started.output
    assert said[0].endswith("3 lines of message 3 are no records")


async def test_a_library_that_swallows_a_cancellation_does_not_keep_it_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    Host(log, Truth(), "a")
    async with reading(monkeypatch, Session(log)) as started:

        @asynccontextmanager
        async def open_session(*_: object) -> AsyncIterator[Session]:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise SessionError("connection lost") from None
            yield started.session

        monkeypatch.setattr(module, "open_session", open_session)
        started.session.cut.set()
        await asyncio.sleep(0.3)
        started.task.cancel()
        await asyncio.wait((started.task,), timeout=2)
        assert started.task.cancelled()
