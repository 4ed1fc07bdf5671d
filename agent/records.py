"""Deltas and snapshots to NDJSON: the wire format. It knows nothing of who receives the records.

A record is put together from three pieces of JSON: the head that all records of one moment share,
the socket, and the process's facts, which are encoded once for all of its sockets. The fields are
described by ``schema.py``.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import NamedTuple

from orjson import OPT_APPEND_NEWLINE, dumps

from . import __version__
from .model import Closed, Coverage, Delta, Holding, Opened, Process, Updated

SCHEMA_VERSION = 1
_NAMELESS = b"}\n"
_PROCESS_FIELDS = ("comm", "exe", "ppid", "start_time", "cgroup", "unit", "container")


class Agent(NamedTuple):
    """What `hello` tells of the agent. ``interval`` is in seconds."""

    host: str
    boot_id: str | None
    epoch: str
    interval: float


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, microseconds; of seconds since the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class Encoder:
    """Encodes the records of one agent. It keeps the JSON of processes, by identity."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._processes: dict[int, tuple[Process, bytes]] = {}

    # The stream's own records.

    def hello(self, seq: int, time: float, coverage: Coverage, *, resumed: bool) -> bytes:
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
        return self._record("snapshot_end", seq, time, {"count": count})

    def lost(self, seq: int, time: float, first: int, last: int) -> bytes:
        return self._record("lost", seq, time, {"from": first, "to": last})

    def heartbeat(self, seq: int, time: float) -> bytes:
        return self._record("heartbeat", seq, time, {})

    def _record(self, event: str, seq: int, time: float, fields: dict[str, object]) -> bytes:
        record = {"event": event, "seq": seq, "time": timestamp(time), "host": self._agent.host}
        return dumps({**record, **fields}, option=OPT_APPEND_NEWLINE)

    # Socket records.

    def head(self, event: str, seq: int, time: float) -> bytes:
        """The beginning of a socket record; the same for all of one event, seq and time."""
        fields = {"event": event, "seq": seq, "time": timestamp(time), "host": self._agent.host}
        return dumps(fields)[:-1] + b","

    def holding(self, head: bytes, holding: Holding) -> bytes:
        """A socket record: ``head`` (of ``snapshot`` or ``open``) and the holding."""
        return head + dumps(socket_fields(holding))[1:-1] + self._process(holding.process)

    def delta(self, delta: Delta, seq: int, time: float) -> bytes:
        """The record of a delta."""
        match delta:
            case Opened(holding):
                return self.holding(self.head("open", seq, time), holding)
            case Updated(holding, before):
                return self.updated(holding, before, seq, time)
            case Closed(holding, reason, seconds):
                return self.closed(holding, reason, seconds, seq, time)
            case Coverage():
                return self._record("coverage", seq, time, coverage_fields(delta))

    def updated(self, holding: Holding, before: Holding, seq: int, time: float) -> bytes:
        now, was = flat(holding), flat(before)
        previous = {name: was[name] for name in now if was.get(name) != now[name]}
        fields = {**socket_fields(holding), "previous": _untold(previous)}
        head = self.head("update", seq, time)
        return head + dumps(fields)[1:-1] + self._process(holding.process)

    def closed(
        self, holding: Holding, reason: str, seconds: float | None, seq: int, time: float
    ) -> bytes:
        fields = socket_fields(holding)
        fields["reason"] = reason
        # A wall clock set back must not make a duration negative.
        fields["duration_ms"] = None if seconds is None else max(0, round(seconds * 1000))
        head = self.head("close", seq, time)
        return head + dumps(fields)[1:-1] + self._process(holding.process)

    def _process(self, process: Process | None) -> bytes:
        """The process's facts and the record's end, as JSON."""
        if process is None:
            return _NAMELESS
        known = self._processes.get(process.pid)
        if known is not None and known[0] is process:
            return known[1]
        encoded = b"," + dumps(process_fields(process), option=OPT_APPEND_NEWLINE)[1:]
        self._processes[process.pid] = (process, encoded)
        return encoded

    def forget_all_but(self, pids: AbstractSet[int]) -> None:
        """Drop what is kept of processes that are gone."""
        for pid in self._processes.keys() - pids:
            del self._processes[pid]


def socket_fields(holding: Holding) -> dict[str, object]:
    """The socket's fields with the holder's ``pid`` and ``fds``, as records show them."""
    (
        inode, proto, family, kind, state, local_addr, local_port, remote_addr, remote_port,
        path, direction, recv_q, send_q, _uid, netns, source,
    ) = holding.socket  # fmt: skip
    owner, process = holding.owner, holding.process
    uid, user = (None, None) if owner is None else owner
    fields: dict[str, object]
    if family == "unix":
        fields = {"proto": proto, "family": family, "state": state, "path": path, "type": kind}
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
    fields["direction"] = direction
    fields["recv_q"] = recv_q
    fields["send_q"] = send_q
    fields["inode"] = inode or None
    fields["netns"] = netns
    fields["uid"] = uid
    fields["user"] = user
    fields["source"] = source
    if process is None:
        fields["pid"] = None
    else:
        fields["pid"] = process.pid
        fields["fds"] = holding.fds
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


def _untold(previous: dict[str, object]) -> dict[str, object]:
    """Without the values that move all the time, whose changes are not told."""
    return {name: old for name, old in previous.items() if name not in _MOVING}


_MOVING = frozenset({"recv_q", "send_q", "cmdline"})
