"""Decide which processes and namespaces are read late: those beyond the limits of their user.

Any user can share one descriptor table among many processes, and create hundreds of namespaces, at
no cost. What one user has beyond the limits is read late, so that the sockets of all other users
are reported on time. Root is exempt. Pure: no files, no clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

ROOT = 0
# Beyond this multiple of a limit a user's processes are not read at all: memory is limited too.
CEILING = 2


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
    """Return the processes beyond the limits of their users.

    Those with the fewest descriptors count first, so that large processes delay no small ones.
    """
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
    """Return the namespaces beyond ``limit`` of each user, by user.

    ``owners`` maps namespaces, in the order in which they were found, to the users of the processes
    in them. A namespace in which root or several users have processes counts for no user.
    """
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
