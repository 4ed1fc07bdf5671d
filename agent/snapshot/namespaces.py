"""Network namespaces: what leads to each of them, and which ones a poll reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..kernel.procfs.mount import NetnsMember, ProcFS
from .blocking import BlockingCalls, place_of_process
from .holders import Holders
from .quota import in_turn, late_namespaces, rounded

# Namespaces beyond the limits of their users that one poll reads; 0.5 ms each.
LATE_NAMESPACES = 4
# Processes whose threads one poll searches for network namespaces, and the most threads that such a
# process may have: 10 µs each.
MAX_THREADED, MAX_THREADS = 10, 500


class NamespaceIndex:
    """The namespaces of all processes and of some threads. Each user may have ``limit`` of them;
    the others are read late."""

    def __init__(self, procfs: ProcFS, calls: BlockingCalls, holders: Holders, limit: int) -> None:
        self._procfs = procfs
        self._calls = calls
        self._holders = holders
        self._limit = limit
        # Namespaces that only a thread is in, with its process and the way to the thread.
        self._threads: dict[int, tuple[int, NetnsMember]] = {}
        self._late: dict[int, list[int]] = {}  # Namespaces beyond the limit, by user.
        self._read_in: dict[int, int] = {}  # The poll in which a late namespace was read last.
        self._polls = 0

    def all(self) -> dict[int, list[NetnsMember]]:
        """Return all namespaces with the processes, or the thread, that lead to them."""
        namespaces: dict[int, list[NetnsMember]] = {}
        processes = self._holders.processes
        for pid, state in processes.items():
            namespaces.setdefault(state.netns, []).append(pid)
        self._threads = {at: way for at, way in self._threads.items() if way[0] in processes}
        for netns, (_pid, way) in self._threads.items():
            namespaces.setdefault(netns, [way])
        return namespaces

    def on_time(self, namespaces: dict[int, list[NetnsMember]]) -> dict[int, list[NetnsMember]]:
        """Return the namespaces to read: those within the limits, and a few of the others, which
        take turns."""
        self._polls += 1
        if len(namespaces) <= self._limit:
            self._late = {}
            return namespaces
        owners: dict[int, set[int]] = {netns: set() for netns in namespaces}
        for state in self._holders.processes.values():
            if state.process.uid is not None:
                owners[state.netns].add(state.process.uid)
        self._late = late_namespaces(owners, self._limit)
        late = {netns for found in self._late.values() for netns in found}
        self._read_in = {netns: poll for netns, poll in self._read_in.items() if netns in late}
        now = in_turn(late, self._read_in)[:LATE_NAMESPACES]
        self._read_in.update(dict.fromkeys(now, self._polls))
        return {at: ways for at, ways in namespaces.items() if at not in late or at in now}

    def in_use(self, pids: Iterable[int]) -> set[int]:
        """Return the namespaces of these processes."""
        processes = self._holders.processes
        return {processes[pid].netns for pid in pids if pid in processes}

    def missing(self) -> list[str]:
        """Return a sentence for each user with more namespaces than the limit."""
        return [
            f"user {uid} has more than {self._limit} network namespaces: the others, about "
            f"{rounded(len(late))}, are read late (--max-user-namespaces)"
            for uid, late in sorted(self._late.items())
        ]

    # Namespaces that only a thread is in.

    async def find_threads(self, pids: Iterable[int]) -> dict[int, list[NetnsMember]]:
        """Add the namespaces that only a thread of these processes is in; return the new ones."""
        processes = self._holders.processes
        # A process may have any number of threads, and each one is read.
        threaded = [
            pid
            for pid in pids
            if (state := processes.get(pid)) is not None
            and state.threads != 1  # 0: unknown.
            and state.threads < MAX_THREADS
        ]
        return await self._add_threads(threaded[:MAX_THREADED])

    async def drop_ended_threads(self, vanished: Iterable[int]) -> bool:
        """Drop the namespaces whose thread has ended, unless another thread of its process is in
        it; return whether there were any."""
        ended = [netns for netns in vanished if netns in self._threads]
        await self._add_threads({self._threads.pop(netns)[0] for netns in ended})
        return bool(ended)

    async def _add_threads(self, pids: Collection[int]) -> dict[int, list[NetnsMember]]:
        if not pids:
            return {}
        found: Mapping[int, NetnsMember] = await self._calls.batch(
            self._procfs.thread_namespaces, list(pids), place_of_process
        )
        known = self.all()
        new = {netns: way for netns, way in found.items() if netns not in known}
        for netns, way in new.items():
            self._threads[netns] = (int(str(way).partition("/")[0]), way)
        return {netns: [way] for netns, way in new.items()}
