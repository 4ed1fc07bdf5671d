"""One concurrent pass over procfs → a snapshot.

It knows the sources and the join, and nothing of who reads the snapshots.
"""

from __future__ import annotations

import time
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

from aiofiles.base import wrap

from .cgroups import Cgroups
from .holders import SWEEP_SECONDS, Holders
from .join import Descriptor, Join
from .looking import Looking
from .model import Coverage, Holding, Key, Place, Process, Snapshot, Socket
from .netlink.reader import NetlinkReader
from .procfs import net
from .procfs.forked import ForkedWalk, Found, found_in
from .procfs.process import place_of
from .procfs.walker import Walker
from .sight import coverage
from .sources import Sources
from .tables import Change
from .users import Users
from .vitals import Work

NOTHING = Change(set(), set())


def _nothing() -> None:
    pass


class Poller:
    """Takes snapshots of one procfs. ``sweep``: seconds in which everything is read again."""

    def __init__(
        self,
        walker: Walker,
        *,
        netlink: NetlinkReader | None = None,
        sweep: float = SWEEP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        procfs = walker.procfs
        self.progressed: Callable[[], None] = _nothing  # Called after each part of a poll.
        self._procfs = procfs
        self._clock = clock
        self._users = Users()
        self._holders = Holders()
        self._looking = Looking(walker, self._holders, sweep)
        self._sources = Sources(procfs, netlink)
        self._cgroups = Cgroups()
        self._join = Join(self._holders, self._sources.sockets, self._users.owner, self._place)
        self._last: Snapshot | None = None
        self.coverage = Coverage(0, 0, 0)
        self._batch_soon = wrap(ForkedWalk.batch)
        self._walk_soon = wrap(walker.walk)
        self._ask_soon = wrap(walker.protocols)

    async def poll(self) -> Snapshot:
        """One pass. The walk comes first: a socket that it finds is in a table by then.

        Raises OSError when there is no procfs, and never was.
        """
        try:
            pids = self._procfs.pids()
        except OSError as error:
            return self._blind(error)
        self._users.expire()
        while self._procfs.moved:  # To another namespace: they are looked at whole.
            self._holders.failed(self._procfs.moved.pop())
        failed = await self._looking.what_changed(pids, self._join.unlisted())
        self.progressed()
        namespaces = self._namespaces()
        doubted = namespaces if self._join.doubts else ()
        due = await self._sources.due(namespaces, doubted, self._touched(namespaces))
        change = await self._sources.read(namespaces, due)
        self.progressed()
        return await self._joined(namespaces, change, failed, read=self._sources.read_all)

    def _touched(self, namespaces: Mapping[int, object]) -> Collection[int]:
        """The namespaces of the processes whose sockets are not what they were."""
        touched = {pid for pid, _inode in self._holders.touched}
        watched = self._holders.watched
        # Of a process that is gone the namespace is not known any more.
        if not all(pid in watched for pid in touched):
            return namespaces.keys()
        return {watched[pid].netns for pid in touched if pid is not None}

    @property
    def work(self) -> Work:
        """What has been read since the start."""
        looking = self._looking
        return Work(looking.processes, looking.descriptors, self._sources.decoded)

    async def once(
        self, walk: ForkedWalk | None, *, unheld: bool = False
    ) -> AsyncIterator[Iterable[Holding]]:
        """The holdings of a first and only pass, in parts, while its walk goes on elsewhere.

        Without ``walk`` it walks itself. ``unheld``: with the rows that no process can hold.
        ``coverage`` is known when it is through. Raises OSError when there is no procfs.
        """
        left = set(self._procfs.pids())
        own = {} if self._procfs.own is None else {self._procfs.own[0]: [self._procfs.own[1]]}
        await self._sources.read(own, list(own))
        sockets = self._sources.sockets
        failed: dict[int, str] = {}
        told: set[int] = set()
        holder_of: dict[int | None, int] = {}
        # Unix sockets whose peers' holders are still to be seen.
        paired: list[tuple[Socket, Process, tuple[int, ...]]] = []
        hold, make, owners = self._join.hold, Holding._make, self._users.known

        def taken(found: Found) -> Iterator[Holding]:
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
                    if owner is None:
                        yield hold(socket, process, fds)
                    else:
                        yield make((socket, process, fds, owner, None, None))
                # What is told already need not be remembered.
                netns = self._procfs.netns_id(namespace) or namespace
                self._holders.take(process, netns, directory, unlisted if readable else None, ())

        while walk is not None and (found := await self._batch_soon(walk)) is not None:
            yield taken(found)
        if left:  # Whom the walk left out is gone, or it was killed.
            yield taken(found_in(await self._walk_soon(left)))
        yield (hold(*pair, holder_of.get(pair[0].peer_inode)) for pair in paired)
        namespaces = self._namespaces()
        others = {netns: pids for netns, pids in namespaces.items() if netns not in own}
        await self._sources.read({**own, **others}, list(others))
        rest = {inode: sockets[inode] for inode in sockets.keys() - told}
        sockets.clear()
        sockets.update(rest)
        change = Change(set(rest), set())
        snapshot = await self._joined(namespaces, change, failed, read=True, told=told)
        yield (
            holding
            if holding.peer_pid is not None
            else holding._replace(peer_pid=holder_of.get(holding.socket.peer_inode))
            for holding in snapshot.holdings.values()
        )
        if unheld:
            yield (hold(row, None, ()) for row in self._sources.unheld())
        self.coverage = snapshot.coverage

    def _namespaces(self) -> dict[int, list[int]]:
        """The pids of each network namespace."""
        namespaces: dict[int, list[int]] = {}
        for pid, known in self._holders.watched.items():
            namespaces.setdefault(known.netns, []).append(pid)
        return namespaces

    async def _joined(
        self,
        namespaces: Mapping[int, list[int]],
        change: Change,
        failed: Mapping[int, str],
        *,
        read: bool,
        told: Container[int] = (),
    ) -> Snapshot:
        """The snapshot, now that the processes were looked at and the tables read."""
        holders, join = self._holders, self._join
        if self._last is None:
            await self._look_at_ourselves(told)
        early = {inode for _pid, inode in holders.touched}
        await self._looking.lost_their_rows(change.gone)
        late = {inode for _pid, inode in holders.touched} - early
        rows = self._sources.sockets
        await self._looking.search([rows[inode] for inode in join.orphans()])
        self.progressed()
        changed: frozenset[Key] = frozenset()
        dirty = join.dirty(change.fresh | change.gone)
        if dirty or self._last is None:
            sockets, asked = join.resolve(dirty, read=read, late=late)
            if asked:
                unlisted = await self._ask(asked)
                doubtful = self._doubtful(asked, unlisted) if self._last is None else None
                if doubtful:
                    again = await self._sources.reread(namespaces, doubtful)
                    dirty |= again.fresh | again.gone
                    sockets, asked = join.resolve(dirty, read=read)
                    unlisted = await self._ask(asked)
                sockets.update(unlisted)
            changed = join.finish(dirty, sockets, read=read)
            self.progressed()
        processes = {pid: known.process.start_ticks for pid, known in holders.watched.items()}
        brief = tuple(join.hold(row, None, ()) for row in self._sources.brief())
        self._last = Snapshot(
            time=self._clock(),
            holdings=join.holdings,
            processes=processes,
            coverage=coverage(
                holders,
                len(namespaces),
                failed,
                hidden=self._procfs.hides_processes(),
                unread=self._sources.missing(),
            ),
            changed=changed,
            brief=brief,
        )
        return self._last

    async def _look_at_ourselves(self, told: Container[int]) -> None:
        """Take in the sockets that we opened to read the tables, but for those told already."""
        if self._procfs.own is None:
            return
        walked = await self._walk_soon([self._procfs.own[1]])
        for look in walked.looks:
            fds = {fd: inode for fd, inode in look.fds.items() if inode not in told}
            self._looking.take(look._replace(fds=fds))

    def _place(self, cgroup_id: int) -> Place | None:
        path = self._cgroups.path(cgroup_id)
        return None if path is None else place_of({"": path})

    async def _ask(self, asked: Sequence[Descriptor]) -> dict[int, Socket]:
        """What the descriptors tell of their sockets; without those that were closed meanwhile,
        and those of processes that may no longer be read: their rows are gone."""
        names = await self._ask_soon(asked)
        told: dict[int, Socket] = {}
        for descriptor, name in zip(asked, names, strict=True):
            if not self._holders.watched[descriptor.pid].readable:
                # Nor may any other that held it.
                for pid in self._holders.pids_of(descriptor.inode):
                    self._holders.forget(pid, descriptor.inode)
            elif name != b"":
                told[descriptor.inode] = net.unlisted(descriptor.inode, name)
        return told

    def _doubtful(
        self, asked: Sequence[Descriptor], told: Mapping[int, Socket]
    ) -> dict[int, set[str]]:
        """The tables that should have shown these sockets: read while they changed, they may have
        skipped them, so that it takes a second reading to believe that they are not in there."""
        doubtful: dict[int, set[str]] = {}
        for descriptor in asked:
            socket = told.get(descriptor.inode)
            name = None if socket is None else self._sources.listing(socket)
            if name is not None:
                netns = self._holders.watched[descriptor.pid].netns
                doubtful.setdefault(netns, set()).add(name)
        return doubtful

    def _blind(self, error: OSError) -> Snapshot:
        """What was there still stands while nothing can be seen."""
        last = self._last
        if last is None:
            raise error
        why = f"processes could not be listed ({error.strerror})"
        blind = last.coverage._replace(missing=(why,))
        return last._replace(time=self._clock(), coverage=blind, changed=frozenset(), brief=())
