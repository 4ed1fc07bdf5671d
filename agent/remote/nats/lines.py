"""Records of a message as a consumer passes them on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic

from orjson import OPT_APPEND_NEWLINE, JSONDecodeError, dumps, loads

from ...log import LineLimit
from ...model import Closed, Opened, Updated
from ...stream.decoder import Began, Dropped, Present, SnapshotEnd, decode
from ...stream.encoder import AgentInfo, Encoder
from ...stream.fields import DecodeError
from ...stream.filters import EVENTS, Filter
from ...stream.fleet import Link
from ...stream.times import timestamp
from ...text import escape_controls, safe_lines
from .chain import Action, Verdict

_LOST = b'{"event":"lost",'
# Letters that are written as escapes, which may spell the name of a field.
_ESCAPES, _LETTERS = b"\\u00", re.compile(rb"\\u00[4-7]")


def name_other(records: bytes, host: str) -> bool:
    """Return whether records name another host than this one: a broker permits a host to publish
    with its own subject, but does not read its records."""
    own = b'"host":' + dumps(host)
    if _has_only(records, own):
        return False
    lines = records.split(b"\n")
    return any(line and not _has_only(line, own) and _names_other(line, host) for line in lines)


def _has_only(records: bytes, own: bytes) -> bool:
    """Return whether records have the field ``own``, and the text "host" nowhere else."""
    # In a text, quotes have a backslash before them. Most records have none.
    is_plain = b"\\" not in records or _ESCAPES not in records or not _LETTERS.search(records)
    return is_plain and records.count(own) == records.count(b'"host"')


def _names_other(line: bytes, host: str) -> bool:
    """Return whether any of the fields ``host`` of a record has another value: if there are
    several, some readers take the first and some the last."""
    try:
        record = json.loads(line, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return True
    is_object = isinstance(record, tuple)
    return not is_object or any(value != host for name, value in record if name == "host")


def safe_records(records: bytes, host: str) -> tuple[bytes, int]:
    """Return the records of a message without what a terminal would interpret, and how many lines
    were left out because they are none: an agent may be any program. Raises ValueError, also where
    they are not of the host."""
    if not records.endswith(b"\n"):
        raise ValueError("the last line is not complete")
    lines = safe_lines(records).split(b"\n")[:-1]
    kept = lines if _are_objects(lines) else [line for line in lines if _are_objects([line])]
    left_out = len(lines) - len(kept)
    records = b"\n".join([*kept, b""])
    if name_other(records, host):
        raise ValueError(f"they are of another host than {host}")
    return records, left_out


def _are_objects(lines: Sequence[bytes]) -> bool:
    """Return whether lines are objects in JSON, which have no control characters."""
    try:
        return {type(one) for one in map(loads, lines)} == {dict}
    except JSONDecodeError:
        return False


def lost_line(host: str, time: float, seq: int, first: int, last: int | None) -> bytes:
    """Return the record of lost changes, before the one after ``seq``."""
    record = {
        "event": "lost",
        "seq": seq,
        "time": timestamp(time),
        "host": host,
        "from": first,
        "to": last,
    }
    return escape_controls(dumps(record, option=OPT_APPEND_NEWLINE).decode()).encode()


def passed_on(verdict: Verdict, link: Link, host: str, time: float, records: bytes) -> bytes:
    """Return what a verdict makes of the records of a message, which the broker stored at
    ``time``."""
    lost = b""
    if verdict.lost is not None:
        first, last = verdict.lost
        lost = lost_line(host, time, link.through if last is None else last, first, last)
    match verdict.action:
        case Action.PASS:
            return lost + records
        case Action.PASS_LATER:
            return lost + _later(records, verdict.after)
        case Action.PASS_ANEW if lost:
            return lost + _without_lost(records)
        case Action.PASS_ANEW:
            # A snapshot must follow something.
            return _without_lost(records) or records
    return lost


def _without_lost(records: bytes) -> bytes:
    """Return the records without ``lost`` at their beginning."""
    while records.startswith(_LOST):
        records = records.partition(b"\n")[2]
    return records


def _later(records: bytes, seq: int) -> bytes:
    """Return the records with a number higher than ``seq``, and those that have none."""
    lines = records.splitlines(keepends=True)
    return b"".join(line for line in lines if _seq(line) > seq)


def _seq(line: bytes) -> float:
    try:
        seq = loads(line)["seq"]
    except (JSONDecodeError, TypeError, LookupError):
        return inf
    return seq if isinstance(seq, int) else inf


def _encoder(host: str) -> Encoder:
    return Encoder(AgentInfo(host, None, "", 0.0), is_kernels=False)


class LineFilter:
    """The records of a fleet that pass a filter. ``counts`` has the records so far of the snapshots
    under way, by host, and may be those of an earlier reader."""

    def __init__(self, chosen: Filter, counts: Mapping[str, int] | None = None) -> None:
        self.counts = dict(counts or {})
        self._chosen = chosen
        self._passes_all = chosen.passes_all and len(chosen.events) == len(EVENTS)
        self._limit = LineLimit("about records of a fleet")

    def matches_host(self, host: str) -> bool:
        """Return whether anything of a host is wanted."""
        return self._chosen.matches_host(host)

    def apply(self, host: str, records: bytes) -> bytes:
        """Return the records of a message that pass, as a subscriber of the agent gets them."""
        if self._passes_all:
            return records
        chosen = self._chosen.of_host(host)
        return b"".join(self._apply(chosen, host, line) for line in records.split(b"\n") if line)

    def _apply(self, chosen: Filter, host: str, line: bytes) -> bytes:
        """Return a record, another one in its place, or nothing."""
        try:
            record = decode(line)
        except DecodeError as error:
            self._limit.log(f"warning: a record of {host} is left out: {error}", monotonic())
            return b""
        has_snapshots = "snapshot" in chosen.events
        match record.value:
            case Opened() | Updated() | Closed() as delta:
                shown = chosen.apply(delta)
                if shown is None:
                    return b""
                if shown is not delta:
                    encoder = _encoder(host)
                    return encoder.delta(shown, record.seq, record.time)
            case Present(holding):
                if not has_snapshots or not chosen.matches(holding):
                    return b""
                self.counts[host] = self.counts.get(host, 0) + 1
            case SnapshotEnd():
                count = self.counts.pop(host, 0)
                if not has_snapshots:
                    return b""
                encoder = _encoder(host)
                return encoder.snapshot_end(record.seq, record.time, count)
            case Began() | Dropped():
                self.counts.pop(host, None)
        return line + b"\n"
