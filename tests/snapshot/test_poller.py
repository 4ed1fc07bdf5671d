import asyncio
import threading
from collections.abc import Iterable

import pytest

from agent.kernel.procfs.files import Progress
from agent.kernel.procfs.scan import FdCheck, FdCheckResult, ProcessScan
from agent.kernel.procfs.scanner import ProcessScanner
from agent.kernel.procfs.sockprotoname import SocketFd, read_protocols
from agent.model import (
    Closed,
    Coverage,
    Delta,
    HoldingKey,
    Opened,
    Snapshot,
    Updated,
)
from agent.snapshot import blocking, refresh
from agent.snapshot import poller as poller_module
from agent.snapshot.coverage import HIDDEN
from agent.snapshot.poller import Poller
from agent.snapshot.reading import GROUPS
from agent.snapshot.table_sources import sources_of
from agent.stream.diff import DeltaTracker

from .. import captures
from ..fakeproc import (
    ESTABLISHED,
    INET_HEADING,
    NETNS,
    TIME_WAIT,
    FakeProc,
    inet_row,
    stat_line,
    unix_row,
)
from ..unprivileged import as_nobody

PEER = "0100007F:9C40"
SWEEP = 60.0


class Follower:
    """Polls and returns the deltas; keeps the newest snapshot."""

    def __init__(self, fake: FakeProc, scanner: ProcessScanner | None = None) -> None:
        self.parts = 0
        scanner = scanner or fake.scanner()
        self.poller = Poller(
            scanner, *sources_of(scanner.procfs, None), sweep=SWEEP, on_progress=self._count,
            clock=lambda: 1_700_000_100.0,
        )  # fmt: skip
        self._tracker = DeltaTracker()
        self.last: Snapshot | None = None

    def _count(self) -> None:
        self.parts += 1

    async def poll(self) -> list[Delta]:
        self.last = await self.poller.poll()
        return self._tracker.advance(self.last)

    async def sockets(self) -> list[Delta]:
        """The deltas without those of coverage."""
        return [one for one in await self.poll() if isinstance(one, (Opened, Updated, Closed))]

    @property
    def keys(self) -> set[HoldingKey]:
        assert self.last
        return set(self.last.holdings)

    @property
    def missing(self) -> str:
        assert self.last
        return "; ".join(self.last.coverage.missing)


@pytest.fixture
def follower(fake: FakeProc) -> Follower:
    return Follower(fake)


def reasons(deltas: Iterable[Delta]) -> list[str]:
    return [delta.reason for delta in deltas if isinstance(delta, Closed)]


# One poll.


async def test_a_poll_returns_the_listener_of_netcat(fake: FakeProc) -> None:
    fake.process(4711, {0: "/dev/pts/1", 3: 26442}, comm="nc")
    fake.raw_table("tcp", captures.capture("old/tcp_listeners"))
    found = (await fake.poller().poll()).holdings
    one = found[4711, 26442]
    assert one.process
    assert (one.process.comm, one.fds, one.socket.local_port, one.socket.state) == (
        "nc", (3,), 8321, "LISTEN"
    )  # fmt: skip
    assert one.owner
    assert one.owner.uid == 1000
    # The holder of the other listener is not visible.
    assert found.keys() == {(4711, 26442), (None, 7019)}


async def test_every_table_is_read(fake: FakeProc) -> None:
    for table in captures.TABLES:
        fake.raw_table(table, captures.capture(f"net/{table}"))
    found = (await fake.poller().poll()).holdings
    assert {one.socket.proto for one in found.values()} == {
        table.removesuffix("6") for table in captures.TABLES
    }
    assert {name for names in GROUPS for name in names} == set(captures.TABLES)


async def test_rows_that_no_process_can_hold_are_not_in_a_poll(fake: FakeProc) -> None:
    fake.table("tcp", inet_row(0, remote=PEER, state=TIME_WAIT))
    fake.process(7, {3: 11})
    fake.table("udp", inet_row(11, state="07"))
    assert (await fake.poller().poll()).holdings.keys() == {(7, 11)}


async def test_every_worker_of_a_prefork_server_holds_the_listener(fake: FakeProc) -> None:
    for pid in (7, 8, 9):
        fake.process(pid, {3: 11})
    fake.table("tcp", inet_row(11))
    assert (await fake.poller().poll()).holdings.keys() == {(7, 11), (8, 11), (9, 11)}


async def test_every_network_namespace_is_read_once(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    fake.process(8, {3: 12}, netns=5)
    fake.process(9, {3: 12}, netns=5)
    fake.table("tcp", inet_row(11))
    fake.table("tcp", inet_row(12), netns=5)
    found = await fake.poller().poll()
    assert {key: one.socket.netns for key, one in found.holdings.items()} == {
        (7, 11): NETNS, (8, 12): 5, (9, 12): 5
    }  # fmt: skip
    assert found.coverage.netns == 2


async def test_a_namespace_whose_inode_may_not_be_read_is_read(fake: FakeProc) -> None:
    fake.process(8, {3: 12}, netns=5, nameable=False)
    fake.table("tcp", inet_row(12), netns=5)
    found = await fake.poller().poll()
    assert found.holdings[8, 12].socket.netns is None
    assert found.holdings[8, 12].socket.local_port == 8080


@pytest.mark.parametrize("unnameable", [range(7, 12, 2), range(8, 12, 2)])
async def test_any_process_of_a_namespace_provides_its_inode(
    fake: FakeProc, unnameable: range
) -> None:
    for pid in range(7, 12):
        fake.process(pid, {3: pid}, netns=5, nameable=pid not in unnameable)
    fake.raw_table("tcp", INET_HEADING, netns=5)  # Only the descriptors show the sockets.
    found = await fake.poller().poll()
    assert found.holdings.keys() == {(pid, pid) for pid in range(7, 12)}
    assert found.coverage.netns == 2


async def test_a_poll_returns_coverage_processes_and_time(fake: FakeProc) -> None:
    fake.process(7)
    found = await fake.poller().poll()
    assert found.coverage == Coverage(2, 0, 1)
    assert found.processes == {1: 100, 7: 100}
    assert found.time == 1_700_000_100.0


async def test_malformed_rows_are_reported(fake: FakeProc, follower: Follower) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", b"garbage\n", inet_row(11))
    await follower.poll()
    assert follower.keys == {(7, 11)}
    assert "1 malformed rows of tcp" in follower.missing


async def test_hidden_processes_are_reported(fake: FakeProc, follower: Follower) -> None:
    fake.process(7)
    fake.end(1)
    fake.table("tcp", inet_row(11))
    await follower.poll()
    assert follower.missing == HIDDEN
    assert follower.keys == {(None, 11)}


def test_descriptors_that_may_not_be_read_are_reported(open_fake: FakeProc) -> None:
    (open_fake.process(7, {3: 11}) / "fd").chmod(0)
    open_fake.table("tcp", inet_row(11))
    found = as_nobody(lambda: asyncio.run(open_fake.poller().poll()))
    assert found.coverage == Coverage(
        2, 1, 1, ("the descriptors of process 7 (app) may not be read",)
    )
    assert found.holdings.keys() == {(None, 11)}


# Several polls.


async def test_a_socket_is_opened_and_closed(fake: FakeProc, follower: Follower) -> None:
    fake.process(7)
    assert await follower.poll() == []
    fake.hold(7, {3: 11})
    fake.table("tcp", inet_row(11))
    (opened,) = await follower.poll()
    assert isinstance(opened, Opened)
    fake.close(7, 3)
    fake.table("tcp")
    assert reasons(await follower.poll()) == ["closed"]


async def test_the_socket_of_a_process_that_exits_closes_with_exited(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.end(7)
    fake.table("tcp")
    assert reasons(await follower.poll()) == ["exited"]


async def test_a_process_that_is_read_while_it_exits_counts_as_exited(
    fake: FakeProc, follower: Follower
) -> None:
    directory = fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    exiting = stat_line(7, comm="app", ppid=1, start=100, threads=1, image=0, flags=0x40_0004)
    (directory / "stat").write_text(exiting)
    fake.close(7, 3)
    fake.table("tcp")
    assert reasons(await follower.poll()) == ["exited"]


async def test_a_process_with_a_reused_pid_inherits_no_socket(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.end(7)
    fake.process(7, {3: 11}, start=900)
    deltas = await follower.poll()
    assert [type(delta) for delta in deltas] == [Closed, Opened]
    assert reasons(deltas) == ["exited"]


async def test_a_row_that_the_kernel_skips_closes_nothing(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    for _ in range(3):
        fake.table("tcp", inet_row(11))
        assert await follower.poll() == []
        fake.table("tcp")
        assert await follower.poll() == []


async def test_a_row_that_stays_missing_closes_nothing_while_the_socket_is_held(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.table("tcp")
    for _ in range(5):
        assert not reasons(await follower.poll())
        assert follower.keys == {(7, 11)}


async def test_the_rows_of_a_table_that_cannot_be_read_stay(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11, 4: 12})
    fake.table("tcp", inet_row(11), inet_row(13))
    fake.table("unix", unix_row(12))
    await follower.poll()
    before = follower.keys
    fake.break_table("tcp")
    for _ in range(5):
        assert await follower.sockets() == []
        assert follower.keys == before == {(7, 11), (7, 12), (None, 13)}
        assert "tcp of network namespace" in follower.missing
    fake.mend_table("tcp")
    fake.table("tcp", inet_row(11), inet_row(13))
    assert await follower.sockets() == []
    assert follower.missing == ""


async def test_a_socket_can_close_while_its_table_cannot_be_read(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.break_table("tcp")
    fake.close(7, 3)
    assert reasons(await follower.poll()) == ["closed"]


async def test_a_process_that_cannot_be_read_keeps_its_sockets(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.break_descriptors(7)
    for _ in range(3):
        assert await follower.sockets() == []
        assert follower.keys == {(7, 11)}
        assert "process 7 (app) could not be read" in follower.missing
    fake.mend_descriptors(7)
    assert await follower.sockets() == []
    assert follower.missing == ""


async def test_a_process_whose_stat_is_malformed_keeps_its_sockets(
    fake: FakeProc, follower: Follower
) -> None:
    stat = fake.process(7, {3: 11}) / "stat"
    fake.table("tcp", inet_row(11))
    await follower.poll()
    good = stat.read_text()
    stat.write_text("7 (app")
    fake.hold(7, {4: "/dev/null"})
    for _ in range(15):
        assert await follower.sockets() == []
        assert follower.keys == {(7, 11)}
        assert follower.missing == "process 7 (app) could not be read (its stat is malformed)"
    stat.write_text(good)
    assert await follower.sockets() == []
    assert follower.missing == ""


async def test_a_malformed_descriptor_is_reported_until_it_is_gone(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11, 4: "socket:[none]"})
    fake.table("tcp", inet_row(11))
    for _ in range(5):
        await follower.poll()
        assert follower.missing == (
            "process 7 (app) could not be read (1 malformed descriptors skipped)"
        )
        assert follower.keys == {(7, 11)}
    fake.close(7, 4)
    await follower.poll()
    assert (follower.keys, follower.missing) == ({(7, 11)}, "")


async def test_an_empty_table_closes_nothing(fake: FakeProc, follower: Follower) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.raw_table("tcp", b"")
    for _ in range(3):
        assert await follower.sockets() == []
        assert follower.keys == {(7, 11)}
        assert follower.missing.endswith("could not be read (the file is empty)")
    fake.table("tcp", inet_row(11))
    assert await follower.sockets() == []
    assert follower.missing == ""


async def test_a_procfs_that_vanishes_closes_nothing(fake: FakeProc, follower: Follower) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    away = fake.root.with_name("away")
    fake.root.rename(away)
    for _ in range(3):
        assert await follower.sockets() == []
        assert follower.keys == {(7, 11)}
        assert "processes could not be listed" in follower.missing
    fake.root.mkdir()  # The mount point, with nothing mounted.
    assert await follower.sockets() == []
    fake.root.rmdir()
    away.rename(fake.root)
    assert await follower.sockets() == []
    assert follower.missing == ""


async def test_without_a_procfs_a_poll_raises_oserror(fake: FakeProc) -> None:
    poller = fake.poller()
    fake.root.rename(fake.root.with_name("away"))
    with pytest.raises(OSError):
        await poller.poll()


async def test_the_holder_of_a_new_row_is_searched_for_twice(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 10})
    fake.table("tcp", inet_row(10))
    await follower.poll()
    fake.table("tcp", inet_row(10), inet_row(11), inet_row(12))
    assert await follower.poll() == []
    fake.hold(7, {4: 11})
    deltas = await follower.poll()
    assert {type(delta) for delta in deltas} == {Opened}
    assert follower.keys == {(7, 10), (7, 11), (None, 12)}
    fake.hold(7, {5: 12})
    assert reasons(await follower.poll()) == ["attributed"]
    assert follower.keys == {(7, 10), (7, 11), (7, 12)}


async def test_the_holder_of_the_first_row_is_searched_for_twice(
    fake: FakeProc, follower: Follower
) -> None:
    await follower.poll()
    fake.table("tcp", inet_row(11))
    assert await follower.poll() == []
    assert len(await follower.poll()) == 1


async def test_a_changed_state_is_an_update(fake: FakeProc, follower: Follower) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11, remote=PEER, state="02"))
    await follower.poll()
    fake.table("tcp", inet_row(11, remote=PEER, state=ESTABLISHED))
    (updated,) = await follower.poll()
    assert isinstance(updated, Updated)
    assert (updated.before.socket.state, updated.holding.socket.state) == (
        "SYN_SENT", "ESTABLISHED"
    )  # fmt: skip


async def test_sockets_close_with_the_last_process_of_their_namespace(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11}, netns=5)
    fake.table("tcp", inet_row(11), netns=5)
    await follower.poll()
    fake.end(7)
    assert reasons(await follower.sockets()) == ["exited"]
    assert follower.keys == set()


# What later polls read.


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(refresh, "time", clock)
    return clock


async def swept(follower: Follower, clock: Clock, polls: int = 10) -> None:
    """Poll for the time of a sweep, and once more."""
    for _ in range(polls + 1):
        clock.now += SWEEP / polls
        await follower.poll()


async def test_without_a_change_nothing_is_read_and_the_holdings_are_the_same_object(
    fake: FakeProc, follower: Follower, clock: Clock
) -> None:
    fake.process(7, {3: 11, 4: 0})
    fake.table("tcp", inet_row(11), inet_row(13))
    await follower.poll()
    first, work = follower.last, follower.poller.work
    for _ in range(3):
        await follower.poll()
        assert first
        assert follower.last
        assert follower.last.changed == frozenset()
        assert follower.last.holdings is first.holdings
    assert follower.poller.work[1:] == work[1:]


async def test_on_progress_is_called_for_each_part_of_a_poll(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    await follower.poll()
    assert follower.parts == 4
    await follower.poll()
    assert follower.parts == 8


async def test_a_snapshot_contains_the_keys_of_the_changed_holdings(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11, 4: 12})
    fake.table("tcp", inet_row(11), inet_row(12), inet_row(13))
    await follower.poll()
    fake.close(7, 3)
    fake.hold(7, {5: 13})
    fake.table("tcp", inet_row(12), inet_row(13))
    await follower.poll()
    assert follower.last
    assert follower.last.changed == frozenset({(7, 11), (7, 13), (None, 13)})


async def test_replaced_descriptors_are_found_within_a_sweep(
    fake: FakeProc, follower: Follower, clock: Clock
) -> None:
    fake.hold(1, {3: 11, 4: 12})
    for pid in range(10, 50):
        fake.process(pid, {3: 11})
    fake.table("tcp", inet_row(11), inet_row(12))
    await follower.poll()
    for pid in range(10, 50):
        fake.close(pid, 3)
        fake.hold(pid, {3: 12})
    await swept(follower, clock)
    assert follower.keys == {(1, 11), (1, 12), *((pid, 12) for pid in range(10, 50))}


async def test_replaced_descriptors_of_a_large_process_are_found_within_a_sweep(
    fake: FakeProc, follower: Follower, clock: Clock
) -> None:
    fake.hold(1, {3: 11, 4: 12})
    fake.process(7, dict.fromkeys(range(100), 11))
    fake.table("tcp", inet_row(11), inet_row(12))
    await follower.poll()
    for fd in range(100):
        fake.close(7, fd)
    fake.hold(7, dict.fromkeys(range(100), 12))
    await swept(follower, clock)
    assert follower.keys == {(1, 11), (1, 12), (7, 12)}


async def test_a_socket_that_is_passed_to_another_process_closes_and_opens(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    fake.process(8)
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.close(7, 3)
    fake.hold(8, {5: 11})
    deltas = await follower.poll()
    assert [type(delta) for delta in deltas] == [Closed, Opened]
    assert follower.keys == {(8, 11)}


async def test_a_socket_replaced_by_a_new_one_is_found_by_the_next_poll(
    fake: FakeProc, follower: Follower, clock: Clock
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.close(7, 3)
    fake.hold(7, {3: 12})
    fake.table("tcp", inet_row(12))
    assert [type(delta) for delta in await follower.poll()] == [Closed, Opened]
    assert follower.keys == {(7, 12)}


async def test_the_holder_of_a_new_socket_is_searched_for(
    fake: FakeProc, follower: Follower, clock: Clock
) -> None:
    for pid in range(10, 15):
        fake.process(pid, {3: "/dev/null"})
    await follower.poll()
    fake.close(12, 3)
    fake.hold(12, {3: 11})
    fake.table("tcp", inet_row(11))
    assert await follower.poll() == []
    (opened,) = await follower.poll()
    assert isinstance(opened, Opened)
    assert follower.keys == {(12, 11)}


async def test_a_new_descriptor_has_the_tables_read_although_the_counters_are_unchanged(
    fake: FakeProc, follower: Follower, clock: Clock
) -> None:
    fake.process(7)
    fake.raw_table("sockstat", b"sockets: used 5\n")
    await follower.poll()
    fake.hold(7, {3: 11})
    fake.table("tcp", inet_row(11))
    (opened,) = await follower.poll()
    assert isinstance(opened, Opened)
    assert opened.holding.socket.state == "LISTEN"


async def test_a_socket_in_no_table_is_published_and_closed(
    fake: FakeProc, follower: Follower
) -> None:
    fake.process(7, {3: 11})
    await follower.poll()
    for _ in range(3):
        assert await follower.poll() == []
        assert follower.keys == {(7, 11)}
    fake.close(7, 3)
    assert reasons(await follower.poll()) == ["closed"]


@pytest.mark.parametrize("polls", [0, 10])
async def test_the_name_of_another_program_in_a_process_is_found_within_a_sweep(
    fake: FakeProc, follower: Follower, clock: Clock, polls: int
) -> None:
    directory = fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    for _ in range(polls + 1):
        await follower.poll()
    (directory / "stat").write_text(
        stat_line(7, comm="other", ppid=1, start=100, threads=1, image=2)
    )
    await swept(follower, clock)
    assert follower.last
    by = follower.last.holdings[7, 11].process
    assert by
    assert by.comm == "other"


class Denying(ProcessScanner):
    """A scanner that may not read the descriptors of some processes."""

    denied: frozenset[int] = frozenset()

    def scan_process(self, pid: int, progress: Progress | None = None) -> ProcessScan:
        scan = super().scan_process(pid, progress)
        return (
            scan if pid not in self.denied else scan._replace(fds={}, thread_fds=(), readable=False)
        )

    def _check(self, check: FdCheck, progress: Progress) -> FdCheckResult:
        if check.pid in self.denied:
            raise PermissionError
        return super()._check(check, progress)


async def test_a_process_that_may_no_longer_be_read_keeps_its_sockets(
    fake: FakeProc, clock: Clock
) -> None:
    scanner = Denying(fake.procfs())
    follower = Follower(fake, scanner)
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    scanner.denied = frozenset({7})
    await swept(follower, clock)
    for _ in range(3):
        assert await follower.sockets() == []
        assert (follower.keys, follower.missing) == (
            {(7, 11)},
            "the descriptors of process 7 (app) may not be read",
        )
    fake.table("tcp")
    for _ in range(3):
        await follower.poll()
    assert follower.keys == set()


async def test_a_process_that_may_be_read_later_is_read(fake: FakeProc, clock: Clock) -> None:
    scanner = Denying(fake.procfs())
    scanner.denied = frozenset({7})
    follower = Follower(fake, scanner)
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    assert follower.keys == {(None, 11)}
    scanner.denied = frozenset()
    await swept(follower, clock)
    assert (follower.keys, follower.missing) == ({(7, 11)}, "")


@pytest.mark.parametrize("denied", [7, 8])
async def test_a_readable_process_keeps_a_socket_that_it_shares_with_an_unreadable_one(
    fake: FakeProc, clock: Clock, denied: int
) -> None:
    scanner = Denying(fake.procfs())
    follower = Follower(fake, scanner)
    for pid in (7, 8):
        fake.process(pid, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    scanner.denied = frozenset({denied})
    await swept(follower, clock)
    fake.table("tcp")
    for _ in range(5):
        await follower.poll()
        assert (15 - denied, 11) in follower.keys


async def test_a_socket_that_replaces_another_while_that_is_identified_is_published(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = fake.scanner()
    follower = Follower(fake, scanner)
    fake.table("tcp", inet_row(22))
    fake.process(7)
    fake.process(8, {3: 22})
    await follower.poll()
    fake.hold(7, {3: 21})

    def replaced(
        root: str, descriptors: Iterable[SocketFd], progress: Progress
    ) -> dict[SocketFd, bytes | None]:
        fake.close(7, 3)
        fake.hold(7, {3: 22})
        return read_protocols(root, descriptors, progress)

    monkeypatch.setattr(poller_module, "read_protocols", replaced)
    await follower.poll()
    monkeypatch.undo()
    await follower.poll()
    assert follower.keys == {(7, 22), (8, 22)}


@pytest.mark.parametrize("method", ["summaries", "scan"])
async def test_a_process_that_stops_hanging_during_a_poll_keeps_its_sockets(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(blocking, "HANG_SECONDS", 0.1)
    scanner = fake.scanner()
    follower = Follower(fake, scanner)
    fake.table("tcp", inet_row(11))
    fake.process(7, {3: 11})
    await follower.poll()
    release, returned = threading.Event(), threading.Event()
    read = getattr(scanner, method)

    def hang(pids: Iterable[int], progress: Progress) -> object:
        if 7 in pids:
            progress.begin(7)
            release.wait()
            returned.set()
        else:
            release.set()
            returned.wait()
        return read(pids, progress)

    monkeypatch.setattr(scanner, method, hang)
    fake.break_descriptors(7)  # A whole scan becomes necessary.
    await follower.poll()
    assert release.is_set()
    assert follower.keys == {(7, 11)}
    monkeypatch.undo()
    fake.mend_descriptors(7)
    for _ in range(1000):  # Until its thread has returned.
        assert await follower.sockets() == []
        assert follower.keys == {(7, 11)}
        if not follower.missing:
            break
    assert follower.missing == ""


async def test_rows_that_changed_in_a_poll_that_failed_are_published_by_the_next(
    fake: FakeProc, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11))
    await follower.poll()
    fake.table("tcp", inet_row(11, remote=PEER, state=ESTABLISHED))

    async def hang(_gone: Iterable[int]) -> None:
        raise blocking.CallTimeout

    monkeypatch.setattr(follower.poller._refresher, "recheck_holders_of", hang)
    assert await follower.sockets() == []
    monkeypatch.undo()
    (updated,) = await follower.sockets()
    assert isinstance(updated, Updated)
    assert updated.holding.socket.state == "ESTABLISHED"


async def test_a_search_is_bounded_where_processes_have_no_descriptors(
    fake: FakeProc, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "SEARCH_DESCRIPTORS", 20)
    fake.table("tcp", inet_row(11))
    for pid in range(100, 200):
        fake.process(pid)
    fake.process(7, {3: 11})
    await follower.poll()
    fake.table("tcp", inet_row(11), inet_row(12))
    await follower.poll()
    before = follower.poller.work.processes
    await follower.poll()
    # Those that are searched, and those that the sweep reads.
    assert follower.poller.work.processes - before <= 20 + 2
