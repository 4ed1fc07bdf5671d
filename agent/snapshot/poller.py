"""One concurrent pass over procfs → a snapshot.

It knows the sources and the join, and nothing of who reads the snapshots.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from operator import itemgetter

from ..kernel.cgroups import Cgroups
from ..kernel.netlink.client import NetlinkClient
from ..kernel.procfs import net_tables
from ..kernel.procfs.forked_scan import ForkedScan, ScanBatch, batch_of
from ..kernel.procfs.mount import Way
from ..kernel.procfs.scanner import ProcessScanner
from ..kernel.procfs.sockprotoname import protocols
from ..kernel.procfs.stat import place_of
from ..kernel.users import Users
from ..model import (
    MAX_LISTED_FDS,
    CgroupInfo,
    Coverage,
    Holding,
    Key,
    Process,
    Snapshot,
    Socket,
)
from .blocking import NO_ANSWER, BlockingCalls, CallTimeout
from .coverage import coverage
from .holders import Holders
from .join import Descriptor, Join
from .namespaces import NamespaceIndex
from .plan import SWEEP_SECONDS
from .quota import Limits
from .refresh import HolderRefresher, itself
from .schedule import ALL_GROUPS, Group
from .socket_tables import Change
from .stats import WorkCounters
from .tables import Reading, TableReader, groups_of

# Processes whose threads are looked at in a poll, in search of network namespaces, and threads that
# such a process has at the most: 10 us each.
MAX_THREADED, MAX_THREADS = 10, 500
# With longer turns it is published how long it may take until a replaced descriptor shows.
REPORTED_TURN_SECONDS = 5


def _nothing() -> None:
    pass


def without_unlisted(ended: Iterable[Socket], gone: Counter[str | None]) -> list[Socket]:
    """Return the sockets of which only their end was reported, without those that are published.

    ``gone`` counts, by protocol, the published ones that were in no table and went in the same
    poll. A TCP socket that is bound and does not listen is in no table: its end is reported without
    a peer. Other protocols have all bound sockets in their tables.
    """
    left = gone["tcp"]
    others = []
    for socket in ended:
        if left > 0 and socket.proto == "tcp" and socket.remote_addr is None:
            left -= 1
        else:
            others.append(socket)
    return others


class Poller:
    """Takes snapshots of one procfs. ``sweep``: seconds in which everything is read again."""

    def __init__(
        self,
        walker: ProcessScanner,
        *,
        netlink: NetlinkClient | None = None,
        sweep: float = SWEEP_SECONDS,
        limits: Limits = Limits(),  # noqa: B008 (it is frozen)
        clock: Callable[[], float] = time.time,
    ) -> None:
        procfs = walker.procfs
        self.progressed: Callable[[], None] = _nothing  # Called after each part of a poll.
        self._procfs = procfs
        self._clock = clock
        self._users = Users()
        self._holders = Holders()
        self._hops = BlockingCalls()
        self._walker = walker
        self._hidden = False
        self._namespaces = NamespaceIndex(self._holders, limits.namespaces)
        self._looking = HolderRefresher(walker, self._holders, sweep, self._hops, limits)
        self._sources = TableReader(procfs, netlink, self._hops)
        self._cgroups = Cgroups()
        self._join = Join(self._holders, self._sources.sockets, self._users.owner, self._place)
        self._last: Snapshot | None = None
        self.coverage = Coverage(0, 0, 0)
        self._unjoined: set[int] = set()  # Sockets that changed since a poll was last completed.

    async def poll(self) -> Snapshot:
        """One pass. The walk comes first: a socket that it finds is in a table by then.

        Raises OSError when there is no procfs, and never was.
        """
        self._hops.forget_returned()
        try:
            pids = await self._list()
            return await self._poll(pids)
        except OSError as error:
            return self._blind(error)

    async def _list(self) -> list[int]:
        """List the processes. Raises OSError."""
        pids, self._hidden = await self._hops.call(
            "processes", lambda: (self._procfs.pids(), self._procfs.hides_processes())
        )
        return pids

    async def _poll(self, pids: list[int]) -> Snapshot:
        self._users.expire()
        while self._procfs.moved:  # To another namespace: they are looked at whole.
            self._holders.failed(self._procfs.moved.pop())
        failed = await self._looking.refresh(pids, self._join.unlisted())
        self.progressed()
        namespaces = self._namespaces.every()
        due = await self._sources.due(
            self._namespaces.on_time(namespaces),
            ran=self._ran_in(),
            doubted=self._join.doubted(),
            datagrams=self._with_datagrams(),
        )
        if await self._leave_ended_threads():
            namespaces = self._namespaces.every()
        reading = await self._sources.read(namespaces, due)
        self.progressed()
        return await self._joined(namespaces, reading, failed)

    def _ran_in(self) -> set[int]:
        """Return the namespaces in which a process has run since the poll before."""
        watched, has_run = self._holders.watched, self._looking.has_run
        return {known.netns for pid, known in watched.items() if has_run(pid)}

    def _with_datagrams(self) -> set[int]:
        """Return the namespaces in which a holder of a UDP socket has run."""
        watched, has_run = self._holders.watched, self._looking.has_run
        found: set[int] = set()
        for inode in self._sources.datagrams():
            for pid in self._holders.pids_of(inode):
                if has_run(pid) and pid in watched:
                    found.add(watched[pid].netns)
        return found

    @property
    def work(self) -> WorkCounters:
        """What has been read since the start."""
        looking = self._looking
        return WorkCounters(looking.processes, looking.descriptors, self._sources.decoded)

    async def once(
        self, walk: ForkedScan | None, *, unowned: bool = False
    ) -> AsyncIterator[Iterable[Holding]]:
        """The holdings of a first and only pass, in parts, while its walk goes on elsewhere.

        Without ``walk`` it walks itself. ``unheld``: with the rows that no process can hold.
        ``coverage`` is known when it is through. Raises OSError when there is no procfs.
        """
        left = set(await self._list())
        own = {} if self._procfs.own is None else {self._procfs.own[0]: [self._procfs.own[1]]}
        every = dict.fromkeys(own, ALL_GROUPS)
        await self._sources.read(own, every)
        sockets = self._sources.sockets
        failed: dict[int, str] = {}
        told: set[int] = set()
        holder_of: dict[int | None, int] = {}
        # Unix sockets whose peers' holders are still to be seen.
        paired: list[tuple[Socket, Process, tuple[int, ...]]] = []
        hold, make, owners = self._join.hold, Holding._make, self._users.known

        def taken(found: ScanBatch) -> Iterator[Holding]:
            failed.update(found.failed)
            for process, held, readable, namespace, directory in found.looks:
                pid = process.pid
                left.discard(pid)
                unlisted: dict[int, int] = {}
                for inode, fds in held.items():
                    socket = sockets.get(inode)
                    if socket is None:
                        unlisted.update(dict.fromkeys(fds, inode))
                        continue
                    told.add(inode)
                    peer = socket[16]
                    if peer:
                        holder_of[inode] = pid
                        if peer not in holder_of and peer not in held:
                            paired.append((socket, process, fds))
                            continue
                        yield hold(socket, process, fds, holder_of.get(peer, pid))
                        continue
                    # hold() written out: it is most of what this loop costs.
                    owner = owners.get(socket[13])
                    if owner is None or len(fds) > MAX_LISTED_FDS:
                        yield hold(socket, process, fds)
                    else:
                        yield make((socket, process, fds, owner, None, None, 0))
                # What is told already need not be remembered.
                netns = self._procfs.netns_id(namespace) or namespace
                self._holders.take(process, netns, directory, unlisted if readable else None, ())

        while walk is not None and (found := await self._batch(walk)) is not None:
            yield taken(found)
        if left:  # Whom the walk left out is gone, or it was killed.
            pids = list(left)
            yield taken(batch_of(await self._hops.batch(self._walker.walk, pids, itself)))
            failed.update((pid, NO_ANSWER) for pid in pids if self._hops.hangs(pid))
        yield (hold(*pair, holder_of.get(pair[0].peer_inode)) for pair in paired)
        namespaces = self._namespaces.every()
        others = {netns: pids for netns, pids in namespaces.items() if netns not in own}
        reading = await self._sources.read({**own, **others}, dict.fromkeys(others, ALL_GROUPS))
        rest = {inode: sockets[inode] for inode in sockets.keys() - told}
        sockets.clear()
        sockets.update(rest)
        reading = Reading(Change(set(rest), set()), {**reading.groups, **every})
        snapshot = await self._joined(namespaces, reading, failed, told=told)
        yield (
            holding
            if holding.peer_pid is not None
            else holding._replace(peer_pid=holder_of.get(holding.socket.peer_inode))
            for holding in snapshot.holdings.values()
        )
        if unowned:
            yield (hold(row, None, ()) for row in self._sources.unowned())
        self.coverage = snapshot.coverage

    async def _batch(self, walk: ForkedScan) -> ScanBatch | None:
        """Wait for the next part of a walk elsewhere; one that hangs is ended, and made here."""
        try:
            return await self._hops.call("walk", walk.batch)
        except CallTimeout:
            walk.stop()
            return None

    async def _joined(
        self,
        namespaces: Mapping[int, list[Way]],
        reading: Reading,
        failed: Mapping[int, str],
        *,
        told: Container[int] = (),
    ) -> Snapshot:
        """The snapshot, now that the processes were looked at and the tables read."""
        holders, join = self._holders, self._join
        if self._last is None:
            await self._look_at_ourselves(told)
        ended = self._sources.take_ended(namespaces)
        join.take_ended(ended.known)
        self._unjoined |= reading.change.fresh | reading.change.gone | ended.known.keys()
        await self._looking.recheck_holders_of(reading.change.gone | ended.known.keys())
        rows = self._sources.sockets
        await self._looking.search([rows[inode] for inode in join.orphans()])
        self.progressed()
        changed: frozenset[Key] = frozenset()
        dirty = join.dirty(self._unjoined)
        if dirty or self._last is None:
            changed = await self._resolve(namespaces, reading, dirty, ended.known)
            self.progressed()
        self._unjoined.clear()
        processes = {pid: known.process.start_ticks for pid, known in holders.watched.items()}
        unknown = without_unlisted(ended.unknown, join.ended_unlisted)
        self._last = Snapshot(
            time=self._clock(),
            holdings=join.holdings,
            processes=processes,
            coverage=coverage(
                holders,
                len(namespaces),
                failed,
                hidden=self._hidden,
                unread=[
                    *self._sources.missing(),
                    *self._late_rechecks(),
                    *self._looking.beyond_limits(),
                    *self._namespaces.missing(),
                ],
            ),
            changed=changed,
            short_lived=(*join.missed, *(join.hold(row, None, ()) for row in unknown)),
        )
        return self._last

    async def _resolve(
        self,
        namespaces: Mapping[int, list[Way]],
        reading: Reading,
        dirty: set[int],
        ended: Mapping[int, Socket],
    ) -> frozenset[Key]:
        """Bring the holdings up to date; return the keys of those that changed."""
        join, sources = self._join, self._sources

        def covers(socket: Socket) -> bool | None:
            return sources.covers(reading, socket)

        answers: dict[int, Socket] = {}
        asked = join.unknown(dirty, covers, ended)
        if asked:
            answers = await self._ask(asked)
            # A descriptor that moved meanwhile may lead to another socket, held before or not.
            dirty |= join.dirty(())
            again = self._unread(reading, answers.values())
            found = await self._find_threads(asked, answers)
            if again or found:
                namespaces = {**namespaces, **found}
                more = await sources.read(namespaces, {**again, **dict.fromkeys(found, ALL_GROUPS)})
                reading = reading.joined(more)
                dirty |= more.change.fresh | more.change.gone
        sockets = join.resolve(dirty, answers, covers, ended)
        return join.finish(dirty, sockets, covers)

    async def _find_threads(
        self, asked: Iterable[Descriptor], answers: Mapping[int, Socket]
    ) -> dict[int, list[Way]]:
        """Return the ways to network namespaces that only threads of some holders are in: those of
        sockets that a table should list and none does."""
        watched = self._holders.watched
        pids = {
            one.pid
            for one in asked
            if one.inode in answers
            and one.pid in watched
            and watched[one.pid].threads in range(MAX_THREADS)  # 0: not known.
            and watched[one.pid].threads != 1
            and groups_of(answers[one.inode])
        }
        # A process may have any number of threads, and each is looked at.
        few = list(pids)[:MAX_THREADED]
        return await self._note_threads(few) if few else {}

    async def _leave_ended_threads(self) -> bool:
        """Leave the namespaces whose thread has ended, unless another one of its process is there;
        return whether there were any."""
        ended = self._namespaces.drop_threads(self._sources.vanished)
        if ended:
            await self._note_threads(ended)
        return bool(ended)

    async def _note_threads(self, pids: Collection[int]) -> dict[int, list[Way]]:
        """Note the namespaces that only threads of these processes are in; return the ways."""
        found = await self._hops.batch(self._procfs.thread_namespaces, list(pids), itself)
        return self._namespaces.add_threads(found)

    def _unread(self, reading: Reading, answers: Iterable[Socket]) -> dict[int, set[Group]]:
        """Return the groups that should list these sockets and were not read in this poll.

        In the first poll all of them: read while they changed, they may have skipped a row.
        """
        again: dict[int, set[Group]] = {}
        for socket in answers:
            read = self._sources.covers(reading, socket)
            if socket.netns is not None and (not read or self._last is None):
                again.setdefault(socket.netns, set()).update(groups_of(socket))
        return again

    def _late_rechecks(self) -> list[str]:
        """Return a sentence where descriptors of running processes are read again late."""
        seconds = self._looking.turn
        if seconds <= REPORTED_TURN_SECONDS:
            return []
        sentence = "processes that run hold many descriptors: a replaced one may show after"
        return [f"{sentence} {seconds} s"]

    async def _look_at_ourselves(self, told: Container[int]) -> None:
        """Take in the sockets that we opened to read the tables, but for those told already."""
        if self._procfs.own is None:
            return
        walked = await self._hops.batch(self._walker.walk, [self._procfs.own[1]], itself)
        for look in walked.looks:
            fds = {fd: inode for fd, inode in look.fds.items() if inode not in told}
            self._looking.take(look._replace(fds=fds))

    def _place(self, cgroup_id: int) -> CgroupInfo | None:
        path = self._cgroups.path(cgroup_id)
        return None if path is None else place_of({"": path})

    async def _ask(self, asked: Sequence[Descriptor]) -> dict[int, Socket]:
        """What the descriptors tell of their sockets; without those that were closed meanwhile,
        and those of processes that may no longer be read: their rows are gone."""
        names = await self._hops.batch(partial(protocols, self._procfs.root), asked, itemgetter(0))
        told: dict[int, Socket] = {}
        gone: list[int] = []
        for descriptor in asked:
            name = names.get(descriptor)
            known = self._holders.watched[descriptor.pid]
            if not known.readable:
                # Nor may any other that held it.
                for pid in self._holders.pids_of(descriptor.inode):
                    self._holders.forget(pid, descriptor.inode)
            elif name == b"":
                gone.append(descriptor.inode)
            else:
                told[descriptor.inode] = net_tables.unlisted(descriptor.inode, name, known.netns)
        await self._looking.recheck_holders_of(gone)
        return told

    def _blind(self, error: OSError) -> Snapshot:
        """What was there still stands while nothing can be seen."""
        last = self._last
        if last is None:
            raise error
        why = f"processes could not be listed ({error.strerror})"
        blind = last.coverage._replace(missing=(why,))
        return last._replace(
            time=self._clock(), coverage=blind, changed=frozenset(), short_lived=()
        )
