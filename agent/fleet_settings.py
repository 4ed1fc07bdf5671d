"""Settings of reading a fleet: where to begin, and of recording it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from .errors import UsageError
from .stream.times import parse_ago

_AGE = re.compile(r"([1-9]\d{0,5})([hd])", re.ASCII)
_SIZE = re.compile(r"([1-9]\d{0,8})([MGT])", re.ASCII)
_AGE_SECONDS = {"h": 3600, "d": 86_400}
_SIZE_BYTES = {"M": 10**6, "G": 10**9, "T": 10**12}


class Keep(NamedTuple):
    """How much of a recording or a stream to keep: records of the last ``seconds``, and at most
    ``size`` bytes together; None: without a limit."""

    seconds: int | None = None
    size: int | None = None


EVERYTHING = Keep()


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Settings of reading a fleet. Raises UsageError.

    ``since``: begin ``now``, with the newest snapshot of each host; with the ``start`` of the
    stream; or at a time in seconds since the Unix epoch. ``record``: the directory to record in.
    """

    since: str | float = "now"
    record: str | None = None
    keep: Keep = EVERYTHING

    def __post_init__(self) -> None:
        if self.record is None and self.keep != EVERYTHING:
            raise UsageError("keep", "requires --record DIR")
        if self.record is not None and not self.record:
            raise UsageError("record", "empty path; expected a directory")


def parse_since(text: str, now: float) -> str | float:
    """Return the value of --since. ``now`` is the time from which ``-5m`` counts back, in seconds
    since the Unix epoch. Raises UsageError."""
    if text in ("now", "start"):
        return text
    ago = parse_ago(text)
    if ago is not None:
        return max(0.0, now - ago)
    try:
        time = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        time = -1.0
    if time < 0:  # Brokers do not take the first years of the calendar.
        raise UsageError(
            "since", f"{text!r} is not now, start or a time such as 2026-11-28T03:12:04Z or -5m"
        )
    if time > now:
        raise UsageError("since", f"{text!r} is in the future")
    return time


def parse_keep(values: list[str]) -> Keep:
    """Return the limits of --keep: one value may be an age, and one a size. Raises UsageError."""
    keep = EVERYTHING
    for value in values:
        age, size = _AGE.fullmatch(value), _SIZE.fullmatch(value)
        if age is not None:
            keep = keep._replace(seconds=int(age[1]) * _AGE_SECONDS[age[2]])
        elif size is not None:
            keep = keep._replace(size=int(size[1]) * _SIZE_BYTES[size[2]])
        else:
            raise UsageError("keep", f"{value!r} is not an age or a size such as 14d, 48h or 50G")
    return keep
