"""The state that records lead to, from decoded records and from messages of a feed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import (
    Closed,
    Coverage,
    Holding,
    HostHolding,
    Opened,
    ShortLived,
    Snapshot,
    Updated,
)
from agent.stream.decoder import (
    Alive,
    Began,
    Decoded,
    Dropped,
    Other,
    Present,
    SnapshotEnd,
    Value,
    decode,
)
from agent.stream.encoder import Encoder
from agent.stream.feed import Feed, Subscription
from agent.stream.state import MAX_DROPPED, State

from ..feeding import AGENT, ONE, THREE, TWO, Source
from ..make import FULL_COVERAGE, holding, key, process, snapshot, tcp, without_holder
from ..strategies import runs
from .test_decoder import STATS, written

BEGAN = Began(FULL_COVERAGE, "epoch", False, "1", None, 1.0)


def state(*values: Value, host: str = "host", into: State | None = None) -> State:
    """The state after values, of which the first has the time 1 and the number 0."""
    found = State() if into is None else into
    for time, value in enumerate(values, 1):
        is_first = isinstance(value, Present | SnapshotEnd)
        found.apply(Decoded(host, 0, 0.0 if is_first else float(time), value))
    return found


def held(found: State) -> list[Holding]:
    return [one.holding for one in found.holdings()]


def test_a_snapshot_and_changes() -> None:
    changed = ONE._replace(fds=(3, 4))
    found = state(
        BEGAN, Present(ONE), Present(TWO), SnapshotEnd(2), Opened(THREE), Updated(changed, ONE),
        Closed(TWO, "closed", None),
    )  # fmt: skip
    assert list(found.holdings()) == [
        HostHolding("host", changed, None),
        HostHolding("host", THREE, 5.0),
    ]
    assert len(found) == 2
    assert found.violations == 0


def test_holdings_have_keys() -> None:
    unowned = without_holder(tcp(0))
    found = state(Present(ONE), Present(unowned), SnapshotEnd(2), Opened(TWO))
    assert dict(found.keyed()) == {
        key(ONE): HostHolding("host", ONE, None),
        (None, -2): HostHolding("host", unowned, None),
        key(TWO): HostHolding("host", TWO, 4.0),
    }
    assert found.holding("host", key(TWO)) == HostHolding("host", TWO, 4.0)
    assert found.holding("host", key(THREE)) is None
    assert found.holding("other", key(TWO)) is None


def test_an_update_keeps_the_time_of_the_opening() -> None:
    found = state(Opened(ONE), Updated(ONE._replace(fds=(9,)), ONE))
    assert list(found.holdings()) == [HostHolding("host", ONE._replace(fds=(9,)), 1.0)]


def test_each_host_has_a_state_of_its_own() -> None:
    found = state(BEGAN, Present(ONE), host="a")
    state(BEGAN, Present(ONE), Present(TWO), SnapshotEnd(2), host="b", into=found)
    assert [(one.host, one.holding) for one in found.holdings()] == [
        ("a", ONE), ("b", ONE), ("b", TWO)
    ]  # fmt: skip
    a, b = found.hosts()
    assert (a.host, a.complete, b.host, b.complete) == ("a", False, "b", True)
    assert (a.coverage, a.time, b.time) == (FULL_COVERAGE, 1.0, 1.0)


def test_the_first_snapshot_counts_before_its_end() -> None:
    assert held(state(Present(ONE), Present(TWO))) == [ONE, TWO]
    assert not state(Present(ONE)).hosts()[0].complete


def test_a_later_snapshot_replaces_the_state_at_its_end() -> None:
    first: list[Value] = [BEGAN, Present(ONE), SnapshotEnd(1), Opened(TWO)]
    second: list[Value] = [Dropped(2, 5), Present(TWO), Present(THREE)]
    cut_off = state(*first, *second)
    assert held(cut_off) == [ONE, TWO]
    assert not cut_off.hosts()[0].complete
    whole = state(*first, *second, SnapshotEnd(2))
    assert held(whole) == [TWO, THREE]
    # What was seen to open did so then, although a snapshot has shown it since.
    assert [one.since for one in whole.holdings()] == [4.0, None]
    assert whole.hosts()[0].complete
    assert whole.hosts()[0].dropped == (Dropped(2, 5),)


def test_the_holding_of_another_process_did_not_open_when_its_namesake_did() -> None:
    other = holding(TWO.socket, process(start_ticks=200))
    found = state(BEGAN, SnapshotEnd(0), Opened(TWO), Dropped(2, 5), Present(other), SnapshotEnd(1))
    assert list(found.holdings()) == [HostHolding("host", other, None)]


def test_a_snapshot_that_was_cut_off_is_forgotten_with_the_next_one() -> None:
    found = state(BEGAN, Present(ONE), BEGAN, Present(TWO), SnapshotEnd(1))
    assert held(found) == [TWO]
    assert found.violations == 0


def test_one_shot_snapshots_one_after_the_other() -> None:
    found = State()
    for time in (1.0, 2.0):
        for one in (ONE, TWO) if time < 2 else (TWO, THREE):
            found.apply(Decoded("host", 0, time, Present(one)))
    assert held(found) == [TWO, THREE]
    assert found.violations == 0


def test_an_empty_snapshot() -> None:
    assert held(state(BEGAN, Present(ONE), SnapshotEnd(1), BEGAN, SnapshotEnd(0))) == []


def test_a_resumed_stream_is_not_complete_without_what_came_before() -> None:
    assert not state(BEGAN._replace(resumed=True)).hosts()[0].complete


@pytest.mark.parametrize("resumed", [True, False])
def test_a_resumed_stream_stays_complete(resumed: bool) -> None:
    again = BEGAN._replace(resumed=resumed)
    found = state(BEGAN, Present(ONE), SnapshotEnd(1), again)
    assert held(found) == [ONE]
    assert found.hosts()[0].complete == resumed


def test_rows_that_no_process_can_hold_are_all_there() -> None:
    rows = [without_holder(tcp(0, local_port=port)) for port in (1, 2, 3)]
    found = state(BEGAN, *map(Present, rows), SnapshotEnd(3))
    assert held(found) == rows
    assert found.violations == 0


def test_connections_that_no_poll_saw_leave_no_trace() -> None:
    seen = holding(tcp(0))
    found = state(BEGAN, SnapshotEnd(0), Opened(seen), Opened(seen), Closed(seen, "closed", 1.0))
    assert held(found) == []
    assert found.violations == 0


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (Opened(ONE), [ONE]),
        (Closed(TWO, "closed", None), [ONE]),
        (Updated(TWO, TWO), [ONE, TWO]),
        (SnapshotEnd(2), []),
    ],
)
def test_a_record_that_does_not_fit_is_counted(value: Value, left: list[Holding]) -> None:
    found = state(BEGAN, Present(ONE), SnapshotEnd(1), value)
    assert (found.violations, held(found)) == (1, left)


def test_a_holding_that_a_snapshot_repeats_is_counted() -> None:
    assert state(BEGAN, Present(ONE), Present(ONE)).violations == 1


def test_other_records_change_nothing() -> None:
    found = state(BEGAN, Present(ONE), SnapshotEnd(1), Alive(STATS), Other("sung"))
    assert (held(found), found.violations, found.hosts()[0].time) == ([ONE], 0, 5.0)


def test_the_newest_coverage_and_ranges_are_kept() -> None:
    found = state(BEGAN, Coverage(1, 2, 3))
    state(*(Dropped(at, None) for at in range(MAX_DROPPED + 5)), into=found)
    (status,) = found.hosts()
    assert status.coverage == Coverage(1, 2, 3)
    assert status.dropped == tuple(Dropped(at, None) for at in range(5, MAX_DROPPED + 5))


# Against the real feed.


def messages_of(feed: Feed) -> Callable[[State], None]:
    """A reader that applies the messages of a subscription."""
    subscription = Subscription(feed)

    def read(into: State) -> None:
        while message := subscription.take():
            into.apply_message("host", message)
        into.apply_message("host", subscription.heartbeat())

    return read


def records_of(feed: Feed) -> Callable[[State], None]:
    """A reader that applies decoded records."""
    subscription = feed.subscribe(page_bytes=700)

    def read(into: State) -> None:
        while (chunk := subscription.take()) is not None:
            for line in chunk.splitlines():
                into.apply(decode(line))
        for line in subscription.heartbeat().splitlines():
            into.apply(decode(line))

    return read


def tracked(holdings: Iterable[Holding]) -> dict[object, Holding]:
    """Holdings by key, without the fields whose changes make no update."""
    return {
        key(one): one._replace(
            socket=one.socket._replace(recv_q=0, send_q=0),
            process=one.process and one.process._replace(cmdline=None, start_ticks=0),
        )
        for one in map(written, holdings)
    }


@pytest.mark.parametrize("reader", [messages_of, records_of])
@pytest.mark.parametrize("records_kept", [2, 50_000])
@given(polls=runs(), reads=st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_state_is_the_snapshot_of_the_feed(
    reader: Callable[[Feed], Callable[[State], None]],
    records_kept: int,
    polls: list[Snapshot],
    reads: list[bool],
) -> None:
    source = Source(history_records=records_kept)
    found = State()
    source.publish(polls[0])
    read = reader(source.feed)
    read(found)
    for poll, reading in zip(polls[1:], reads, strict=False):
        source.publish(poll)
        if reading:
            read(found)
            assert tracked(held(found)) == tracked(poll.holdings.values())
    read(found)
    assert tracked(held(found)) == tracked(polls[-1].holdings.values())
    assert found.violations == 0
    if found.hosts()[0].dropped:
        return
    opened_at = source.opened_at()
    for one in found.holdings():
        since = opened_at.get(key(one.holding))
        assert one.since == (since if since is None else pytest.approx(since, abs=1e-6))


@pytest.mark.parametrize("reader", [messages_of, records_of])
def test_sockets_that_open_and_close_between_polls(
    reader: Callable[[Feed], Callable[[State], None]],
) -> None:
    source = Source()
    found = State()
    source.poll(ONE)
    read = reader(source.feed)
    read(found)
    brief = (ShortLived(holding(tcp(0))), ShortLived(TWO, 1.0), ShortLived(holding(tcp(0))))
    source.publish(snapshot(ONE, short_lived=brief))
    read(found)
    assert tracked(held(found)) == tracked([ONE])
    assert found.violations == 0
    assert found.hosts()[0].complete


def test_a_stream_of_closes_alone_does_not_raise() -> None:
    encoder = Encoder(AGENT)
    found = State()
    for seq in range(3):
        found.apply(decode(encoder.delta(Closed(ONE, "closed", None), seq, 1.0)))
    assert (len(found), found.violations) == (0, 3)
