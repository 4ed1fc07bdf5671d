"""The true sockets of a workload, and the score of an agent's reports of them. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from .stream import Address, Report

# Identifies a socket: protocol, local port and remote port; for UDP the local port only, for unix
# the inode, for unix sockets of PostgreSQL the pid of the backend.
Key = tuple[str, int, int]
# Times in logs are rounded to milliseconds and written a little late.
_SLACK_SECONDS = 0.05
# Longest delay of a notice.
_LATE_SECONDS = 0.5
_EVERYWHERE = frozenset({"0.0.0.0", "::"})


def key_of(proto: str, local_port: int, remote_port: int | None) -> Key:
    """Return the key of a TCP or UDP socket. A UDP socket may be connected late or never."""
    return (proto, local_port, 0 if proto == "udp" else remote_port or 0)


@dataclass(slots=True)
class End:
    """One end of a connection, or one socket. ``pids`` are its possible holders; ``noticed`` is the
    time of receipt of its destroy notice."""

    side: str
    key: Key
    begin: float
    end: float
    pids: frozenset[int]
    local: Address | None = None
    remote: Address | None = None
    peer: End | None = None
    noticed: float | None = None
    reports: list[Report] = field(default_factory=list)


class Program(NamedTuple):
    """What a process shows of itself; None: unknown."""

    comm: str
    ppid: int | None = None
    exe: str | None = None


class Truth(NamedTuple):
    """The ends of one run; ``ports`` are those of the servers, with their protocol.

    ``programs`` are of the processes by pid. ``is_exact``: the times of the clients' ends are their
    own, not those of a server's log.
    """

    connections: int
    ends: list[End]
    ports: frozenset[tuple[str, int]]
    programs: Mapping[int, Program] = {}
    is_exact: bool = False


class Noticed(Protocol):
    """A destroy notice."""

    @property
    def time(self) -> float: ...
    @property
    def key(self) -> Key: ...


@dataclass(slots=True)
class Score:
    """How the ends of one side were reported."""

    ends: int = 0
    opened_and_closed: int = 0
    still_open: int = 0
    once: int = 0
    attributed: int = 0  # Without a process, closed as `attributed`, then with one.
    shared: int = 0  # Reported once for each of the processes that held it.
    duplicate: int = 0
    never: int = 0
    right: int = 0
    null: int = 0
    wrong: int = 0
    ghosts: int = 0  # Opened without a process, with an inode, after the end.
    short_lived_long: int = 0  # Reported as short-lived, but alive for two intervals.
    wrong_address: int = 0
    duration_errors: int = 0
    delays: list[float] = field(default_factory=list)
    # From the end to the receipt of the record of the close.
    lags: list[float] = field(default_factory=list)
    # Reports of the right process whose program is known, and how many of each field are right.
    programs: Counter[str] = field(default_factory=Counter)
    wrong_programs: Counter[str] = field(default_factory=Counter)  # Examples.
    patterns: Counter[str] = field(default_factory=Counter)


def give_notices(ends: Iterable[End], notices: Iterable[Noticed]) -> list[Noticed]:
    """Assign destroy notices to the ends; return the notices of no end.

    The times of a log are better: under load notices arrive tenths of a second late.
    """
    by_key: defaultdict[Key, list[Noticed]] = defaultdict(list)
    for notice in notices:
        by_key[notice.key].append(notice)
    for end in sorted(ends, key=lambda one: one.begin):
        candidates = by_key.get(end.key, [])
        fitting = [one for one in candidates if one.time >= end.begin - _SLACK_SECONDS]
        if fitting:
            nearest = min(fitting, key=partial(_off, end.end))
            candidates.remove(nearest)
            end.noticed = nearest.time
    return [one for candidates in by_key.values() for one in candidates]


def _off(time: float, notice: Noticed) -> float:
    return abs(notice.time - time)


def unlogged(truth: Truth, notices: Iterable[Noticed]) -> list[End]:
    """Return an end for each socket of the workload that is in no log, such as an abandoned
    connection. Its begin and its process are unknown."""
    keys = frozenset(end.key for end in truth.ends)
    return [
        End("unlogged", one.key, one.time - _LATE_SECONDS, one.time, frozenset())
        for one in notices
        if is_of(one.key, truth, keys)
    ]


def reused(ends: Iterable[End], seconds: float) -> int:
    """Return the number of ends with the ports of another that ended less than ``seconds`` before:
    their reports may be confused."""
    ended: dict[Key, float] = {}
    count = 0
    for end in sorted(ends, key=lambda one: one.end):
        count += end.end - ended.get(end.key, 0.0) < seconds
        ended[end.key] = end.end
    return count


def is_of(key: Key, truth: Truth, keys: frozenset[Key]) -> bool:
    """Return whether a key is of the workload; ``keys`` are those of its ends."""
    proto, local, remote = key
    ports = truth.ports
    return key in keys or (bool(remote) and ((proto, local) in ports or (proto, remote) in ports))


def match(truth: Truth, others: Sequence[End], reports: Iterable[Report]) -> list[Report]:
    """Assign each report to its end, which may be one of ``others``; return the reports of the
    workload that have no end."""
    by_key: defaultdict[Key, list[End]] = defaultdict(list)
    for end in (*truth.ends, *others):
        by_key[end.key].append(end)
    unmatched: list[Report] = []
    clients: list[Report] = []
    opened = [report for report in reports if report.opened is not None]
    # The last report first: if ports were reused, each gets the last end that has none yet.
    for report in reversed(opened):
        keys = [key for key in keys_of(report) if key in by_key]
        found = _fitting(by_key[keys[0]], report) if keys else None
        if found is not None:
            found.reports.insert(0, report)
        elif keys or _is_on(report, truth.ports):
            unmatched.append(report)
        elif report.proto == "unix" and report.pid is not None:
            clients.insert(0, report)
    _match_peers([end for end in truth.ends if end.peer is not None], clients)
    return unmatched


def keys_of(report: Report) -> list[Key]:
    """Return the keys that ends of this report may have."""
    if report.proto == "unix":
        keys = [] if report.inode is None else [("unix", report.inode, 0)]
        bound = report.pid and report.path and report.state != "LISTEN"
        return [*keys, ("unix pid", report.pid or 0, 0)] if bound else keys
    if report.local[1] is None:
        return []
    return [key_of(report.proto, report.local[1], report.remote[1])]


def belongs(report: Report, truth: Truth, keys: frozenset[Key]) -> bool:
    """Return whether a report is of the workload; ``keys`` are those of its ends."""
    return _is_on(report, truth.ports) or not keys.isdisjoint(keys_of(report))


def _is_on(report: Report, ports: frozenset[tuple[str, int]]) -> bool:
    """Return whether a report is of a connection at one of these ports, not of a listener."""
    if report.remote[1] is None:
        return False
    return any((report.proto, port) in ports for port in (report.local[1], report.remote[1]))


def _fitting(ends: Sequence[End], report: Report) -> End | None:
    """Return the end that fits a report best; None if all began after the report."""
    opened = report.opened or 0.0
    closed = opened if report.closed is None else report.closed
    begun = [end for end in ends if end.begin - _SLACK_SECONDS <= opened]
    if not begun:  # Under load a server accepts, and logs, long after the client connected.
        begun = [end for end in ends if end.begin <= closed and not end.reports][:1]
    if len(begun) < 2:
        return begun[0] if begun else None
    if not report.short_lived:  # Two ends with the same ports do not exist at the same time.
        living = [end for end in begun if end.begin <= opened <= end.end]
        if living:
            return living[-1]
    ended = [end for end in begun if end.end - _LATE_SECONDS <= closed] or begun
    fresh = [end for end in ended if not end.reports] or ended
    return max(fresh, key=lambda end: end.end)


def _match_peers(servers: Sequence[End], reports: Iterable[Report]) -> None:
    """Assign reports to client ends that are identified by their peer, or else by their process."""
    by_inode: dict[int | None, End] = {}
    for server in servers:
        for report in server.reports:
            by_inode[report.inode] = server
    unmatched = []
    for report in reports:
        found = by_inode.get(report.peer_inode)
        if found is not None and found.peer is not None:
            found.peer.reports.append(report)
        else:
            unmatched.append(report)
    clients = [one.peer for one in servers if one.peer is not None and not one.peer.reports]
    for report in unmatched:
        opened = (report.opened or 0.0) + _SLACK_SECONDS
        begun = [one for one in clients if one.begin <= opened and report.pid in one.pids]
        if begun:
            newest = max(begun, key=lambda one: one.begin)
            newest.reports.append(report)
            clients.remove(newest)


def score(
    ends: Iterable[End], interval: float, programs: Mapping[int, Program] | None = None
) -> dict[str, Score]:
    """Return the scores by side. ``programs`` are of the processes by pid."""
    scores: dict[str, Score] = {}
    for end in ends:
        into = scores.setdefault(end.side, Score())
        _count(into, end, interval)
        _count_programs(into, end, programs or {})
    return scores


def _count_programs(into: Score, end: End, programs: Mapping[int, Program]) -> None:
    """Compare the programs of the reports of the right process with the true ones."""
    for report in end.reports:
        true = programs.get(report.pid or 0)
        if true is None or report.pid not in end.pids:
            continue
        for name in Program._fields:
            is_right = getattr(report, name) == getattr(true, name)
            if getattr(true, name) is not None:
                into.programs[name] += is_right
                into.programs[f"{name} of"] += 1
                if not is_right:
                    pair = f"{getattr(report, name)} not {getattr(true, name)}"
                    into.wrong_programs[f"{name}: {pair}"] += 1


def _count(into: Score, end: End, interval: float) -> None:
    into.ends += 1
    reports = end.reports
    if not reports:
        into.never += 1
        return
    kinds = [_kind(report, end, interval) for report in reports]
    into.patterns[" + ".join(sorted(kinds))] += 1
    into.ghosts += kinds.count("ghost")
    into.still_open += any(report.closed is None for report in reports)
    into.opened_and_closed += all(report.closed is not None for report in reports)
    final = [one for one, kind in zip(reports, kinds, strict=True) if kind != "attributed"]
    if len(reports) == 1:
        into.once += 1
    elif len(final) == 1:
        into.attributed += 1
    elif None not in {one.pid for one in final} and len({one.pid for one in final}) == len(final):
        into.shared += 1
    else:
        into.duplicate += 1
    if "wrong" in kinds:
        into.wrong += 1
    elif "right" in kinds:
        into.right += 1
    else:
        into.null += 1
    lived = end.end - end.begin
    into.short_lived_long += any(report.short_lived for report in reports) and lived > 2 * interval
    into.wrong_address += any(_is_elsewhere(report, end) for report in reports)
    last = _last(final, end)
    if last is not None and last.closed is not None:
        into.delays.append(last.closed - end.end)
        if last.received is not None:
            into.lags.append(last.received - end.end)
        if last.duration_ms is not None:
            into.duration_errors += abs(last.duration_ms / 1000 - lived) > 2 * interval


def _kind(report: Report, end: End, interval: float) -> str:
    """Classify a report by its process: right, wrong, or the reason for having none."""
    if report.pid is not None:
        return "right" if report.pid in end.pids else "wrong"
    if report.short_lived:
        return "short-lived"
    if report.reason == "attributed":
        return "attributed"
    late = report.opened is not None and report.opened > end.end + interval / 2
    return "ghost" if late else "null"


def _last(reports: Sequence[Report], end: End) -> Report | None:
    """Return the report with the close of the socket: the last one of its processes."""
    right = [one for one in reports if one.pid in end.pids and one.closed is not None]
    closed = right or [one for one in reports if one.closed is not None][:1]
    return max(closed, key=lambda one: one.closed or 0.0, default=None)


def _is_elsewhere(report: Report, end: End) -> bool:
    pairs: Mapping[str, tuple[Address, Address | None]] = {
        "local": (report.local, end.local),
        "remote": (report.remote, end.remote),
    }
    return any(
        true is not None and _plain(seen) != _plain(true) and seen[0] not in _EVERYWHERE
        for seen, true in pairs.values()
    )


def _plain(address: Address) -> Address:
    text, port = address
    return (None if text is None else text.removeprefix("::ffff:"), port)
