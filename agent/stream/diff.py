"""(previous snapshot, current snapshot) → deltas. Pure: no clock, no I/O, no asyncio, no JSON.

Coverage comes first, then closes, updates and opens: a reused key is closed before it opens. What
came and went unseen comes last, each with its open and its close.
"""

from __future__ import annotations

from ..model import (
    Closed,
    Coverage,
    Delta,
    Holding,
    Key,
    Opened,
    Process,
    Snapshot,
    Updated,
)


class DeltaTracker:
    """The deltas from one snapshot to the next. The first snapshot has none."""

    def __init__(
        self, last: Snapshot | None = None, opened_at: dict[Key, float] | None = None
    ) -> None:
        """``last`` is the newest snapshot of an earlier run, if the stream goes on from that."""
        self._last = last
        self._restored = last is not None
        self.opened_at = dict(opened_at or {})  # Only of what opened under our eyes.

    def advance(self, current: Snapshot) -> list[Delta]:
        """What changed since the snapshot before, in the order in which it is to be told."""
        last, self._last = self._last, current
        if last is None:
            return []
        before, after = last.holdings, current.holdings
        ended: list[tuple[Key, Holding]] = []
        begun: list[tuple[Key, Holding]] = []
        deltas: list[Delta] = []
        updated: list[Delta] = []
        # What differs from an earlier run nobody knows yet.
        whole, self._restored = self._restored or current.changed is None, False
        keys = before.keys() | after.keys() if whole else current.changed or ()
        for key in keys:
            was, holding = before.get(key), after.get(key)
            if was is holding:
                continue
            if holding is None:
                if was is not None:
                    ended.append((key, was))
            elif was is None:
                begun.append((key, holding))
            elif not is_same(was, holding):
                ended.append((key, was))
                begun.append((key, holding))
            elif is_changed(was, holding):
                updated.append(Updated(holding, was, self._seconds(key, current.time)))
        if is_other_sight(last.coverage, current.coverage):
            deltas.append(current.coverage)
        deltas += self._closes(ended, current)
        deltas += updated
        for key, holding in begun:
            self.opened_at[key] = current.time
            deltas.append(Opened(holding))
        for holding in current.short_lived:
            deltas += (Opened(holding), Closed(holding, _reason(holding.process, current), None))
        return deltas

    def _seconds(self, key: Key, now: float) -> float | None:
        opened_at = self.opened_at.get(key)
        return None if opened_at is None else now - opened_at

    def _closes(self, ended: list[tuple[Key, Holding]], current: Snapshot) -> list[Closed]:
        closes = []
        nameless = {key[1] for key, was in ended if was.process is None}
        held: set[int] = set()
        if 4 * len(nameless) * len(current.processes) < len(current.holdings):
            # Few: to look for each with each process is less than to look through all.
            pids = current.processes
            held = {one for one in nameless if any((pid, one) in current.holdings for pid in pids)}
        elif nameless:
            held = {inode for pid, inode in current.holdings if pid is not None}
        for key, was in ended:
            process = was.process
            if process is None:
                reason = "attributed" if key[1] in held else "closed"
            else:
                reason = _reason(process, current)
            seconds = self._seconds(key, current.time)
            self.opened_at.pop(key, None)
            closes.append(Closed(was, reason, seconds))
        return closes


def _reason(process: Process | None, current: Snapshot) -> str:
    """Return why a process no longer holds a socket; ``closed`` where the process is not known."""
    exited = process is not None and current.processes.get(process.pid) != process.start_ticks
    return "exited" if exited else "closed"


def is_same(was: Holding, now: Holding) -> bool:
    """Whether two holdings under one key are the same process on the same socket.

    Inodes and pids are used again: what never changes in one socket and one process tells.
    """
    return identity(was.process) == identity(now.process) and all(
        # What is not known of one is no difference.
        one == other or one is None or other is None
        for one, other in zip(was.socket[1:4], now.socket[1:4], strict=True)
    )


def identity(process: Process | None) -> tuple[int, int] | None:
    """What no other process of this boot has."""
    return None if process is None else (process.pid, process.start_ticks)


def is_changed(was: Holding, now: Holding) -> bool:
    """Whether anything changed that an `update` tells of: all but the queues, which move all the
    time, and the command line, which some programs rewrite all the time."""
    return (
        was.socket[4:11] != now.socket[4:11]  # State, endpoints, path, direction.
        or was.socket[14] != now.socket[14]  # Namespace.
        or was.socket[16:19] != now.socket[16:19]  # Peer, backlog, interface.
        or was.fds != now.fds
        or was.omitted_fds != now.omitted_fds
        or was.owner != now.owner
        or (
            was.process is not now.process
            and was.process is not None
            and now.process is not None
            and was.process[:-1] != now.process[:-1]
        )
    )


def is_other_sight(was: Coverage, now: Coverage) -> bool:
    """Whether the agent sees more or less than before; that processes come and go is no news, be
    they readable or not."""
    return (bool(was.unreadable), was.netns, was.missing) != (
        bool(now.unreadable),
        now.netns,
        now.missing,
    )
