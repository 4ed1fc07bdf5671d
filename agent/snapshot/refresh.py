"""Refresh the state of processes: what they hold, as far as it may have changed since the last
poll.

The scanner blocks: it runs in threads here, in a few batches at a time.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from operator import attrgetter

from ..kernel.procfs.files import Progress
from ..kernel.procfs.kcmp import may_share_fds
from ..kernel.procfs.scan import FdCheck, FdSummary, ProcessScan, is_other_program
from ..kernel.procfs.scanner import ProcessScanner
from ..kernel.procfs.schedstat import RunMonitor, is_conclusive
from ..model import Socket
from .blocking import NO_ANSWER, BlockingCalls, CallTimeout, place_of_process
from .holders import Holders
from .plan import Budget, Planner
from .quota import LateProcesses, Limits

# Two threads scan in 0.6 of the time of one; more threads wait for the interpreter's lock.
SCAN_THREADS = min(2, os.cpu_count() or 1)
# Descriptors that one poll may read in search of the holders of new sockets.
SEARCH_DESCRIPTORS = 4000
# Processes that are searched at a time.
_SEARCH_BATCH = 8
# Descriptors of processes that have run that may be read again per second: 20 ms of CPU.
RECHECK_DESCRIPTORS = 4000
# Seconds since the last poll that count for budgets, at most.
MAX_PASSED_SECONDS = 10.0
# With a shorter sweep everything is read in turn, whether a process has run or not.
_MIN_SKIPPING_SWEEP_SECONDS = 5.0
# A quarter of all descriptors may be kept open to see which processes have run.
_KEPT_SHARE = 4
# How long the longest delay counts, and the steps in which it is published: seconds.
_DELAY_WINDOW_SECONDS = 60.0
_DELAY_STEPS = (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
# First element of the place of a process whose descriptor table is compared with its parent's:
# kcmp(2) waits for an exec that hangs.
SHARED = "shared"


def reserved_fds(descriptors: int) -> int:
    """Return how many of this many descriptors may be kept open to see which processes have run."""
    return descriptors // _KEPT_SHARE


def _place_of_pair(pair: tuple[int, int]) -> tuple[str, int]:
    return SHARED, pair[0]


class HolderRefresher:
    """Keeps ``holders`` up to date. ``sweep`` is the number of seconds in which everything is read
    again. ``processes_scanned`` and ``descriptors_read`` count since the start."""

    def __init__(
        self,
        scanner: ProcessScanner,
        holders: Holders,
        sweep: float,
        calls: BlockingCalls | None = None,
        limits: Limits = Limits(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._scanner = scanner
        self._calls = calls or BlockingCalls()
        self._procfs = scanner.procfs
        self._holders = holders
        self._planner = Planner(holders)
        self._late = LateProcesses(holders, limits)
        self._sweep = sweep
        self._refreshed_at = -math.inf
        self.processes_scanned = self.descriptors_read = 0
        self._ran: dict[int, bool | None] = {}
        self._ran_since: set[int] = set()  # Processes found to have run after ``_ran`` was read.
        self._longest_delay = (0.0, -math.inf)  # In seconds, and when it was found.
        self._monitor: RunMonitor | None = None
        if sweep >= _MIN_SKIPPING_SWEEP_SECONDS and is_conclusive(os.uname().release):
            kept = reserved_fds(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            self._monitor = RunMonitor(scanner.procfs.root, kept)

    def has_run(self, pid: int) -> bool:
        """Return whether a process has run, or may have, between the last two refreshes."""
        return self._ran.get(pid) is not False

    async def refresh(self, pids: Sequence[int], unlisted: Iterable[int]) -> dict[int, str]:
        """Read the processes that may have changed; return pid → the reason of a failure. ``pids``
        are all processes that exist. ``unlisted`` are sockets in no table, whose descriptors are
        read again."""
        now = time.monotonic()
        passed, self._refreshed_at = now - self._refreshed_at, now
        counted, present = await self._count(pids)
        processes = self._holders.processes
        total = sum(max(1, len(state.fds)) for state in processes.values())
        budget = Budget(
            sweep=math.ceil(total * min(1.0, passed / self._sweep)),
            recheck=math.ceil(RECHECK_DESCRIPTORS * min(passed, MAX_PASSED_SECONDS)),
        )
        late = await self._find_late(present, counted, total)
        plan = self._planner.plan(present, counted, self._ran, budget, late)
        self._note_delay(now)
        parts = dict(plan.parts)
        self._omit_own_fds(parts)
        for pid, fds in self._holders.fds_of(unlisted).items():
            parts[pid] = {*(parts.get(pid) or ()), *fds}
        changed = await self._check(parts, facts=plan.facts)
        changed += await self._check_stat(plan.stat_checks)
        failed = await self._scan([*plan.whole, *changed])
        await self._find_shared([*plan.whole, *plan.turns])
        affordable = self._late.take_affordable(
            {pid: one.fd_count for pid, one in counted.items()},
            self.has_run,
            min(passed, MAX_PASSED_SECONDS),
        )
        failed.update(await self._scan(affordable))
        self._ran_since = set()
        return failed

    async def _count(self, pids: Sequence[int]) -> tuple[dict[int, FdSummary], Collection[int]]:
        """Find out which processes have run, and count the descriptors of those that may matter.
        Return these counts, and the processes that still exist."""
        self._ran = await self._have_run(pids)
        self._ran.update((pid, True) for pid in self._ran_since & self._ran.keys())
        # If this poll fails, the next one has to read the descriptors of these processes.
        self._ran_since = {pid for pid, ran in self._ran.items() if ran}
        asked = self._planner.to_count(self._ran.keys(), self._ran)
        counted = await self._calls.batch(self._scanner.summaries, asked, place_of_process)
        # A process that hangs stays as it was; the scan of the whole process reports the reason.
        counted.update((pid, FdSummary(0, 0)) for pid in asked if self._calls.hangs(pid))
        return counted, self._ran.keys() - (set(asked) - counted.keys())

    async def _have_run(self, pids: Sequence[int]) -> dict[int, bool | None]:
        """Return which processes have run since this was called last; None if unknown."""
        if self._monitor is None:
            return dict.fromkeys(pids)
        processes = self._holders.processes
        asked = [
            (pid, len(state.fds) + len(state.thread_fds) if (state := processes.get(pid)) else 0)
            for pid in pids
        ]
        try:
            return await self._calls.call("schedstat", self._monitor.have_run, asked)
        except CallTimeout:
            if not self._calls.hangs("schedstat"):
                raise  # It was not called, because too many other calls hang.
            self._monitor = None  # The thread that hangs uses its files for good.
            return dict.fromkeys(pids)

    async def _find_late(
        self, present: Collection[int], counted: Mapping[int, FdSummary], known: int
    ) -> frozenset[int]:
        """Return the processes beyond the limits of their users; ``known`` counts descriptors."""
        counts = {pid: one.fd_count for pid, one in counted.items()}
        new = [pid for pid in present if pid not in self._holders.processes]
        if not self._late.may_exceed(known + sum(counts.get(pid, 0) for pid in new)):
            return self._late.set_none()
        owners = {}
        if new:
            owners = await self._calls.batch(self._scanner.owners, new, place_of_process)
        return self._late.set_present(present, counts, owners)

    def _omit_own_fds(self, parts: dict[int, Collection[int] | None]) -> None:
        """Omit the agent's own descriptors that show which processes have run: no sockets. There is
        one for each thread of the machine, and the agent runs in each poll."""
        own = None if self._procfs.own is None else self._procfs.own.pid
        fds = None if own is None else parts.get(own)
        if own is not None and fds and self._monitor is not None:
            parts[own] = set(fds) - self._monitor.open_fds

    async def _check_stat(self, pids: Sequence[int]) -> list[int]:
        """Return the processes that run another program, or have another parent, than before."""
        if not pids:
            return []
        stats = await self._calls.batch(self._scanner.fingerprints, pids, place_of_process)
        processes = self._holders.processes
        return [
            pid
            for pid, stat in stats.items()
            if pid in processes and is_other_program(processes[pid].stat, stat)
        ]

    async def _check(
        self, parts: Mapping[int, Collection[int] | None], *, facts: Container[int] = ()
    ) -> list[int]:
        """Read descriptors of processes again; return the processes that need a whole scan.

        ``facts`` are the processes whose facts are read as well.
        """
        if not parts:
            return []
        processes = self._holders.processes
        checks = [
            FdCheck(pid, state.directory, state.fds, fds, pid in facts, bool(state.thread_fds))
            for pid, fds in parts.items()
            if (state := processes.get(pid)) is not None
        ]
        results, whole = await self._calls.batch(self._scanner.check, checks, attrgetter("pid"))
        whole += filter(self._calls.hangs, parts)
        for one in results:
            self.processes_scanned += 1
            self.descriptors_read += one.reads
            state = processes[one.pid]
            if one.process is None and is_other_program(state.stat, one.fingerprint):
                whole.append(one.pid)
                continue
            if one.process and one.process.start_ticks != state.process.start_ticks:
                whole.append(one.pid)
                continue
            netns = None if one.netns is None else self._procfs.netns_id(one.netns) or one.netns
            self._holders.set_facts(one.pid, process=one.process, netns=netns, stat=one.fingerprint)
            self._holders.update_fds(one.pid, one.changes)
        return whole

    async def _scan(self, pids: Sequence[int]) -> dict[int, str]:
        """Scan whole processes; return pid → the reason of a failure."""
        if not pids:
            return {}
        chunks = [pids[start::SCAN_THREADS] for start in range(min(SCAN_THREADS, len(pids)))]
        failed: dict[int, str] = {}
        gone = set(pids)
        scans = (self._calls.batch(self._scanner.scan, part, place_of_process) for part in chunks)
        for result in await asyncio.gather(*scans):
            for scan in result.scans:
                self.add(scan)
                gone.discard(scan.process.pid)
            failed.update(result.failed)
        failed.update((pid, NO_ANSWER) for pid in pids if self._calls.hangs(pid))
        for pid in failed:
            self._holders.mark_failed(pid)
        for pid in gone - failed.keys():
            self._holders.drop(pid)
        return failed

    def add(self, scan: ProcessScan) -> None:
        """Take in the scan of a whole process."""
        self.processes_scanned += 1
        self.descriptors_read += len(scan.fds)
        netns = self._procfs.netns_id(scan.netns) or scan.netns
        fds = scan.fds if scan.readable else None
        self._holders.set_scan(
            scan.process, netns, scan.fd_dir_inode, fds, scan.thread_fds, scan.fingerprint
        )

    async def _find_shared(self, pids: Iterable[int]) -> None:
        """Find the processes that use the descriptor table of their parent."""
        processes = self._holders.processes
        pairs = []
        for pid in pids:
            state = processes.get(pid)
            parent = None if state is None else processes.get(state.process.ppid)
            # A process with another number of descriptors has another table.
            if state and parent and state.fds and len(state.fds) == len(parent.fds):
                pairs.append((pid, parent.process.pid))
        if pairs:
            found = await self._calls.batch(self._shared, pairs, _place_of_pair)
            for pid in found:
                self._holders.mark_shared(pid)

    def _shared(self, pairs: Iterable[tuple[int, int]], progress: Progress) -> list[int]:
        """Return the first process of each pair that may share the other's table. Blocking."""
        found = []
        for pid, parent in progress.each(pairs, _place_of_pair):
            if may_share_fds(self._procfs.root, pid, parent):
                found.append(pid)
        return found

    # Sockets that lost their rows or have no holder yet.

    async def read_new(self, pids: Sequence[int]) -> None:
        """Read the descriptors that processes have opened since they were read, and processes that
        were not read yet."""
        known = [pid for pid in pids if self._can_check(pid)]
        new = [pid for pid in pids if pid not in self._holders.processes]
        whole = [*new, *await self._check(dict.fromkeys(known, ()))]
        await self._scan(whole)
        await self._find_shared(whole)

    def _can_check(self, pid: int) -> bool:
        state = self._holders.processes.get(pid)
        return state is not None and state.readable and pid not in self._late.pids

    async def recheck_holders_of(self, inodes: Iterable[int]) -> None:
        """Read the descriptors on sockets that left the tables again."""
        fds_of = self._holders.fds_of(inodes)
        for pid in fds_of.keys() & self._late.pids:
            for inode in {self._holders.processes[pid].fds[fd] for fd in fds_of.pop(pid)}:
                self._holders.remove_socket(pid, inode)
        await self._scan(await self._check(fds_of))

    async def search(self, orphans: Sequence[Socket]) -> None:
        """Search the most likely processes for holders, up to SEARCH_DESCRIPTORS descriptors."""
        if not orphans:
            return
        holders = self._holders
        inodes = [socket.inode for socket in orphans]
        candidates = await self._may_hold_new(
            [pid for pid in holders.candidates_for(orphans) if pid not in self._late.pids]
        )
        budget = SEARCH_DESCRIPTORS
        while candidates and not all(map(holders.pids_of, inodes)):
            batch: list[int] = []
            while candidates and len(batch) < _SEARCH_BATCH:
                state = holders.processes.get(candidates[0])
                budget -= 1 if state is None else max(1, len(state.fds))
                if budget < 0:
                    candidates.clear()
                    break
                batch.append(candidates.pop(0))
            await self._scan(batch)
            for pid in batch:
                holders.mark_searched(pid)

    async def _may_hold_new(self, pids: Sequence[int]) -> list[int]:
        """Return those processes that have run since their descriptors were read, or may have."""
        if self._monitor is None:
            return list(pids)
        ran = await self._have_run(list(self._holders.processes))
        self._ran_since = {pid for pid, has_run in ran.items() if has_run}
        return [pid for pid in pids if ran.get(pid) is not False or self._planner.is_stale(pid)]

    # What is read late.

    def _note_delay(self, now: float) -> None:
        """Record how long it takes to read the descriptors of all processes that have run."""
        seconds = self._planner.backlog / RECHECK_DESCRIPTORS
        longest, when = self._longest_delay
        if seconds >= longest or now - when > _DELAY_WINDOW_SECONDS:
            self._longest_delay = (seconds, now)

    @property
    def recheck_delay(self) -> int:
        """Return the seconds that it took recently, at most, to read the descriptors of all
        processes that have run: rounded up, 0 if each poll reads all of them."""
        seconds = self._longest_delay[0]
        if not seconds:
            return 0
        return next((step for step in _DELAY_STEPS if step >= seconds), _DELAY_STEPS[-1])

    def beyond_limits(self) -> list[str]:
        """Return a sentence for each user with more than the limits."""
        return self._late.missing()
