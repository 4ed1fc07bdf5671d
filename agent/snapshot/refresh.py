"""Looks at processes as the holders' plan says, and keeps the holders up to date.

The walker blocks; here it runs in executor hops, a few batches at a time. It knows nothing of
tables and output.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from operator import attrgetter

from ..kernel.procfs.kcmp import may_share
from ..kernel.procfs.progress import Progress
from ..kernel.procfs.scanner import (
    FdCheck,
    FdSummary,
    ProcessScan,
    ProcessScanner,
    is_other_program,
)
from ..kernel.procfs.schedstat import RunMonitor, is_conclusive
from ..model import Socket
from .blocking import NO_ANSWER, BlockingCalls, CallTimeout
from .holders import Holders
from .plan import Budget, Planner
from .quota import (
    NONE,
    Excess,
    Limits,
    Usage,
    excess,
    in_turn,
    rounded,
)

# Two threads walk in 0.6 of the time of one; more lose it again to the interpreter's lock.
WALKERS = min(2, os.cpu_count() or 1)
# Descriptors that one poll may read in search of the holders of new sockets.
SEARCH_DESCRIPTORS = 4000
# Processes that are searched at a time.
_SEARCH_BATCH = 8
# Descriptors of processes that have run that may be read again in a second: 20 ms of CPU.
RECHECK_DESCRIPTORS = 4000
# Seconds since the last poll that count at the most for that.
_MAX_PASSED = 10.0
# With a shorter sweep everything is read in turn, whether a process has run or not.
_MIN_RESTING_SWEEP = 5.0
# Files of processes that may be kept open, to see whether these run: a quarter of all descriptors.
_KEPT_SHARE = 4
# Of a poll's time, the part that processes beyond the limits of their users may take; what is not
# used is saved up to MAX_LATE_SECONDS, for one of 100,000 descriptors.
LATE_SHARE = 0.1
MAX_LATE_SECONDS = 0.5
_DESCRIPTOR_SECONDS = 5e-6  # That it takes to read a descriptor.
# How long the longest turn of late counts, and the steps in which it is published: seconds.
_TURN_WINDOW = 60.0
_TURN_STEPS = (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


# The place of a process whose table of descriptors is compared with its parent's: kcmp(2) waits for
# an exec that waits.
SHARED = "ran"


def kept_files(descriptors: int) -> int:
    """Return how many of so many descriptors are kept open to see which processes run."""
    return descriptors // _KEPT_SHARE


def itself(pid: int) -> int:
    """Return the place of a process."""
    return pid


class HolderRefresher:
    """Brings ``holders`` up to date. ``sweep``: seconds in which everything is read again.

    ``processes`` and ``descriptors`` count what was read since the start.
    """

    def __init__(
        self,
        walker: ProcessScanner,
        holders: Holders,
        sweep: float,
        hops: BlockingCalls | None = None,
        limits: Limits = Limits(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._walker = walker
        self._hops = hops or BlockingCalls()
        self._procfs = walker.procfs
        self._holders = holders
        self._planner = Planner(holders)
        self._sweep = sweep
        self._looked = -math.inf
        self.processes = self.descriptors = 0
        self._ran: dict[int, bool | None] = {}
        self._ran_since: set[int] = set()  # Found to have run after ``_ran`` was read.
        self._turn = (0.0, -math.inf)  # The longest turn of late, in seconds, and when that was.
        self._limits = limits
        self._excess = NONE
        self._read_late: dict[int, int] = {}  # The poll in which a late process was read last.
        self._late_polls = 0
        self._credit = 0.0  # Seconds that may be spent on late processes.
        self._monitor: RunMonitor | None = None
        if sweep >= _MIN_RESTING_SWEEP and is_conclusive(os.uname().release):
            kept = kept_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            self._monitor = RunMonitor(walker.procfs.root, kept)

    def has_run(self, pid: int) -> bool:
        """Whether a process has run, or may have, since the poll before this one."""
        return self._ran.get(pid) is not False

    async def refresh(self, pids: Sequence[int], unlisted: Iterable[int]) -> dict[int, str]:
        """Look at the processes that may have changed; why some could not be looked at.

        ``unlisted`` are sockets of which only their descriptors tell.
        """
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        watched, hops = self._holders.watched, self._hops
        self._ran = await self._have_run(pids)
        self._ran.update((pid, True) for pid in self._ran_since & self._ran.keys())
        # Should this poll fail, the next one reads their descriptors.
        self._ran_since = {pid for pid, moved in self._ran.items() if moved}
        counted = self._planner.unevident(self._ran.keys(), self._ran)
        seen = await hops.batch(self._walker.evidence, counted, itself)
        # What hangs has no evidence: it stays as it was, and a whole look reports why.
        seen.update((pid, FdSummary(0, 0)) for pid in counted if hops.hangs(pid))
        present = self._ran.keys() - (set(counted) - seen.keys())
        total = sum(max(1, len(known.fds)) for known in watched.values())
        budget = Budget(
            sweep=math.ceil(total * min(1.0, passed / self._sweep)),
            recheck=math.ceil(RECHECK_DESCRIPTORS * min(passed, _MAX_PASSED)),
        )
        self._excess = await self._find_excess(present, seen, total)
        plan = self._planner.plan(present, seen, self._ran, budget, self._excess.late)
        self._note_turn(now)
        parts = dict(plan.parts)
        self._spare_own(parts)
        for pid, fds in self._holders.fds_of(unlisted).items():
            parts[pid] = {*(parts.get(pid) or ()), *fds}
        lost = await self._check(parts, facts=plan.facts)
        other = []
        if plan.glances:
            glances = await hops.batch(self._walker.glance, plan.glances, itself)
            other = [
                pid
                for pid, glance in glances.items()
                if pid in watched and is_other_program(watched[pid].glance, glance)
            ]
        failed = await self.walk([*plan.whole, *lost, *other])
        await self._find_sharing([*plan.whole, *plan.turns])
        failed.update(await self._walk_late(seen, passed))
        self._ran_since = set()
        return failed

    def _spare_own(self, parts: dict[int, Collection[int] | None]) -> None:
        """Leave out our own descriptors that are kept open to see who runs: these are no sockets.

        There is one for each thread of the machine, and we run in each poll.
        """
        own = None if self._procfs.own is None else self._procfs.own[1]
        fds = None if own is None else parts.get(own)
        if own is not None and fds and self._monitor is not None:
            parts[own] = set(fds) - self._monitor.files

    async def _find_excess(
        self, present: Collection[int], seen: Mapping[int, FdSummary], known: int
    ) -> Excess:
        """Return what is beyond the limits of its users; ``known`` counts the known descriptors."""
        watched, limits = self._holders.watched, self._limits
        new = [pid for pid in present if pid not in watched]
        counts = {pid: one.descriptors for pid, one in seen.items()}
        total = known + sum(counts.get(pid, 0) for pid in new)
        if total <= min(limits.descriptors, limits.holdings):
            return NONE
        owners = await self._hops.batch(self._walker.owners, new, itself) if new else {}
        usages = {pid: Usage(uid, counts.get(pid, 0), None) for pid, uid in owners.items()}
        for pid in present:
            one = watched.get(pid)
            if one is not None and one.process.uid is not None:
                count = counts.get(pid, len(one.fds)) + len(one.more)
                usages[pid] = Usage(one.process.uid, count, len(one.held))
        return excess(usages, limits)

    async def _walk_late(self, seen: Mapping[int, FdSummary], passed: float) -> dict[int, str]:
        """Look at processes beyond the limits of their users, as far as the time allows."""
        waiting = self._excess.late - self._excess.barred
        self._read_late = {pid: at for pid, at in self._read_late.items() if pid in waiting}
        self._credit += min(passed, _MAX_PASSED) * LATE_SHARE
        self._credit = min(self._credit, MAX_LATE_SECONDS)
        watched = self._holders.watched
        chosen = []
        for pid in in_turn(waiting, self._read_late):
            if pid in watched and not self.has_run(pid):
                continue
            count = seen[pid].descriptors if pid in seen else len(watched[pid].fds)
            cost = (1 + count) * _DESCRIPTOR_SECONDS
            if cost > self._credit:
                break
            self._credit -= cost
            self._read_late[pid] = self._late_polls
            chosen.append(pid)
        self._late_polls += 1
        return await self.walk(chosen)

    def beyond_limits(self) -> list[str]:
        """Return a sentence for each user with more than the limits."""
        return [
            f"user {uid} has {rounded(descriptors)} descriptors in {rounded(processes)} processes, "
            "more than a user's limit: the rest is read late (--max-user-descriptors, "
            "--max-user-holdings)"
            for uid, (descriptors, processes) in sorted(self._excess.users.items())
        ]

    async def _have_run(self, pids: Sequence[int]) -> dict[int, bool | None]:
        if self._monitor is None:
            return dict.fromkeys(pids)
        watched = self._holders.watched
        asked = [
            (pid, len(known.fds) + len(known.more) if (known := watched.get(pid)) else 0)
            for pid in pids
        ]
        try:
            return await self._hops.call("schedstat", self._monitor.have_run, asked)
        except CallTimeout:
            if not self._hops.hangs("schedstat"):
                raise  # It was not called, for too many others hang.
            self._monitor = None  # What it keeps is that call's for good.
            return dict.fromkeys(pids)

    async def _find_sharing(self, pids: Iterable[int]) -> None:
        """Find those among ``pids`` that share the table of descriptors of their parents."""
        watched = self._holders.watched
        pairs = []
        for pid in pids:
            known = watched.get(pid)
            parent = None if known is None else watched.get(known.process.ppid)
            # Who has another number of descriptors has another table.
            if known and parent and known.fds and len(known.fds) == len(parent.fds):
                pairs.append((pid, parent.process.pid))
        if pairs:
            sharing = await self._hops.batch(self._sharing, pairs, lambda pair: (SHARED, pair[0]))
            for pid in sharing:
                self._holders.shares(pid)

    def _sharing(self, pairs: Iterable[tuple[int, int]], progress: Progress) -> list[int]:
        """Return those that may share the table of the other process of their pair. Blocking."""
        found = []
        for pid, parent in pairs:
            if progress.stopped:
                break
            progress.at = (SHARED, pid)
            if may_share(self._procfs.root, pid, parent):
                found.append(pid)
        return found

    def _note_turn(self, now: float) -> None:
        """Note how long it takes until all descriptors of running processes are read again."""
        seconds = self._planner.backlog / RECHECK_DESCRIPTORS
        longest, when = self._turn
        if seconds >= longest or now - when > _TURN_WINDOW:
            self._turn = (seconds, now)

    @property
    def turn(self) -> int:
        """Seconds that it takes of late to read all descriptors of running processes again: rounded
        up, 0 where that is done in each poll."""
        seconds = self._turn[0]
        if not seconds:
            return 0
        return next((step for step in _TURN_STEPS if step >= seconds), _TURN_STEPS[-1])

    async def walk(self, pids: Sequence[int]) -> dict[int, str]:
        """Look at whole processes; why some could not be looked at."""
        if not pids:
            return {}
        chunks = [pids[start::WALKERS] for start in range(min(WALKERS, len(pids)))]
        failed: dict[int, str] = {}
        left = set(pids)
        walks = (self._hops.batch(self._walker.walk, chunk, itself) for chunk in chunks)
        for part in await asyncio.gather(*walks):
            for look in part.looks:
                self.take(look)
                left.discard(look.process.pid)
            failed.update(part.failed)
        failed.update((pid, NO_ANSWER) for pid in pids if self._hops.hangs(pid))
        for pid in failed:
            self._holders.failed(pid)
        for pid in left - failed.keys():
            self._holders.drop(pid)
        return failed

    async def recheck_holders_of(self, gone: Iterable[int]) -> None:
        """Look at the descriptors on sockets that left the tables."""
        fds_of = self._holders.fds_of(gone)
        for pid in fds_of.keys() & self._excess.late:
            for inode in {self._holders.watched[pid].fds[fd] for fd in fds_of.pop(pid)}:
                self._holders.forget(pid, inode)
        await self.walk(await self._check(fds_of))

    async def search(self, orphans: Sequence[Socket]) -> None:
        """Look for the holders of sockets in the likeliest processes, as far as that may cost."""
        if not orphans:
            return
        holders = self._holders
        inodes = [socket.inode for socket in orphans]
        candidates_for = [
            pid for pid in holders.candidates_for(orphans) if pid not in self._excess.late
        ]
        candidates = await self._may_hold_new(candidates_for)
        budget = SEARCH_DESCRIPTORS
        while candidates and not all(map(holders.pids_of, inodes)):
            batch: list[int] = []
            while candidates and len(batch) < _SEARCH_BATCH:
                known = holders.watched.get(candidates[0])
                budget -= 1 if known is None else max(1, len(known.fds))
                if budget < 0:
                    candidates.clear()
                    break
                batch.append(candidates.pop(0))
            await self.walk(batch)
            for pid in batch:
                holders.searched(pid)

    async def _may_hold_new(self, pids: Sequence[int]) -> list[int]:
        """Return those that have run since their descriptors were read, or may have."""
        if self._monitor is None:
            return list(pids)
        ran = await self._have_run(list(self._holders.watched))
        self._ran_since = {pid for pid, moved in ran.items() if moved}
        return [pid for pid in pids if ran.get(pid) is not False or self._planner.is_stale(pid)]

    def take(self, look: ProcessScan) -> None:
        """Take in what a look at a whole process showed."""
        self.processes += 1
        self.descriptors += len(look.fds)
        netns = self._procfs.netns_id(look.netns) or look.netns
        fds = look.fds if look.readable else None
        self._holders.take(look.process, netns, look.directory, fds, look.more)
        self._holders.watched[look.process.pid].glance = look.glance

    async def _check(
        self, parts: Mapping[int, Collection[int] | None], *, facts: Container[int] = ()
    ) -> list[int]:
        """Look at descriptors of processes; those that have to be looked at as a whole.

        ``facts`` are the processes of which the facts are read too.
        """
        if not parts:
            return []
        watched = self._holders.watched
        checks = [
            FdCheck(pid, known.directory, known.fds, fds_of, pid in facts, bool(known.more))
            for pid, fds_of in parts.items()
            if (known := watched.get(pid)) is not None
        ]
        checked, lost = await self._hops.batch(self._walker.check, checks, attrgetter("pid"))
        lost += filter(self._hops.hangs, parts)
        for one in checked:
            self.processes += 1
            self.descriptors += one.reads
            known = watched[one.pid]
            if one.process is None and is_other_program(known.glance, one.glance):
                lost.append(one.pid)
                continue
            known.glance = one.glance
            if one.process is not None and one.netns is not None:
                if one.process.start_ticks != known.process.start_ticks:
                    lost.append(one.pid)
                    continue
                self._holders.note_process(known, one.process)
                known.netns = self._procfs.netns_id(one.netns) or one.netns
            self._holders.change(one.pid, one.changes)
        return lost
