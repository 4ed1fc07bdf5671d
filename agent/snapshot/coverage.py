"""What a poll could see, and what not: coverage, in short sentences for people.

It knows the holders, and nothing of files, asyncio and output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..model import Coverage
from .holders import Holders

HIDDEN = "other users' processes are hidden (procfs is mounted with hidepid)"
# Processes that a sentence names; with more it tells how many.
MOST_NAMED = 3
# Sentences of one kind, of network namespaces or tables, that are listed.
MAX_ALIKE = 20
# What differs between two sentences of one kind. A process chooses its name, which stands in
# parentheses and may hold some itself.
_VARIABLE = re.compile(r"\(.*\)|\b(some )?process(es)?\b|[\d, ]+", re.DOTALL)


def coverage(
    holders: Holders,
    namespaces: int,
    failed: Mapping[int, str],
    *,
    hidden: bool,
    unread: Iterable[str],
) -> Coverage:
    """The coverage of a poll that read so many network ``namespaces``.

    ``failed`` says of processes why they could not be looked at; ``unread``, in sentences, what
    could not be read of the tables. ``hidden``: other users' processes are not listed.
    """
    watched = holders.watched
    unreadable = [pid for pid, known in watched.items() if not known.readable]
    missing = []
    if unreadable:
        whose = named({pid: watched[pid].process.comm for pid in unreadable})
        missing.append(f"the descriptors of {whose} may not be read")
    if hidden:
        missing.append(HIDDEN)
    reasons: dict[str, list[int]] = {}
    for pid, why in failed.items():
        reasons.setdefault(why, []).append(pid)
    for why, pids in sorted(reasons.items()):
        names = {pid: watched[pid].process.comm if pid in watched else None for pid in pids}
        missing.append(f"{named(names, exactly=True)} could not be read ({why})")
    missing += _bounded(unread)
    return Coverage(len(watched), len(unreadable), namespaces, tuple(missing))


def _bounded(sentences: Iterable[str]) -> list[str]:
    """Return at most MAX_ALIKE sentences of each kind; the last one says how many others there are.

    Users may make namespaces, and gaps in each of them.
    """
    by_kind: dict[str, list[str]] = {}
    for sentence in sentences:
        by_kind.setdefault(kind(sentence), []).append(sentence)
    bounded: list[str] = []
    for alike in by_kind.values():
        others = len(alike) - MAX_ALIKE
        bounded += alike[:MAX_ALIKE]
        if others > 0:
            bounded[-1] += f"; {others} more such gaps"
    return bounded


def named(processes: Mapping[int, str | None], *, exactly: bool = False) -> str:
    """These processes in a sentence; many of them by their number only if that matters."""
    if len(processes) > MOST_NAMED:
        return f"{len(processes)} processes" if exactly else "some processes"
    names = [f"{pid} ({comm})" if comm else str(pid) for pid, comm in sorted(processes.items())]
    return f"process{'es' if len(names) > 1 else ''} {', '.join(names)}"


def kind(sentence: str) -> str:
    """Return what a sentence of ``Coverage.missing`` has in common with others of its kind.

    There are few kinds, whatever the names and numbers are.
    """
    return _VARIABLE.sub("", sentence)
