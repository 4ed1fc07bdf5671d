"""Decide which processes and namespaces are read late: those beyond the limits of their user.

Any user can share one descriptor table among many processes, and create hundreds of namespaces, at
no cost. What one user has beyond the limits is read late, so that the sockets of all other users
are reported on time. Root is exempt. Pure: no files, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from .holders import Holders

ROOT = 0
# Beyond this multiple of a limit a user's processes are not read at all: memory is limited too.
CEILING = 2
# The share of a poll's time for these processes. Time that is not used is saved up to
# MAX_SAVED_SECONDS, enough for a process with 100,000 descriptors.
TIME_SHARE = 0.1
MAX_SAVED_SECONDS = 0.5
_DESCRIPTOR_SECONDS = 5e-6  # To read one descriptor.


class Limits(NamedTuple):
    """What each user but root may have before the rest is read late."""

    descriptors: int = 100_000
    holdings: int = 50_000
    namespaces: int = 64


class Usage(NamedTuple):
    """A process's user, its number of descriptors, and the number of sockets that it holds; None if
    the process was not read yet."""

    uid: int
    descriptors: int
    holdings: int | None


class Excess(NamedTuple):
    """Processes and users beyond the limits.

    ``late`` are processes to read late; of these, the ``barred`` ones are not read at all.
    ``users`` maps each user beyond the limits to (descriptors, processes).
    """

    late: frozenset[int]
    barred: frozenset[int]
    users: Mapping[int, tuple[int, int]]


NO_EXCESS = Excess(frozenset(), frozenset(), {})


def excess(processes: Mapping[int, Usage], limits: Limits) -> Excess:
    """Return the processes beyond the limits of their users. Those with the fewest descriptors
    count first, so that large processes delay no small ones."""
    by_user: dict[int, list[tuple[int, int, int]]] = {}
    for pid, (uid, descriptors, holdings) in processes.items():
        if uid != ROOT:
            # All descriptors that were not read may be sockets.
            held = descriptors if holdings is None else holdings
            by_user.setdefault(uid, []).append((descriptors, held, pid))
    late: set[int] = set()
    barred: set[int] = set()
    users: dict[int, tuple[int, int]] = {}
    for uid, processes_of_user in by_user.items():
        descriptors = sum(count for count, _held, _pid in processes_of_user)
        holdings = sum(held for _count, held, _pid in processes_of_user)
        if descriptors <= limits.descriptors and holdings <= limits.holdings:
            continue
        users[uid] = (descriptors, len(processes_of_user))
        descriptors = holdings = 0
        for count, held, pid in sorted(processes_of_user):
            descriptors += count
            holdings += held
            if descriptors > limits.descriptors or holdings > limits.holdings:
                late.add(pid)
            if descriptors > CEILING * limits.descriptors or holdings > CEILING * limits.holdings:
                barred.add(pid)
    return Excess(frozenset(late), frozenset(barred), users)


def late_namespaces(owners: Mapping[int, Iterable[int]], limit: int) -> dict[int, list[int]]:
    """Return the namespaces beyond ``limit`` of each user, by user. ``owners`` maps namespaces, in
    the order in which they were found, to the users of the processes in them. A namespace in which
    root or several users have processes counts for no user."""
    by_user: dict[int, list[int]] = {}
    for netns, uids in owners.items():
        users = set(uids)
        if len(users) == 1 and ROOT not in users:
            by_user.setdefault(users.pop(), []).append(netns)
    return {uid: found[limit:] for uid, found in by_user.items() if len(found) > limit}


K = TypeVar("K", bound=Hashable)


def in_turn(waiting: Iterable[K], read_at: Mapping[K, int]) -> list[K]:
    """Return what waits to be read: first what was never read, then what was read longest ago."""
    return sorted(waiting, key=lambda one: read_at.get(one, -1))


def rounded(count: int) -> str:
    """Return a number rounded down to its first digit, so that a sentence changes seldom."""
    unit = 10 ** (len(str(count)) - 1)
    return f"{count // unit * unit:,}"


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
        """Record the processes that exist; return those beyond the limits. ``counts`` maps some to
        their number of descriptors, ``owners`` new ones to their user."""
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
        """Return late processes to read now, those that were read longest ago first. ``passed`` are
        the seconds since the last poll, of which TIME_SHARE may be used."""
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
            "more than a user's limit: the rest is read late (--max-user-descriptors, "
            "--max-user-holdings)"
            for uid, (descriptors, processes) in sorted(self._excess.users.items())
        ]
