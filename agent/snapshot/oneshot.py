"""A single snapshot, published in parts while a child process scans all processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from ..kernel.procfs.forked_scan import ForkedScan, ScanBatch, scan_batch
from ..model import Coverage, Holding, Process, Socket
from .blocking import NO_ANSWER, CallTimeout, place_of_process
from .poller import Poller
from .reading import ALL_GROUPS, Change, Reading


async def take_snapshot(
    poller: Poller, scan: ForkedScan | None, *, include_unowned: bool = False
) -> AsyncIterator[Iterable[Holding] | Coverage]:
    """Yield the holdings of a single poll, in parts, and at last its coverage.

    ``scan`` is a scan under way in a child process; without one the processes are scanned here.
    ``include_unowned``: with the rows that no process can hold. Raise OSError if no process is
    listed.
    """
    procfs, tables, namespaces = poller.procfs, poller.tables, poller.namespaces
    unscanned = set(await poller.list_processes())
    own = {} if procfs.own is None else {procfs.own.netns: [procfs.own.pid]}
    own_groups = dict.fromkeys(own, ALL_GROUPS)
    reading = await tables.read(own, own_groups)
    holdings = _ScannedHoldings(poller, reading.sockets)
    failed: dict[int, str] = {}
    while scan is not None and (batch := await _next_batch(poller, scan)) is not None:
        unscanned.difference_update(process.pid for process, *_rest in batch.holders)
        failed.update(batch.failed)
        yield holdings.of(batch)
    if unscanned:  # Processes that ended since they were listed, or that a killed scan left out.
        pids = list(unscanned)
        batch = scan_batch(await poller.calls.batch(poller.scanner.scan, pids, place_of_process))
        failed.update(batch.failed)
        failed.update((pid, NO_ANSWER) for pid in pids if poller.calls.hangs(pid))
        yield holdings.of(batch)
    yield holdings.paired()
    # The sockets of other namespaces, and those that no table or no process shows.
    every = namespaces.all()
    others = {netns: ways for netns, ways in every.items() if netns not in own}
    reading = await tables.read({**own, **others}, dict.fromkeys(others, ALL_GROUPS))
    reported = holdings.reported
    sockets = {inode: reading.sockets[inode] for inode in reading.sockets.keys() - reported}
    rest = Reading(sockets, Change(set(sockets), set()), {**reading.groups, **own_groups})
    snapshot = await poller.join_reading(every, rest, failed, reported=reported)
    yield map(holdings.with_peer, snapshot.holdings.values())
    if include_unowned:
        yield (poller.builder.build(row, None, ()) for row in tables.unowned())
    yield snapshot.coverage


async def _next_batch(poller: Poller, scan: ForkedScan) -> ScanBatch | None:
    """Return the next part of a scan in a child, None at its end. Kill a child that hangs."""
    try:
        return await poller.calls.call("scan", scan.next_batch)
    except CallTimeout:
        scan.stop()
        return None


class _ScannedHoldings:
    """Makes holdings of scanned processes; ``reported`` are the inodes of their sockets.

    The poller gets the descriptors whose sockets are not in ``sockets``.
    """

    def __init__(self, poller: Poller, sockets: Mapping[int, Socket]) -> None:
        self.reported: set[int] = set()
        self._poller = poller
        self._sockets = sockets
        self._holder_of: dict[int | None, int] = {}  # Of unix sockets with a peer.
        # Unix sockets whose peers' holders were not scanned yet.
        self._waiting: list[tuple[Socket, Process, tuple[int, ...]]] = []

    def of(self, batch: ScanBatch) -> list[Holding]:
        """Return the holdings of processes, but for unix sockets that wait for their peer."""
        holdings: list[Holding] = []
        build, sockets, reported = self._poller.builder.build, self._sockets, self.reported
        holder_of = self._holder_of
        for process, held, readable, namespace, directory in batch.holders:
            unlisted: dict[int, int] = {}
            for inode, fds in held.items():
                socket = sockets.get(inode)
                if socket is None:
                    unlisted.update(dict.fromkeys(fds, inode))
                    continue
                reported.add(inode)
                peer = socket.peer_inode
                if not peer:
                    holdings.append(build(socket, process, fds))
                    continue
                holder_of[inode] = process.pid
                if peer in holder_of or peer in held:
                    peer_pid = holder_of.get(peer, process.pid)
                    holdings.append(build(socket, process, fds, peer_pid))
                else:
                    self._waiting.append((socket, process, fds))
            netns = self._poller.procfs.netns_id(namespace) or namespace
            self._poller.holders.set_scan(process, netns, directory, unlisted if readable else None)
        return holdings

    def paired(self) -> Iterator[Holding]:
        """Yield the holdings that waited for the holder of their peer."""
        build, holder_of = self._poller.builder.build, self._holder_of
        return (build(*one, holder_of.get(one[0].peer_inode)) for one in self._waiting)

    def with_peer(self, holding: Holding) -> Holding:
        """Return the holding with a holder of its peer, if a scan showed one."""
        if holding.peer_pid is not None:
            return holding
        return holding._replace(peer_pid=self._holder_of.get(holding.socket.peer_inode))
