"""The event log of a stream: from messages of a feed, and from the decoded records of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Closed, Coverage, Delta, Holding, Opened, Snapshot, SocketEnd, Updated
from agent.publish.terminal.names import Resolver
from agent.publish.terminal.options import Options
from agent.publish.terminal.stream_log import (
    FOLLOWING,
    StreamLog,
    is_match,
    is_of_socket,
    is_record_match,
)
from agent.stream.decoder import Alive, Began, Decoded, Dropped, Present, SnapshotEnd, Value, decode
from agent.stream.feed import Subscription
from agent.stream.filters import EVENTS, Filter
from agent.stream.history import Batch, DeltaBatch, FullSnapshot, Heartbeat, Hello, Lost, Message

from ...feeding import ONE, THREE, TWO, Source
from ...make import FULL_COVERAGE, holding, process, tcp, without_holder
from ...strategies import runs
from ...stream.test_decoder import STATS

AT = 1_700_000_000.0  # 22:13:20 UTC
UTC = Options(utc=True)
MORE = Coverage(processes=2, unreadable=1, netns=1)
# Filters that pass some of what ``runs`` draws.
FILTERS: list[dict[str, list[str]]] = [
    {},
    {"proto": ["tcp"]},
    {"state": ["LISTEN"]},
    {"port!": ["1"]},
    {"comm": ["one"]},
    {"event": ["open"]},
    {"event!": ["snapshot"]},
    {"event": ["close,update"], "proto": ["udp"]},
]


def of_messages(
    *messages: Message, chosen: Mapping[str, list[str]] | None = None, hint: str = ""
) -> list[str]:
    log = StreamLog(Filter(chosen), UTC, hint)
    return [line for message in messages for line in log.of_message("host", message)]


def of_values(*values: Value, chosen: Mapping[str, list[str]] | None = None) -> list[str]:
    """The lines of records of one moment, and of the end of the stream."""
    log = StreamLog(Filter(chosen), UTC)
    records = [Decoded("host", seq, AT, value) for seq, value in enumerate(values)]
    return [line for one in records for line in log.of_record(one)] + list(log.end())


def full(*holdings: Holding, seq: int = 0) -> FullSnapshot:
    return FullSnapshot(1, seq, AT, holdings)


def deltas(*found: Delta, begin: int = 0) -> DeltaBatch:
    return DeltaBatch(Batch(AT, found, 1), begin)


def words(lines: Iterable[str]) -> list[str]:
    """The second word of each line: what happened."""
    return [line.split()[1] for line in lines]


# Messages.


def test_the_first_snapshot_is_one_line_with_the_hint() -> None:
    shared = holding(ONE.socket, process(8))
    lines = of_messages(full(ONE, shared, TWO, without_holder(THREE.socket)), hint=FOLLOWING)
    assert lines == [f"host: 3 sockets of 2 processes; {FOLLOWING}"]


def test_the_hint_is_printed_once() -> None:
    lines = of_messages(full(ONE), full(TWO), hint="end with ^C")
    assert lines == [
        "host: 1 socket of 1 process; end with ^C",
        "host: 1 socket of 1 process",
    ]


def test_changes_are_a_line_each() -> None:
    lines = of_messages(
        full(ONE),
        deltas(
            Opened(TWO), Updated(ONE._replace(fds=(3, 4)), ONE), Closed(TWO, "closed", 2.0), MORE
        ),
    )
    assert words(lines[1:]) == ["open", "update", "close", "coverage"]
    assert all(line.startswith("22:13:20Z") for line in lines[1:])


def test_a_change_that_was_watched_has_its_own_time() -> None:
    lines = of_messages(deltas(Opened(ONE, AT + 1), Closed(ONE, "closed", 1.0, AT + 2)))
    assert [line.split()[0] for line in lines] == ["22:13:21Z", "22:13:22Z"]


def test_a_batch_that_was_read_in_part_begins_later() -> None:
    assert words(of_messages(deltas(Opened(ONE), Closed(TWO, "closed", None), begin=1))) == [
        "close"
    ]


def test_greetings_and_heartbeats_have_no_line() -> None:
    assert of_messages(Hello(1, AT, FULL_COVERAGE, False), Heartbeat(1, AT, STATS)) == []


def test_lost_changes_are_one_line_with_the_sockets_of_the_new_snapshot() -> None:
    lines = of_messages(full(ONE), Lost(9, AT, 4), full(ONE, TWO, THREE, seq=9))
    assert lines[1:] == ["22:13:20Z  LOST      4\u20139: the reader was too slow; 3 sockets now"]


# Records.


def test_a_snapshot_of_records_is_one_line_at_its_end() -> None:
    assert of_values(Present(ONE), Present(TWO), SnapshotEnd(2)) == ["host: 2 sockets of 1 process"]


def test_a_snapshot_without_an_end_is_reported_at_the_end() -> None:
    assert of_values(Present(ONE), Present(TWO)) == ["host: 2 sockets of 1 process"]


def test_lost_records_are_one_line_with_the_sockets_of_the_new_snapshot() -> None:
    lines = of_values(SnapshotEnd(0), Dropped(4, 9), Present(ONE), SnapshotEnd(1), Opened(TWO))
    assert lines[1] == "22:13:20Z  LOST      4\u20139: the reader was too slow; 1 socket now"
    assert words(lines[1:]) == ["LOST", "open"]


def test_lost_records_at_the_end_are_reported() -> None:
    lines = of_values(Present(ONE), SnapshotEnd(1), Dropped(4, None))
    assert words(lines[1:]) == ["LOST"]


def test_what_is_lost_in_a_snapshot_is_not_counted() -> None:
    lines = of_values(Present(ONE), Present(TWO), Dropped(1, 2), Present(THREE), SnapshotEnd(1))
    assert lines == ["22:13:20Z  LOST      1\u20132: the reader was too slow; 1 socket now"]


def test_other_records_have_no_line() -> None:
    assert of_values(Began(FULL_COVERAGE, "e", False, "1", None, 1.0), Alive(STATS)) == []


def test_each_host_has_a_snapshot_of_its_own() -> None:
    log = StreamLog(Filter(), Options(utc=True, hosts=True))
    records = [
        Decoded("a", 0, AT, Present(ONE)),
        Decoded("b", 0, AT, Present(ONE)),
        Decoded("b", 0, AT, Present(TWO)),
        Decoded("b", 0, AT, SnapshotEnd(2)),
        Decoded("a", 0, AT, SnapshotEnd(1)),
        Decoded("a", 1, AT, Opened(THREE)),
    ]
    lines = [line for one in records for line in log.of_record(one)]
    assert lines[:2] == ["b: 2 sockets of 1 process", "a: 1 socket of 1 process"]
    assert lines[2].split()[:3] == ["22:13:20Z", "a", "open"]


def test_from_the_second_host_on_each_line_names_its_host() -> None:
    log = StreamLog(Filter(), UTC)
    records = [
        Decoded("a", 1, AT, Opened(ONE)),
        Decoded("b", 1, AT, Opened(ONE)),
        Decoded("a", 2, AT, Opened(TWO)),
    ]
    words = [line.split()[1] for one in records for line in log.of_record(one)]
    assert words == ["open", "b", "a"]


# Filters.


def test_a_filter_hides_sockets_and_never_the_coverage() -> None:
    changes: list[Delta] = [Opened(ONE), Opened(TWO), MORE, Closed(ONE, "closed", None)]
    chosen = {"port": ["2"]}
    from_messages = of_messages(full(ONE, TWO, THREE), deltas(*changes), chosen=chosen)
    from_records = of_values(
        Present(ONE), Present(TWO), Present(THREE), SnapshotEnd(3), *changes, chosen=chosen
    )
    assert from_messages == from_records
    assert from_messages[0] == "host: 1 socket of 1 process"
    assert words(from_messages[1:]) == ["open", "coverage"]


def test_a_filter_that_nothing_passes_hides_neither_coverage_nor_losses() -> None:
    chosen = {"port": ["99"]}
    lines = of_messages(
        full(ONE), deltas(Opened(TWO), MORE), Lost(9, AT, 2), full(ONE), chosen=chosen
    )
    assert lines[0] == "host: 0 sockets of 0 processes"
    assert words(lines[1:]) == ["coverage", "LOST"]
    assert lines[2].endswith("0 sockets now")


def test_an_update_into_the_filter_opens_and_one_out_of_it_closes() -> None:
    listening, closing = holding(tcp(1)), holding(tcp(1, "CLOSE_WAIT"))
    lines = of_messages(
        deltas(Updated(listening, closing), Updated(closing, listening)),
        chosen={"state": ["LISTEN"]},
    )
    assert words(lines) == ["open", "close"]


def test_the_resolver_is_told_of_the_addresses_that_are_printed() -> None:
    asked: list[str] = []

    def lookup(address: str) -> str:
        asked.append(address)
        return "named"

    resolver = Resolver(lookup)
    log = StreamLog(Filter({"port": ["2"]}), Options(names=resolver.names), "", resolver)
    other = holding(tcp(3, local_addr="10.0.0.3"))
    batch = deltas(Opened(other), Opened(holding(tcp(2, local_addr="10.0.0.2", local_port=2))))
    list(log.of_message("host", batch))
    resolver.wait(10)
    (line,) = log.of_message("host", batch)
    resolver.close()
    assert asked == ["10.0.0.2"]
    assert "named:2" in line


# Whether something passed.


@pytest.mark.parametrize(
    ("message", "chosen", "expected"),
    [
        (full(ONE), {}, True),
        (full(), {}, False),
        (full(ONE), {"port": ["2"]}, False),
        (full(ONE, TWO), {"port": ["2"]}, True),
        (full(ONE), {"event": ["open"]}, False),
        (full(ONE), {"event!": ["open"]}, True),
        (deltas(Opened(ONE)), {}, True),
        (deltas(Opened(ONE)), {"event": ["close"]}, False),
        (deltas(Opened(ONE), Opened(TWO), begin=1), {"port": ["1"]}, False),
        (deltas(MORE), {}, False),
        (Hello(1, AT, FULL_COVERAGE, False), {}, False),
        (Lost(9, AT, 4), {}, False),
        (Heartbeat(1, AT, STATS), {}, False),
    ],
)
def test_a_message_matches_if_a_socket_passes(
    message: Message, chosen: dict[str, list[str]], expected: bool
) -> None:
    assert is_match(Filter(chosen), message) == expected


def test_records_of_the_stream_itself_match_nothing() -> None:
    values: list[Value] = [
        MORE,
        Dropped(1, 2),
        SnapshotEnd(1),
        Alive(STATS),
        Began(FULL_COVERAGE, "e", False, "1", None, 1.0),
    ]
    for value in values:
        record = Decoded("host", 0, AT, value)
        assert not is_record_match(Filter(), record)
        assert not is_of_socket(record)


@pytest.mark.parametrize("event", EVENTS)
def test_a_record_matches_if_its_event_and_its_socket_pass(event: str) -> None:
    values: dict[str, Value] = {
        "snapshot": Present(ONE),
        "open": Opened(ONE),
        "update": Updated(ONE, ONE),
        "close": Closed(ONE, "closed", None),
    }
    record = Decoded("host", 0, AT, values[event])
    assert is_of_socket(record)
    assert is_record_match(Filter({"event": [event], "port": ["1"]}), record)
    assert not is_record_match(Filter({"event!": [event]}), record)
    assert not is_record_match(Filter({"port": ["2"]}), record)


# Against the real feed.


def rounded(poll: Snapshot) -> Snapshot:
    """A snapshot without figures, which only TCP has, and with times that records keep exactly."""
    ended = {
        inode: SocketEnd(None if end.time is None else in_eighths(end.time))
        for inode, end in poll.ended.items()
    }
    event_times = {inode: in_eighths(time) for inode, time in poll.event_times.items()}
    return poll._replace(time=in_eighths(poll.time), ended=ended, event_times=event_times)


def in_eighths(time: float) -> float:
    """A time of which neither the microseconds nor differences are rounded."""
    return round(time * 8) / 8


@pytest.mark.parametrize("records_kept", [2, 50_000])
@given(
    polls=runs(),
    reads=st.lists(st.booleans(), min_size=6, max_size=6),
    values=st.sampled_from(FILTERS),
)
def test_messages_and_records_of_a_feed_have_the_same_lines(
    records_kept: int, polls: list[Snapshot], reads: list[bool], values: dict[str, list[str]]
) -> None:
    source = Source(history_records=records_kept)
    messages = Subscription(source.feed)
    records = source.feed.subscribe(page_bytes=700)
    chosen = Filter(values)
    of_message, of_record = StreamLog(chosen, UTC), StreamLog(chosen, UTC)
    for poll, reading in zip(polls, [*reads[: len(polls) - 1], True], strict=True):
        source.publish(rounded(poll))
        if not reading:
            continue
        expected: list[str] = []
        expected_match = False
        while (message := messages.take()) is not None:
            expected += of_message.of_message("host", message)
            expected_match |= is_match(chosen, message)
        lines: list[str] = []
        matched = False
        while (chunk := records.take()) is not None:
            for record in map(decode, chunk.splitlines()):
                lines += of_record.of_record(record)
                matched |= is_record_match(chosen, record)
        assert lines == expected
        assert matched == expected_match
    assert list(of_message.end()) == list(of_record.end()) == []
