"""The merged feeds of several hosts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from agent.stream.filters import Filter
from agent.stream.merged import MergedFeed, MergedSubscription
from agent.stream.view import MAX_PAGE_ITEMS

from ..feeding import ONE, THREE, TWO, events
from ..make import holding, records, tcp
from ..relaying import Agent, Folds


@pytest.fixture
def agents() -> dict[str, Agent]:
    """The agents of three hosts."""
    made = {host: Agent(host, f"epoch of {host}") for host in ("web1", "web2", "db1")}
    for agent, held in zip(made.values(), (ONE, TWO, THREE), strict=True):
        agent.poll(held)
    return made


@pytest.fixture
def merged(agents: dict[str, Agent]) -> MergedFeed:
    merged = MergedFeed(heartbeat_seconds=0.0)
    for host, agent in agents.items():
        merged.put(host, agent.feed)
    return merged


def take_all(subscription: MergedSubscription) -> list[dict[str, Any]]:
    return [one for chunk in iter(subscription.take, None) for one in records(chunk)]


def hosts(got: list[dict[str, Any]]) -> set[str]:
    return {record["host"] for record in got}


def test_each_host_has_its_hello_and_its_snapshot(merged: MergedFeed) -> None:
    folds = Folds()
    for chunk in iter(merged.subscribe().take, None):
        folds.take(chunk)
    for host in ("web1", "web2", "db1"):
        assert [event for name, event in folds.events if name == host] == [
            "hello", "snapshot", "snapshot_end"
        ]  # fmt: skip


def test_a_host_that_comes_later_is_added(merged: MergedFeed) -> None:
    subscription = merged.subscribe()
    take_all(subscription)
    late = Agent("late", "e")
    late.poll(ONE)
    seen = merged.generation
    merged.put("late", late.feed)
    assert merged.generation > seen
    assert events(take_all(subscription)) == ["hello", "snapshot", "snapshot_end"]


def test_hosts_take_turns(merged: MergedFeed, agents: dict[str, Agent]) -> None:
    subscription = merged.subscribe()
    take_all(subscription)
    for turn in range(3):
        for agent in agents.values():
            agent.poll(holding(tcp(100 + turn)))
    taken = [records(chunk)[0]["host"] for chunk in iter(subscription.take, None)]
    assert len(taken) == 9
    assert len(set(taken[:3])) == 3
    assert taken == taken[:3] * 3


def test_the_filter_of_hosts_leaves_the_others_out(
    merged: MergedFeed, agents: dict[str, Agent]
) -> None:
    subscription = merged.subscribe(Filter({"host": ["web*"]}))
    assert hosts(take_all(subscription)) == {"web1", "web2"}
    for agent in agents.values():
        agent.poll()
    assert hosts(take_all(subscription)) == {"web1", "web2"}
    subscription.change_filter(Filter({"host!": ["web1"], "port": ["3"]}))
    got = take_all(subscription)
    assert hosts(got) == {"web2", "db1"}
    assert events(got).count("hello") == 2
    assert subscription.view.filter == Filter({"host!": ["web1"], "port": ["3"]})


def test_positions_are_of_each_host(merged: MergedFeed, agents: dict[str, Agent]) -> None:
    agents["web1"].poll()
    resume = [("epoch of web1", 0), ("epoch of web2", 0), ("another", 3)]
    got = take_all(merged.subscribe(resume=resume))
    resumed = {one["host"]: one["resumed"] for one in got if one["event"] == "hello"}
    assert resumed == {"web1": True, "web2": True, "db1": False}
    assert [one["seq"] for one in got if one["event"] == "close"] == [1]


def test_without_snapshots(merged: MergedFeed, agents: dict[str, Agent]) -> None:
    subscription = merged.subscribe(snapshot=False)
    assert events(take_all(subscription)) == ["hello"] * 3
    agents["db1"].poll()
    assert events(take_all(subscription)) == ["close"]


def test_only_connected_hosts_that_are_silent_have_heartbeats(
    merged: MergedFeed, agents: dict[str, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    merged.set_connected("web1", connected=True)
    merged.set_connected("web2", connected=True)
    subscription = merged.subscribe()
    assert list(subscription.idle(200.0, 0.0)) == []  # Before hello.
    take_all(subscription)
    now = 110.0
    agents["web2"].poll()
    take_all(subscription)
    beats = [records(silent.heartbeat())[0] for silent in subscription.idle(105.0, 0.0)]
    assert [(one["event"], one["host"]) for one in beats] == [("heartbeat", "web1")]
    assert list(subscription.idle(105.0, 0.0)) == []  # It was sent.
    merged.set_connected("web1", connected=False)
    assert [one.position for one in subscription.idle(110.0, 0.0)] == [("epoch of web2", 1)]


def test_a_closed_subscription_returns_nothing(
    merged: MergedFeed, agents: dict[str, Agent]
) -> None:
    subscription = merged.subscribe()
    take_all(subscription)
    views = [agent.feed.views.get(*subscription.view) for agent in agents.values()]
    assert [view.readers for view in views] == [1, 1, 1]
    subscription.close()
    agents["db1"].poll()
    merged.put("late", Agent("late", "e").feed)
    assert subscription.take() is None
    assert [view.readers for view in views] == [0, 0, 0]


def test_a_slow_subscriber_gets_lost_of_one_host() -> None:
    merged, agents = MergedFeed(), [Agent("a", "e", history_records=2), Agent("b", "f")]
    for agent in agents:
        agent.poll()
        merged.put(agent.info.host, agent.feed)
    subscription, folds = merged.subscribe(), Folds()
    for chunk in iter(subscription.take, None):
        folds.take(chunk)
    for held in ([ONE], [TWO], [THREE]):
        for agent in agents:
            agent.poll(*held)
    for chunk in iter(subscription.take, None):
        folds.take(chunk)
    assert [host for host, event in folds.events if event == "lost"] == ["a"]
    assert [folds.state(one.info.host) == one.state() for one in agents] == [True, True]


async def test_iteration_waits_and_ends(merged: MergedFeed, agents: dict[str, Agent]) -> None:
    subscription = merged.subscribe()
    got: list[dict[str, Any]] = []

    async def read() -> None:
        async for chunk in subscription:
            got.extend(records(chunk))

    reading = asyncio.create_task(read())
    async with asyncio.timeout(20):
        while events(got).count("snapshot_end") < 3:  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0)
        agents["db1"].poll()
        merged.wake()
        while "close" not in events(got):  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0)
        merged.set_connected("web1", connected=True)
        while "heartbeat" not in events(got):  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0.01)
        merged.stop()
        await reading
    assert {one["host"] for one in got if one["event"] == "heartbeat"} == {"web1"}


async def test_other_tasks_have_their_turn_while_a_filter_hides_everything() -> None:
    agent = Agent("web1", "e")
    agent.poll(*[holding(tcp(inode)) for inode in range(1, 5 * MAX_PAGE_ITEMS)])
    merged = MergedFeed()
    merged.put("web1", agent.feed)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    at_hello = None
    async for chunk in merged.subscribe(Filter({"port": ["9"]})):
        last = records(chunk)[-1]["event"]
        if last == "hello":
            await asyncio.sleep(0)
            at_hello = turns
        if last == "snapshot_end":
            break
    counting.cancel()
    assert at_hello is not None
    assert turns - at_hello >= 3  # Each page of holdings that are hidden gives a turn.
