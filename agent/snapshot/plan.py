"""Decide which processes, and which of their descriptors, a poll reads.

Two facts about a process are cheap to read: whether it has run, and how many descriptors it has. A
process that has run may have replaced a descriptor by another one, which changes nothing but the
descriptor itself. So the descriptors of processes that have run are read again, those of the
smallest processes first. A slow sweep reads everything in turn, whatever these facts show.

Pure: no files, no clock, no asyncio. ``Holders`` has the state of the processes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import NamedTuple

from .holders import Holders, ProcessState

# Everything is read again in this many seconds.
SWEEP_SECONDS = 60.0
# A process of which it is unknown whether it has run is checked once in this many polls.
STAT_CHECK_POLLS = 10
# Turns of the sweep in a row that skip the descriptors of a process that has not run. No way is
# known in which they change meanwhile; if there is one, this bounds its effect.
MAX_SKIPS = 9
# A quarter of a poll's budget is for processes that are too large to be read in one poll.
_LARGE_SHARE = 4


class Budget(NamedTuple):
    """Descriptors that a poll may read: in the ``sweep``, and of processes that have run."""

    sweep: int
    recheck: int


class Plan(NamedTuple):
    """What a poll reads.

    ``whole`` are processes to scan as a whole. ``parts`` maps other processes to the descriptors to
    read again; an empty collection reads only descriptors that are new or gone, None reads none.
    ``facts`` are the processes in ``parts`` whose facts are read too. ``stat_checks`` are processes
    whose stat shows whether they run the same program under the same parent. ``turns`` are the
    processes whose turn in the sweep begins.
    """

    whole: list[int]
    parts: dict[int, Collection[int] | None]
    facts: set[int]
    stat_checks: list[int]
    turns: list[int]


class Planner:
    """Plans poll after poll."""

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._poll = 0
        self._stale: set[int] = set()  # Processes that ran since their descriptors were read.
        # Descriptors of large processes that the current pass has still to read.
        self._pending: dict[int, list[int]] = {}
        self._sweep: list[int] = []  # Processes that the sweep has still to read, last one first.
        self._swept = 0  # Descriptors of the next process that the sweep has read.
        self._skips: dict[int, int] = {}  # Turns of the sweep that skipped a process, in a row.

    @property
    def backlog(self) -> int:
        """Return the number of descriptors that the newest plan leaves to later polls."""
        processes = self._holders.processes
        unread = (len(processes[pid].fds) for pid in self._stale if pid in processes)
        return sum(map(len, self._pending.values())) + sum(unread)

    def is_stale(self, pid: int) -> bool:
        """Return whether a process has run since all its descriptors were read."""
        return pid in self._stale or pid in self._pending

    def to_count(self, pids: Collection[int], ran: Mapping[int, bool | None]) -> list[int]:
        """Return the processes whose descriptors the next poll has to count. These are processes
        that are new, may have run, share a descriptor table or could not be scanned; and a tenth of
        the others."""
        processes = self._holders.processes
        turn = (self._poll + 1) % STAT_CHECK_POLLS
        return [
            pid
            for pid in pids
            if ran.get(pid) is not False
            or pid % STAT_CHECK_POLLS == turn
            or (state := processes.get(pid)) is None
            or state.failed
            or state.shares_fds
            or state.new_until > self._poll
        ]

    def plan(
        self,
        pids: Collection[int],
        counted: Mapping[int, tuple[int, int]],
        ran: Mapping[int, bool | None],
        budget: Budget,
        late: AbstractSet[int] = frozenset(),
    ) -> Plan:
        """Return what to read of the processes ``pids``; all other processes are dropped.

        ``counted`` maps processes to (inode of the descriptor directory, number of descriptors).
        ``ran`` says which processes have run since the last plan, None if unknown. The state of
        processes in ``late`` stays as it is.
        """
        self._poll = self._holders.begin_poll()
        plan = Plan([], {}, set(), self._drop_gone(pids), [])
        for pid in pids:
            state = self._holders.processes.get(pid)
            if pid in late:
                continue
            if state is None:
                plan.whole.append(pid)
            elif pid in counted:
                self._plan_counted(plan, state, counted[pid], ran.get(pid))
        self._plan_recheck(plan, budget.recheck, late)
        self._plan_sweep(plan, budget.sweep, ran, late)
        included = {*plan.whole, *plan.parts, *late}
        return plan._replace(stat_checks=[pid for pid in plan.stat_checks if pid not in included])

    def _drop_gone(self, pids: Collection[int]) -> list[int]:
        """Drop processes that are gone; return their children, which have another parent now."""
        processes = self._holders.processes
        gone = processes.keys() - pids
        for pid in gone:
            self._holders.drop(pid)
            self._stale.discard(pid)
            self._pending.pop(pid, None)
            self._skips.pop(pid, None)
        if not gone:
            return []
        return [pid for pid, state in processes.items() if state.process.ppid in gone]

    def _plan_counted(
        self, plan: Plan, state: ProcessState, counted: tuple[int, int], ran: bool | None
    ) -> None:
        """Plan for a process whose descriptors were counted."""
        pid, (directory, count) = state.process.pid, counted
        if state.directory != directory or state.failed or (state.thread_fds and ran is not False):
            plan.whole.append(pid)
            return
        if not state.readable or state.thread_fds:
            return
        if len(state.fds) != count:
            self._holders.mark_changed(pid)
        if len(state.fds) != count or state.new_until > self._poll:
            plan.parts[pid] = ()
            plan.facts.add(pid)
        if (ran or state.shares_fds) and state.fds:
            self._stale.add(pid)
            plan.stat_checks.append(pid)
        elif ran is None and pid % STAT_CHECK_POLLS == self._poll % STAT_CHECK_POLLS:
            plan.stat_checks.append(pid)

    def _plan_recheck(self, plan: Plan, budget: int, late: AbstractSet[int]) -> None:
        """Plan to read the descriptors of processes that have run, the smallest processes first. A
        process that is too large for one poll is read in slices, in several polls."""
        processes = self._holders.processes
        on_time = (processes.keys() - late).difference(plan.whole)
        self._stale &= on_time
        for pid in self._pending.keys() - on_time:
            del self._pending[pid]
        small = budget - budget // _LARGE_SHARE if self._pending else budget
        unread = self._stale - self._pending.keys()
        for pid in sorted(unread, key=lambda pid: len(processes[pid].fds)):
            fds = processes[pid].fds
            self._stale.discard(pid)
            if len(fds) > small:
                self._pending[pid] = list(fds)
                continue
            small -= len(fds)
            budget -= len(fds)
            plan.parts[pid] = fds.keys()
        for pid in list(self._pending):
            if budget <= 0:
                break
            # A process with a rest goes to the end: the next poll continues with another one.
            remaining = self._pending.pop(pid)
            chosen = remaining[-budget:]
            del remaining[-budget:]
            budget -= len(chosen)
            plan.parts[pid] = chosen
            if remaining:
                self._pending[pid] = remaining

    def _plan_sweep(
        self, plan: Plan, budget: int, ran: Mapping[int, bool | None], late: AbstractSet[int]
    ) -> None:
        """Plan the sweep of ``budget`` descriptors; a process without descriptors counts as one. Of
        a process that has not run only the facts are read: other processes may change these."""
        processes = self._holders.processes
        if not self._sweep:
            self._sweep, self._swept = list(processes), 0
        while budget > 0 and self._sweep:
            pid = self._sweep[-1]
            state = processes.get(pid)
            if state is None or not state.readable or state.failed or pid in late:
                if state is not None and pid not in plan.whole and pid not in late:
                    plan.whole.append(pid)  # It may be readable by now.
                budget -= 1
                self._end_turn()
                continue
            if self._swept == 0:
                plan.turns.append(pid)
                plan.facts.add(pid)
                plan.parts.setdefault(pid, None)
            skips = self._skips.get(pid, 0)
            can_skip = ran.get(pid) is not None and not state.shares_fds and skips < MAX_SKIPS
            if can_skip or state.thread_fds:
                # A skip uses as much budget as reading: so turns are evenly spread in time.
                cost = max(1, len(state.fds)) - self._swept
                if cost > budget:
                    self._swept += budget
                    return
                budget -= cost
                self._skips[pid] = skips + 1 if can_skip else 0
                if not can_skip and pid not in plan.whole:
                    plan.whole.append(pid)
                self._end_turn()
                continue
            chosen = list(islice(state.fds, self._swept, self._swept + budget))
            plan.parts[pid] = {*(plan.parts.get(pid) or ()), *chosen}
            self._swept += len(chosen)
            budget -= max(1, len(chosen))
            if self._swept >= len(state.fds):
                self._skips.pop(pid, None)
                self._end_turn()

    def _end_turn(self) -> None:
        self._sweep.pop()
        self._swept = 0
