"""Deltas and snapshots to NDJSON records.

A record is joined from three pieces of JSON: a head that all records of an event and poll share,
the socket, and the process, which is encoded once for all of its sockets. ``schema.py`` describes
the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from orjson import OPT_APPEND_NEWLINE, dumps

from .. import __version__
from ..model import (
    INET_FAMILIES,
    Closed,
    Coverage,
    Delta,
    Holding,
    Opened,
    Owner,
    Process,
    TcpFigures,
    Updated,
)
from ..snapshot.stats import PollSummary
from ..text import escape_controls
from .times import timestamp

if TYPE_CHECKING:
    from .filters import Filter

SCHEMA_VERSION = 1
_poll_time = lru_cache(maxsize=16)(timestamp)  # All records of a poll have one time.
_PROCESS_FIELDS = ("comm", "exe", "ppid", "start_time", "cgroup", "unit", "container")
# Fields that change all the time, which ``previous`` leaves out.
_UNTRACKED = frozenset({"recv_q", "send_q", "cmdline", "peer_pid"})
_NO_FIGURES = dict.fromkeys(TcpFigures._fields)
_NO_STATS = dict.fromkeys(PollSummary._fields)
_DIRECTIONS = {
    None: "null", "inbound": '"inbound"', "outbound": '"outbound"', "listen": '"listen"'
}  # fmt: skip
# Records of a one-shot snapshot that are written at a time, about 300 KiB.
SNAPSHOT_CHUNK_LINES = 512


class AgentInfo(NamedTuple):
    """The agent as ``hello`` reports it. ``interval`` is in seconds."""

    host: str
    boot_id: str | None
    epoch: str
    interval: float
    version: str = __version__


class Encoder:
    """Encodes the records of one agent; keeps the JSON of each process. All lines end with a
    newline."""

    def __init__(self, agent: AgentInfo, *, is_kernels: bool = True) -> None:
        """``is_kernels``: addresses and words such as states are those of the kernel, and need no
        escapes; those of records may be any text."""
        self._agent = agent
        self._is_kernels = is_kernels
        self._host = _json(agent.host)
        self._processes: dict[int, tuple[Process, str]] = {}

    @property
    def host(self) -> str:
        """The host name of the agent."""
        return self._agent.host

    def identify(self, agent: AgentInfo) -> None:
        """Set what ``hello`` reports; the host is the same."""
        self._agent = agent

    # Records of the stream itself.

    def hello(
        self, seq: int, time: float, coverage: Coverage, *, resumed: bool, oldest: int = 0
    ) -> bytes:
        """Return the first record of a stream. ``oldest`` is the smallest number after which it
        can be resumed."""
        agent = self._agent
        fields = {
            "schema": SCHEMA_VERSION,
            "version": agent.version,
            "boot_id": agent.boot_id,
            "epoch": agent.epoch,
            "interval": agent.interval,
            "resumed": resumed,
            "oldest": oldest,
            **coverage_fields(coverage),
        }
        return self._record("hello", seq, time, fields)

    def snapshot_end(self, seq: int, time: float, count: int) -> bytes:
        """Return the record after the ``count`` records of a snapshot."""
        return self._record("snapshot_end", seq, time, {"count": count})

    def lost(self, seq: int, time: float, first: int, last: int) -> bytes:
        """Return the record of dropped deltas: ``first`` to ``last``."""
        return self._record("lost", seq, time, {"from": first, "to": last})

    def heartbeat(self, seq: int, time: float, stats: PollSummary | None) -> bytes:
        """Return a heartbeat; ``stats`` is what the polls of the agent cost, None if unknown."""
        fields = _NO_STATS if stats is None else stats._asdict()
        return self._record("heartbeat", seq, time, fields)

    def _record(self, event: str, seq: int, time: float, fields: dict[str, object]) -> bytes:
        head = {"event": event, "seq": seq, "time": timestamp(time), "host": self._agent.host}
        line = dumps(head | fields, option=OPT_APPEND_NEWLINE)
        if line.isascii() and b"\x7f" not in line:
            return line
        return escape_controls(line.decode()).encode()

    # Socket records.

    def head(self, event: str, seq: int, time: float) -> str:
        """Return the beginning of socket records of one event, seq and time."""
        return self._head(event, seq, _poll_time(time))

    def _head(self, event: str, seq: int, at: str) -> str:
        return f'{{"event":"{event}","seq":{seq},"time":"{at}","host":{self._host}'

    def _delta_head(self, event: str, seq: int, polled: float, observed: float | None) -> str:
        """Return the beginning of the record of a delta: with the time that an event showed, or
        else with that of the poll."""
        if observed is None:
            return self.head(event, seq, polled) + ',"time_source":"poll"'
        return self._head(event, seq, timestamp(observed)) + ',"time_source":"event"'

    def holding(self, head: str, holding: Holding) -> bytes:
        """Return a socket record; ``head`` is one of ``snapshot`` or ``open``."""
        return next(self.holdings(head, (holding,)))

    def holdings(self, head: str, holdings: Iterable[Holding]) -> Iterator[bytes]:
        """Yield the socket records of many holdings, best those of one process in a row.

        Nearly all sockets fit one of two templates, which take half the time of the general way.
        The end of a record is encoded once for consecutive sockets of a process.
        """
        last: Process | None = None
        shared: tuple[object, ...] = ()
        tail: str | None = None
        for holding in holdings:
            (
                inode, proto, family, kind, state, local_addr, local_port, remote_addr,
                remote_port, path, direction, recv_q, send_q, _uid, netns, source, peer_inode,
                _backlog, interface, _cgroup, _cookie,
            ), process, fds, owner, peer_pid, _place, _omitted, _attribution = holding  # fmt: skip
            if process is not last or (owner, netns, source) != shared:
                last, shared = process, (owner, netns, source)
                tail = self._tail(process, owner, netns, source)
            if tail is None or len(fds) != 1 or state is None or interface or state == "LISTEN":
                pass
            elif (
                remote_addr is not None
                and remote_port is not None
                and local_port is not None
                and recv_q is not None
                and send_q is not None
                and family in INET_FAMILIES
            ):
                yield (
                    f'{head},"proto":"{proto}","family":"{family}","state":"{state}",'
                    f'"local_addr":"{local_addr}","local_port":{local_port},'
                    f'"remote_addr":"{remote_addr}","remote_port":{remote_port},'
                    f'"interface":null,"direction":{_DIRECTIONS[direction]},"recv_q":{recv_q},'
                    f'"send_q":{send_q},"inode":{inode},"fds":[{fds[0]}],{tail}'
                ).encode()
                continue
            elif family == "unix" and kind is not None:
                name = "null"
                if path is not None:
                    name = dumps(path).decode()
                    if not path.isascii() or "\x7f" in path:
                        name = escape_controls(name)
                yield (
                    f'{head},"proto":"unix","family":"unix","state":"{state}","path":{name},'
                    f'"type":"{kind}","peer_inode":{"null" if peer_inode is None else peer_inode},'
                    f'"peer_pid":{"null" if peer_pid is None else peer_pid},'
                    f'"direction":{_DIRECTIONS[direction]},'
                    f'"recv_q":{"null" if recv_q is None else recv_q},'
                    f'"send_q":{"null" if send_q is None else send_q},'
                    f'"inode":{inode},"fds":[{fds[0]}],{tail}'
                ).encode()
                continue
            yield self._record_of(head, socket_fields(holding), process)

    def _tail(
        self, process: Process | None, owner: Owner | None, netns: int | None, source: str
    ) -> str | None:
        """Return the end of a record, which sockets of a process with one descriptor each share;
        None where the templates do not apply."""
        if process is None or owner is None or netns is None or not self._is_kernels:
            return None
        fields = {
            "fd_count": 1,
            "netns": netns,
            **owner._asdict(),
            "source": source,
            "pid": process.pid,
        }
        return _json(fields)[1:-1] + self._process_json(process)

    def _record_of(self, head: str, fields: dict[str, object], process: Process | None) -> bytes:
        tail = "}\n" if process is None else self._process_json(process)
        encoded = dumps(fields)[1:-1].decode()
        if not encoded.isascii() or "\x7f" in encoded:  # A call takes 2 % of the record's time.
            encoded = escape_controls(encoded)
        return f"{head},{encoded}{tail}".encode()

    def delta(self, delta: Delta, seq: int, time: float) -> bytes:
        """Return the record of a delta."""
        match delta:
            case Opened(holding, at):
                head = self._delta_head("open", seq, time, at) + _attribution(holding)
                return self.holding(head, holding)
            case Updated(holding, before, _, at):
                fields = socket_fields(holding)
                fields["previous"] = _previous(holding, before)
                head = self._delta_head("update", seq, time, at)
                return self._record_of(head, fields, holding.process)
            case Closed(holding, reason, seconds, at, figures):
                fields = socket_fields(holding)
                fields["reason"] = reason
                # A wall clock set back must not make a duration negative.
                fields["duration_ms"] = None if seconds is None else max(0, round(seconds * 1000))
                if holding.socket.proto == "tcp":
                    fields |= _NO_FIGURES if figures is None else figures._asdict()
                head = self._delta_head("close", seq, time, at) + _attribution(holding)
                return self._record_of(head, fields, holding.process)
            case Coverage():
                return self._record("coverage", seq, time, coverage_fields(delta))

    def _process_json(self, process: Process) -> str:
        """Return the fields of a process and the end of the record, as JSON. Without keeping them,
        a snapshot takes 1.5 times as long to encode, deltas 1.2 times."""
        known = self._processes.get(process.pid)
        if known is not None and known[0] is process:
            return known[1]
        encoded = f",{_json(process_fields(process))[1:]}\n"
        self._processes[process.pid] = (process, encoded)
        return encoded

    def forget_processes_except(self, pids: AbstractSet[int]) -> None:
        """Drop the JSON of processes that have exited."""
        for pid in self._processes.keys() - pids:
            del self._processes[pid]


def snapshot_chunks(
    encoder: Encoder, holdings: Iterable[Holding], chosen: Filter, now: float
) -> Iterator[bytes]:
    """Yield the records of a one-shot snapshot that pass a filter, many at a time."""
    if "snapshot" not in chosen.events:
        return
    chosen = chosen.of_host(encoder.host)
    if not chosen.passes_all:
        holdings = filter(chosen.matches, holdings)
    lines = encoder.holdings(encoder.head("snapshot", 0, now), holdings)
    while chunk := b"".join(islice(lines, SNAPSHOT_CHUNK_LINES)):
        yield chunk


def _json(value: object) -> str:
    """Return a value as JSON without raw control characters."""
    return escape_controls(dumps(value).decode())


def _attribution(holding: Holding) -> str:
    """Return how the process of a socket that no poll saw was found, as the next field of a head;
    nothing for other sockets, and for a UDP socket without a process."""
    if holding.socket.inode:
        return ""
    if holding.attribution is None:
        return ',"attribution":null' if holding.socket.proto == "tcp" else ""
    return f',"attribution":"{holding.attribution}"'


def socket_fields(holding: Holding) -> dict[str, object]:
    """Return the fields of a record that describe the socket, ``pid`` and ``fds`` among them."""
    (
        inode, proto, family, kind, state, local_addr, local_port, remote_addr, remote_port,
        path, direction, recv_q, send_q, _uid, netns, source, peer_inode, backlog, interface,
        _cgroup, _cookie,
    ), process, fds, owner, peer_pid, place, omitted_fds, _attribution = holding  # fmt: skip
    uid, user = (None, None) if owner is None else owner
    fields: dict[str, object]
    if family == "unix":
        fields = {"proto": proto, "family": family, "state": state, "path": path, "type": kind}
        fields["peer_inode"] = peer_inode
        fields["peer_pid"] = peer_pid
    else:
        fields = {
            "proto": proto,
            "family": family,
            "state": state,
            "local_addr": local_addr,
            "local_port": local_port,
            "remote_addr": remote_addr,
            "remote_port": remote_port,
        }
        if family in INET_FAMILIES:
            fields["interface"] = interface
    if state == "LISTEN":
        fields["backlog"] = backlog
    fields["direction"] = direction
    fields["recv_q"] = recv_q
    fields["send_q"] = send_q
    fields["inode"] = inode or None
    if process is not None:
        fields["fds"] = fds
        fields["fd_count"] = len(fds) + omitted_fds
    fields["netns"] = netns
    fields["uid"] = uid
    fields["user"] = user
    fields["source"] = source
    fields["pid"] = None if process is None else process.pid
    if place is not None:
        fields |= place._asdict()
    return fields


def process_fields(process: Process) -> dict[str, object]:
    """Return the fields of a record that describe the process."""
    fields: dict[str, object] = {name: getattr(process, name) for name in _PROCESS_FIELDS}
    fields["start_time"] = timestamp(process.start_time)
    if process.cmdline is not None:
        fields["cmdline"] = process.cmdline
    return fields


def coverage_fields(coverage: Coverage) -> dict[str, object]:
    """Return the coverage fields of ``hello`` and ``coverage`` records."""
    return {
        "complete": coverage.complete,
        "processes": coverage.processes,
        "unreadable": coverage.unreadable,
        "netns": coverage.netns,
        "missing": coverage.missing,
        "events": coverage.events_off is None,
        "events_off": coverage.events_off,
    }


def record_fields(holding: Holding) -> dict[str, object]:
    """Return all fields of the record of a holding."""
    fields = socket_fields(holding)
    if holding.process is not None:
        fields |= process_fields(holding.process)
    return fields


def _previous(now: Holding, before: Holding) -> dict[str, object]:
    """Return the fields of the record of ``before`` that differ now."""
    fields, old = record_fields(now), record_fields(before)
    return {
        name: old.get(name)
        for name, value in fields.items()
        if name not in _UNTRACKED and old.get(name) != value
    }
