"""Looks at processes as the holders' plan says, and keeps the holders up to date.

The walker blocks; here it runs in executor hops, a few batches at a time. It knows nothing of
tables and output.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from aiofiles.base import wrap

from .holders import Holders, Turn
from .model import Socket
from .procfs.rest import Asked, ran
from .procfs.walker import Check, Evidence, Look, Walker

# Two threads walk in 0.6 of the time of one; more lose it again to the interpreter's lock.
WALKERS = min(2, os.cpu_count() or 1)
# Descriptors that one poll may read in search of the holders of new sockets.
SEARCH_DESCRIPTORS = 4000
# A process that runs on and on shows it at each tick: on a processor without ticks once a second.
# Only where turns of the sweep are further apart than this is it asked whether it has run.
_SURE_SECONDS = 5.0


class Looking:
    """Brings ``holders`` up to date. ``sweep``: seconds in which everything is read again.

    ``processes`` and ``descriptors`` count what was read since the start.
    """

    def __init__(self, walker: Walker, holders: Holders, sweep: float) -> None:
        self._procfs = walker.procfs
        self._holders = holders
        self._sweep = sweep
        self._looked = -math.inf
        self.processes = self.descriptors = 0
        self._walk_soon = wrap(walker.walk)
        self._check_soon = wrap(walker.check)
        self._glance_soon = wrap(walker.glance)
        self._ran_soon = wrap(partial(ran, walker.procfs.root))
        # The kernels whose directories count are younger than those on which it proves nothing.
        self._may_rest = walker.counts and sweep >= _SURE_SECONDS
        self._evidence_soon = wrap(walker.evidence)

    async def what_changed(self, pids: Sequence[int], unlisted: Iterable[int]) -> dict[int, str]:
        """Look at the processes that may have changed; why some could not be looked at.

        ``unlisted`` are sockets of which only their descriptors tell.
        """
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        evidence = await self._evidence_soon(pids)
        total = sum(max(1, len(known.fds)) for known in self._holders.watched.values())
        budget = math.ceil(total * min(1.0, passed / self._sweep))
        plan = self._holders.plan(evidence, budget)
        parts = await self._due(plan.turns, evidence)
        for pid, fds in (*plan.parts.items(), *self._holders.suspects(unlisted).items()):
            parts[pid] = {*(parts.get(pid) or ()), *fds}
        lost = await self._check(parts, facts=True)
        watched = self._holders.watched
        glances = await self._glance_soon(plan.glances)
        other = [pid for pid, glance in glances.items() if glance != watched[pid].glance]
        return await self.walk([*plan.whole, *lost, *other])

    async def _due(
        self, turns: Mapping[int, Turn], evidence: Mapping[int, Evidence]
    ) -> dict[int, Collection[int] | None]:
        """The descriptors that the sweep reads; None of a process that has not run since its last
        turn: only what others may have changed is read then."""
        if not self._may_rest:
            return {pid: turn.fds for pid, turn in turns.items()}
        watched = self._holders.watched
        asked = []
        for pid in turns:
            parent = watched[pid].process.ppid
            there = evidence.get(parent)
            # Who has another number of descriptors has another table.
            same = there is not None and there.descriptors == evidence[pid].descriptors
            asked.append(Asked(pid, len(watched[pid].fds), parent if same else 0))
        shown, sharing = await self._ran_soon(asked)
        for pid in sharing:
            self._holders.shares(pid)
        return {
            pid: None if self._holders.rests(pid, turn, shown.get(pid)) else turn.fds
            for pid, turn in turns.items()
        }

    async def walk(self, pids: Sequence[int]) -> dict[int, str]:
        """Look at whole processes; why some could not be looked at."""
        if not pids:
            return {}
        chunks = [pids[start::WALKERS] for start in range(min(WALKERS, len(pids)))]
        failed: dict[int, str] = {}
        left = set(pids)
        for part in await asyncio.gather(*map(self._walk_soon, chunks)):
            for look in part.looks:
                self.take(look)
                left.discard(look.process.pid)
            failed.update(part.failed)
        for pid in failed:
            self._holders.failed(pid)
        for pid in left - failed.keys():
            self._holders.drop(pid)
        return failed

    async def lost_their_rows(self, gone: Iterable[int]) -> None:
        """Look at the descriptors on sockets that left the tables."""
        await self.walk(await self._check(self._holders.suspects(gone)))

    async def search(self, orphans: Sequence[Socket]) -> None:
        """Look for the holders of sockets in the likeliest processes, as far as that may cost."""
        if not orphans:
            return
        budget = SEARCH_DESCRIPTORS
        holders = self._holders
        inodes = [socket.inode for socket in orphans]
        for pid in holders.likely(orphans):
            known = holders.watched.get(pid)
            budget -= 1 if known is None else len(known.fds)
            if budget < 0 or all(map(holders.pids_of, inodes)):
                return
            await self.walk([pid])
            holders.searched(pid)

    def take(self, look: Look) -> None:
        """Take in what a look at a whole process showed."""
        self.processes += 1
        self.descriptors += len(look.fds)
        netns = self._procfs.netns_id(look.netns) or look.netns
        fds = look.fds if look.readable else None
        self._holders.take(look.process, netns, look.directory, fds, look.more)
        self._holders.watched[look.process.pid].glance = look.glance

    async def _check(
        self, parts: Mapping[int, Collection[int] | None], *, facts: bool = False
    ) -> list[int]:
        """Look at descriptors of processes; those that have to be looked at as a whole."""
        if not parts:
            return []
        watched = self._holders.watched
        checks = [
            Check(pid, watched[pid].directory, watched[pid].fds, suspects, facts)
            for pid, suspects in parts.items()
        ]
        checked, lost = await self._check_soon(checks)
        for one in checked:
            self.processes += 1
            self.descriptors += one.reads
            known = watched[one.pid]
            if one.process is not None and one.netns is not None:
                if one.process.start_ticks != known.process.start_ticks:
                    lost.append(one.pid)
                    continue
                self._holders.note_process(known, one.process)
                known.glance = one.glance
                known.netns = self._procfs.netns_id(one.netns) or one.netns
            self._holders.change(one.pid, one.changes)
        return lost
