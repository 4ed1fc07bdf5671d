import asyncio

import pytest

from agent.stream.feed import Feed

from ..feeding import AGENT, ONE, TWO, Source, Subscriber, events
from ..make import FULL_COVERAGE, holding, snapshot, tcp


async def test_a_poll_with_deltas_wakes_a_subscriber() -> None:
    feed = Feed(AGENT, heartbeat_seconds=3600)
    feed.publish(snapshot(), [])
    subscriber = Subscriber(feed.subscribe())
    assert events(await subscriber.read_chunk()) == ["hello"]
    assert events(await subscriber.read_chunk()) == ["snapshot_end"]
    waiting = subscriber.read_chunk()
    feed.publish(snapshot(coverage=FULL_COVERAGE), [FULL_COVERAGE])
    assert events(await waiting) == ["coverage"]


async def test_a_poll_at_the_end_of_a_wait_is_not_missed() -> None:
    feed = Feed(AGENT, heartbeat_seconds=0.0)
    feed.publish(snapshot(), [])
    subscriber = Subscriber(feed.subscribe(), folds=False)
    await subscriber.read()
    for turn in range(3000):
        waiting = asyncio.ensure_future(subscriber.read_chunk())
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        feed.publish(snapshot(coverage=FULL_COVERAGE), [FULL_COVERAGE])
        got = events(await waiting)
        # A heartbeat that was due comes first, and nothing else.
        assert got == ["coverage"] or events(await subscriber.read_chunk()) == ["coverage"]


async def test_the_history_is_bounded_in_bytes_and_records() -> None:
    for bounds in ({"history_records": 10}, {"history_bytes": 5000}):
        source = Source(**bounds)
        for inode in range(1, 200):
            source.poll(holding(tcp(inode)))
        held = 0
        for seq in range(source.feed.seq, 0, -1):
            if not source.feed.history.holds(seq - 1):
                break
            held += 1
        assert 2 <= held <= 10


def test_deltas_and_losses_are_counted() -> None:
    source = Source(history_records=2)
    source.poll(ONE)
    subscription = source.feed.subscribe(snapshot=False)
    subscription.take()
    for held in ([ONE, TWO], [TWO], [ONE, TWO], [holding(tcp(1, "CLOSE")), TWO]):
        source.poll(*held)
    assert source.feed.records == {"open": 2, "close": 1, "update": 1}
    subscription.take()
    assert source.feed.lost == 1


def test_there_is_no_full_snapshot_before_the_first_poll() -> None:
    with pytest.raises(RuntimeError):
        Feed(AGENT).full_snapshot()
