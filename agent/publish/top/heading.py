"""The first line of the screen. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...stream.state import HostStatus
from ..terminal.summary import counted
from .model import GroupRow, Header
from .rates import SILENT_SECONDS, WINDOW, Clocks
from .table import Table


def make_header(
    hosts: Table, rows: Sequence[GroupRow], statuses: Sequence[HostStatus], clocks: Clocks
) -> Header:
    """Return the first line, of all hosts: ``rows`` are those of the table."""
    opens, closes = [0] * WINDOW, [0] * WINDOW
    for row in rows:
        rates = hosts.rates(row.key)
        if rates is not None:
            more = rates.sparks(clocks.of(row.key.host))
            opens = list(map(sum, zip(opens, more[0], strict=True)))
            closes = list(map(sum, zip(closes, more[1], strict=True)))
    return Header(
        statuses[0].host if len(statuses) == 1 else counted(len(statuses), "host"),
        clocks.newest(),
        sum(row.opens_per_s for row in rows),
        sum(row.closes_per_s for row in rows),
        tuple(opens),
        tuple(closes),
        sum(row.sockets for row in rows),
        sum(row.inbound for row in rows),
        sum(row.outbound for row in rows),
        sum(row.listen for row in rows),
        _state(statuses, clocks),
    )


def _state(statuses: Sequence[HostStatus], clocks: Clocks) -> str:
    silences = [clocks.silence(one.host) for one in statuses]
    silent = [seconds for seconds in silences if seconds > SILENT_SECONDS]
    if not statuses:
        return "waiting for records"
    if silent and len(statuses) == 1:
        return f"silent for {int(silent[0])} s"
    if silent:
        return f"{counted(len(silent), 'host')} silent"
    if not all(one.complete for one in statuses):
        return "waiting for a snapshot"
    return "live"
