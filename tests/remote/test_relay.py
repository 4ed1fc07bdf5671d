"""Relays of real servers that break connections, restart, and send what is no stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agent.publish.websocket.access import Access
from agent.publish.websocket.server import Rules
from agent.remote import client as client_module
from agent.remote import relay as relay_module
from agent.remote.client import RemoteAgent
from agent.remote.relay import Relay
from agent.stream.encoder import AgentInfo
from agent.stream.filters import Filter
from agent.stream.merged import MergedFeed

from ..feeding import AGENT, ONE, THREE, TWO
from ..publish.websocket.serving import HANGS_SECONDS, Serving, serving
from ..relaying import Folds

A, B = AgentInfo("a", "boot", "ea", 1.0), AgentInfo("b", "boot", "eb", 1.0)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MIN_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(client_module, "MAX_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "MAX_LOCAL_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(relay_module, "FINAL_SECONDS", 0.1)


def remote(there: Serving) -> RemoteAgent:
    return RemoteAgent(f"ws://127.0.0.1:{there.port}", ())


class Relaying:
    """A running relay, and a subscriber of it."""

    def __init__(self, *remotes: RemoteAgent) -> None:
        self.merged = MergedFeed()
        self.relay = Relay(remotes, self.merged)
        self.running = asyncio.create_task(self.relay.run())
        self.folds = Folds()
        self.subscription = self.merged.subscribe()

    async def until(self, event: str, host: str, times: int = 1) -> None:
        """Read until there is this record, so many times since the beginning."""
        async with asyncio.timeout(HANGS_SECONDS):
            while self.folds.events.count((host, event)) < times:
                seen = self.merged.generation
                chunk = self.subscription.take()
                if chunk:
                    self.folds.take(chunk)
                elif chunk is None:
                    await self.merged.wait(seen, 1.0)

    def resubscribe(self, folds: Folds) -> None:
        """Subscribe as one that was connected to another relay before."""
        self.folds = folds
        folds.connect()
        self.subscription = self.merged.subscribe(resume=folds.position.resume)


@asynccontextmanager
async def relaying(*remotes: RemoteAgent) -> AsyncIterator[Relaying]:
    made = Relaying(*remotes)
    try:
        yield made
    finally:
        made.running.cancel()
        await asyncio.gather(made.running, return_exceptions=True)


def cut(there: Serving) -> None:
    """Break all connections of a server."""
    for client in there.registry.connections():
        client.abort()


async def test_the_streams_of_several_agents_are_merged() -> None:
    async with serving(agent=A) as one, serving(agent=B) as two:
        one.poll(ONE)
        two.poll(TWO)
        async with relaying(remote(one), remote(two)) as relay:
            await relay.until("snapshot_end", "a")
            await relay.until("snapshot_end", "b")
            one.poll(ONE, TWO)
            cut(two)
            two.poll(TWO, THREE)
            await relay.until("open", "a")
            await relay.until("open", "b")
            assert relay.folds.state("a").keys() == {(7, 1), (7, 2)}
            assert relay.folds.state("b").keys() == {(7, 2), (7, 3)}
            assert relay.folds.events.count(("b", "hello")) == 1
            links = relay.relay.links()
            assert [(link.connected, link.hosts) for link in links] == [
                (True, ("a",)), (True, ("b",))
            ]  # fmt: skip


async def test_a_subscriber_resumes_over_a_restart_of_the_relay() -> None:
    async with serving(agent=A) as there:
        there.poll(ONE)
        there.poll(ONE, TWO)
        async with relaying(remote(there)) as relay:
            await relay.until("snapshot_end", "a")
            folds = relay.folds
        there.poll(TWO)
        there.poll(TWO, THREE)
        async with relaying(remote(there)) as relay:
            relay.resubscribe(folds)
            await relay.until("open", "a")
            assert folds.events == [
                ("a", "hello"), ("a", "snapshot"), ("a", "snapshot"), ("a", "snapshot_end"),
                ("a", "hello"), ("a", "close"), ("a", "open"),
            ]  # fmt: skip
            there.poll(THREE)
            await relay.until("close", "a", times=2)
            assert folds.state("a").keys() == {(7, 3)}


async def test_what_the_history_of_the_agent_lacks_is_lost() -> None:
    async with serving(agent=A, history_records=1) as there:
        there.poll(ONE)
        async with relaying(remote(there)) as relay:
            await relay.until("snapshot_end", "a")
            folds = relay.folds
        for held in ([], [TWO], [THREE]):
            there.poll(*held)
        async with relaying(remote(there)) as relay:
            relay.resubscribe(folds)
            await relay.until("snapshot_end", "a", times=2)
            assert ("a", "lost") in folds.events
            assert folds.state("a").keys() == {(7, 3)}


async def test_a_history_that_cannot_be_fetched(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "HISTORY_SECONDS", 0.0)
    async with serving(agent=A) as there:
        there.poll(ONE)
        there.poll(TWO)
        async with relaying(remote(there)) as relay:
            await relay.until("snapshot_end", "a")
            assert relay.folds.state("a").keys() == {(7, 2)}
    await asyncio.sleep(0.1)
    assert "the changes before this start cannot be fetched: no response" in capfd.readouterr().err


async def test_a_restarted_agent_begins_anew() -> None:
    async with serving(agent=A) as there:
        there.poll(ONE)
        port = there.port
        async with relaying(remote(there)) as relay:
            await relay.until("snapshot_end", "a")
            there.feed.stop()
            await there.server.stop()
            async with serving(f"127.0.0.1:{port}", agent=A._replace(epoch="new")) as again:
                again.poll(TWO)
                await relay.until("snapshot_end", "a", times=2)
                assert relay.folds.hosts["a"].epoch == "new"
                assert relay.folds.state("a").keys() == {(7, 2)}


async def test_a_relay_of_a_relay() -> None:
    merged = MergedFeed()
    async with serving(agent=A) as one, serving(agent=B) as two:
        for there in (one, two):
            there.poll(ONE)
            there.poll(ONE, TWO)
        async with relaying(remote(one), remote(two)) as first:
            merged = first.merged
            async with serving(served=merged) as between, relaying(remote(between)) as second:
                await second.until("snapshot_end", "a")
                await second.until("snapshot_end", "b")
                cut(between)
                one.poll(TWO)
                await second.until("close", "a")
                assert second.folds.events.count(("a", "hello")) == 1
                folds = second.folds
                two.poll(TWO, THREE)
                async with relaying(remote(between)) as third:
                    third.resubscribe(folds)
                    await third.until("open", "b")
                    hellos = [one for one in folds.events if one[1] == "hello"]
                    assert len(hellos) == 4
                    assert "lost" not in {event for _, event in folds.events}
                    assert folds.state("b").keys() == {(7, 2), (7, 3)}


async def test_of_two_agents_with_one_host_name_the_first_is_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with serving(agent=A) as one, serving(agent=A._replace(epoch="x")) as two:
        one.poll(ONE)
        urls = remote(one).url, remote(two).url
        async with relaying(remote(one), remote(two)) as relay:
            await relay.until("snapshot_end", "a")
            for turn in range(2):
                two.poll(TWO)
                one.poll(*([] if turn % 2 else [THREE]))
                await relay.until("close", "a", times=turn + 1)
            await two.subscribed(1)
            async with asyncio.timeout(HANGS_SECONDS):
                while not relay.relay.links()[1].connected:  # noqa: ASYNC110 (no event)
                    await asyncio.sleep(0.01)
            assert relay.relay.links()[1].refused == ("a",)
            assert relay.folds.hosts["a"].epoch == "ea"
    await asyncio.sleep(0.1)
    lines = [line for line in capfd.readouterr().err.splitlines() if "same host name" in line]
    assert lines == [
        f"sockagent: {urls[1]}: refused, because {urls[0]} has the same host name a",
    ]


GARBAGE = [
    (b"hello", "it is not JSON"),
    (b'{"event":"open"}', "the field 'seq' is missing"),
    (
        b'{"event":"snapshot_end","seq":1,"time":"2026-01-01T00:00:00Z","host":"x","count":0}',
        "it does not begin with hello",
    ),
]


@pytest.mark.parametrize(("sent", "reason"), GARBAGE)
async def test_garbage_ends_the_connection_with_one_sentence(
    sent: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    connections = 0

    async def other(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(sent, text=True)
        await connection.wait_closed()

    async with serve(other, "127.0.0.1", 0) as server, serving(agent=A) as there:
        there.poll(ONE)
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with relaying(RemoteAgent(url, ()), remote(there)) as relay:
            await relay.until("snapshot_end", "a")
            async with asyncio.timeout(HANGS_SECONDS):
                while connections < 4:  # noqa: ASYNC110 (no event to wait for)
                    await asyncio.sleep(0.01)
            link = relay.relay.links()[0]
            assert link.reason == f"disconnected because of what it sends: {reason}"
    await asyncio.sleep(0.1)
    lines = [line for line in capfd.readouterr().err.splitlines() if url in line]
    sentence = f"disconnected because of what it sends: {reason}; trying again every 0 s"
    assert lines == [f"sockagent: {url}: {sentence}"]


async def test_a_wrong_token_of_one_agent_does_not_end_the_others() -> None:
    access = Access(tokens=("0123456789abcdef",))
    async with serving(agent=A) as one, serving(agent=B, access=access) as two:
        one.poll(ONE)
        two.poll(TWO)
        async with relaying(remote(two), remote(one)) as relay:
            await relay.until("snapshot_end", "a")
            async with asyncio.timeout(HANGS_SECONDS):
                while relay.relay.links()[0].reason != "401 token required":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_a_refusal_and_its_end_are_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    access = Access(tokens=("0123456789abcdef",))
    async with serving(agent=A, access=access) as there:
        there.poll(ONE)
        url = remote(there).url
        async with relaying(remote(there)) as relay:
            async with asyncio.timeout(HANGS_SECONDS):
                while there.registry.rejections.refusals["401"] < 3:  # noqa: ASYNC110 (no event)
                    await asyncio.sleep(0.01)
            there.server.set_rules(Rules())
            await relay.until("snapshot_end", "a")
    await asyncio.sleep(0.1)
    lines = [line for line in capfd.readouterr().err.splitlines() if url in line]
    assert lines == [
        f"sockagent: {url}: 401 token required; trying again every 0 s",
        f"sockagent: {url}: connected again",
    ]


async def test_a_host_that_is_cut_off_is_not_connected() -> None:
    async with serving(agent=A) as there:
        there.poll(ONE)
        async with relaying(remote(there)) as relay:
            await relay.until("snapshot_end", "a")
            assert relay.merged.is_connected("a")
            await there.server.stop()
            async with asyncio.timeout(HANGS_SECONDS):
                while relay.merged.is_connected("a"):  # noqa: ASYNC110 (no event to wait for)
                    await asyncio.sleep(0.01)
            link = relay.relay.links()[0]
            assert not link.connected
            assert link.reason


async def test_filters_of_an_agent_are_seen_through_the_relay() -> None:
    async with serving(agent=AGENT, limit_filter=Filter({"port": ["1"]})) as there:
        there.poll(ONE, TWO)
        async with relaying(remote(there)) as relay:
            await relay.until("snapshot_end", "host")
            assert relay.folds.state("host").keys() == {(7, 1)}
            rules = there.server.rules._replace(limit_filter=Filter({"port": ["2"]}))
            there.server.set_rules(rules)
            await relay.until("snapshot_end", "host", times=2)
            assert relay.folds.state("host").keys() == {(7, 2)}
