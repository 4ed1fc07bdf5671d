"""A fleet read from a real broker, as messages by the wire format."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from orjson import dumps, loads

from agent import log
from agent.errors import RuntimeFailure
from agent.remote.nats import pull
from agent.remote.nats.consumer import Fleet, FleetConsumer, FleetPosition, HostRecords, Start
from agent.remote.nats.session import open_session
from agent.stream.filters import Filter
from agent.stream.fleet import MAX_BODY_BYTES, Link, parse_broker
from tests.broker import Broker, Connection, broker, needs_broker
from tests.feeding import ONE, THREE, TWO
from tests.fleet import Log, Publisher, Truth, check
from tests.make import records
from tests.relaying import Agent

pytestmark = needs_broker


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path) as started:
        yield started


class Hosts:
    """Two hosts, and what stores their messages in a broker."""

    def __init__(self, connection: Connection) -> None:
        self.truth, self.log = Truth(), Log()
        self._connection = connection
        self._stored = 0
        self.agents = [Agent(host, f"e{host}") for host in "ab"]
        self.publishers = []
        for agent in self.agents:
            agent.poll()
            self.truth.note(agent)
            self.publishers.append(Publisher(self.log, 1))
            self.publishers[-1].connect(agent)

    async def poll(self, *polls: tuple[object, ...]) -> None:
        """Publish these polls of both hosts, in a message each."""
        for found in polls:
            for agent, publisher in zip(self.agents, self.publishers, strict=True):
                agent.poll(*found)  # type: ignore[arg-type]
                self.truth.note(agent)
                publisher.publish()
        await self.store()

    async def checkpoint(self) -> None:
        """Publish the snapshots of both hosts again."""
        for publisher in self.publishers:
            publisher.checkpoint()
            publisher.publish()
        await self.store()

    async def store(self) -> None:
        """Store what was published."""
        for message in self.log.messages[self._stored :]:
            await self._connection.put(message.host, message.link, message.records)
        self._stored = len(self.log.messages)


@asynccontextmanager
async def hosts(server: Broker) -> AsyncIterator[Hosts]:
    async with Connection(server.url) as connection:
        await connection.make_stream()
        yield Hosts(connection)


class Reading:
    """A consumer that runs, and what it passes on."""

    def __init__(
        self,
        server: Broker,
        position: FleetPosition | None = None,
        *,
        start: Start | None = None,
        chosen: Filter | None = None,
        checkpoints: bool = True,
    ) -> None:
        url = server.url
        fleet = Fleet(url, parse_broker(url), chosen or Filter(), start=start or Start())
        self.output = b""
        self.silent: set[str] = set()
        self.connections = 0
        self.consumer = FleetConsumer(fleet, self, position, checkpoints=checkpoints)
        self._task = asyncio.create_task(self.consumer.run())

    def connect(self) -> None:
        self.connections += 1

    def disconnect(self, reason: str) -> None:
        pass

    async def receive(self, found: HostRecords) -> None:
        self.output += found.records

    def set_silent(self, host: str, *, silent: bool) -> None:
        (self.silent.add if silent else self.silent.discard)(host)

    async def read_to(self, sequence: int) -> None:
        """Wait until so much is read."""
        async with asyncio.timeout(10):
            while (position := self.consumer.position) is None or position.sequence < sequence:
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)

    async def stop(self) -> bytes:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        return self.output


def states(output: bytes, truth: Truth) -> dict[str, tuple[str | None, int, bool]]:
    found = check(output, truth)
    return {host: (one.epoch, one.seq, one.is_known) for host, one in found.items()}


async def test_it_begins_with_the_newest_snapshots_and_goes_on(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,), (TWO,))
        await fleet.checkpoint()
        await fleet.poll((ONE, TWO))
        reading = Reading(server)
        await reading.read_to(fleet.log.end)
        await fleet.poll((THREE,), ())
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    assert states(output, fleet.truth) == {"a": ("ea", 8, True), "b": ("eb", 8, True)}
    assert min(record["seq"] for record in records(output)) == 3  # That of the checkpoint.


async def test_it_reads_all_from_the_start(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,), (TWO,))
        await fleet.checkpoint()
        reading = Reading(server, start=Start(oldest=True))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    assert output == b"".join(message.records for message in fleet.log.messages)


async def test_it_begins_at_a_time_with_the_snapshot_before(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,), (TWO,))
        # Times are compared in whole seconds.
        await asyncio.sleep(1.1)
        at = time.time()
        await fleet.poll((THREE,))
        reading = Reading(server, start=Start(time=at))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    assert states(output, fleet.truth) == {"a": ("ea", 5, True), "b": ("eb", 5, True)}


async def test_repeated_snapshots_are_left_out(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,))
        reading = Reading(server, checkpoints=False)
        await reading.read_to(fleet.log.end)
        await fleet.checkpoint()
        await fleet.poll((TWO,))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    assert states(output, fleet.truth) == {"a": ("ea", 3, True), "b": ("eb", 3, True)}
    assert output.count(b'"event":"hello"') == 2


async def test_filters_apply_and_hosts_that_are_not_wanted_are_left_out(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE, TWO))
        await fleet.checkpoint()
        await fleet.poll((TWO, THREE))
        reading = Reading(server, chosen=Filter({"host": ["a"], "port": ["1", "3"]}))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    found = records(output)
    assert {record["host"] for record in found} == {"a"}
    assert [record["event"] for record in found] == [
        "hello", "snapshot", "snapshot_end", "close", "open",
    ]  # fmt: skip
    assert found[2]["count"] == 1


async def test_a_hole_is_lost_once(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,))
        reading = Reading(server)
        await reading.read_to(fleet.log.end)
        await reading.stop()
        at = fleet.log.end
        await fleet.poll((TWO,))
        async with Connection(server.url) as connection:
            await connection.delete(at + 1)
        reading2 = Reading(server, reading.consumer.position)
        await fleet.poll((THREE,))
        await fleet.checkpoint()
        await fleet.poll((ONE,))
        await reading2.read_to(fleet.log.end)
        output = reading.output + await reading2.stop()
    found = check(output, fleet.truth)
    assert found["a"].lost == [(2, 5)]
    assert (found["a"].seq, found["a"].is_known) == (7, True)
    assert not found["b"].lost


async def test_it_goes_on_after_the_broker_was_killed(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,))
        reading = Reading(server)
        await reading.read_to(fleet.log.end)
    server.kill()
    await asyncio.sleep(0.3)
    server.start()
    async with Connection(server.url) as connection:
        fleet._connection = connection
        await fleet.poll((TWO,), (THREE,))
        await reading.read_to(fleet.log.end)
    output = await reading.stop()
    assert states(output, fleet.truth) == {"a": ("ea", 5, True), "b": ("eb", 5, True)}
    assert reading.connections == 2


async def test_a_position_goes_on_where_it_was_taken(server: Broker) -> None:
    async with hosts(server) as fleet:
        await fleet.poll((ONE,))
        first = Reading(server)
        await first.read_to(fleet.log.end)
        output, position = await first.stop(), first.consumer.position
        await fleet.poll((TWO,))
        second = Reading(server, position)
        await second.read_to(fleet.log.end)
        output += await second.stop()
        assert output == b"".join(message.records for message in fleet.log.messages)


async def test_a_reader_that_ends_while_it_catches_up_leaves_nothing_behind(
    server: Broker,
) -> None:
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    receiving = asyncio.Event()

    class Stuck(Reading):
        async def receive(self, _part: HostRecords) -> None:
            receiving.set()
            await asyncio.Event().wait()

    async with hosts(server) as truth, Connection(server.url) as connection:
        await truth.poll((ONE,), (TWO,))
        reading = Stuck(server, start=Start(oldest=True))
        await receiving.wait()
        await reading.stop()
        async with asyncio.timeout(10):
            while await connection.consumers():  # noqa: ASYNC110 (of another process)
                await asyncio.sleep(0.01)
    gc.collect()
    await asyncio.sleep(0)
    assert problems == []


async def test_an_empty_stream_is_waited_for(server: Broker) -> None:
    async with hosts(server) as fleet:
        reading = Reading(server)
        await asyncio.sleep(0.2)
        await fleet.poll((ONE,))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    assert states(output, fleet.truth) == {"a": ("ea", 1, True), "b": ("eb", 1, True)}


async def test_without_the_stream_it_fails_at_once(server: Broker) -> None:
    reading = Reading(server)
    with pytest.raises(RuntimeFailure, match="there is no stream SOCKAGENT with"):
        await reading.read_to(1)


async def test_what_is_no_message_of_a_publisher_is_left_out(
    server: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    async with hosts(server) as fleet, Connection(server.url) as connection:
        await fleet.poll((ONE,))
        await connection._client.request("sockagent.c", b"{}", timeout=5)
        reading = Reading(server)
        await fleet.poll((TWO,))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    assert states(output, fleet.truth) == {"a": ("ea", 3, True), "b": ("eb", 3, True)}


async def test_records_that_are_too_large_are_reported_and_lost(
    server: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "log", said.append)
    async with hosts(server) as fleet:
        await fleet.poll((ONE,))
        reading = Reading(server)
        await reading.read_to(fleet.log.end)
        agent, publisher = fleet.agents[0], fleet.publishers[0]
        agent.poll(TWO)
        fleet.truth.note(agent)
        publisher.publish()
        large = fleet.log.messages[-1]
        blanks = b" " * MAX_BODY_BYTES
        fleet.log.messages[-1] = large._replace(records=large.records[:-1] + blanks + b"\n")
        await fleet.poll((THREE,))
        await fleet.checkpoint()
        await fleet.poll((ONE,))
        await reading.read_to(fleet.log.end)
        output = await reading.stop()
    found = check(output, fleet.truth)
    assert found["a"].lost
    assert (found["a"].seq, found["a"].is_known) == (agent.feed.seq, True)
    assert not found["b"].lost
    assert {line.partition(": invalid")[0] for line in said} == {
        f"warning: {server.url}: the records of message {large.sequence} cannot be read"
    }


@pytest.mark.parametrize(("limit", "size"), [(100_000, 30_000), (10_000, 30_000)])
async def test_messages_beyond_the_bytes_of_a_request_are_read(
    monkeypatch: pytest.MonkeyPatch, server: Broker, limit: int, size: int
) -> None:
    monkeypatch.setattr(pull, "_REQUEST", dumps({**loads(pull._REQUEST), "max_bytes": limit}))
    async with Connection(server.url) as connection:
        await connection.make_stream()
        link = Link("e", 0, 0, None, 0, begins=True, whole=True, id="00000001.1")
        for _ in range(20):
            await connection.put("a", link, b"{" * size, "none")
    found = []
    async with asyncio.timeout(10), open_session(parse_broker(server.url), None, None) as session:
        start = {"deliver_policy": "all"}
        async for message in session.messages(start, to_end=True):
            found += [] if message is None else [message.sequence]
    assert found == list(range(1, 21))
