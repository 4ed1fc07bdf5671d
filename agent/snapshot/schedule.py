"""Decide which tables a poll reads, from the kernel's counters. Pure: no files, no clock.

The kernel counts the sockets of each group of tables in each network namespace: a group is read
when its counter changed. The counters of a namespace in which no process runs are read every few
seconds only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from ..kernel.procfs import sockstat
from .reading import ALL_GROUPS, GROUPS, Group

# Tables are read at least this often where a process runs or TCP segments arrive: when a peer shuts
# down a connection, no counter changes. Trace events show that; while they are read, tables are
# read with the sweep.
READ_SECONDS = 5.0


class Schedule:
    """What was counted and read of each namespace, and when; all times in seconds."""

    def __init__(self) -> None:
        self._counters: dict[int, sockstat.SocketCounters] = {}
        self._counted_at: dict[int, float] = {}
        self._asked_at = -math.inf
        # When all tables of a namespace were read last, and how many segments it had received then.
        self._read_at: dict[int, float] = {}
        self._segments_at: dict[int, object] = {}
        # Namespaces in which a process has run, or a reading failed, since that time.
        self._active: set[int] = set()

    def to_count(
        self,
        namespaces: Collection[int],
        ran: Collection[int],
        forced: Collection[int],
        now: float,
    ) -> list[int]:
        """Return the namespaces whose counters are to be read.

        These are namespaces in which a process ``ran``, or of which a table is ``forced`` to be
        read; and as many of the others as it takes to read each one every READ_SECONDS. Namespaces
        that are not in ``namespaces`` are forgotten.
        """
        for netns in self._counters.keys() - set(namespaces):
            del self._counters[netns], self._counted_at[netns]
            self._read_at.pop(netns, None)
            self._segments_at.pop(netns, None)
        passed, self._asked_at = now - self._asked_at, now
        self._active = (self._active | set(ran)) & set(namespaces)
        chosen = [
            netns
            for netns in namespaces
            if netns in ran or netns in forced or netns not in self._counters
        ]
        idle = set(namespaces).difference(chosen)
        most = math.ceil(len(idle) * min(1.0, passed / READ_SECONDS))
        return chosen + sorted(idle, key=self._counted_at.__getitem__)[:most]

    def due(
        self,
        counted: Mapping[int, sockstat.SocketCounters],
        forced: Mapping[int, Iterable[Group]],
        now: float,
        read_seconds: float = READ_SECONDS,
    ) -> dict[int, set[Group]]:
        """Return the groups to read, by namespace, from the counters that were read. All tables are
        read at least every ``read_seconds``, where a process runs or TCP segments arrive."""
        due: dict[int, set[Group]] = {}
        for netns, new in counted.items():
            groups = _moved(self._counters.get(netns), new).union(forced.get(netns, ()))
            self._counters[netns], self._counted_at[netns] = new, now
            if self._is_overdue(netns, new, now, read_seconds):
                groups = set(ALL_GROUPS)
            if groups:
                due[netns] = groups
            if groups == ALL_GROUPS:
                self._read_at[netns], self._segments_at[netns] = now, new.segments
                self._active.discard(netns)
        return due

    def forget_readings(self) -> None:
        """Read all tables when they are due next: events that show changes were lost."""
        self._read_at.clear()

    def note_failed(self, netns: int) -> None:
        """Record that a group could not be read: all tables of the namespace are read again after
        READ_SECONDS, even if no counter changes."""
        self._active.add(netns)

    def _is_overdue(
        self, netns: int, new: sockstat.SocketCounters, now: float, read_seconds: float
    ) -> bool:
        """Return whether all tables of a namespace are due, whatever its other counters show."""
        if new.used is None or netns not in self._read_at:
            return True
        moved = netns in self._active or self._segments_at.get(netns) != new.segments
        return moved and now - self._read_at[netns] >= read_seconds


def _moved(old: sockstat.SocketCounters | None, new: sockstat.SocketCounters) -> set[Group]:
    """Return the groups whose counters changed; all groups if only the total changed."""
    if old is None or new.used is None:
        return set(ALL_GROUPS)
    moved = {group for group, was, now in zip(GROUPS, old, new, strict=False) if was != now}
    return set(ALL_GROUPS) if not moved and new.used != old.used else moved
