"""Checks the records of one ``sockagent --follow`` and collects its reports. Pure.

It shares no code with the agent: the documented guarantees are checked independently.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

import orjson

Record = dict[str, object]
# The process and the inode.
Held = tuple[int | None, int]
Address = tuple[str | None, int | None]
_NUMBERED = frozenset({"open", "update", "close", "coverage"})
# Violations kept as text; all are counted.
_MAX_EXAMPLES = 20


@dataclass(slots=True)
class Report:
    """One holding as reported, from its `open` (or the snapshot) to its `close`.

    ``opened`` is None if it was in the snapshot, ``closed`` is None while it is open.
    ``short_lived``: opened and closed between two polls, reported without an inode.
    """

    pid: int | None
    inode: int | None
    proto: str
    local: Address
    remote: Address
    state: str | None  # At first.
    path: str | None
    peer_inode: int | None
    netns: int | None
    opened: float | None
    comm: str | None = None
    ppid: int | None = None
    exe: str | None = None
    short_lived: bool = False
    closed: float | None = None
    reason: str | None = None
    duration_ms: float | None = None
    received: float | None = None  # When the record of its close could be read.


@dataclass(slots=True)
class Stream:
    """The state after the records so far, the reports, and violations of the guarantees."""

    reports: list[Report] = field(default_factory=list)
    held: dict[Held, Report] = field(default_factory=dict)
    violations: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)  # Of the polls with reports.
    late_polls: int | None = None  # From the newest heartbeat.
    whole: bool = False  # Whether a snapshot is complete.
    _before: dict[Held, Report] = field(default_factory=dict)  # Held when records were lost.
    _seq: int = 0
    _pending: Report | None = None
    _snapshotting: int = 0
    _text: str = ""
    _time: float = 0.0
    _received: float | None = None

    def feed(self, lines: bytes, received: float | None = None) -> None:
        """Process complete lines, which could be read at this time."""
        self._received = received
        for line in lines.splitlines():
            self._take(cast("Record", orjson.loads(line)))

    def finish(self) -> None:
        """Check what can only be checked at the end of the stream."""
        self._settle_pending()

    def _take(self, record: Record) -> None:
        event = _text(record["event"])
        self.counts[event] += 1
        if record["time"] != self._text:
            self._text = _text(record["time"])
            self._time = datetime.fromisoformat(self._text).timestamp()
        self._check_seq(event, _number(record["seq"]) or 0)
        if event == "close" and record["inode"] is None and self._pending is not None:
            self._close_short_lived(record)
            return
        self._settle_pending()
        if event in _NUMBERED and (not self.times or self.times[-1] != self._time):
            self.times.append(self._time)
        if event == "snapshot":
            self._snapshotting += 1
            self._open(record, self._time if self.counts["lost"] else None)
        elif event == "snapshot_end":
            if record["count"] != self._snapshotting:
                self._violate("snapshot_end with another count", record)
            self.whole, self._snapshotting = True, 0
            for report in self._before.values():
                report.closed, report.reason = self._time, "lost"
            self._before = {}
        elif event == "open":
            self._open(record, self._time)
        elif event == "update":
            self._update(record)
        elif event == "close":
            self._close(record)
        elif event == "lost":
            self._before.update(self.held)
            self.held, self.whole = {}, False
        elif event == "heartbeat":
            self.late_polls = _number(record.get("late_polls"))

    def _check_seq(self, event: str, seq: int) -> None:
        if event in _NUMBERED:
            if seq != self._seq + 1:
                self._violate("seq does not grow by one", {"seq": seq, "after": self._seq})
            self._seq = seq
        elif event in {"hello", "lost"} or (event == "snapshot" and not self._snapshotting):
            self._seq = seq
        elif seq != self._seq:
            self._violate(f"seq of {event} is not the newest", {"seq": seq, "newest": self._seq})

    def _open(self, record: Record, opened: float | None) -> None:
        report = Report(
            pid=_number(record["pid"]),
            inode=_number(record["inode"]),
            proto=_text(record["proto"]),
            local=_address(record, "local"),
            remote=_address(record, "remote"),
            state=_text_or_none(record["state"]),
            path=_text_or_none(record.get("path")),
            peer_inode=_number(record.get("peer_inode")),
            netns=_number(record["netns"]),
            opened=opened,
            comm=_text_or_none(record.get("comm")),
            ppid=_number(record.get("ppid")),
            exe=_text_or_none(record.get("exe")),
        )
        before = None
        if report.inode is not None and _text(record["event"]) == "snapshot":
            before = self._before.pop((report.pid, report.inode), None)
        if before is None:
            self.reports.append(report)
        else:
            report = before
        if report.inode is None:
            report.short_lived = True
            self._pending = report
            if opened is None:
                self._violate("snapshot without an inode", record)
            return
        key = (report.pid, report.inode)
        if key in self.held:
            self._violate(f"{_text(record['event'])} of what is open", record)
        self.held[key] = report

    def _update(self, record: Record) -> None:
        inode = _number(record["inode"])
        report = None if inode is None else self.held.get((_number(record["pid"]), inode))
        if report is None:
            self._violate("update of what is not open", record)
            return
        _renew(report, record)

    def _close(self, record: Record) -> None:
        inode = _number(record["inode"])
        report = None if inode is None else self.held.pop((_number(record["pid"]), inode), None)
        if report is None:
            self._violate("close of what is not open", record)
            return
        _renew(report, record)
        self._end(report, record)

    def _close_short_lived(self, record: Record) -> None:
        report, self._pending = self._pending, None
        assert report is not None
        same = (report.pid, report.proto, report.local, report.remote) == (
            _number(record["pid"]),
            record["proto"],
            _address(record, "local"),
            _address(record, "remote"),
        )
        if not same or (report.opened or 0) > (self._time or 0):
            self._violate("close of another short-lived socket", record)
        self._end(report, record)

    def _end(self, report: Report, record: Record) -> None:
        report.closed, report.received = self._time, self._received
        report.reason = _text(record["reason"])
        duration = record["duration_ms"]
        report.duration_ms = duration if isinstance(duration, int | float) else None
        if report.duration_ms is not None and report.duration_ms < 0:
            self._violate("negative duration", record)

    def _settle_pending(self) -> None:
        if self._pending is not None:
            self._violate("short-lived open without its close", {"local": self._pending.local})
            self._pending = None

    def _violate(self, what: str, record: Record) -> None:
        self.violations[what] += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{what}: {record}")


def _renew(report: Report, record: Record) -> None:
    """Update the endpoints, unless the record lacks them: a closing socket may have lost them."""
    local, remote = _address(record, "local"), _address(record, "remote")
    if local[1] is not None and (remote[1] is not None or report.remote[1] is None):
        report.local, report.remote = local, remote
    report.peer_inode = _number(record.get("peer_inode")) or report.peer_inode


def _address(record: Record, side: str) -> Address:
    text = _text_or_none(record.get(f"{side}_addr"))
    return (text, _number(record.get(f"{side}_port")))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: object) -> str:
    assert isinstance(value, str), value
    return value


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
