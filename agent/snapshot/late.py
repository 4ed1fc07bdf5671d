"""Processes beyond the limits of their users: which of them a poll has time to read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from .holders import Holders
from .quota import NO_EXCESS, Excess, Limits, Usage, excess, in_turn, rounded

# The share of a poll's time for these processes. Time that is not used is saved up to
# MAX_SAVED_SECONDS, enough for a process with 100,000 descriptors.
TIME_SHARE = 0.1
MAX_SAVED_SECONDS = 0.5
_DESCRIPTOR_SECONDS = 5e-6  # To read one descriptor.


class LateProcesses:
    """Processes that are read late, others in each poll."""

    def __init__(self, holders: Holders, limits: Limits) -> None:
        self._holders = holders
        self._limits = limits
        self._excess: Excess = NO_EXCESS
        self._read_in: dict[int, int] = {}  # The poll in which a late process was read last.
        self._polls = 0
        self._saved_seconds = 0.0

    @property
    def pids(self) -> frozenset[int]:
        """Return the processes beyond the limits of their users."""
        return self._excess.late

    def may_exceed(self, descriptors: int) -> bool:
        """Return whether any user may be beyond the limits, with this many descriptors in all."""
        return descriptors > min(self._limits.descriptors, self._limits.holdings)

    def set_none(self) -> frozenset[int]:
        """Record that no user is beyond the limits."""
        self._excess = NO_EXCESS
        return self.pids

    def set_present(
        self, pids: Collection[int], counts: Mapping[int, int], owners: Mapping[int, int]
    ) -> frozenset[int]:
        """Record the processes that exist; return those beyond the limits.

        ``counts`` maps some to their number of descriptors, ``owners`` new ones to their user.
        """
        usages = {pid: Usage(uid, counts.get(pid, 0), None) for pid, uid in owners.items()}
        for pid in pids:
            state = self._holders.processes.get(pid)
            if state is not None and state.process.uid is not None:
                count = counts.get(pid, len(state.fds)) + len(state.thread_fds)
                usages[pid] = Usage(state.process.uid, count, len(state.held))
        self._excess = excess(usages, self._limits)
        return self.pids

    def take_affordable(
        self, counts: Mapping[int, int], has_run: Callable[[int], bool], passed: float
    ) -> list[int]:
        """Return late processes to read now, those that were read longest ago first.

        ``passed`` are the seconds since the last poll, of which TIME_SHARE may be used.
        """
        waiting = self._excess.late - self._excess.barred
        self._read_in = {pid: poll for pid, poll in self._read_in.items() if pid in waiting}
        self._saved_seconds = min(self._saved_seconds + passed * TIME_SHARE, MAX_SAVED_SECONDS)
        processes = self._holders.processes
        chosen = []
        for pid in in_turn(waiting, self._read_in):
            if pid in processes and not has_run(pid):
                continue
            count = counts[pid] if pid in counts else len(processes[pid].fds)
            cost = (1 + count) * _DESCRIPTOR_SECONDS
            if cost > self._saved_seconds:
                break
            self._saved_seconds -= cost
            self._read_in[pid] = self._polls
            chosen.append(pid)
        self._polls += 1
        return chosen

    def missing(self) -> list[str]:
        """Return a sentence for each user with more than the limits."""
        return [
            f"user {uid} has {rounded(descriptors)} descriptors in {rounded(processes)} processes, "
            "more than the limits for one user: the rest is read late (--max-user-descriptors, "
            "--max-user-holdings)"
            for uid, (descriptors, processes) in sorted(self._excess.users.items())
        ]
