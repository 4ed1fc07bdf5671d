"""Polls: what changed → what to read → read → join → snapshot."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from ..kernel.cgroups import Cgroups
from ..kernel.procfs.scanner import ProcessScanner
from ..kernel.procfs.stat import cgroup_info_of
from ..kernel.users import Users
from ..model import CgroupInfo, Holding, HoldingKey, Snapshot, Socket
from .blocking import BlockingCalls, place_of_process
from .coverage import coverage
from .groups import ALL_GROUPS, Group, groups_of
from .holders import Holders
from .holding import HoldingBuilder
from .identify import SocketIdentifier
from .join import Descriptor, Join
from .namespaces import NamespaceIndex
from .plan import SWEEP_SECONDS
from .quota import Limits
from .reading import Ended, Namespaces, Reading
from .refresh import HolderRefresher
from .stats import WorkCounters
from .table_sources import EventSource, TableSource
from .tables import TableReader
from .thread_namespaces import ThreadNamespaces

# A delay of rechecks that is longer than this is published.
MAX_UNREPORTED_DELAY_SECONDS = 5


def without_unlisted(ended: Iterable[Socket], gone: Counter[str | None]) -> list[Socket]:
    """Return sockets that no table showed and that ended, without those that are published.

    ``gone`` counts, by protocol, the published sockets in no table that are gone in the same poll.
    No table lists a TCP socket that is bound and does not listen, and the notice of its end has no
    peer address. Tables list all bound sockets of other protocols.
    """
    remaining = gone["tcp"]
    others = []
    for socket in ended:
        if remaining > 0 and socket.proto == "tcp" and socket.remote_addr is None:
            remaining -= 1
        else:
            others.append(socket)
    return others


class Poller:
    """Takes snapshots of the sockets and processes of one procfs."""

    def __init__(
        self,
        scanner: ProcessScanner,
        sources: Sequence[TableSource],
        events: Sequence[EventSource] = (),
        *,
        sweep: float = SWEEP_SECONDS,
        limits: Limits = Limits(),  # noqa: B008 (it is frozen)
        on_progress: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``sweep``: seconds in which everything is read again. ``on_progress`` is called after
        each part of a poll."""
        self.procfs = scanner.procfs
        self.scanner = scanner
        self._clock = clock
        self._progressed = on_progress or (lambda: None)
        self.calls = BlockingCalls()
        self._users = Users()
        self._cgroups = Cgroups()
        self.holders = Holders()
        self.namespaces = NamespaceIndex(self.holders, limits.namespaces)
        self._refresher = HolderRefresher(scanner, self.holders, sweep, self.calls, limits)
        self.tables = TableReader(self.procfs, sources, events, self.calls)
        self.builder = HoldingBuilder(self._users.find_owner, self._cgroup)
        self._join = Join(self.holders, self.builder)
        self._identifier = SocketIdentifier(
            self.procfs.root, self.calls, self.holders, self._refresher
        )
        self._threads = ThreadNamespaces(self.procfs, self.calls, self.holders, self.namespaces)
        self._last: Snapshot | None = None
        self._hidden = False  # Whether processes of other users are not listed.
        # What changed, and began and ended, since the last poll that was completed.
        self._changes: set[HoldingKey] = set()
        self._inodes: set[int] = set()
        self._short_lived: list[Holding] = []

    async def poll(self) -> Snapshot:
        """Take a snapshot. Raise OSError if no process was ever listed."""
        self.calls.forget_returned()
        try:
            pids = await self.list_processes()
            return await self._poll(pids)
        except OSError as error:
            return self._stale(error)

    async def list_processes(self) -> list[int]:
        """Return all processes. Raise OSError."""
        pids, self._hidden = await self.calls.call(
            "processes", lambda: (self.procfs.pids(), self.procfs.hides_processes())
        )
        return pids

    async def _poll(self, pids: Sequence[int]) -> Snapshot:
        self._users.expire()
        # Processes are read before tables: a socket that a process holds is in a table by then.
        failed = await self._refresher.refresh(pids, self._join.take_unlisted())
        self._changes |= self.holders.take_changes()
        self._progressed()
        namespaces = self.namespaces.all()
        plan = await self.tables.plan(
            self.namespaces.on_time(namespaces),
            ran=self.namespaces.in_use(filter(self._refresher.has_run, self.holders.processes)),
            doubted=self._join.doubted(self.tables.sockets, self._changes),
            udp_users=self._udp_users(),
        )
        for pid in plan.moved_pids:
            self.holders.mark_failed(pid)
        if await self._threads.drop_ended(plan.vanished):
            namespaces = self.namespaces.all()
        reading = await self.tables.read(namespaces, plan.groups)
        self._progressed()
        return await self.join_reading(namespaces, reading, failed)

    def _udp_users(self) -> set[int]:
        """Return the namespaces in which a holder of a UDP socket has run."""
        pids_of = self.holders.pids_of
        pids = {pid for inode in self.tables.udp_inodes() for pid in pids_of(inode)}
        return self.namespaces.in_use(filter(self._refresher.has_run, pids))

    async def join_reading(
        self,
        namespaces: Namespaces,
        reading: Reading,
        failed: Mapping[int, str],
        *,
        reported: Container[int] = (),
    ) -> Snapshot:
        """Join what the tables show with the processes, and return the snapshot.

        ``failed`` maps processes that could not be read to the reason. ``reported`` are sockets
        that are published already, by the first poll of a process.
        """
        for pid in reading.moved_pids:
            self.holders.mark_failed(pid)  # It is scanned as a whole in the next poll.
        if self._last is None:
            await self._scan_itself(reported)
        ended = self.tables.take_ended(namespaces)
        self._short_lived += self._join.end(ended.listed)
        self._inodes |= reading.change.added | reading.change.gone | ended.listed.keys()
        await self._refresher.recheck_holders_of(reading.change.gone | ended.listed.keys())
        await self._refresher.search(self._join.orphans(reading.sockets))
        self._changes |= self.holders.take_changes()
        self._progressed()
        changed = await self._update_holdings(namespaces, reading, ended)
        self._progressed()
        return self._snapshot(changed, len(namespaces), failed)

    async def _update_holdings(
        self, namespaces: Namespaces, reading: Reading, ended: Ended
    ) -> frozenset[HoldingKey]:
        """Bring the holdings up to date; return the keys of those that changed."""
        join = self._join
        dirty = join.dirty(self._changes, self._inodes)
        questions = join.questions(dirty, reading, ended.listed)
        sockets: dict[int, Socket] = {}
        if questions:
            sockets = await self._identifier.identify(questions)
            # A descriptor may refer to another socket by now, which was held before or not.
            self._changes |= self.holders.take_changes()
            reading = await self._read_again(namespaces, reading, questions, sockets)
            self._inodes |= reading.change.added | reading.change.gone
            dirty |= join.dirty(self._changes, self._inodes)
        resolution = join.resolve(dirty, reading, ended.listed, sockets)
        joined = join.apply(dirty, self._changes, resolution, reading)
        self._short_lived += joined.short_lived
        self._short_lived += (
            self.builder.build(row, None, ())
            for row in without_unlisted(ended.unlisted, joined.gone_unlisted)
        )
        return joined.changed

    async def _read_again(
        self,
        namespaces: Namespaces,
        reading: Reading,
        questions: Iterable[Descriptor],
        sockets: Mapping[int, Socket],
    ) -> Reading:
        """Read the tables that should list identified sockets, unless this poll has read them.

        These may be tables of namespaces that only a thread is in. The first poll reads all of them
        again: the kernel may have skipped rows. Return ``reading`` with what was read.
        """
        again: dict[int, set[Group]] = {}
        for socket in sockets.values():
            if socket.netns is not None and (self._last is None or not reading.covers(socket)):
                again.setdefault(socket.netns, set()).update(groups_of(socket))
        found = await self._threads.find(
            {one.pid for one in questions if one.inode in sockets and groups_of(sockets[one.inode])}
        )
        if not again and not found:
            return reading
        groups = {**again, **dict.fromkeys(found, ALL_GROUPS)}
        return reading.joined(await self.tables.read({**namespaces, **found}, groups))

    def _snapshot(
        self, changed: frozenset[HoldingKey], namespaces: int, failed: Mapping[int, str]
    ) -> Snapshot:
        processes = {
            pid: state.process.start_ticks for pid, state in self.holders.processes.items()
        }
        unread = [
            *self.tables.missing(),
            *self._late_rechecks(),
            *self._refresher.beyond_limits(),
            *self.namespaces.missing(),
        ]
        self._last = Snapshot(
            time=self._clock(),
            holdings=self._join.holdings,
            processes=processes,
            coverage=coverage(self.holders, namespaces, failed, hidden=self._hidden, unread=unread),
            changed=changed,
            short_lived=tuple(self._short_lived),
        )
        self._changes, self._inodes, self._short_lived = set(), set(), []
        return self._last

    def _late_rechecks(self) -> list[str]:
        """Return a sentence if descriptors of running processes are read again late."""
        seconds = self._refresher.recheck_delay
        if seconds <= MAX_UNREPORTED_DELAY_SECONDS:
            return []
        sentence = "running processes have many descriptors: a replaced one is reported after up to"
        return [f"{sentence} {seconds} s"]

    async def _scan_itself(self, reported: Container[int]) -> None:
        """Scan the agent, which has opened sockets to read the tables."""
        if self.procfs.own is not None:
            pids = [self.procfs.own.pid]
            result = await self.calls.batch(self.scanner.scan, pids, place_of_process)
            for own in result.scans:
                fds = {fd: inode for fd, inode in own.fds.items() if inode not in reported}
                self._refresher.add(own._replace(fds=fds))

    def _cgroup(self, cgroup_id: int) -> CgroupInfo | None:
        path = self._cgroups.find_path(cgroup_id)
        return None if path is None else cgroup_info_of({"": path})

    def _stale(self, error: OSError) -> Snapshot:
        """Return the last snapshot, whose holdings stand while no process can be listed."""
        last = self._last
        if last is None:
            raise error
        missing = (f"processes could not be listed ({error.strerror})",)
        return last._replace(
            time=self._clock(),
            coverage=last.coverage._replace(missing=missing),
            changed=frozenset(),
            short_lived=(),
        )

    @property
    def work(self) -> WorkCounters:
        """Return what was read since the start."""
        return WorkCounters(
            self._refresher.processes_scanned,
            self._refresher.descriptors_read,
            self.tables.rows_decoded,
        )
