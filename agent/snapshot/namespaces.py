"""The network namespaces of the processes: what leads to each, and which of them a poll reads.

It knows holders, and nothing of files and tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..kernel.procfs.mount import Way
from .holders import Holders
from .quota import in_turn, late_namespaces, rounded

# Namespaces beyond the limit of their user that a poll reads: 2 ms.
LATE_NAMESPACES = 4


class NamespaceIndex:
    """Keeps, from poll to poll, the namespaces that only a thread is in, and when those beyond the
    ``limit`` of their user were read."""

    def __init__(self, holders: Holders, limit: int) -> None:
        self._holders = holders
        self._limit = limit
        # Namespaces in which a thread was found, with its process and the way to it.
        self._threads: dict[int, tuple[int, Way]] = {}
        self._late: dict[int, list[int]] = {}  # By user, namespaces beyond the limit.
        self._read_late: dict[int, int] = {}  # The poll in which such a one was read last.
        self._polls = 0

    def every(self) -> dict[int, list[Way]]:
        """Return all namespaces, with what leads to them: their processes, or a thread."""
        namespaces: dict[int, list[Way]] = {}
        watched = self._holders.watched
        for pid, known in watched.items():
            namespaces.setdefault(known.netns, []).append(pid)
        self._threads = {at: way for at, way in self._threads.items() if way[0] in watched}
        for netns, (_pid, way) in self._threads.items():
            namespaces.setdefault(netns, [way])
        return namespaces

    def add_threads(self, found: Mapping[int, Way]) -> dict[int, list[Way]]:
        """Add the namespaces of threads; return the new ones, with what leads there."""
        known = self.every()
        new = {netns: way for netns, way in found.items() if netns not in known}
        for netns, way in new.items():
            self._threads[netns] = (int(str(way).partition("/")[0]), way)
        return {netns: [way] for netns, way in new.items()}

    def drop_threads(self, vanished: Iterable[int]) -> set[int]:
        """Drop the namespaces whose thread has ended; return the processes of these threads."""
        ended = [netns for netns in vanished if netns in self._threads]
        return {self._threads.pop(netns)[0] for netns in ended}

    def on_time(self, namespaces: dict[int, list[Way]]) -> dict[int, list[Way]]:
        """Return the namespaces without those beyond the limits of their users, but for a few of
        these, others in each poll."""
        self._polls += 1
        if len(namespaces) <= self._limit:
            self._late = {}
            return namespaces
        owners: dict[int, set[int]] = {netns: set() for netns in namespaces}
        for known in self._holders.watched.values():
            if known.process.uid is not None:
                owners[known.netns].add(known.process.uid)
        self._late = late_namespaces(owners, self._limit)
        late = {netns for theirs in self._late.values() for netns in theirs}
        self._read_late = {netns: at for netns, at in self._read_late.items() if netns in late}
        now = in_turn(late, self._read_late)[:LATE_NAMESPACES]
        self._read_late.update(dict.fromkeys(now, self._polls))
        return {at: ways for at, ways in namespaces.items() if at not in late or at in now}

    def missing(self) -> list[str]:
        """Return a sentence for each user with more namespaces than the limit."""
        return [
            f"user {uid} has more than {self._limit} network namespaces: the others, about "
            f"{rounded(len(late))}, are read late (--max-user-namespaces)"
            for uid, late in sorted(self._late.items())
        ]
