import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.snapshot.stats import PollCost, PollStats, PollSummary, WorkCounters
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.lines import CHUNK_BYTES, chunks

from ..feeding import (
    AGENT,
    ONE,
    THREE,
    TWO,
    Source,
    Subscriber,
    events,
    seqs,
    tracked,
)
from ..make import SIGHT, holding, nameless, snapshot, tcp


@pytest.fixture
def source() -> Source:
    return Source()


async def test_a_stream_begins_with_hello_and_a_whole_snapshot(source: Source) -> None:
    source.poll(ONE)
    source.poll(ONE, TWO)
    told = await source.subscribe().read()
    assert events(told) == ["hello", "snapshot", "snapshot", "snapshot_end"]
    assert seqs(told) == [1, 1, 1, 1]
    assert (told[0]["epoch"], told[0]["resumed"]) == ("epoch", False)
    assert told[-1]["count"] == 2


async def test_an_empty_snapshot_ends_too(source: Source) -> None:
    source.poll()
    assert events(await source.subscribe().read()) == ["hello", "snapshot_end"]


async def test_deltas_follow_one_number_at_a_time(source: Source) -> None:
    source.poll(ONE)
    subscriber = source.subscribe()
    await subscriber.read()
    source.poll(TWO, THREE)
    source.poll(coverage=SIGHT._replace(unreadable=1))
    told = await subscriber.read()
    assert events(told) == ["close", "open", "open", "coverage", "close", "close"]
    assert seqs(told) == [1, 2, 3, 4, 5, 6]


async def test_the_deltas_of_a_poll_come_in_one_chunk(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    source.poll(ONE, TWO)
    source.poll()
    assert events(await subscriber.read_chunk()) == ["open", "open"]
    assert events(await subscriber.read_chunk()) == ["close", "close"]


async def test_snapshot_and_first_delta_join_without_a_gap_or_a_repeat(source: Source) -> None:
    source.poll(ONE)
    subscriber = source.subscribe()
    await subscriber.read_chunk()  # It has said hello; what follows is the snapshot of that moment.
    source.poll(ONE, TWO)
    source.poll(TWO)
    told = await subscriber.read()
    assert events(told) == ["snapshot", "snapshot_end", "open", "close"]
    assert seqs(told) == [0, 0, 1, 2]
    assert tracked(subscriber.fold) == tracked(source.state())


async def test_a_subscriber_before_the_first_poll_waits_for_it(source: Source) -> None:
    subscriber = source.subscribe()
    source.poll(ONE)
    assert events(await subscriber.read()) == ["hello", "snapshot", "snapshot_end"]


async def test_news_wake_a_subscriber_that_waits() -> None:
    feed = Feed(AGENT, heartbeat_seconds=3600)
    feed.publish(snapshot(), [])
    subscriber = Subscriber(feed.subscribe())
    assert events(await subscriber.read_chunk() + await subscriber.read_chunk()) == [
        "hello",
        "snapshot_end",
    ]
    waiting = subscriber.read_chunk()
    feed.publish(snapshot(coverage=SIGHT), [SIGHT])
    assert events(await waiting) == ["coverage"]


async def test_no_publication_is_lost_to_a_subscriber_whose_wait_ends_with_it() -> None:
    feed = Feed(AGENT, heartbeat_seconds=0.0)
    feed.publish(snapshot(), [])
    subscriber = Subscriber(feed.subscribe(), folds=False)
    await subscriber.read()
    for turn in range(3000):
        waiting = asyncio.ensure_future(subscriber.read_chunk())
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        feed.publish(snapshot(coverage=SIGHT), [SIGHT])
        got = events(await waiting)
        # A heartbeat that was due goes first; nothing else comes between.
        assert got == ["coverage"] or events(await subscriber.read_chunk()) == ["coverage"]


async def test_a_heartbeat_has_the_newest_number(source: Source) -> None:
    source.poll()
    source.poll(ONE)
    subscriber = source.subscribe(snapshot=False)
    assert events(await subscriber.read_chunk()) == ["hello"]
    (beat,) = await subscriber.read_chunk()
    assert (beat["event"], beat["seq"]) == ("heartbeat", 1)


async def test_a_heartbeat_tells_what_the_polls_cost_by_then() -> None:
    vitals = PollStats()
    source = Source(stats=vitals)
    source.poll()
    subscriber = source.subscribe(snapshot=False)
    await subscriber.read()
    for polls in (1, 2):
        vitals.add(PollCost(0.25, 0.125, WorkCounters(1, 2, 3)), late=True)
        (beat,) = await subscriber.read_chunk()
        assert (beat["polls"], beat["late_polls"]) == (polls, polls)
        assert (beat["poll_ms"], beat["rows_decoded"]) == (250.0, 3.0)


async def test_a_heartbeat_before_any_figures_has_them_all(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe(snapshot=False)
    await subscriber.read_chunk()
    (beat,) = await subscriber.read_chunk()
    assert beat.keys() == {"event", "seq", "time", "host", *PollSummary._fields}


async def test_what_came_and_went_opens_and_closes(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    source.show(snapshot(short_lived=(nameless(tcp(0, remote_port=5)), nameless(tcp(0)))))
    told = await subscriber.read()
    assert events(told) == ["open", "close", "open", "close"]
    assert seqs(told) == [1, 2, 3, 4]
    assert subscriber.fold == {}


async def test_a_stopped_feed_ends_once_everything_is_told(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    source.poll(ONE)
    source.feed.stop()
    assert events(await subscriber.read_to_end()) == ["open"]


async def test_a_feed_stopped_before_its_first_poll_says_nothing(source: Source) -> None:
    source.feed.stop()
    assert await source.subscribe().read_to_end() == []


async def test_deltas_only(source: Source) -> None:
    source.poll(ONE)
    subscriber = source.subscribe(snapshot=False)
    assert events(await subscriber.read()) == ["hello"]
    source.poll()
    assert events(await subscriber.read()) == ["close"]


# Resuming.


async def test_resuming_goes_on_behind_the_number(source: Source) -> None:
    source.poll()
    source.poll(ONE)
    source.poll(ONE, TWO, THREE)
    told = await source.subscribe(resume=("epoch", 1)).read()
    assert events(told) == ["hello", "open", "open"]
    assert seqs(told) == [1, 2, 3]
    assert told[0]["resumed"] is True


async def test_resuming_in_the_midst_of_a_polls_deltas(source: Source) -> None:
    source.poll()
    source.poll(ONE, TWO, THREE)
    told = await source.subscribe(resume=("epoch", 2)).read()
    assert [(record["event"], record["seq"]) for record in told[1:]] == [("open", 3)]


async def test_resuming_at_the_newest_number(source: Source) -> None:
    source.poll(ONE)
    source.poll()
    told = await source.subscribe(resume=("epoch", 1)).read()
    assert (events(told), told[0]["resumed"]) == (["hello"], True)


@pytest.mark.parametrize("resume", [("other", 1), ("epoch", 2)])
async def test_another_epoch_or_a_number_to_come_gets_a_snapshot(
    source: Source, resume: tuple[str, int]
) -> None:
    source.poll()
    source.poll(ONE)
    told = await source.subscribe(resume=resume).read()
    assert events(told) == ["hello", "snapshot", "snapshot_end"]
    assert (told[0]["resumed"], told[0]["seq"]) == (False, 1)


async def test_what_the_history_has_dropped_cannot_be_resumed() -> None:
    source = Source(history_records=2)
    for held in ([], [ONE], [ONE, TWO], [ONE, TWO, THREE]):
        source.poll(*held)
    assert (await source.subscribe(resume=("epoch", 0)).read())[0]["resumed"] is False
    assert seqs(await source.subscribe(resume=("epoch", 1)).read()) == [1, 2, 3]


# Filters.


async def test_a_filter_hides_records_and_leaves_gaps(source: Source) -> None:
    source.poll(ONE, TWO)
    subscriber = source.subscribe(Filter({"port": ["2"]}))
    told = await subscriber.read()
    assert (events(told), told[-1]["count"]) == (["hello", "snapshot", "snapshot_end"], 1)
    source.poll()
    assert seqs(await subscriber.read()) == [2]


async def test_what_enters_or_leaves_a_filter_opens_or_closes(source: Source) -> None:
    listening, closed = holding(tcp(state="LISTEN")), holding(tcp(state="CLOSE"))
    source.poll(closed)
    subscriber = source.subscribe(Filter({"state": ["LISTEN"]}))
    await subscriber.read()
    source.poll(listening)
    (entered,) = await subscriber.read()
    assert (entered["event"], entered["state"]) == ("open", "LISTEN")
    assert "previous" not in entered
    source.poll(closed)
    (left,) = await subscriber.read()
    assert (left["event"], left["reason"], left["state"]) == ("close", "filtered", "LISTEN")
    assert left["duration_ms"] is None  # It was open before we looked.


async def test_what_leaves_a_filter_tells_how_long_it_was_open(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe(Filter({"state": ["LISTEN"]}))
    await subscriber.read()
    source.show(snapshot(holding(tcp(state="LISTEN")), time=10.0))
    source.show(snapshot(holding(tcp(state="CLOSE")), time=12.5))
    (_opened, left) = await subscriber.read()
    assert (left["event"], left["reason"], left["duration_ms"]) == ("close", "filtered", 2500)


async def test_no_record_is_older_than_the_one_before() -> None:
    source = Source(history_records=2)
    source.show(snapshot(ONE, time=-2.0))
    subscriber = source.subscribe()
    told = await subscriber.read()
    for time, held in enumerate(((ONE, TWO), (ONE, TWO, THREE), (TWO,), ())):
        source.show(snapshot(*held, time=time - 1.5))
    told += await subscriber.read()
    assert "lost" in events(told)
    times = [record["time"] for record in told]
    assert times == sorted(times)


async def test_an_update_inside_the_filter_stays_one(source: Source) -> None:
    source.poll(holding(tcp(state="LISTEN")))
    subscriber = source.subscribe(Filter({"pid": ["7"]}))
    await subscriber.read()
    source.poll(holding(tcp(state="CLOSE")))
    assert events(await subscriber.read()) == ["update"]


async def test_coverage_passes_every_filter(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe(Filter({"pid": ["1"], "event": ["open"]}))
    await subscriber.read()
    source.poll(ONE, coverage=SIGHT._replace(netns=2))
    assert events(await subscriber.read()) == ["coverage"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("snapshot", ["hello", "snapshot", "snapshot_end"]),
        ("open", ["hello", "open"]),
        ("close", ["hello", "close"]),
        ("update", ["hello", "update"]),
        ("open,close", ["hello", "open", "close"]),
    ],
)
async def test_event_chooses_the_records(source: Source, wanted: str, told: list[str]) -> None:
    source.poll(ONE)
    subscriber = source.subscribe(Filter({"event": [wanted]}))
    got = await subscriber.read()
    source.poll(ONE, TWO)
    source.poll(holding(tcp(1, state="CLOSE", local_port=1)), TWO)
    source.poll(TWO)
    assert events(got + await subscriber.read()) == told


# Chunks.


@given(st.lists(st.integers(1, CHUNK_BYTES + 9), max_size=12))
@settings(max_examples=30)
def test_chunks_are_whole_lines_and_bounded(sizes: list[int]) -> None:
    lines = [b"x" * (size - 1) + b"\n" for size in sizes]
    made = list(chunks(lines))
    assert b"".join(made) == b"".join(lines)
    assert all(len(chunk) <= CHUNK_BYTES or chunk.count(b"\n") == 1 for chunk in made)
    assert all(chunk.endswith(b"\n") for chunk in made)


def test_chunks_are_made_as_they_are_taken() -> None:
    def lines() -> Iterable[bytes]:
        for _ in range(4):
            yield from [b"x" * (CHUNK_BYTES // 1024)] * 1024
        raise AssertionError

    assert set(next(chunks(lines()))) == set(b"x")
