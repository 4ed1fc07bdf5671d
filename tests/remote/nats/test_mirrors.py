"""Mirrors of the hosts of a fleet."""

from __future__ import annotations

import pytest

from agent.remote.nats import mirrors
from agent.remote.nats.consumer import Fleet, HostRecords
from agent.remote.nats.mirrors import FleetMirrors
from agent.stream.filters import Filter
from agent.stream.fleet import parse_broker
from agent.stream.merged import MergedFeed
from tests.feeding import ONE, THREE, TWO, tracked
from tests.fleet import Consumer, Log, Publisher
from tests.make import fold, records
from tests.relaying import Agent

URL = "nats://127.0.0.1:4222"


class Mirrored:
    """A host, its messages, and the mirrors that get what a consumer passes on of them."""

    def __init__(self, host: str = "a", epoch: str = "e") -> None:
        self.log = Log()
        self.agent = Agent(host, epoch, history_records=3)
        self.agent.poll(ONE)
        self.publisher = Publisher(self.log, 1)
        self.publisher.connect(self.agent)
        self.consumer = Consumer(self.log)
        self.merged = MergedFeed()
        self.owners: dict[str, str] = {}
        fleet = Fleet(URL, parse_broker(URL), Filter())
        self.mirrors = FleetMirrors(fleet, self.merged, self.owners)
        self.replaced = 0

    async def publish(self) -> None:
        """Publish what there is, and apply each message."""
        self.publisher.publish()
        while self.consumer.sequence < self.log.end:
            self.consumer.output = b""
            self.consumer.read(1)
            if self.consumer.output:
                await self.receive(self.consumer.output)

    async def receive(self, found: bytes) -> None:
        await self.mirrors.receive(HostRecords(self.agent.info.host, found, 1.7e9))

    def state(self) -> object:
        """Return what a new subscriber of the relay gets, but for untracked fields."""
        subscription = self.merged.subscribe()
        found = b""
        while chunk := subscription.take():
            found += chunk
        return tracked(fold({}, records(found)))


async def test_a_fleet_is_mirrored() -> None:
    mirrored = Mirrored()
    await mirrored.publish()
    mirrored.agent.poll(TWO, THREE)
    await mirrored.publish()
    assert mirrored.state() == mirrored.agent.state()
    assert mirrored.merged.is_connected("a")


async def test_a_repeated_snapshot_does_not_begin_anew() -> None:
    mirrored = Mirrored()
    await mirrored.publish()
    feed = mirrored.merged.feeds["a"]
    mirrored.publisher.checkpoint()
    await mirrored.publish()
    mirrored.agent.poll(TWO, THREE)
    await mirrored.publish()
    assert mirrored.merged.feeds["a"] is feed
    assert mirrored.state() == mirrored.agent.state()


async def test_changes_that_are_lost_are_lost_for_subscribers() -> None:
    mirrored = Mirrored()
    await mirrored.publish()
    subscription = mirrored.merged.subscribe()
    while subscription.take():
        pass
    for found in ((TWO,), (ONE, THREE), (TWO,)):  # More than the agent keeps.
        mirrored.agent.poll(*found)
    await mirrored.publish()
    chunk = subscription.take()
    assert chunk is not None
    assert records(chunk)[0]["event"] == "lost"
    assert mirrored.state() == mirrored.agent.state()


async def test_records_that_do_not_fit_break_a_host_until_its_next_snapshot(
    capfd: pytest.CaptureFixture[str],
) -> None:
    mirrored = Mirrored()
    await mirrored.publish()
    await mirrored.receive(b'{"event":"open"}\n')
    mirrored.agent.poll(TWO)
    await mirrored.publish()
    assert mirrored.state() != mirrored.agent.state()
    mirrored.publisher.checkpoint()
    await mirrored.publish()
    assert mirrored.state() == mirrored.agent.state()


async def test_a_host_of_another_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(mirrors, "log", said.append)
    mirrored = Mirrored()
    mirrored.owners["a"] = "ws://elsewhere"
    await mirrored.publish()
    mirrored.agent.poll(TWO)
    await mirrored.publish()
    assert said == [f"{URL}: a is refused: ws://elsewhere has the same host name"]
    assert not mirrored.merged.feeds
    assert mirrored.mirrors.link().refused == ("a",)


async def test_a_silent_host_is_not_connected() -> None:
    mirrored = Mirrored()
    mirrored.mirrors.connect()
    await mirrored.publish()
    mirrored.mirrors.set_silent("a", silent=True)
    assert not mirrored.merged.is_connected("a")
    assert mirrored.mirrors.link().silent == ("a",)
    mirrored.mirrors.set_silent("a", silent=False)
    mirrored.agent.poll(TWO)
    await mirrored.publish()
    assert mirrored.merged.is_connected("a")
    assert mirrored.mirrors.link().connected
    assert mirrored.mirrors.link().silent == ()
    mirrored.mirrors.disconnect("gone")
    assert not mirrored.merged.is_connected("a")
