"""Coverage: what a poll could not read, in short sentences. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..model import Coverage
from .holders import Holders

HIDDEN = "other users' processes are hidden (procfs is mounted with hidepid)"
# Processes that a sentence names; of more processes it states the number.
MAX_NAMED = 3
# Sentences of one kind that are listed.
MAX_ALIKE = 20
# What differs between two sentences of one kind. Names of processes are in parentheses; a process
# can choose a name that contains parentheses.
_VARIABLE = re.compile(r"\(.*\)|\b(some )?process(es)?\b|[\d, ]+", re.DOTALL)


def coverage(
    holders: Holders,
    namespaces: int,
    failed: Mapping[int, str],
    *,
    hidden: bool,
    unread: Iterable[str],
) -> Coverage:
    """Return the coverage of a poll that read this many network ``namespaces``. ``failed`` maps
    processes that could not be scanned to the reason. ``unread`` are sentences about tables.
    ``hidden``: processes of other users are not listed."""
    processes = holders.processes
    unreadable = [pid for pid, state in processes.items() if not state.readable]
    missing = []
    if unreadable:
        whose = named({pid: processes[pid].process.comm for pid in unreadable})
        missing.append(f"the descriptors of {whose} may not be read")
    if hidden:
        missing.append(HIDDEN)
    reasons: dict[str, list[int]] = {}
    for pid, why in failed.items():
        reasons.setdefault(why, []).append(pid)
    for why, pids in sorted(reasons.items()):
        names = {pid: processes[pid].process.comm if pid in processes else None for pid in pids}
        missing.append(f"{named(names, exactly=True)} could not be read ({why})")
    missing += _bounded(unread)
    return Coverage(len(processes), len(unreadable), namespaces, tuple(missing))


def _bounded(sentences: Iterable[str]) -> list[str]:
    """Return at most MAX_ALIKE sentences of each kind; the last one counts the others. Any user can
    create namespaces, and gaps in each of them."""
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
    """Return a phrase that names processes, or counts them if there are many and ``exactly``."""
    if len(processes) > MAX_NAMED:
        return f"{len(processes)} processes" if exactly else "some processes"
    names = [f"{pid} ({comm})" if comm else str(pid) for pid, comm in sorted(processes.items())]
    return f"process{'es' if len(names) > 1 else ''} {', '.join(names)}"


def kind(sentence: str) -> str:
    """Return a sentence of ``Coverage.missing`` without its names and numbers. There are few kinds
    of sentences, whatever names and numbers they contain."""
    return _VARIABLE.sub("", sentence)
