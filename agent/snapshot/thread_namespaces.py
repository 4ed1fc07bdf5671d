"""Find network namespaces that only a thread of a process is in."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..kernel.procfs.mount import NetnsMember, ProcFS
from .blocking import BlockingCalls, place_of_process
from .holders import Holders
from .namespaces import NamespaceIndex

# Processes whose threads one poll searches for network namespaces, and the most threads that such a
# process may have: 10 µs each.
MAX_THREADED, MAX_THREADS = 10, 500


class ThreadNamespaces:
    """Adds the namespaces of threads to the index, and drops them."""

    def __init__(
        self, procfs: ProcFS, calls: BlockingCalls, holders: Holders, index: NamespaceIndex
    ) -> None:
        self._procfs = procfs
        self._calls = calls
        self._holders = holders
        self._index = index

    async def find(self, pids: Iterable[int]) -> dict[int, list[NetnsMember]]:
        """Return the new namespaces that only a thread of these processes is in."""
        processes = self._holders.processes
        # A process may have any number of threads, and each one is read.
        threaded = [
            pid
            for pid in pids
            if (state := processes.get(pid)) is not None
            and state.threads != 1  # 0: unknown.
            and state.threads < MAX_THREADS
        ]
        return await self._add(threaded[:MAX_THREADED])

    async def drop_ended(self, vanished: Collection[int]) -> bool:
        """Drop the namespaces whose thread has ended, unless another thread of its process is in
        it; return whether there were any."""
        ended = self._index.drop_threads(vanished)
        await self._add(ended)
        return bool(ended)

    async def _add(self, pids: Collection[int]) -> dict[int, list[NetnsMember]]:
        if not pids:
            return {}
        found = await self._calls.batch(
            self._procfs.thread_namespaces, list(pids), place_of_process
        )
        return self._index.add_threads(found)
