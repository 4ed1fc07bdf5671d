"""Deltas and snapshots to NDJSON: the wire format. It knows nothing of who receives the records.

A record is put together from three pieces of JSON: the head that all records of one moment share,
the socket, and the process's facts, which are encoded once for all of its sockets. The fields are
described by ``schema.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import lru_cache
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
    Updated,
)
from ..text import escape_controls

if TYPE_CHECKING:
    from ..snapshot.stats import PollSummary

SCHEMA_VERSION = 1
_PROCESS_FIELDS = ("comm", "exe", "ppid", "start_time", "cgroup", "unit", "container")


class AgentInfo(NamedTuple):
    """What `hello` tells of the agent. ``interval`` is in seconds."""

    host: str
    boot_id: str | None
    epoch: str
    interval: float


@lru_cache(maxsize=64)  # All records of a poll have one time.
def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, microseconds; of seconds since the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class Encoder:
    """Encodes the records of one agent. It keeps the JSON of processes, by identity."""

    def __init__(self, agent: AgentInfo) -> None:
        self._agent = agent
        self._host = _json(agent.host)
        self._processes: dict[int, tuple[Process, str]] = {}

    # The stream's own records.

    def hello(self, seq: int, time: float, coverage: Coverage, *, resumed: bool) -> bytes:
        """The first record of a stream."""
        agent = self._agent
        return self._record(
            "hello",
            seq,
            time,
            {
                "schema": SCHEMA_VERSION,
                "version": __version__,
                "boot_id": agent.boot_id,
                "epoch": agent.epoch,
                "interval": agent.interval,
                "resumed": resumed,
                **coverage_fields(coverage),
            },
        )

    def snapshot_end(self, seq: int, time: float, count: int) -> bytes:
        """The snapshot is whole: it had ``count`` records."""
        return self._record("snapshot_end", seq, time, {"count": count})

    def lost(self, seq: int, time: float, first: int, last: int) -> bytes:
        """Deltas ``first`` to ``last`` are not told to this subscriber."""
        return self._record("lost", seq, time, {"from": first, "to": last})

    def heartbeat(self, seq: int, time: float, figures: PollSummary) -> bytes:
        """Nothing happened for a while; and what the agent's polls cost."""
        return self._record("heartbeat", seq, time, figures._asdict())

    def _record(self, event: str, seq: int, time: float, fields: dict[str, object]) -> bytes:
        line = dumps(
            {
                "event": event,
                "seq": seq,
                "time": timestamp(time),
                "host": self._agent.host,
                **fields,
            },
            option=OPT_APPEND_NEWLINE,
        )
        if line.isascii() and b"\x7f" not in line:
            return line
        return escape_controls(line.decode()).encode()

    # Socket records.

    def head(self, event: str, seq: int, time: float) -> str:
        """The beginning of a socket record; the same for all of one event, seq and time."""
        at, host = timestamp(time), self._host
        return f'{{"event":"{event}","seq":{seq},"time":"{at}","host":{host}'

    def holding(self, head: str, holding: Holding) -> bytes:
        """A socket record: ``head`` (of ``snapshot`` or ``open``) and the holding."""
        return next(self.holdings(head, (holding,)))

    def holdings(self, head: str, holdings: Iterable[Holding]) -> Iterator[bytes]:
        """The socket records of many holdings, best those of one process in a row.

        Nearly all sockets fit one of two templates, which cost half of the general way. What
        follows from the process is put together once for its sockets in a row.
        """
        last: Process | None = None
        its: tuple[object, ...] = ()
        tail: str | None = None
        for holding in holdings:
            (
                inode, proto, family, kind, state, local_addr, local_port, remote_addr,
                remote_port, path, direction, recv_q, send_q, _uid, netns, source, peer_inode,
                _backlog, interface, _cgroup, _cookie,
            ), process, fds, owner, peer_pid, _place, _omitted_fds = holding  # fmt: skip
            if process is not last or (owner, netns, source) != its:
                last, its = process, (owner, netns, source)
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
        """The end of a record: what the sockets of a process with one descriptor each share."""
        if process is None or owner is None or netns is None:
            return None
        fields = {
            "fd_count": 1,
            "netns": netns,
            **owner._asdict(),
            "source": source,
            "pid": process.pid,
        }
        return _json(fields)[1:-1] + self._facts(process)

    def _record_of(self, head: str, fields: dict[str, object], process: Process | None) -> bytes:
        tail = "}\n" if process is None else self._facts(process)
        encoded = dumps(fields)[1:-1].decode()
        if not encoded.isascii() or "\x7f" in encoded:  # Each record's: a call costs 2 % of it.
            encoded = escape_controls(encoded)
        return f"{head},{encoded}{tail}".encode()

    def delta(self, delta: Delta, seq: int, time: float) -> bytes:
        """The record of a delta."""
        match delta:
            case Opened(holding):
                return self.holding(self.head("open", seq, time), holding)
            case Updated(holding, before, _):
                return self.updated(holding, before, seq, time)
            case Closed(holding, reason, seconds):
                return self.closed(holding, reason, seconds, seq, time)
            case Coverage():
                return self._record("coverage", seq, time, coverage_fields(delta))

    def updated(self, holding: Holding, before: Holding, seq: int, time: float) -> bytes:
        """An `update` record: the holding and what of it was different before."""
        now, was = flat(holding), flat(before)
        previous = {
            name: was.get(name)
            for name in now
            if name not in _MOVING and was.get(name) != now[name]
        }
        fields = {**socket_fields(holding), "previous": previous}
        return self._record_of(self.head("update", seq, time), fields, holding.process)

    def closed(
        self, holding: Holding, reason: str, seconds: float | None, seq: int, time: float
    ) -> bytes:
        """A `close` record; ``seconds`` is how long the socket was open, None when unknown."""
        fields = socket_fields(holding)
        fields["reason"] = reason
        # A wall clock set back must not make a duration negative.
        fields["duration_ms"] = None if seconds is None else max(0, round(seconds * 1000))
        return self._record_of(self.head("close", seq, time), fields, holding.process)

    def _facts(self, process: Process) -> str:
        """The process's facts and the record's end, as JSON."""
        known = self._processes.get(process.pid)
        if known is not None and known[0] is process:
            return known[1]
        encoded = f",{_json(process_fields(process))[1:]}\n"
        self._processes[process.pid] = (process, encoded)
        return encoded

    def forget_processes_except(self, pids: AbstractSet[int]) -> None:
        """Drop what is kept of processes that are gone."""
        for pid in self._processes.keys() - pids:
            del self._processes[pid]


def _json(value: object) -> str:
    """Return a value as JSON without raw control characters."""
    return escape_controls(dumps(value).decode())


# Values that move all the time; `previous` does not tell of them.
_MOVING = frozenset({"recv_q", "send_q", "cmdline", "peer_pid"})
_DIRECTIONS = {
    None: "null", "inbound": '"inbound"', "outbound": '"outbound"', "listen": '"listen"'
}  # fmt: skip


def socket_fields(holding: Holding) -> dict[str, object]:
    """The socket's fields with the holder's ``pid`` and ``fds``, as records show them."""
    (
        inode, proto, family, kind, state, local_addr, local_port, remote_addr, remote_port,
        path, direction, recv_q, send_q, _uid, netns, source, peer_inode, backlog, interface,
        _cgroup, _cookie,
    ), process, fds, owner, peer_pid, place, omitted_fds = holding  # fmt: skip
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
    """The process's facts as records show them."""
    fields: dict[str, object] = {name: getattr(process, name) for name in _PROCESS_FIELDS}
    fields["start_time"] = timestamp(process.start_time)
    if process.cmdline is not None:
        fields["cmdline"] = process.cmdline
    return fields


def coverage_fields(coverage: Coverage) -> dict[str, object]:
    """What `hello` and `coverage` tell of the agent's sight."""
    return {
        "complete": coverage.complete,
        "processes": coverage.processes,
        "unreadable": coverage.unreadable,
        "netns": coverage.netns,
        "missing": coverage.missing,
    }


def flat(holding: Holding) -> dict[str, object]:
    """All fields of a holding's record."""
    fields = socket_fields(holding)
    if holding.process is not None:
        fields |= process_fields(holding.process)
    return fields
