"""The publisher at a model of a broker: whatever fails, its log tells everything once."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Snapshot
from agent.publish.nats import publisher as module
from agent.publish.nats.broker import BrokerTrouble
from agent.publish.nats.publisher import FeedPublisher, HostPublisher, PositionMoved
from agent.stream.feed import NdjsonSubscription
from agent.stream.filters import Filter
from agent.stream.fleet import decode_body

from ...feeding import AGENT, ONE, THREE, TWO, Source, tracked
from ...make import holding, process, records, tcp
from ...strategies import runs
from .brokers import ACCESS, FAULTS, ModelBroker, read_all

OTHER = AGENT._replace(epoch="other")


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "log", lines.append)
    for name in ("MIN_PAUSE_SECONDS", "FOREIGN_PAUSE_SECONDS"):
        monkeypatch.setattr(module, name, 0.0)
    return lines


class Publishing:
    """A publisher of a feed: ``drain`` publishes all that there is."""

    def __init__(self, source: Source, broker: ModelBroker, **options: Any) -> None:
        self.source = source
        self.publisher = HostPublisher(ACCESS, max_held=math.inf, connect=broker.connect, **options)
        self._subscription: NdjsonSubscription | None = None

    async def drain(self) -> None:
        while True:
            if self._subscription is None:
                self._subscription = self.source.feed.subscribe(
                    resume=self.publisher.resume, page_bytes=1000
                )
            chunk = self._subscription.take()
            if chunk is None:
                return
            try:
                if chunk:
                    await self.publisher.receive(chunk)
            except PositionMoved:
                self.leave()

    def leave(self) -> None:
        """Disconnect from the agent."""
        if self._subscription is not None:
            self._subscription.close()
        self._subscription = None


async def test_the_log_of_a_host() -> None:
    source, broker = Source(), ModelBroker()
    publishing = Publishing(source, broker)
    source.poll(ONE)
    await publishing.drain()
    source.poll(ONE, TWO)
    await publishing.drain()
    links = [stored.link for stored in broker.log]
    assert [(link.after, link.through, link.snapshot, link.begins, link.whole) for link in links] \
        == [(0, 0, 0, True, False), (0, 0, 1, False, True), (0, 1, 1, False, True)]  # fmt: skip
    reader = read_all(broker)
    assert tracked(reader.state) == tracked(source.state())
    assert not reader.lost


async def test_another_run_of_the_publisher_goes_on() -> None:
    source, broker = Source(), ModelBroker()
    source.poll(ONE)
    await Publishing(source, broker).drain()
    source.poll(ONE, TWO)
    await Publishing(source, broker).drain()
    reader = read_all(broker)
    assert len(reader.snapshots) == 1
    assert not reader.lost
    assert tracked(reader.state) == tracked(source.state())
    assert len({stored.link.run for stored in broker.log}) == 2


async def test_beyond_the_history_one_lost_and_a_snapshot() -> None:
    source, broker = Source(history_records=2), ModelBroker()
    source.poll(ONE)
    await Publishing(source, broker).drain()
    for held in (TWO, THREE, ONE):
        source.poll(held)
    await Publishing(source, broker).drain()
    reader = read_all(broker)
    assert reader.lost == 1
    assert len(reader.snapshots) == 2
    assert tracked(reader.state) == tracked(source.state())


async def test_a_message_that_was_stored_without_an_answer_is_not_sent_again(
    said: list[str],
) -> None:
    source, broker = Source(), ModelBroker()
    publishing = Publishing(source, broker)
    source.poll(ONE)
    broker.faults = ["unacknowledged"] * 3
    await publishing.drain()
    assert len(broker.log) == 2
    assert len(said) == 5  # It begins and ends, twice.
    assert said[1:3] == ["nats://b: publishing as host", "nats://b: publishing again"]


async def test_a_publisher_of_the_same_name_is_reported_the_second_time(said: list[str]) -> None:
    source, broker = Source(), ModelBroker()
    other = Source(agent=OTHER)
    publishing, second = Publishing(source, broker), Publishing(other, broker)
    for turn in range(6):
        source.poll(holding(tcp(turn + 1)))
        other.poll(holding(tcp(turn + 1, local_port=7)))
        await publishing.drain()
        await second.drain()
    assert sum("another agent publishes as host" in line for line in said) >= 1
    assert said.index(said[0]) == 0
    read_all(broker)


async def test_publishers_of_the_same_name_take_turns(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    source, other, broker = Source(), Source(agent=OTHER), ModelBroker()
    publishing, second = Publishing(source, broker), Publishing(other, broker)
    turns: list[str] = []

    async def publish(one: Publishing, inode: int) -> None:
        """Publish a change; note whose message is the newest."""
        one.source.poll(holding(tcp(inode)))
        await one.drain()
        turns.append(broker.log[-1].link.epoch)

    async def sleep(seconds: float) -> None:
        """While one waits, the other one publishes several changes."""
        if seconds == 60.0:
            assert len(turns) == 4, "it waits again"
            for inode in range(4, 7):
                await publish(second, inode)

    monkeypatch.setattr(module, "FOREIGN_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    for inode in range(1, 3):
        await publish(publishing, inode)
        await publish(second, inode)
    await publish(publishing, 3)
    epoch = AGENT.epoch
    assert turns == [epoch, "other", epoch, "other", "other", "other", "other", epoch]
    assert sum("another agent publishes as host" in line for line in said) == 1
    # Now the other one waits: its first change after the turn finds the name taken.
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", wait)
    await publish(second, 9)
    assert 60.0 in waits
    assert sum("another agent publishes as host" in line for line in said) == 2
    read_all(broker)


async def test_messages_as_large_as_the_broker_takes(said: list[str]) -> None:
    source, broker = Source(), ModelBroker()
    broker.max_payload = 3000
    publishing = Publishing(source, broker, encoding="none")
    source.poll()
    await publishing.drain()
    large = process(8, cmdline=("x" * 5000, "\x7f"))
    source.poll(*(holding(tcp(inode)) for inode in range(1, 30)), holding(tcp(30), large))
    await publishing.drain()
    assert all(len(stored.body) < 3000 for stored in broker.log)
    assert b"\x7f" not in b"".join(stored.body for stored in broker.log)
    reader = read_all(broker)
    assert reader.state.keys() == source.state().keys()
    assert [one["cmdline"] for one in reader.state.values() if "cmdline" in one] == [None]
    assert said[0] == "nats://b: publishing as host"
    assert [line for line in said if "command lines are left out" in line] == said[1:]
    source.poll(holding(tcp(31), large))
    await publishing.drain()
    assert len(said) == 2


async def test_while_the_broker_is_away_the_agent_is_left_in_time() -> None:
    source, broker = Source(), ModelBroker()
    source.poll(ONE)
    publisher = HostPublisher(ACCESS, max_held=0.0, connect=broker.connect)
    (hello,) = [source.feed.subscribe().take()]
    assert hello
    broker.faults = ["unsent"]
    with pytest.raises(PositionMoved):
        await publisher.receive(hello)
    await publisher.receive(hello)
    assert len(broker.log) == 1


@pytest.mark.parametrize("has_stored", [False, True])
async def test_a_stream_that_took_messages_is_tried_again_soon(
    monkeypatch: pytest.MonkeyPatch, has_stored: bool
) -> None:
    source, broker, pauses = Source(), ModelBroker(), []
    publishing = Publishing(source, broker)
    source.poll(ONE)
    if has_stored:
        await publishing.drain()
        source.poll(TWO)
    failures = 12

    def fail() -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise BrokerTrouble("its servers elect a leader", is_lasting=True)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    broker.before_publish = fail
    monkeypatch.setattr(module, "MIN_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await publishing.drain()
    assert len(pauses) == 12
    longest = module.MAX_PAUSE_SECONDS if has_stored else module.LASTING_PAUSE_SECONDS
    assert longest / 2 <= max(pauses) <= longest


async def test_a_feed_of_this_process_is_published_to_its_end() -> None:
    source, broker = Source(), ModelBroker()
    source.feed.heartbeat_seconds = 60.0
    source.poll(ONE)
    await Publishing(source, broker).drain()
    host = HostPublisher(ACCESS, connect=broker.connect)
    publisher = FeedPublisher(source.feed, Filter(), host, 300.0)
    running = asyncio.create_task(publisher.run())
    source.poll(TWO)
    while len(broker.log) < 4:  # noqa: ASYNC110 (there is no event)
        await asyncio.sleep(0)
    source.poll(THREE)
    source.feed.stop()
    await running
    await publisher.stop()
    reader = read_all(broker)
    assert len(reader.snapshots) == 1
    assert tracked(reader.state) == tracked(source.state())


STEPS = st.sampled_from(
    ["poll", "poll", "poll", "drain", "drain", "leave", "restart", "agent", "lose", "purge",
     "other host", "same name"]
)  # fmt: skip


@given(
    polls=runs(least=2),
    steps=st.lists(STEPS, max_size=25),
    faults=st.lists(st.sampled_from(FAULTS), max_size=20),
    lost=st.integers(1, 3),
    stale=st.integers(0, 3),
    history=st.sampled_from([3, 1000]),
)
def test_whatever_fails_the_log_tells_every_change_once(
    polls: list[Snapshot],
    steps: list[str],
    faults: list[str],
    lost: int,
    stale: int,
    history: int,
) -> None:
    async def run() -> None:
        source, broker = Source(history_records=history), ModelBroker()
        broker.faults, broker.stale_reads = faults, stale
        publishing, second = Publishing(source, broker), Publishing(Source(agent=OTHER), broker)
        waiting = list(polls)
        has_lost = False  # Since then the publishers have not looked.
        source.publish(waiting.pop(0))
        for step in steps:
            if step == "poll" and waiting:
                source.publish(waiting.pop(0))
            elif step == "drain":
                await publishing.drain()
                has_lost = False
            elif step == "leave":
                publishing.leave()
            elif step == "restart":
                publishing = Publishing(source, broker)
            elif step == "agent":
                agent = AGENT._replace(epoch=f"e{len(waiting)}")
                source = Source(agent=agent, history_records=history)
                source.publish(polls[-1 - len(waiting)] if waiting else polls[-1])
                publishing.leave()
                publishing.source = source
            elif step in ("lose", "purge"):
                has_lost = True
                broker.lose_end(lost if step == "lose" else len(broker.log))
            elif step == "other host":
                broker.skip()
            elif step == "same name" and not has_lost:
                second.source.poll(ONE)
                await second.drain()
        await publishing.drain()
        # Its newest message may be that of the other publisher, which the next one shows.
        source.poll(holding(tcp(99)))
        await publishing.drain()
        source.poll(holding(tcp(98)))
        await publishing.drain()
        reader = read_all(broker)
        assert tracked(reader.state) == tracked(source.state())

    asyncio.run(run())


@pytest.mark.parametrize("encoding", ["deflate", "none"])
async def test_the_encodings(encoding: str) -> None:
    source, broker = Source(), ModelBroker()
    source.poll(ONE)
    await Publishing(source, broker, encoding=encoding).drain()
    assert {stored.body.startswith(b"{") for stored in broker.log} == {encoding == "none"}
    assert records(decode_body(broker.log[0].body))[0]["event"] == "hello"


def test_trouble_is_reported_when_it_begins_and_when_it_ends(said: list[str]) -> None:
    trouble = module.Trouble("nats://b")
    trouble.end()
    for reason, lasting in (("a", False), ("b", False), ("c", True), ("c", True), ("a", False)):
        trouble.begin(BrokerTrouble(reason, is_lasting=lasting))
    trouble.end()
    trouble.end()
    trouble.begin(BrokerTrouble("b"))
    assert [line.partition(";")[0] for line in said] == [
        "nats://b: a", "nats://b: c", "nats://b: publishing again", "nats://b: b"
    ]  # fmt: skip
