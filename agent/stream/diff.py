"""The deltas between two snapshots. Pure: no clock, no I/O, no asyncio, no JSON.

Coverage comes first, then closes, updates and opens: a reused key closes before it opens. Sockets
that opened and closed between the polls come last, each with its open and its close.
"""

from __future__ import annotations

from operator import attrgetter

from ..model import Closed, Coverage, Delta, Holding, HoldingKey, Opened, Process, Snapshot, Updated

# What never changes in a socket; what an update reports of a socket; and of a process: all but the
# command line, which some programs rewrite all the time.
_socket_kind = attrgetter("proto", "family", "type")
_socket_fields = attrgetter(
    "state", "local_addr", "local_port", "remote_addr", "remote_port", "path", "direction", "netns",
    "peer_inode", "backlog", "interface",
)  # fmt: skip
_process_fields = attrgetter(*(name for name in Process._fields if name != "cmdline"))


class DeltaTracker:
    """Computes the deltas from each snapshot to the next. The first snapshot has none.

    ``opened_at`` is when holdings opened, in seconds since the Unix epoch, by key; without those
    that were open at the first poll.
    """

    def __init__(
        self, last: Snapshot | None = None, opened_at: dict[HoldingKey, float] | None = None
    ) -> None:
        """``last`` and ``opened_at`` are those of an earlier run whose stream continues."""
        self._last = last
        self._restored = last is not None
        self.opened_at = dict(opened_at or {})

    def advance(self, current: Snapshot) -> list[Delta]:
        """Return the deltas from the snapshot before to this one, in the order of the stream."""
        last, self._last = self._last, current
        if last is None:
            return []
        before, after = last.holdings, current.holdings
        # A new run does not know what changed since the earlier one.
        compare_all, self._restored = self._restored or current.changed is None, False
        keys = before.keys() | after.keys() if compare_all else current.changed or ()
        ended: list[tuple[HoldingKey, Holding]] = []
        begun: list[tuple[HoldingKey, Holding]] = []
        updated: list[Delta] = []
        for key in keys:
            was, now = before.get(key), after.get(key)
            if was is now:
                continue
            if was is None:
                if now is not None:
                    begun.append((key, now))
            elif now is None:
                ended.append((key, was))
            elif not is_same(was, now):
                ended.append((key, was))
                begun.append((key, now))
            elif is_changed(was, now):
                updated.append(Updated(now, was, self._seconds(key, current.time)))
        deltas: list[Delta] = []
        if is_coverage_changed(last.coverage, current.coverage):
            deltas.append(current.coverage)
        deltas += self._closes(ended, current)
        deltas += updated
        for key, now in begun:
            self.opened_at[key] = current.time
            deltas.append(Opened(now))
        for holding in current.short_lived:
            deltas += (Opened(holding), Closed(holding, _reason(holding.process, current), None))
        return deltas

    def _seconds(self, key: HoldingKey, now: float) -> float | None:
        opened_at = self.opened_at.get(key)
        return None if opened_at is None else now - opened_at

    def _closes(self, ended: list[tuple[HoldingKey, Holding]], current: Snapshot) -> list[Closed]:
        held = _held_inodes({key[1] for key, was in ended if was.process is None}, current)
        closes = []
        for key, was in ended:
            if was.process is None:
                reason = "attributed" if key[1] in held else "closed"
            else:
                reason = _reason(was.process, current)
            closes.append(Closed(was, reason, self._seconds(key, current.time)))
            self.opened_at.pop(key, None)
        return closes


def _held_inodes(inodes: set[int], current: Snapshot) -> set[int]:
    """Return which of the inodes are held by a known process; others may be among them."""
    holdings, processes = current.holdings, current.processes
    # Few are looked up with each process, which takes less time than all holdings.
    if 4 * len(inodes) * len(processes) < len(holdings):
        return {inode for inode in inodes if any((pid, inode) in holdings for pid in processes)}
    return {inode for pid, inode in holdings if pid is not None} if inodes else set()


def _reason(process: Process | None, current: Snapshot) -> str:
    """Return why a process no longer holds a socket; ``closed`` where the process is not known."""
    exited = process is not None and current.processes.get(process.pid) != process.start_ticks
    return "exited" if exited else "closed"


def is_same(was: Holding, now: Holding) -> bool:
    """Return whether two holdings with one key are the same process on the same socket. Inodes and
    pids are reused. A field that is unknown in one of them is no difference."""
    if was.process is not now.process and _identity(was.process) != _identity(now.process):
        return False
    old, new = _socket_kind(was.socket), _socket_kind(now.socket)
    return old == new or all(
        one == other or one is None or other is None for one, other in zip(old, new, strict=True)
    )


def _identity(process: Process | None) -> tuple[int, int] | None:
    return None if process is None else (process.pid, process.start_ticks)


def is_changed(was: Holding, now: Holding) -> bool:
    """Return whether anything differs that an ``update`` reports: not queues and command lines,
    which change all the time."""
    return (
        (was.socket is not now.socket and _socket_fields(was.socket) != _socket_fields(now.socket))
        or was.fds != now.fds
        or was.omitted_fds != now.omitted_fds
        or was.owner != now.owner
        or (
            was.process is not now.process
            and was.process is not None
            and now.process is not None
            and _process_fields(was.process) != _process_fields(now.process)
        )
    )


def is_coverage_changed(was: Coverage, now: Coverage) -> bool:
    """Return whether the agent sees more or less than before. That processes start and end does
    not count, be they readable or not."""
    return (bool(was.unreadable), was.netns, was.missing) != (
        bool(now.unreadable),
        now.netns,
        now.missing,
    )
