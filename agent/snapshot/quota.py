"""Decide whose processes and namespaces are read last: those of a user with more than the limits.

A user may share a table of descriptors between any number of processes, and make namespaces by the
hundred, at no cost. What one user has beyond the limits is read late, so that everybody else's
sockets are reported on time. Root is exempt. Pure: no files and no clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

ROOT = 0
# Beyond this multiple of a limit a user's further processes are not read at all: memory counts too.
CEILING = 2


class Limits(NamedTuple):
    """What one user may have, but root, before the rest is read late."""

    descriptors: int = 100_000
    holdings: int = 50_000
    namespaces: int = 64


class Usage(NamedTuple):
    """What a process has: its user, how many descriptors, and how many sockets it is known to hold;
    None where it was not read yet."""

    uid: int
    descriptors: int
    holdings: int | None


class Excess(NamedTuple):
    """What is beyond the limits: processes that are ``late``, the ``barred`` ones among them that
    are not read at all, and by user (descriptors, processes)."""

    late: frozenset[int]
    barred: frozenset[int]
    users: Mapping[int, tuple[int, int]]


NONE = Excess(frozenset(), frozenset(), {})


def excess(processes: Mapping[int, Usage], limits: Limits) -> Excess:
    """Return what processes have beyond the limits of their users.

    The processes with the fewest descriptors come first, so that large ones delay no small ones.
    """
    by_user: dict[int, list[tuple[int, int, int]]] = {}
    for pid, (uid, descriptors, holdings) in processes.items():
        if uid != ROOT:
            # What was not read may be sockets, all of it.
            held = descriptors if holdings is None else holdings
            by_user.setdefault(uid, []).append((descriptors, held, pid))
    late: set[int] = set()
    barred: set[int] = set()
    users: dict[int, tuple[int, int]] = {}
    for uid, theirs in by_user.items():
        descriptors, holdings = sum(one[0] for one in theirs), sum(one[1] for one in theirs)
        if descriptors <= limits.descriptors and holdings <= limits.holdings:
            continue
        users[uid] = (descriptors, len(theirs))
        so_far = [0, 0]
        for of_one, held, pid in sorted(theirs):
            so_far[0] += of_one
            so_far[1] += held
            if so_far[0] > limits.descriptors or so_far[1] > limits.holdings:
                late.add(pid)
            if so_far[0] > CEILING * limits.descriptors or so_far[1] > CEILING * limits.holdings:
                barred.add(pid)
    return Excess(frozenset(late), frozenset(barred), users)


def late_namespaces(owners: Mapping[int, Iterable[int]], limit: int) -> dict[int, list[int]]:
    """Return the namespaces beyond ``limit`` of each user, by user.

    ``owners`` maps namespaces, in the order in which they were found, to the users of the processes
    in them; one in which root, or more than one user, has processes is nobody's.
    """
    by_user: dict[int, list[int]] = {}
    for netns, uids in owners.items():
        users = set(uids)
        if len(users) == 1 and ROOT not in users:
            by_user.setdefault(users.pop(), []).append(netns)
    return {uid: theirs[limit:] for uid, theirs in by_user.items() if len(theirs) > limit}


K = TypeVar("K", bound=Hashable)


def in_turn(waiting: Iterable[K], read_at: Mapping[K, int]) -> list[K]:
    """Return what waits to be read, that first which was read longest ago; never is longest."""
    return sorted(waiting, key=lambda one: read_at.get(one, -1))


def rounded(count: int) -> str:
    """Return a number rounded down to its first digit: a sentence is to change seldom."""
    unit = 10 ** (len(str(count)) - 1)
    return f"{count // unit * unit:,}"
