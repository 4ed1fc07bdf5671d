import pytest

from agent.snapshot.stats import PollCost, PollStats, PollSummary, WorkCounters
from agent.stream.filters import Filter

from ..feeding import (
    ONE,
    THREE,
    TWO,
    Source,
    events,
    seqs,
    tracked,
)
from ..make import FULL_COVERAGE, holding, records, snapshot, tcp, without_holder


@pytest.fixture
def source() -> Source:
    return Source()


async def test_a_stream_begins_with_hello_and_a_whole_snapshot(source: Source) -> None:
    source.poll(ONE)
    source.poll(ONE, TWO)
    got = await source.subscribe().read()
    assert events(got) == ["hello", "snapshot", "snapshot", "snapshot_end"]
    assert seqs(got) == [1, 1, 1, 1]
    assert (got[0]["epoch"], got[0]["resumed"]) == ("epoch", False)
    assert got[-1]["count"] == 2


async def test_an_empty_snapshot_has_an_end(source: Source) -> None:
    source.poll()
    assert events(await source.subscribe().read()) == ["hello", "snapshot_end"]


async def test_deltas_are_numbered_in_sequence(source: Source) -> None:
    source.poll(ONE)
    subscriber = source.subscribe()
    await subscriber.read()
    source.poll(TWO, THREE)
    source.poll(coverage=FULL_COVERAGE._replace(unreadable=1))
    got = await subscriber.read()
    assert events(got) == ["close", "open", "open", "coverage", "close", "close"]
    assert seqs(got) == [1, 2, 3, 4, 5, 6]


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
    await subscriber.read_chunk()  # hello; the snapshot that follows is of the same moment.
    source.poll(ONE, TWO)
    source.poll(TWO)
    got = await subscriber.read()
    assert events(got) == ["snapshot", "snapshot_end", "open", "close"]
    assert seqs(got) == [0, 0, 1, 2]
    assert tracked(subscriber.fold) == tracked(source.state())


async def test_a_subscriber_waits_for_the_first_poll(source: Source) -> None:
    subscriber = source.subscribe()
    source.poll(ONE)
    assert events(await subscriber.read()) == ["hello", "snapshot", "snapshot_end"]


async def test_a_heartbeat_has_the_newest_number(source: Source) -> None:
    source.poll()
    source.poll(ONE)
    subscriber = source.subscribe(snapshot=False)
    assert events(await subscriber.read_chunk()) == ["hello"]
    (heartbeat,) = await subscriber.read_chunk()
    assert (heartbeat["event"], heartbeat["seq"]) == ("heartbeat", 1)


async def test_a_heartbeat_has_the_newest_poll_stats() -> None:
    stats = PollStats()
    source = Source(stats=stats)
    source.poll()
    subscriber = source.subscribe(snapshot=False)
    await subscriber.read()
    for polls in (1, 2):
        stats.add(PollCost(0.25, 0.125, WorkCounters(1, 2, 3)), late=True)
        (heartbeat,) = await subscriber.read_chunk()
        assert (heartbeat["polls"], heartbeat["late_polls"]) == (polls, polls)
        assert (heartbeat["poll_ms"], heartbeat["rows_decoded"]) == (250.0, 3.0)


async def test_a_heartbeat_before_any_poll_stats_has_all_fields(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe(snapshot=False)
    await subscriber.read_chunk()
    (heartbeat,) = await subscriber.read_chunk()
    assert heartbeat.keys() == {"event", "seq", "time", "host", *PollSummary._fields}


async def test_short_lived_sockets_open_and_close(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    source.publish(
        snapshot(short_lived=(without_holder(tcp(0, remote_port=5)), without_holder(tcp(0))))
    )
    got = await subscriber.read()
    assert events(got) == ["open", "close", "open", "close"]
    assert seqs(got) == [1, 2, 3, 4]
    assert subscriber.fold == {}


async def test_a_stopped_feed_ends_after_its_last_deltas(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    source.poll(ONE)
    source.feed.stop()
    assert events(await subscriber.read_to_end()) == ["open"]


async def test_a_feed_stopped_before_its_first_poll_has_no_records(source: Source) -> None:
    source.feed.stop()
    assert await source.subscribe().read_to_end() == []


async def test_a_stream_without_a_snapshot_has_deltas_only(source: Source) -> None:
    source.poll(ONE)
    subscriber = source.subscribe(snapshot=False)
    assert events(await subscriber.read()) == ["hello"]
    source.poll()
    assert events(await subscriber.read()) == ["close"]


# Resuming.


async def test_a_resumed_stream_continues_after_the_number(source: Source) -> None:
    source.poll()
    source.poll(ONE)
    source.poll(ONE, TWO, THREE)
    got = await source.subscribe(resume=[("epoch", 1)]).read()
    assert events(got) == ["hello", "open", "open"]
    assert seqs(got) == [1, 2, 3]
    assert got[0]["resumed"] is True


async def test_a_stream_resumes_within_the_deltas_of_a_poll(source: Source) -> None:
    source.poll()
    source.poll(ONE, TWO, THREE)
    got = await source.subscribe(resume=[("epoch", 2)]).read()
    assert [(record["event"], record["seq"]) for record in got[1:]] == [("open", 3)]


async def test_a_stream_resumes_at_the_newest_number(source: Source) -> None:
    source.poll(ONE)
    source.poll()
    got = await source.subscribe(resume=[("epoch", 1)]).read()
    assert (events(got), got[0]["resumed"]) == (["hello"], True)


@pytest.mark.parametrize("resume", [("other", 1), ("epoch", 2)])
async def test_another_epoch_or_a_future_number_gets_a_snapshot(
    source: Source, resume: tuple[str, int]
) -> None:
    source.poll()
    source.poll(ONE)
    got = await source.subscribe(resume=[resume]).read()
    assert events(got) == ["hello", "snapshot", "snapshot_end"]
    assert (got[0]["resumed"], got[0]["seq"]) == (False, 1)


async def test_a_stream_cannot_resume_after_dropped_deltas() -> None:
    source = Source(history_records=2)
    for held in ([], [ONE], [ONE, TWO], [ONE, TWO, THREE]):
        source.poll(*held)
    assert (await source.subscribe(resume=[("epoch", 0)]).read())[0]["resumed"] is False
    assert seqs(await source.subscribe(resume=[("epoch", 1)]).read()) == [1, 2, 3]


# Filters.


async def test_a_filter_hides_records_and_leaves_gaps(source: Source) -> None:
    source.poll(ONE, TWO)
    subscriber = source.subscribe(Filter({"port": ["2"]}))
    got = await subscriber.read()
    assert (events(got), got[-1]["count"]) == (["hello", "snapshot", "snapshot_end"], 1)
    source.poll()
    assert seqs(await subscriber.read()) == [2]


async def test_a_socket_that_enters_or_leaves_a_filter_opens_or_closes(source: Source) -> None:
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
    assert left["duration_ms"] is None  # It was open before the first poll.


async def test_a_socket_that_leaves_a_filter_has_a_duration(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe(Filter({"state": ["LISTEN"]}))
    await subscriber.read()
    source.publish(snapshot(holding(tcp(state="LISTEN")), time=10.0))
    source.publish(snapshot(holding(tcp(state="CLOSE")), time=12.5))
    (_opened, left) = await subscriber.read()
    assert (left["event"], left["reason"], left["duration_ms"]) == ("close", "filtered", 2500)


async def test_no_record_is_older_than_the_one_before() -> None:
    source = Source(history_records=2)
    source.publish(snapshot(ONE, time=-2.0))
    subscriber = source.subscribe()
    got = await subscriber.read()
    for time, held in enumerate(((ONE, TWO), (ONE, TWO, THREE), (TWO,), ())):
        source.publish(snapshot(*held, time=time - 1.5))
    got += await subscriber.read()
    assert "lost" in events(got)
    times = [record["time"] for record in got]
    assert times == sorted(times)


async def test_an_update_within_the_filter_is_an_update(source: Source) -> None:
    source.poll(holding(tcp(state="LISTEN")))
    subscriber = source.subscribe(Filter({"pid": ["7"]}))
    await subscriber.read()
    source.poll(holding(tcp(state="CLOSE")))
    assert events(await subscriber.read()) == ["update"]


async def test_coverage_passes_every_filter(source: Source) -> None:
    source.poll()
    subscriber = source.subscribe(Filter({"pid": ["1"], "event": ["open"]}))
    await subscriber.read()
    source.poll(ONE, coverage=FULL_COVERAGE._replace(netns=2))
    assert events(await subscriber.read()) == ["coverage"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("snapshot", ["hello", "snapshot", "snapshot_end"]),
        ("open", ["hello", "open"]),
        ("close", ["hello", "close"]),
        ("update", ["hello", "update"]),
        ("open,close", ["hello", "open", "close"]),
    ],
)
async def test_the_event_filter_selects_records(
    source: Source, wanted: str, expected: list[str]
) -> None:
    source.poll(ONE)
    subscriber = source.subscribe(Filter({"event": [wanted]}))
    got = await subscriber.read()
    source.poll(ONE, TWO)
    source.poll(holding(tcp(1, state="CLOSE", local_port=1)), TWO)
    source.poll(TWO)
    assert events(got + await subscriber.read()) == expected


async def test_lost_records_are_followed_by_no_snapshot_that_the_filter_hides() -> None:
    source = Source(history_records=2)
    source.poll()
    subscriber = source.subscribe(Filter({"event": ["open"]}))
    await subscriber.read()
    for held in ([ONE], [ONE, TWO], [TWO], [TWO, THREE]):
        source.poll(*held)
    assert events(await subscriber.read()) == ["lost"]
    source.poll(ONE)
    assert events(await subscriber.read()) == ["open"]


def test_a_changed_view_begins_the_stream_again(source: Source) -> None:
    source.poll(ONE, TWO)
    subscription = source.feed.subscribe(page_bytes=1)
    old = subscription.view
    for _ in range(2):
        assert subscription.take()
    subscription.change_filter(Filter({"port": ["2"]}))
    new = source.feed.subscribe(Filter({"port": ["2"]}), page_bytes=1).view
    assert (old.readers, new.readers, subscription.view) == (0, 2, new)
    got = [record for chunk in iter(subscription.take, None) for record in records(chunk)]
    assert events(got) == ["hello", "snapshot", "snapshot_end"]
    assert got[1]["inode"] == 2


def test_a_closed_subscription_returns_nothing(source: Source) -> None:
    source.poll(ONE)
    subscription = source.feed.subscribe()
    assert subscription.take()
    subscription.close()
    subscription.close()
    source.poll(TWO)
    assert (subscription.take(), subscription.view.readers) == (None, 0)
