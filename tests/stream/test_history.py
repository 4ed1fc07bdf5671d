from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import (
    DATAGRAM_STATES,
    INET_PROTOS,
    TCP_STATES,
    UNIX_STATES,
    CgroupInfo,
    Closed,
    Coverage,
    Delta,
    Holding,
    Opened,
    Owner,
    TcpFigures,
    Updated,
)
from agent.snapshot.holders import Holders
from agent.snapshot.holding import HoldingBuilder
from agent.snapshot.join import Join
from agent.snapshot.reading import Change, Reading
from agent.stream.diff import DeltaTracker
from agent.stream.feed import HISTORY_BYTES, HISTORY_RECORDS
from agent.stream.history import MAX_BURST, Batch, History

from ..make import FULL_COVERAGE, holding, process, snapshot, tcp
from ..strategies import changes, coverages

MIB = 1024 * 1024
# Words that all sockets share.
WORDS = {
    *TCP_STATES, *DATAGRAM_STATES, *UNIX_STATES, *INET_PROTOS, "inet", "inet6", "unix", "netlink",
    "packet", "stream", "dgram", "seqpacket", "inbound", "outbound", "listen", "procfs", "closed",
    "exited",
}  # fmt: skip


def kept_alive(value: object, seen: set[int]) -> int:
    """Return the bytes that a value keeps alive, without those of values seen before."""
    if value is None or id(value) in seen or (isinstance(value, str) and value in WORDS):
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, str) and not value.isascii():
        size += len(value.encode()) + 1  # Python may keep its UTF-8, once encoded.
    if isinstance(value, tuple):
        size += sum(kept_alive(item, seen) for item in value)
    return size


TIMES = (1.7e9 + 0.5, 1.7e9 + 0.75)
FIGURES = TcpFigures(2**63, 2**63 + 1, 2**31, 2**31 + 1, 2**30, 12.5)


def batch(*deltas: Delta, first: int = 1) -> Batch:
    return Batch(1.0, deltas, first)


def long(kind: str) -> Holding:
    """Return a holding with one value of great length."""
    name = f"/{kind}" * 1000
    match kind:
        case "path":
            return holding(tcp()._replace(proto="unix", family="unix", path="\\xff" * 107 + "𝄞"))
        case "fds":
            return holding(fds=tuple(range(1000, 1064)))
        case "user":
            return holding()._replace(owner=Owner(70_000, name))
        case "place":
            return holding()._replace(
                process=None, fds=(), cgroup=CgroupInfo(name, name[1:], name[2:])
            )
        case "cmdline":
            return holding(by=process(cmdline=tuple(f"--{at}={name}" for at in range(100))))
        case _:
            more: dict[str, Any] = {kind: name}
            return holding(by=process(**more))


LONG = ["path", "fds", "user", "place", "cmdline", "exe", "cgroup", "unit", "container", "comm"]


@settings(max_examples=200)
@given(st.lists(changes(), min_size=1, max_size=3), coverages)
def test_the_size_of_a_batch_is_at_least_what_it_keeps_alive(
    pairs: list[tuple[Holding, Holding]], sight: Coverage
) -> None:
    deltas: list[Delta] = [sight]
    for now, was in pairs:
        deltas += [
            Opened(now, TIMES[0]), Updated(now, was, 1.5, TIMES[1]),
            Closed(was, "closed", 2.5, TIMES[0] + 1, FIGURES._replace(rtt_ms=2.5)),
        ]  # fmt: skip
    for delta in deltas:
        assert batch(delta).size >= kept_alive(delta, set())
    assert batch(*deltas).size >= kept_alive(tuple(deltas), set())


@pytest.mark.parametrize("kind", LONG)
def test_long_values_count_with_their_length(kind: str) -> None:
    usual, one = holding(), long(kind)
    for delta in (Opened(one), Updated(one, usual, 1.0), Updated(usual, one, 1.0)):
        assert batch(delta).size >= kept_alive(delta, set())


def test_both_holdings_of_an_update_count() -> None:
    one, other = (holding(tcp()._replace(family="unix", path=at * 100)) for at in "xy")
    more = batch(Updated(one, other)).size - batch(Opened(one)).size
    assert more >= kept_alive(other.socket, set())


def test_values_that_deltas_share_count_once() -> None:
    by = process(cmdline=("x" * 100_000,))
    opened = [Opened(holding(tcp(inode), by)) for inode in range(1, 101)]
    assert batch(*opened).size < 3 * 100_000


def test_missing_sentences_count() -> None:
    sight = Coverage(1, 0, 1, ("x" * 10_000, "y" * 10_000), "z" * 10_000)
    assert batch(sight).size > 30_000


def test_figures_count() -> None:
    closed = Closed(holding(), "closed", 1.5, TIMES[0])
    more = batch(closed._replace(figures=FIGURES)).size - batch(closed).size
    assert more >= kept_alive(FIGURES, set())


def test_the_size_of_a_usual_delta_is_near_what_it_keeps_alive() -> None:
    by = process(1_000, 123_456, exe="/usr/sbin/server", cgroup="/a.service", unit="a.service")
    now = tcp(1_000_000, "ESTABLISHED", remote_addr="192.168.100.200", remote_port=50_000)
    opened, updated = holding(now, by), holding(now._replace(state="CLOSE_WAIT"), by)
    for delta in (Opened(opened), Updated(updated, opened)):
        assert batch(delta).size <= 3 * kept_alive(delta, set())


def test_the_bounds_in_bytes_and_in_records_are_reached_together() -> None:
    by = process(1_000, 123_456, exe="/usr/sbin/server", cgroup="/a.service", unit="a.service")
    now = tcp(1_000_000, "ESTABLISHED", remote_addr="192.168.100.200", remote_port=50_000)
    was, one = holding(now._replace(state="SYN_SENT"), by), holding(now, by)
    closed = Closed(one, "exited", 1, TIMES[0], FIGURES)
    sizes = [batch(delta).size for delta in (Opened(was), Updated(one, was), closed)]
    assert sum(sizes) / len(sizes) <= HISTORY_BYTES / HISTORY_RECORDS


def test_a_socket_with_thousands_of_descriptors_stays_within_the_bound() -> None:
    holders, tracker, history = Holders(), DeltaTracker(), History(10_000, MIB)
    row, by = tcp(11), process()
    join = Join(holders, HoldingBuilder(lambda uid: Owner(uid, "root")))
    holders.set_scan(by, 1, 1, dict.fromkeys(range(3, 4003), 11))
    reading = Reading({11: row}, Change({11}, set()), {})
    seq = 0
    for poll in range(1000):
        if poll:
            holders.update_fds(7, {5000: 11 if poll % 2 else None})
        changes = holders.take_changes()
        dirty = join.dirty(changes, ())
        resolution = join.resolve(dirty, reading, (), {})
        changed = join.apply(dirty, changes, resolution, reading).changed
        state = snapshot()._replace(
            holdings=join.holdings, processes={7: 100}, coverage=FULL_COVERAGE, changed=changed
        )
        deltas = tracker.advance(state)
        assert len(deltas) == min(poll, 1)  # Each poll adds or removes a descriptor.
        if deltas:
            seq += 1
            history.append(Batch(1.0, deltas, seq))
    assert history.holds(seq - 100)
    seen: set[int] = set()
    assert sum(kept_alive(one.deltas, seen) for one in history.batches) <= MIB


def test_the_newest_batch_is_held_whatever_its_size() -> None:
    history = History(10, 100)
    history.append(batch(Opened(long("cmdline"))))
    assert history.after(0) is not None
    history.append(batch(Opened(holding()), first=2))
    assert [one.first for one in history.batches] == [2]


def test_a_burst_above_the_bounds_is_held_for_a_while() -> None:
    history = History(10, MIB, burst=5.0)
    for poll in range(4):  # A second apart.
        deltas = [Opened(holding(tcp(100 * poll + at))) for at in range(10)]
        history.append(Batch(float(poll), deltas, 10 * poll + 1))
    assert history.holds(0)
    history.append(Batch(7.5, [Opened(holding(tcp(1)))], 41))
    assert not history.holds(29)
    assert history.holds(30)


def test_a_burst_is_bounded() -> None:
    history = History(10, MIB, burst=5.0)
    for poll in range(3 * MAX_BURST):
        deltas = [Opened(holding(tcp(100 * poll + at))) for at in range(10)]
        history.append(Batch(1.0, deltas, 10 * poll + 1))
    assert sum(len(one.deltas) for one in history.batches) == 10 * MAX_BURST


def test_a_clock_that_was_set_back_is_not_a_burst() -> None:
    history = History(10, MIB, burst=5.0)
    for poll in range(4):
        deltas = [Opened(holding(tcp(100 * poll + at))) for at in range(10)]
        history.append(Batch(1000.0 if poll < 2 else 10.0 * poll, deltas, 10 * poll + 1))
    assert not history.holds(29)
    assert history.holds(30)
