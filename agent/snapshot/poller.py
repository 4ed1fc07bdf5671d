"""Polls: what changed → what to read → read → join → snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from ..kernel.cgroups import Cgroups
from ..kernel.procfs.scanner import ProcessScanner
from ..kernel.procfs.sockprotoname import read_protocols, socket_from_protocol
from ..kernel.procfs.stat import cgroup_info_of
from ..kernel.trace.events import TraceCounts
from ..kernel.users import Users
from ..model import (
    CgroupInfo,
    Coverage,
    HoldingKey,
    Snapshot,
    Socket,
)
from .attribution import Attribution
from .blocking import BlockingCalls, place_of_process
from .coverage import coverage
from .event_changes import EventChanges, may_be_in_no_table, without_unlisted
from .event_join import EventJoin
from .holders import Holders
from .holding import HoldingBuilder
from .join import Descriptor, Join
from .namespaces import NamespaceIndex
from .plan import SWEEP_SECONDS
from .quota import Limits
from .reading import ALL_GROUPS, Ended, EndedSocket, Group, Namespaces, Reading, groups_of
from .refresh import HolderRefresher
from .schedule import READ_SECONDS
from .stats import WorkCounters
from .table_sources import EventSource, TableSource
from .tables import TableReader

if TYPE_CHECKING:  # A one-shot snapshot reads no trace events.
    from .trace_events import TraceEvents

# A delay of rechecks that is longer than this is published.
MAX_UNREPORTED_DELAY_SECONDS = 5


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
        trace: TraceEvents | None = None,
    ) -> None:
        """``sweep``: seconds in which everything is read again. ``on_progress`` is called after
        each part of a poll. ``trace`` reports connections between two polls."""
        self.procfs = scanner.procfs
        self.scanner = scanner
        self._clock = clock
        self._progressed = on_progress or (lambda: None)
        self.calls = BlockingCalls()
        self._users = Users()
        self._cgroups = Cgroups()
        self.holders = Holders()
        self.namespaces = NamespaceIndex(self.procfs, self.calls, self.holders, limits.namespaces)
        self._refresher = HolderRefresher(scanner, self.holders, sweep, self.calls, limits)
        self._sweep = sweep
        self.trace = trace
        self.tables = TableReader(self.procfs, sources, events, self.calls, trace)
        self.builder = HoldingBuilder(self._users.find_owner, self._cgroup)
        self._join = Join(self.holders, self.builder, has_events=self._has_events)
        self._attribution = Attribution(
            self.holders, self.builder, trace, scanner.start_time, self._holders_of_listener
        )
        self._event_join = EventJoin(self.tables, self.holders, self._refresher, self._attribution)
        self._last: Snapshot | None = None
        self._hidden = False  # Whether processes of other users are not listed.
        # What changed, and began and ended, since the last poll that was completed.
        self._changes: set[HoldingKey] = set()
        self._inodes: set[int] = set()
        self._shown = EventChanges(self._attribution, clock)
        self._postponed: list[EndedSocket] = []  # Ends that the next poll takes in.
        self._counted = TraceCounts()  # Of events, up to the last poll.
        self._namespaces: Namespaces = {}  # Of the last poll.

    async def poll(self) -> Snapshot:
        """Take a snapshot. Raise OSError if no process was ever listed."""
        self.calls.forget_returned()
        try:
            if self.trace is not None:
                had_events = self._has_events()
                await self.trace.check()
                if self._has_events() and not had_events:
                    self.tables.read_all_again()
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
        self._event_join.begin_poll()
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
            read_seconds=self._read_seconds(),
        )
        for pid in plan.moved_pids:
            self.holders.mark_failed(pid)
        if await self.namespaces.drop_ended_threads(plan.vanished):
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
        """Join what the tables show with the processes, and return the snapshot. ``failed`` maps
        processes that could not be read to the reason. ``reported`` are sockets that are published
        already, by the first poll of a process."""
        for pid in reading.moved_pids:
            self.holders.mark_failed(pid)  # It is scanned as a whole in the next poll.
        if self._last is None:
            await self._scan_itself(reported)
        self._namespaces = namespaces
        ended = self._take_ended()
        times = self._event_join.times_of(reading.change.added, reading.sockets, self._is_open)
        self._shown.add_times(times)
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
            sockets = await self._identify(questions)
            # A descriptor may refer to another socket by now, which was held before or not.
            self._changes |= self.holders.take_changes()
            reading = await self._read_again(namespaces, reading, questions, sockets)
            self._inodes |= reading.change.added | reading.change.gone
            dirty |= join.dirty(self._changes, self._inodes)
        resolution = join.resolve(dirty, reading, ended.listed, sockets)
        joined = join.apply(dirty, self._changes, resolution, reading)
        self._shown.add_holdings(joined.short_lived)
        unlisted, self._postponed = [*self._postponed, *ended.unlisted], []
        self._shown.add_short_lived(without_unlisted(unlisted, joined.gone_unlisted))
        return joined.changed

    # What events show.

    async def poll_events(self) -> Snapshot | None:
        """Return a snapshot with what events have shown since the last one; None if there is
        nothing, or if procfs does not answer: the next poll finds it then. What events do not show
        is as it was at the last poll."""
        last = self._last
        if last is None or self.trace is None:
            return None
        try:
            return await self._poll_events(last, self.trace)
        except OSError:
            return None

    async def _poll_events(self, last: Snapshot, trace: TraceEvents) -> Snapshot | None:
        await trace.wait_for_facts()
        ended = self._take_ended()
        # A table may list no socket that is bound but has no peer: see ``without_unlisted``.
        self._postponed += (one for one in ended.unlisted if may_be_in_no_table(one.socket))
        self._shown.add_short_lived(
            one for one in ended.unlisted if not may_be_in_no_table(one.socket)
        )
        inodes = set(ended.listed)
        self._inodes |= inodes  # The next poll joins them, should this fail.
        times = await self._event_join.find_started(self._is_open)
        inodes |= times.keys()
        self._inodes |= inodes
        self._shown.add_times(times)
        changed: frozenset[HoldingKey] = frozenset()
        if inodes:
            await self._refresher.recheck_holders_of(ended.listed.keys())
            self._changes |= self.holders.take_changes()
            changes = {key for key in self._changes if key[1] in inodes}
            reading = self.tables.partial_reading(times)
            resolution = self._join.resolve(inodes, reading, ended.listed, {})
            joined = self._join.apply(inodes, changes, resolution, reading)
            self._changes -= changes
            self._inodes -= inodes
            self._shown.add_holdings(joined.short_lived)
            changed = joined.changed
        if not changed and not self._shown.has_short_lived:
            return None
        return self._publishable(last.coverage, changed)

    def _is_open(self, inode: int) -> bool:
        """Return whether a holding of this socket was published."""
        last = {} if self._last is None else self._last.holdings
        return any((pid, inode) in last for pid in (None, *self.holders.pids_of(inode)))

    @property
    def is_waiting(self) -> bool:
        """Return whether ``poll_events`` is to be called soon, although no event arrives."""
        return self._event_join.is_waiting or self.tables.ends.is_waiting

    def _take_ended(self) -> Ended:
        """Take in the sockets that ended, and the connections that began."""
        ended = self.tables.take_ended(self._namespaces, self._attribution.netns_of)
        self._event_join.add(ended)
        self._shown.add_ended(ended, self._join.end(ended.listed))
        return ended

    def _has_events(self) -> bool:
        return self.trace is not None and self.trace.is_reading

    def _holders_of_listener(self, socket: Socket) -> list[int]:
        inodes = self.tables.ends.listener_inodes(socket)
        return [pid for inode in inodes for pid in self.holders.pids_of(inode)]

    def _read_seconds(self) -> float:
        """Return in how many seconds all tables are read. Events show all that changes without
        moving a counter, unless some were lost."""
        if not self._has_events():
            return READ_SECONDS
        return max(READ_SECONDS, self._sweep)

    def _lost_events(self) -> list[str]:
        """Return a sentence for each kind of events that were lost since the last poll."""
        if self.trace is None:
            return []
        before, now = self._counted, self.trace.counts
        self._counted = now
        sentences = []
        if now.losses != before.losses:
            self.tables.read_all_again()
            sentences.append(
                "kernel events were lost: some connections are reported without a process"
            )
        if now.malformed != before.malformed:
            count = now.malformed - before.malformed
            sentences.append(f"{count} malformed kernel events were skipped")
        return sentences

    async def _identify(self, questions: Sequence[Descriptor]) -> dict[int, Socket]:
        """Return what the descriptors show of their sockets, by inode.
        Descriptors that were closed meanwhile are left out, and those of processes that may not be
        read any more: the rows of their sockets are gone."""
        names = await self.calls.batch(
            partial(read_protocols, self.procfs.root), questions, attrgetter("pid")
        )
        sockets: dict[int, Socket] = {}
        closed: list[int] = []
        for question in questions:
            name = names.get(question)
            state = self.holders.processes[question.pid]
            if not state.readable:
                # No other holder is readable either: ``questions`` prefer readable ones.
                for pid in self.holders.pids_of(question.inode):
                    self.holders.remove_socket(pid, question.inode)
            elif name == b"":
                closed.append(question.inode)
            else:
                sockets[question.inode] = socket_from_protocol(question.inode, name, state.netns)
        await self._refresher.recheck_holders_of(closed)
        return sockets

    async def _read_again(
        self,
        namespaces: Namespaces,
        reading: Reading,
        questions: Iterable[Descriptor],
        sockets: Mapping[int, Socket],
    ) -> Reading:
        """Read the tables that should list identified sockets, unless this poll has read them.
        These may be tables of namespaces that only a thread is in. The first poll reads all of them
        again: the kernel may have skipped rows. Return ``reading`` with what was read."""
        again: dict[int, set[Group]] = {}
        for socket in sockets.values():
            if socket.netns is not None and (self._last is None or not reading.covers(socket)):
                again.setdefault(socket.netns, set()).update(groups_of(socket))
        found = await self.namespaces.find_threads(
            {one.pid for one in questions if one.inode in sockets and groups_of(sockets[one.inode])}
        )
        if not again and not found:
            return reading
        groups = {**again, **dict.fromkeys(found, ALL_GROUPS)}
        return reading.joined(await self.tables.read({**namespaces, **found}, groups))

    def _snapshot(
        self, changed: frozenset[HoldingKey], namespaces: int, failed: Mapping[int, str]
    ) -> Snapshot:
        unread = [
            *self.tables.missing(),
            *self._late_rechecks(),
            *self._refresher.beyond_limits(),
            *self.namespaces.missing(),
            *self._lost_events(),
            *([] if self.trace is None else self.trace.missing()),
        ]
        seen = coverage(self.holders, namespaces, failed, hidden=self._hidden, unread=unread)
        if self.trace is not None:
            seen = seen._replace(events_off=self.trace.off)
        self._changes, self._inodes = set(), set()
        return self._publishable(seen, changed)

    def _publishable(self, seen: Coverage, changed: frozenset[HoldingKey]) -> Snapshot:
        """Return the newest state as a snapshot."""
        shown = self._shown.take()
        self._last = Snapshot(
            time=self._clock(),
            holdings=self._join.holdings,
            processes={
                pid: state.process.start_ticks for pid, state in self.holders.processes.items()
            },
            coverage=seen,
            changed=changed,
            short_lived=shown.short_lived,
            event_times=shown.event_times,
            ended=shown.ended,
        )
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
            event_times={},
            ended={},
        )

    @property
    def event_counts(self) -> tuple[int, int, int]:
        """Return counts since the start: TCP sockets whose end netlink reported while events were
        read, those of them that events reported too, and events that were lost."""
        ends = self.tables.ends.matcher.counts
        lost = 0 if self.trace is None else self.trace.counts.lost
        return ends.notices, ends.with_events, lost

    @property
    def work(self) -> WorkCounters:
        """Return what was read since the start."""
        return WorkCounters(
            self._refresher.processes_scanned,
            self._refresher.descriptors_read,
            self.tables.rows_decoded,
        )
