"""Every field of the holdings as CSV (RFC 4180) or with tabs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...model import HostHolding
from ...stream.encoder import record_fields
from .cells import flat
from .safe import safe

# The fields of snapshot records that describe a holding, in their order there.
FIELDS = (
    "host", "proto", "family", "state", "local_addr", "local_port", "remote_addr", "remote_port",
    "interface", "path", "type", "peer_inode", "peer_pid", "backlog", "direction", "recv_q",
    "send_q", "inode", "fds", "fd_count", "netns", "uid", "user", "source", "pid", "comm", "exe",
    "ppid", "start_time", "cgroup", "unit", "container", "cmdline",
)  # fmt: skip
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def delimited(
    holdings: Iterable[HostHolding],
    separator: str = ",",
    *,
    fields: Iterable[str] = FIELDS,
    header: bool = True,
    more: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[str]:
    """Yield a header and a line for each holding, without line ends; RFC 4180 has CR and LF.

    Unknown values are empty. Unsafe characters are escaped as in the other views, so that a field
    never has a line end. A field that a spreadsheet would take for a formula is quoted. ``more``
    are fields that records do not have, a text for each holding.
    """
    fields = tuple(fields)
    if header:
        yield separator.join(fields)
    for number, (host, holding, _since) in enumerate(holdings):
        values = record_fields(holding)
        values["host"] = host
        if more:
            values |= {name: texts[number] for name, texts in more.items()}
        yield separator.join([_field(values.get(name), separator) for name in fields])


def _field(value: object, separator: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = safe(flat(value) if isinstance(value, tuple) else str(value))
    if separator in text or '"' in text or text.startswith(_FORMULA):
        return '"' + text.replace('"', '""') + '"'
    return text
