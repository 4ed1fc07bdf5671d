"""The socket tables of every namespace, and when they are read."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import cast

import pytest

from agent.kernel.netlink.client import NetlinkClient
from agent.kernel.netlink.messages import Dump
from agent.kernel.rows import Scope, Table, update_table
from agent.model import Socket
from agent.snapshot import tables as tables_module
from agent.snapshot.reading import (
    ALL_GROUPS,
    GROUPS,
    TCP,
    UDP,
    Change,
    Group,
    Namespaces,
    groups_of,
)
from agent.snapshot.schedule import READ_SECONDS
from agent.snapshot.table_sources import NetlinkEvents, sources_of
from agent.snapshot.tables import TableReader

from ..fakeproc import NETNS, TIME_WAIT, FakeProc, inet_row, unix_row

HERE: Namespaces = {NETNS: [1]}
NOTHING = Change(set(), set())


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Answers:
    """A netlink client whose answers a test sets.

    ``shown`` has the inodes in each dump, None for a dump that fails. The inode of a peer follows a
    slash: ``11/12``.
    """

    is_subscribed = False

    def __init__(self, **shown: list[str] | None) -> None:
        self.shown = shown
        self.ignored: Counter[int] = Counter()

    def read_dumps(
        self, _netns: int, _path: str, names: Collection[str]
    ) -> Iterator[tuple[Dump, list[bytes]]]:
        for name, rows in self.shown.items():
            tables = ("unix",) if name == "unix" else (name, f"{name}6")
            if rows is not None and not set(names).isdisjoint(tables):
                yield Dump(tables, (), _reader(name)), [row.encode() for row in rows]

    def destroy_socket(self, _netns: int) -> None:
        return None

    def take_ignored(self) -> Counter[int]:
        ignored, self.ignored = self.ignored, Counter()
        return ignored

    def close_except(self, _namespaces: Collection[int]) -> None:
        pass

    def refused_namespaces(self) -> list[int]:
        return []

    def reader(self) -> NetlinkClient:
        return cast("NetlinkClient", self)


class _reader:  # noqa: N801 (stands for a function)
    def __init__(self, proto: str) -> None:
        self._family = "unix" if proto == "unix" else "inet"
        self._proto = proto

    def __call__(self, rows: Iterable[bytes], scope: Scope, before: Table) -> Table:
        def decode(fresh: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
            for row in fresh:
                inode, _, peer = row.partition(b"/")
                if not inode.isdigit():
                    continue
                family = "inet6" if row.endswith(b"6") and self._family == "inet" else self._family
                yield row, Socket(
                    int(inode), self._proto, family, None, None, netns=scope.netns,
                    source="netlink", peer_inode=int(peer) if peer else None,
                )  # fmt: skip

        return update_table(rows, before, decode)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tables_module, "time", clock)
    return clock


def count(fake: FakeProc, used: int, netns: int = NETNS) -> None:
    """Set the counters of a namespace."""
    fake.raw_table("sockstat", b"sockets: used %d\n" % used, netns=netns)
    fake.raw_table("snmp", b"", netns=netns)
    fake.raw_table("protocols", b"", netns=netns)


def reader(fake: FakeProc, netlink: Answers | None = None) -> TableReader:
    procfs = fake.procfs()
    sources, events = sources_of(procfs, None if netlink is None else netlink.reader())
    return TableReader(procfs, sources, events)


async def read(one: TableReader, namespaces: Namespaces = HERE) -> Change:
    return (await one.read(namespaces, dict.fromkeys(namespaces, ALL_GROUPS))).change


async def due(
    one: TableReader, namespaces: Namespaces = HERE, ran: Collection[int] | None = None
) -> list[int]:
    """Read what is due; return the namespaces that were due."""
    found = (await one.plan(namespaces, ran=ran)).groups
    if found:
        await one.read(namespaces, found)
    return list(found)


async def groups(
    one: TableReader, *doubted: Socket, udp_users: Collection[int] = ()
) -> list[Group]:
    """Read the groups that are due in NETNS, and return them."""
    found = (await one.plan(HERE, doubted=doubted, udp_users=udp_users)).groups
    if found:
        await one.read(HERE, found)
    return [group for group in GROUPS if group in found.get(NETNS, ())]


def seen(one: TableReader) -> dict[int, str]:
    return {inode: socket.source for inode, socket in one.sockets.items()}


# When tables are read.


@pytest.fixture
def counted(fake: FakeProc, clock: Clock) -> TableReader:
    count(fake, 5)
    return reader(fake)


async def test_the_tables_are_due_in_the_first_poll(counted: TableReader) -> None:
    assert await due(counted) == [NETNS]


async def test_nothing_is_due_while_the_counters_are_unchanged(counted: TableReader) -> None:
    await due(counted)
    for _ in range(3):
        assert await due(counted) == []


async def test_a_namespace_is_due_once_when_its_counters_change(
    fake: FakeProc, counted: TableReader
) -> None:
    await due(counted)
    count(fake, 6)
    assert await due(counted) == [NETNS]
    assert await due(counted) == []


async def test_a_namespace_is_due_when_its_counters_return_to_an_earlier_value(
    fake: FakeProc, counted: TableReader
) -> None:
    await due(counted)
    for used in (6, 5):
        count(fake, used)
        assert await due(counted) == [NETNS]


async def test_a_change_of_memory_alone_makes_nothing_due(
    fake: FakeProc, counted: TableReader
) -> None:
    fake.raw_table("sockstat", b"TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 3\n")
    await due(counted)
    fake.raw_table("sockstat", b"TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 9\n")
    assert await due(counted) == []


@pytest.mark.parametrize(
    ("proto", "expected"), [("tcp", [TCP]), ("udp", [UDP]), (None, list(GROUPS)), ("vsock", [])]
)
async def test_tables_that_should_list_a_doubted_socket_are_due(
    counted: TableReader, proto: str | None, expected: list[Group]
) -> None:
    await due(counted)
    doubted = Socket(11, proto, "inet", None, None, netns=NETNS)
    assert await groups(counted, doubted) == expected
    assert await groups(counted) == []


async def test_udp_is_due_where_a_holder_of_a_udp_socket_has_run(counted: TableReader) -> None:
    await due(counted)
    assert await groups(counted, udp_users=[NETNS]) == [UDP]


async def test_only_the_group_whose_counter_changed_is_due(
    fake: FakeProc, counted: TableReader
) -> None:
    fake.raw_table("sockstat", b"sockets: used 5\nUDP: inuse 1\n")
    await due(counted)
    fake.raw_table("sockstat", b"sockets: used 6\nUDP: inuse 2\n")
    assert await groups(counted) == [UDP]


async def test_tcp_sockets_of_other_namespaces_make_nothing_due(
    fake: FakeProc, counted: TableReader
) -> None:
    fake.raw_table("sockstat", b"sockets: used 5\nTCP: inuse 1 orphan 0 tw 0 alloc 7 mem 1\n")
    await due(counted)
    fake.raw_table("sockstat", b"sockets: used 5\nTCP: inuse 1 orphan 3 tw 0 alloc 9 mem 4\n")
    assert await groups(counted) == []


async def test_the_counters_of_idle_namespaces_are_read_in_turn(
    fake: FakeProc, counted: TableReader, clock: Clock
) -> None:
    for pid, netns in ((7, 5), (8, 6)):
        fake.process(pid, netns=netns)
        count(fake, 5, netns=netns)
    all_three: Namespaces = {NETNS: [1], 5: [7], 6: [8]}
    assert await due(counted, all_three, ran=()) == [NETNS, 5, 6]
    for netns in (5, 6):
        count(fake, 6, netns=netns)
    clock.now += 1.0
    first = await due(counted, all_three, ran=[NETNS])
    clock.now += 1.0
    assert {*first, *await due(counted, all_three, ran=[NETNS])} == {5, 6}


async def test_a_namespace_without_processes_that_run_and_segments_is_not_due(
    fake: FakeProc, counted: TableReader, clock: Clock
) -> None:
    tcp = b"Tcp: a b c d e f g h i InSegs\nTcp: 1 2 3 4 5 6 7 8 9 %d\n"
    fake.raw_table("snmp", tcp % 1)
    await due(counted, ran=())
    for _ in range(3):
        clock.now += READ_SECONDS
        assert await due(counted, ran=()) == []
    fake.raw_table("snmp", tcp % 2)  # A segment arrived: its sender may have shut down.
    clock.now += READ_SECONDS
    assert await due(counted, ran=()) == [NETNS]
    clock.now += READ_SECONDS
    assert await due(counted, ran=()) == []
    assert await due(counted, ran=[NETNS]) == [NETNS]


async def test_a_namespace_is_due_after_read_seconds_although_its_counters_are_unchanged(
    counted: TableReader, clock: Clock
) -> None:
    await due(counted)
    clock.now += READ_SECONDS / 2
    assert await due(counted) == []
    clock.now += READ_SECONDS / 2
    assert await due(counted) == [NETNS]
    assert await due(counted) == []


async def test_a_namespace_is_due_while_its_counters_cannot_be_read(
    fake: FakeProc, counted: TableReader
) -> None:
    await due(counted)
    fake.break_table("sockstat")
    for _ in range(3):
        assert await due(counted) == [NETNS]


async def test_a_namespace_without_counters_is_always_due(fake: FakeProc, clock: Clock) -> None:
    one = reader(fake)
    for _ in range(3):
        assert await due(one) == [NETNS]


async def test_each_namespace_has_its_own_counters(fake: FakeProc, counted: TableReader) -> None:
    fake.process(7, netns=5)
    count(fake, 1, netns=5)
    both: Namespaces = {NETNS: [1], 5: [7]}
    await due(counted, both)
    count(fake, 2, netns=5)
    assert await due(counted, both) == [5]


async def test_a_new_namespace_is_due(fake: FakeProc, counted: TableReader) -> None:
    await due(counted)
    fake.process(7, netns=5)
    count(fake, 5, netns=5)
    assert await due(counted, {NETNS: [1], 5: [7]}) == [5]


# What a reading returns.


async def test_a_reading_returns_added_and_gone_sockets(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", inet_row(11), inet_row(12))
    assert await read(one) == Change({11, 12}, set())
    fake.table("tcp", inet_row(12), inet_row(13))
    assert await read(one) == Change({13}, {11})
    assert await read(one) == NOTHING


async def test_unchanged_rows_are_not_decoded_again(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", inet_row(11), inet_row(12))
    await read(one)
    before = one.sockets[12]
    fake.table("tcp", inet_row(12), inet_row(13))
    await read(one)
    assert one.sockets[12] is before
    assert one.rows_decoded == 3


async def test_rows_that_no_process_can_hold_are_kept_apart(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", inet_row(11), inet_row(0, remote="0100007F:0050", state=TIME_WAIT))
    await read(one)
    assert one.sockets.keys() == {11}
    assert [row.state for row in one.unowned()] == ["TIME_WAIT"]


async def test_the_rows_of_a_namespace_that_is_gone_are_dropped(fake: FakeProc) -> None:
    one = reader(fake)
    fake.process(7, netns=5)
    fake.table("tcp", inet_row(11))
    fake.table("tcp", inet_row(12), netns=5)
    fake.break_table("unix", netns=5)
    await read(one, {NETNS: [1], 5: [7]})
    assert one.missing()
    assert await read(one, HERE) == Change(set(), {12})
    assert one.sockets.keys() == {11}
    assert one.missing() == []


async def test_a_namespace_whose_processes_end_during_a_poll_keeps_its_rows(fake: FakeProc) -> None:
    one = reader(fake)
    fake.process(7, netns=5)
    fake.table("tcp", inet_row(12), netns=5)
    there: Namespaces = {5: [7]}
    await read(one, there)
    fake.end(7)
    assert await due(one, there) == []
    assert await read(one, there) == NOTHING
    assert one.sockets.keys() == {12}
    assert one.missing() == []


async def test_a_reading_of_some_groups_leaves_the_others(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", inet_row(11))
    fake.table("udp", inet_row(12))
    await read(one)
    fake.table("tcp")
    fake.table("udp")
    reading = await one.read(HERE, {NETNS: [UDP]})
    assert reading.change == Change(set(), {12})
    assert one.sockets.keys() == {11}
    assert [reading.covers(Socket(0, proto, "inet", None, None, netns=NETNS))
            for proto in ("tcp", "udp", "vsock", None)] == [False, True, None, False]  # fmt: skip


# What cannot be read.


async def test_a_table_that_cannot_be_read_keeps_its_rows_and_is_reported(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", inet_row(11))
    fake.table("udp", inet_row(12))
    await read(one)
    fake.break_table("tcp")
    fake.table("udp")
    assert await read(one) == Change(set(), {12})
    assert one.sockets.keys() == {11}
    (sentence,) = one.missing()
    assert sentence.startswith(f"tcp of network namespace {NETNS} could not be read (")
    fake.mend_table("tcp")
    fake.table("tcp")
    assert await read(one) == Change(set(), {11})
    assert one.missing() == []


async def test_malformed_rows_are_counted(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", b"0: rubbish\n", b"1: waste\n", inet_row(11))
    await read(one)
    assert one.missing() == [f"2 malformed rows of tcp of network namespace {NETNS} skipped"]
    fake.table("tcp", inet_row(11))
    await read(one)
    assert one.missing() == []


async def test_malformed_rows_of_netlink_are_counted_by_table(fake: FakeProc) -> None:
    one = reader(fake, Answers(tcp=["11", "malformed"]))
    await read(one)
    assert one.missing() == [f"1 malformed rows of tcp/tcp6 of network namespace {NETNS} skipped"]


async def test_ignored_and_malformed_messages_are_reported_by_the_next_poll(fake: FakeProc) -> None:
    netlink = Answers()
    netlink.is_subscribed = True
    one = reader(fake, netlink)
    (events,) = one._ended._sources
    assert isinstance(events, NetlinkEvents)
    events._monitor._ignored[NETNS] += 3
    events._monitor._malformed[NETNS] += 4
    netlink.ignored[NETNS] += 2
    one.take_ended(HERE)
    where = f"network namespace {NETNS}"
    assert one.missing() == [
        f"4 malformed messages on ended sockets in {where} were skipped",
        f"5 messages of another process to the agent's netlink sockets in {where} were ignored",
    ]
    one.take_ended(HERE)
    assert one.missing() == []


async def test_a_path_that_imitates_a_row_hides_no_other_socket(fake: FakeProc) -> None:
    one = reader(fake)
    fake.table("tcp", inet_row(11))
    fake.table("unix", unix_row(12, "/x"), unix_row(11, "/y"))
    await read(one)
    assert one.sockets[11].proto == "tcp"
    assert "imitates a row" in "".join(one.missing())


async def test_a_namespace_that_claims_the_socket_of_another_changes_nothing(
    fake: FakeProc,
) -> None:
    one = reader(fake)
    fake.process(7, netns=5)
    fake.table("tcp", inet_row(11))
    both: Namespaces = {NETNS: [1], 5: [7]}
    await read(one, both)
    fake.table("tcp", inet_row(11, state=TIME_WAIT), netns=5)
    assert await read(one, both) == NOTHING
    assert one.sockets[11].netns == NETNS
    assert one.missing() == [
        "1 sockets are claimed by more than one network namespace: the first claim counts"
    ]
    fake.table("tcp", netns=5)
    assert await read(one, both) == NOTHING
    assert one.missing() == []


@pytest.mark.parametrize(("name", "listed"), [("tcp", {TCP}), ("vsock", set()), (None, ALL_GROUPS)])
def test_which_tables_may_list_a_socket(name: str | None, listed: set[Group]) -> None:
    assert groups_of(Socket(11, name, "inet", None, None)) == listed


# Netlink, and text where netlink fails.


async def test_tables_that_netlink_returns_are_not_read_as_text(fake: FakeProc) -> None:
    one = reader(fake, Answers(tcp=["11"]))
    fake.table("tcp", inet_row(12))
    fake.table("udp", inet_row(13))
    await read(one)
    assert seen(one) == {11: "netlink", 13: "procfs"}


async def test_a_switch_to_text_and_back_neither_loses_nor_repeats_sockets(fake: FakeProc) -> None:
    netlink = Answers(tcp=["11", "12"])
    one = reader(fake, netlink)
    fake.table("tcp", inet_row(11))
    fake.table("tcp6", inet_row(12, f"{'0' * 32}:1F90", f"{'0' * 32}:0000"))
    await read(one)
    for source, shown in (("procfs", None), ("netlink", ["11", "12"]), ("procfs", None)):
        netlink.shown["tcp"] = shown
        assert await read(one) == Change({11, 12}, set())
        assert seen(one) == {11: source, 12: source}
        assert await read(one) == NOTHING


async def test_a_socket_that_is_missing_after_a_switch_is_gone(fake: FakeProc) -> None:
    netlink = Answers(tcp=["11", "12"])
    one = reader(fake, netlink)
    fake.table("tcp", inet_row(12), inet_row(13))
    await read(one)
    netlink.shown["tcp"] = None
    assert await read(one) == Change({12, 13}, {11})


async def test_the_rows_stay_while_neither_netlink_nor_text_can_be_read(fake: FakeProc) -> None:
    netlink = Answers(tcp=["11"])
    one = reader(fake, netlink)
    for name in ("tcp", "tcp6"):
        fake.break_table(name)
    await read(one)
    assert one.missing() == []
    netlink.shown["tcp"] = None
    assert await read(one) == NOTHING
    assert one.sockets.keys() == {11}
    assert len(one.missing()) == 2


async def test_a_table_that_netlink_returns_again_is_not_missing(fake: FakeProc) -> None:
    netlink = Answers(tcp=["11"])
    one = reader(fake, netlink)
    fake.break_table("tcp")
    await read(one)
    netlink.shown["tcp"] = None
    await read(one)
    assert one.missing()
    netlink.shown["tcp"] = ["11"]
    await read(one)
    assert one.missing() == []


async def test_the_rows_of_a_text_that_fails_during_a_switch_stay(fake: FakeProc) -> None:
    netlink = Answers(tcp=["11", "16"])
    one = reader(fake, netlink)
    fake.table("tcp", inet_row(11))
    fake.break_table("tcp6")
    await read(one)
    netlink.shown["tcp"] = None
    change = await read(one)
    assert change.gone == set()
    assert one.sockets.keys() == {11, 16}


async def test_a_table_that_failed_is_read_again_although_its_counters_are_unchanged(
    fake: FakeProc, counted: TableReader, clock: Clock
) -> None:
    fake.table("tcp", inet_row(11))
    await due(counted, ran=())
    fake.break_table("tcp")
    count(fake, 6)
    assert await due(counted, ran=[NETNS]) == [NETNS]
    assert counted.missing()
    fake.mend_table("tcp")
    fake.table("tcp", inet_row(11), inet_row(12))
    for _ in range(3):
        clock.now += READ_SECONDS
        await due(counted, ran=())
    assert counted.missing() == []
    assert counted.sockets.keys() == {11, 12}
