"""Decide which tables a poll reads, from the kernel's counters. Pure: no files and no clock.

The tables of a namespace are in groups, whose sockets the counters count: a group is read when its
counter moved. A namespace in which no process runs is looked at every few seconds only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from ..kernel.procfs import sockstat

Group = tuple[str, ...]

TCP = ("tcp", "tcp6")
UNIX = ("unix",)
UDP = ("udp", "udp6", "udplite", "udplite6")
OTHERS = ("raw", "raw6", "icmp", "icmp6", "netlink", "packet")
# Every table of /proc/net that lists sockets, in groups: those that grow large by themselves. A
# group is read in an executor hop of its own. In the order of the counters that count its sockets.
GROUPS: tuple[Group, ...] = (TCP, UNIX, UDP, OTHERS)
ALL_GROUPS = frozenset(GROUPS)
GROUP_OF = {name: names for names in GROUPS for name in names}
# Tables are read at least this often where a process runs or segments arrive: a connection that its
# peer shuts down moves no counter.
READ_SECONDS = 5.0


class Schedule:
    """What was counted and read of each namespace, and when. Times are in seconds."""

    def __init__(self) -> None:
        self._counters: dict[int, sockstat.Counted] = {}
        self._counted_at: dict[int, float] = {}
        self._asked_at = -math.inf
        # Of the reading of all tables of a namespace: when it was, and the segments received then.
        self._read_at: dict[int, float] = {}
        self._segments_at: dict[int, object] = {}
        # Namespaces in which a process has run since that reading, or a reading failed.
        self._active: set[int] = set()

    def to_count(
        self,
        namespaces: Collection[int],
        ran: Collection[int],
        forced: Collection[int],
        now: float,
    ) -> list[int]:
        """Return the namespaces whose counters are to be read: those in which a process ``ran``,
        or whose tables are ``forced`` to be read; of the others as many as have each counted every
        READ_SECONDS. What is not among ``namespaces`` is forgotten.
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
        counted: Mapping[int, sockstat.Counted],
        forced: Mapping[int, Iterable[Group]],
        now: float,
    ) -> dict[int, set[Group]]:
        """Return the groups to be read, by namespace, now that the counters were read."""
        due: dict[int, set[Group]] = {}
        for netns, new in counted.items():
            groups = _moved(self._counters.get(netns), new).union(forced.get(netns, ()))
            self._counters[netns], self._counted_at[netns] = new, now
            if self._is_overdue(netns, new, now):
                groups = set(ALL_GROUPS)
            if groups:
                due[netns] = groups
            if groups == ALL_GROUPS:
                self._read_at[netns], self._segments_at[netns] = now, new.segments
                self._active.discard(netns)
        return due

    def note_failed(self, netns: int) -> None:
        """Note that not all that was due was read: all tables of the namespace are, READ_SECONDS
        after they were due last, though no counter may move again."""
        self._active.add(netns)

    def _is_overdue(self, netns: int, new: sockstat.Counted, now: float) -> bool:
        """Whether all tables of a namespace are to be read, whatever else its counters show."""
        if new.used is None or netns not in self._read_at:
            return True
        moved = netns in self._active or self._segments_at.get(netns) != new.segments
        return moved and now - self._read_at[netns] >= READ_SECONDS


def _moved(old: sockstat.Counted | None, new: sockstat.Counted) -> set[Group]:
    """Return the groups whose counters moved; all where only what counts all sockets did."""
    if old is None or new.used is None:
        return set(ALL_GROUPS)
    moved = {group for group, was, now in zip(GROUPS, old, new, strict=False) if was != now}
    return set(ALL_GROUPS) if not moved and new.used != old.used else moved
