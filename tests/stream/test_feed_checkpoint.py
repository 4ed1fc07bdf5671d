"""Snapshots that are repeated within one subscription."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Snapshot
from agent.stream.feed import IDLE_CHECKPOINT_SECONDS, NdjsonSubscription
from agent.stream.filters import Filter
from agent.stream.merged import MergedFeed

from ..feeding import ONE, THREE, TWO, Source, events, tracked
from ..make import Fold, Record, fold, records
from ..strategies import runs


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def drain(subscription: NdjsonSubscription) -> list[Record]:
    """Return the records that there are now."""
    chunks = b"".join(iter(subscription.take, None))
    return records(chunks) if chunks else []


def test_a_snapshot_is_repeated_after_a_change_and_the_time(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    subscription = source.feed.subscribe(checkpoint=10)
    assert events(drain(subscription)) == ["hello", "snapshot", "snapshot_end"]
    clock.now = 5
    source.poll(ONE, TWO)
    assert events(drain(subscription)) == ["open"]
    clock.now = 9.9
    assert drain(subscription) == []
    clock.now = 10
    got = drain(subscription)
    assert events(got) == ["hello", "snapshot", "snapshot", "snapshot_end"]
    assert got[0]["resumed"] is False
    assert {record["seq"] for record in got} == {source.feed.seq}
    # The time is counted from the newest snapshot on.
    source.poll(TWO)
    assert events(drain(subscription)) == ["close"]
    clock.now = 19.9
    assert drain(subscription) == []
    clock.now = 20
    assert events(drain(subscription))[0] == "hello"


def test_changes_come_before_a_snapshot_that_is_due(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll()
    subscription = source.feed.subscribe(checkpoint=10)
    drain(subscription)
    clock.now = 50
    source.poll(ONE)
    source.poll(ONE, TWO)
    assert events(drain(subscription)) == [
        "open", "open", "hello", "snapshot", "snapshot", "snapshot_end"
    ]  # fmt: skip


def test_without_a_change_the_snapshot_is_repeated_after_an_hour(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    subscription = source.feed.subscribe(checkpoint=10)
    drain(subscription)
    source.poll(ONE)
    clock.now = IDLE_CHECKPOINT_SECONDS - 1
    assert drain(subscription) == []
    clock.now = IDLE_CHECKPOINT_SECONDS
    assert events(drain(subscription)) == ["hello", "snapshot", "snapshot_end"]


def test_a_resumed_stream_repeats_the_snapshot_once_even_without_a_change(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    subscription = source.feed.subscribe(resume=[("epoch", 0)], checkpoint=10)
    assert drain(subscription)[0]["resumed"] is True
    clock.now = 10
    assert [record.get("resumed") for record in drain(subscription)] == [False, None, None]
    clock.now = 20
    assert drain(subscription) == []


def test_lost_counts_as_a_snapshot(clock: Clock) -> None:
    source = Source(monotonic=clock, history_records=1)
    source.poll()
    subscription = source.feed.subscribe(checkpoint=10)
    drain(subscription)
    clock.now = 8
    for held in (ONE, TWO, THREE):
        source.poll(held)
    assert events(drain(subscription))[0] == "lost"
    clock.now = 17
    assert drain(subscription) == []


@pytest.mark.parametrize("options", [{}, {"checkpoint": 10, "snapshot": False}])
def test_nothing_is_repeated_that_was_not_asked_for(clock: Clock, options: dict[str, Any]) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    subscription = source.feed.subscribe(**options)
    drain(subscription)
    clock.now = 10 * IDLE_CHECKPOINT_SECONDS
    source.poll(TWO)
    assert set(events(drain(subscription))) == {"open", "close"}


def test_a_filter_without_snapshots_repeats_none(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    subscription = source.feed.subscribe(Filter({"event": ["open"]}), checkpoint=10)
    assert events(drain(subscription)) == ["hello"]
    clock.now = 10 * IDLE_CHECKPOINT_SECONDS
    source.poll(ONE, TWO)
    assert events(drain(subscription)) == ["open"]


def test_another_filter_keeps_the_time(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    subscription = source.feed.subscribe(checkpoint=10)
    subscription.change_filter(Filter({"port": ["2"]}))
    assert events(drain(subscription)) == ["hello", "snapshot_end"]
    source.poll(ONE, TWO)
    clock.now = 10
    assert events(drain(subscription)) == ["open", "hello", "snapshot", "snapshot_end"]


def test_merged_streams_repeat_the_snapshot_of_each_host(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    merged = MergedFeed()
    merged.put("host", source.feed)
    subscription = merged.subscribe(checkpoint=10)
    for _ in range(2):
        found = records(b"".join(iter(subscription.take, None)))
        assert events(found)[-3:] == ["hello", "snapshot", "snapshot_end"]
        source.poll(ONE, TWO)
        source.poll(ONE)
        clock.now += 10


async def test_an_idle_reader_gets_the_snapshot_after_a_heartbeat(clock: Clock) -> None:
    source = Source(monotonic=clock)
    source.poll(ONE)
    source.poll(ONE, TWO)
    reader = source.subscribe(resume=[("epoch", 1)], checkpoint=10)
    await reader.read()
    clock.now = 10
    assert events(await reader.read())[0] == "hello"


@given(
    polls=runs(least=2),
    reads=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    values=st.sampled_from([{}, {"state": ["LISTEN"]}]),
)
def test_a_reader_that_stalls_gets_the_snapshot_of_the_poll_that_its_number_is_of(
    polls: list[Snapshot], reads: list[int], values: dict[str, list[str]]
) -> None:
    clock = Clock()
    source, chosen = Source(monotonic=clock), Filter(values)
    states: dict[int, Fold] = {}  # The state at each number, which each poll leads to.
    subscription = source.feed.subscribe(chosen, checkpoint=1, page_bytes=1)
    state: Fold = {}
    waiting: list[Record] = []  # The records of the snapshot under way.
    ends = 0

    def read(chunk: bytes | None) -> None:
        nonlocal state, waiting, ends
        for record in records(chunk) if chunk else ():
            if waiting or record["event"] in ("hello", "lost"):
                waiting.append(record)
                if record["event"] == "snapshot_end":
                    state, waiting, ends = fold(state, waiting), [], ends + 1
                    assert tracked(state) == states[record["seq"]]
            else:
                state = fold(state, [record])

    for step, taken in enumerate(reads):
        # A page of the snapshot has one record: polls come between its pages.
        if step < len(polls):
            source.publish(polls[step])
            states[source.feed.seq] = tracked(source.state(chosen))
        clock.now += 0.5
        for _ in range(taken):
            read(subscription.take())
    clock.now += 1
    while (chunk := subscription.take()) is not None:
        read(chunk)
    assert ends
    assert tracked(state) == tracked(source.state(chosen))
