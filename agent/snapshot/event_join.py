"""Join what events show between two polls with what the last poll knows.

A connection that began and still exists is looked up over netlink, and its process is read: the
outcome is what the next poll would find. What cannot be found out so is left to the next poll.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..kernel.trace.connections import SERVER, Started
from ..model import Socket
from .attribution import Attribution
from .ended import DIRECTIONS, RowKey, row_key
from .holders import Holders
from .live import LiveConnections
from .reading import Ended
from .refresh import HolderRefresher
from .tables import TableReader

_CLOSE_WAIT = 8  # include/net/tcp_states.h
# Descriptors that may be listed per second to find those of new connections: 40 ms of CPU.
DESCRIPTORS_PER_SECOND = 20_000
# Processes that may have accepted a connection and are searched for it. Others wait for the poll.
MAX_ACCEPTERS = 8
# Times at which connections began, for the poll that finds them; 300 bytes each.
MAX_TIMES = 20_000


class EventJoin:
    """Finds the sockets and holders of connections that began or changed after a poll."""

    def __init__(
        self,
        tables: TableReader,
        holders: Holders,
        refresher: HolderRefresher,
        attribution: Attribution,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables = tables
        self._holders = holders
        self._refresher = refresher
        self._attribution = attribution
        self._clock = clock
        self._live = LiveConnections()
        self._descriptors = float(DESCRIPTORS_PER_SECOND)
        self._counted_at = clock()
        self._opened: dict[RowKey, int] = {}  # When connections began that no poll has found.

    @property
    def is_waiting(self) -> bool:
        """Return whether a connection waits to be looked up."""
        return self._live.is_waiting

    def add(self, ended: Ended) -> None:
        """Take in the connections that began or ended."""
        self._live.add(ended.started, self._clock())
        finished = [one.finished for one in (*ended.listed.values(), *ended.unlisted)]
        self._live.drop(one.ends for one in finished if one is not None)
        for one in ended.started:
            if one.opened is not None and len(self._opened) < MAX_TIMES:
                self._opened[row_key(one.ends)] = one.opened

    def begin_poll(self) -> None:
        """Leave the connections that wait to the poll that begins."""
        self._live.clear()

    def times_of(
        self, inodes: Iterable[int], sockets: Mapping[int, Socket], is_open: Callable[[int], bool]
    ) -> dict[int, int]:
        """Return the times at which the connections of sockets that a poll found began; forget all
        others. ``is_open``: a holding of this inode was published before, so that the time of its
        opening is not that of what changed now."""
        opened, self._opened = self._opened, {}
        if not opened:
            return {}
        times = {}
        for inode in inodes:
            row = sockets.get(inode)
            if row is not None and row.proto == "tcp":
                key = (row.local_addr, row.local_port, row.remote_addr, row.remote_port)
                if key in opened and not is_open(inode):
                    times[inode] = opened[key]
        return times

    async def find_started(self, is_open: Callable[[int], bool]) -> dict[int, int]:
        """Put connections that are due into the tables, if a process holds them; return the times
        of their events, in nanoseconds of the trace clock, by inode. ``is_open`` is as in
        ``times_of``."""
        due = self._live.due(self._clock())
        if not due:
            return {}
        times = self._shut_down([one for one in due if one.state == _CLOSE_WAIT])
        rows = await self._look_up(due)
        if not rows:
            return times
        await self._read_holders([(one, row) for one, _netns, row in rows])
        for one, netns, row in rows:
            if self._holders.pids_of(row.inode):
                self._tables.put(netns, row)
                is_opening = one.state != _CLOSE_WAIT and not is_open(row.inode)
                times[row.inode] = one.opened if is_opening and one.opened else one.time
                self._live.drop([one.ends])
                self._opened.pop(row_key(one.ends), None)
        return times

    def _shut_down(self, started: Sequence[Started]) -> dict[int, int]:
        """Change the state of connections in text tables that their peers have shut down."""
        times: dict[int, int] = {}
        for one in started:
            netns = None if one.task is None else self._attribution.netns_of(one.task)
            found = self._tables.ends.find(netns, one.ends)
            if found is not None:
                at, row = found
                self._tables.put(at, row._replace(state="CLOSE_WAIT"))
                times[row.inode] = one.time
                self._live.drop([one.ends])
        return times

    async def _look_up(self, due: Sequence[Started]) -> list[tuple[Started, int, Socket]]:
        """Return the connections that exist, with their namespaces and rows."""
        wanted = [
            (one, None if one.task is None else self._attribution.netns_of(one.task)) for one in due
        ]
        found = await self._tables.look_up([(one.ends, netns) for one, netns in wanted])
        rows = []
        for (one, _netns), answer in zip(wanted, found, strict=True):
            if answer is None or not answer[1].inode:  # Gone, or not accepted yet.
                continue
            netns, row = answer
            before = self._tables.sockets.get(row.inode)
            if before is not None and before.direction is not None:
                row = row._replace(direction=before.direction)
            elif one.role is not None:
                row = row._replace(direction=DIRECTIONS[one.role])
            rows.append((one, netns, row))
        return rows

    async def _read_holders(self, rows: Sequence[tuple[Started, Socket]]) -> None:
        """Read the descriptors of the processes that may hold these sockets."""
        now = self._clock()
        passed, self._counted_at = now - self._counted_at, now
        limit = float(DESCRIPTORS_PER_SECOND)
        self._descriptors = min(limit, self._descriptors + passed * limit)
        pids: dict[int, None] = {}
        for one, row in rows:
            if self._holders.pids_of(row.inode):
                continue
            if one.role == SERVER:
                accepters = self._tables.ends.listener_inodes(row)
                holders = [pid for inode in accepters for pid in self._holders.pids_of(inode)]
                pids.update(dict.fromkeys(holders if len(holders) <= MAX_ACCEPTERS else ()))
            elif one.task is not None:
                pids[one.task.pid] = None
        affordable = []
        for pid in pids:
            state = self._holders.processes.get(pid)
            cost = 100 if state is None else max(1, len(state.fds))
            if cost <= self._descriptors:
                self._descriptors -= cost
                affordable.append(pid)
        await self._refresher.read_new(affordable)
