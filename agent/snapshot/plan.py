"""Decide which processes, and which of their descriptors, a poll reads.

The evidence is what is cheap to read of each process: whether it has run, and how many descriptors
it has. A process that has run since its descriptors were read may have replaced one by another,
which shows nowhere but in the descriptors: such processes are read again, the smallest first. A
slow sweep reads everything in turn, whatever the evidence says.

Pure: no files, no clock, no asyncio. What is known of the processes is with the holders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import NamedTuple

from .holders import Holders, ProcessState

# Everything is read again in this many seconds, whatever the evidence says.
SWEEP_SECONDS = 60.0
# Processes of which it is not known whether they run are looked at briefly once in so many polls.
GLANCE_POLLS = 10
# Turns of the sweep in a row in which the descriptors of a process that has not run are passed
# over. No way is known in which they change meanwhile; were there one, this bounds its effect.
MAX_RESTS = 9
# The part of a poll's budget that processes get which are too large to be read in one poll.
_LARGE_SHARE = 4


class Budget(NamedTuple):
    """How many descriptors a poll may read: of the ``sweep``, and of processes that have run."""

    sweep: int
    recheck: int


class Plan(NamedTuple):
    """What a poll reads.

    ``whole`` are processes read as a whole. ``parts`` maps others to descriptors to be read; None
    reads none of them, and with an empty collection only those that are new or gone. ``facts`` are
    those among ``parts`` of which all facts are read. ``glances`` are processes of which it is read
    whether they are still the same program with the same parent. ``turns`` are those whose turn in
    the sweep it is.
    """

    whole: list[int]
    parts: dict[int, Collection[int] | None]
    facts: set[int]
    glances: list[int]
    turns: list[int]


class Planner:
    """Plans poll after poll. ``backlog`` is how many descriptors of processes that have run the
    newest plan leaves to later polls."""

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._poll = 0
        self._stale: set[int] = set()  # Processes that ran since their descriptors were read.
        # Descriptors of large processes that are still to be read in the current turn.
        self._pending: dict[int, list[int]] = {}
        self._sweep: list[int] = []  # Processes that the sweep has still to read, the next last.
        self._swept = 0  # Descriptors of the next one that the sweep has read.

    @property
    def backlog(self) -> int:
        """How many descriptors are left to later polls."""
        watched = self._holders.watched
        unread = (len(watched[pid].fds) for pid in self._stale if pid in watched)
        return sum(map(len, self._pending.values())) + sum(unread)

    def is_stale(self, pid: int) -> bool:
        """Return whether a process has run since all of its descriptors were read."""
        return pid in self._stale or pid in self._pending

    def unevident(self, pids: Collection[int], ran: Mapping[int, bool | None]) -> list[int]:
        """Return the processes whose descriptors are to be counted in the poll that comes: those
        that are new, may have run, share their table or failed; of the others a tenth."""
        watched = self._holders.watched
        turn = (self._poll + 1) % GLANCE_POLLS
        return [
            pid
            for pid in pids
            if ran.get(pid) is not False
            or pid % GLANCE_POLLS == turn
            or (known := watched.get(pid)) is None
            or known.failed
            or known.shares
            or known.new_until > self._poll
        ]

    def plan(
        self,
        pids: Collection[int],
        seen: Mapping[int, tuple[int, int]],
        ran: Mapping[int, bool | None],
        budget: Budget,
        late: AbstractSet[int] = frozenset(),
    ) -> Plan:
        """Return what is to be read, of the processes ``pids``; others are dropped as gone. Those
        that are ``late`` are kept as they are.

        ``seen`` maps those that were counted to (directory, descriptors); ``ran`` says which have
        run since the last plan, None where that is not known.
        """
        self._poll = self._holders.begin_poll()
        plan = Plan([], {}, set(), self._drop_gone(pids), [])
        for pid in pids:
            known = self._holders.watched.get(pid)
            if pid in late:
                continue
            if known is None:
                plan.whole.append(pid)
            elif pid in seen:
                self._plan_counted(plan, known, seen[pid], ran.get(pid))
        self._plan_recheck(plan, budget.recheck, late)
        self._plan_sweep(plan, budget.sweep, ran, late)
        taken = {*plan.whole, *plan.parts, *late}
        glances = [pid for pid in plan.glances if pid not in taken]
        return plan._replace(glances=glances)

    def _drop_gone(self, pids: Collection[int]) -> list[int]:
        """Drop processes that are gone; return their children, which have another parent now."""
        watched = self._holders.watched
        gone = watched.keys() - pids
        for pid in gone:
            self._holders.drop(pid)
            self._stale.discard(pid)
            self._pending.pop(pid, None)
        if not gone:
            return []
        return [pid for pid, known in watched.items() if known.process.ppid in gone]

    def _plan_counted(
        self, plan: Plan, known: ProcessState, seen: tuple[int, int], ran: bool | None
    ) -> None:
        """Plan what the number of its descriptors, and whether it ran, show of a process."""
        pid, (directory, count) = known.process.pid, seen
        if known.directory != directory or known.failed or (known.more and ran is not False):
            plan.whole.append(pid)
            return
        if not known.readable or known.more:
            return
        if len(known.fds) != count:
            self._holders.counted_anew(known)
        if len(known.fds) != count or known.new_until > self._poll:
            plan.parts[pid] = ()
            plan.facts.add(pid)
        if (ran or known.shares) and known.fds:  # Of none there is none to be replaced.
            self._stale.add(pid)
            plan.glances.append(pid)
        elif ran is None and pid % GLANCE_POLLS == self._poll % GLANCE_POLLS:
            plan.glances.append(pid)

    def _plan_recheck(self, plan: Plan, budget: int, late: AbstractSet[int]) -> None:
        """Plan to read the descriptors of processes that have run, the smallest first.

        What is too large for one poll is read in slices, in as many polls as that takes.
        """
        watched = self._holders.watched
        on_time = (watched.keys() - late).difference(plan.whole)
        self._stale &= on_time
        for pid in self._pending.keys() - on_time:
            del self._pending[pid]
        small = budget - budget // _LARGE_SHARE if self._pending else budget
        unread = self._stale - self._pending.keys()
        for pid in sorted(unread, key=lambda pid: len(watched[pid].fds)):
            fds = watched[pid].fds
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
            # The next poll goes on with the next process.
            left = self._pending.pop(pid)
            chosen = left[-budget:]
            del left[-budget:]
            budget -= len(chosen)
            plan.parts[pid] = chosen
            if left:
                self._pending[pid] = left

    def _plan_sweep(
        self, plan: Plan, budget: int, ran: Mapping[int, bool | None], late: AbstractSet[int]
    ) -> None:
        """Plan what the sweep reads: ``budget`` descriptors; a process without any counts as one.

        Of one that has not run only the facts are read, which others may change.
        """
        watched = self._holders.watched
        if not self._sweep:
            self._sweep, self._swept = list(watched), 0
        while budget > 0 and self._sweep:
            pid = self._sweep[-1]
            known = watched.get(pid)
            if known is None or not known.readable or known.failed or pid in late:
                if known is not None and pid not in plan.whole and pid not in late:
                    plan.whole.append(pid)  # It may be readable by now.
                budget -= 1
                self._end_turn()
                continue
            if self._swept == 0:
                plan.turns.append(pid)
                plan.facts.add(pid)
                plan.parts.setdefault(pid, None)
            can_skip = ran.get(pid) is not None and not known.shares and known.can_skip < MAX_RESTS
            if can_skip or known.more:
                # It takes as long as reading: that is how often facts and the rest are read.
                left = max(1, len(known.fds)) - self._swept
                if left > budget:
                    self._swept += budget
                    return
                budget -= left
                known.can_skip = known.can_skip + 1 if can_skip else 0
                if not can_skip and pid not in plan.whole:
                    plan.whole.append(pid)
                self._end_turn()
                continue
            chosen = list(islice(known.fds, self._swept, self._swept + budget))
            plan.parts[pid] = {*(plan.parts.get(pid) or ()), *chosen}
            self._swept += len(chosen)
            budget -= max(1, len(chosen))
            if self._swept >= len(known.fds):
                known.can_skip = 0
                self._end_turn()

    def _end_turn(self) -> None:
        self._sweep.pop()
        self._swept = 0
