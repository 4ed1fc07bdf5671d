"""The columns of groups. Pure."""

from __future__ import annotations

from ..terminal.columns import address_key
from ..terminal.eventlog import bytes_text
from ..terminal.options import Options
from ..terminal.safe import safe, shorten
from .columns import NONE, Column, waited
from .model import Grouping, GroupRow, Style

# An IPv4 address has 15 characters, an IPv6 address 39.
_V4_ADDRESS, _V6_ADDRESS = 15, 39


def _count(number: int) -> str:
    return f"{number:,}" if number else NONE


def _rate(number: float) -> str:
    return f"{number:.1f}" if number < 1000 else f"{number:,.0f}"


def _short(row: GroupRow) -> str:
    return NONE if row.short_share is None else f"{row.short_share:.0%}"


def _fullness(row: GroupRow) -> float | None:
    return None if row.queue is None else row.queue.recv_q / (row.queue.backlog + 1)


def _queue(row: GroupRow) -> str:
    return NONE if row.queue is None else row.queue.text


def _queue_style(row: GroupRow) -> Style:
    return Style.ALARM if row.queue is not None and row.queue.is_full else Style.PLAIN


def _close_wait_style(row: GroupRow) -> Style:
    return Style.ALARM if row.close_wait else Style.PLAIN


def _age_of_group(row: GroupRow, options: Options) -> str:
    text = waited(row.close_wait_age, before=row.close_wait_since_before)
    return text.replace("≥", ">") if options.ascii else text


def _rtt(row: GroupRow) -> float | None:
    return None if row.traffic is None else row.traffic.rtt_ms


def _rtt_text(row: GroupRow) -> str:
    rtt = _rtt(row)
    return NONE if rtt is None else f"{rtt:.1f} ms"


# At 40 columns there is room for the columns that are never hidden, and for the scroll bar.
_FLOOR = 11
# How the first column is called, and what stands for the sockets without a group.
_FIRST = {
    Grouping.PROCESS: ("PROCESS", "?"),
    Grouping.UNIT: ("UNIT", "no unit"),
    Grouping.CONTAINER: ("CONTAINER", "no container"),
    Grouping.USER: ("USER", "?"),
    Grouping.SERVICE: ("SERVICE", "?"),
    Grouping.REMOTE: ("REMOTE", "no peer"),
    Grouping.NAMESPACE: ("NETNS", "?"),
    Grouping.HOST: ("HOST", "?"),
}


_WITHOUT = {
    Grouping.UNIT: "without a unit",
    Grouping.CONTAINER: "without a container",
    Grouping.REMOTE: "without a peer",
}


def without(grouping: Grouping) -> str:
    """Return which sockets are those without a group."""
    return _WITHOUT.get(grouping, f"of an unknown {grouping.value}")


def _first(grouping: Grouping) -> Column[GroupRow]:
    title, unknown = _FIRST[grouping]

    def text(row: GroupRow, options: Options) -> str:
        if row.title is None:
            return unknown
        if grouping is Grouping.REMOTE:
            name = options.names.get(row.title)
            if name is None:
                return row.title
            return shorten(safe(name, ascii=options.ascii), _V6_ADDRESS, options.ellipsis)
        return row.title

    def value(row: GroupRow) -> object:
        if grouping is Grouping.REMOTE:
            return None if row.title is None else address_key(row.title)
        if grouping is Grouping.NAMESPACE:
            return row.key.number
        return row.title

    if grouping is Grouping.REMOTE:
        return Column(
            title,
            value,
            text,
            width=_V4_ADDRESS,
            floor=_FLOOR,
            most=_V6_ADDRESS,
            whole=lambda _row: True,
        )
    most = 24 if grouping is Grouping.PROCESS else 40
    return Column(title, value, text, width=16, floor=_FLOOR, most=most)


_GROUP: dict[str, Column[GroupRow]] = {
    "host": Column("HOST", lambda row: row.key.host, lambda row, _: row.key.host, 12, floor=8,
                   most=20, hide=12),
    "pid": Column("PID", lambda row: row.pid, lambda row, _: str(row.pid or NONE), 7, right=True,
                  hide=11),
    "user": Column("USER", lambda row: row.user, lambda row, _: row.user or NONE, 9, floor=8,
                   most=16, hide=6),
    "listen": Column("LISTEN", lambda row: row.listen, lambda row, _: _count(row.listen), 6,
                     right=True, hide=7, descending=True),
    "in": Column("IN", lambda row: row.inbound, lambda row, _: _count(row.inbound), 6, right=True,
                 descending=True),
    "out": Column("OUT", lambda row: row.outbound, lambda row, _: _count(row.outbound), 6,
                  right=True, descending=True),
    "opens": Column("OPEN/s", lambda row: row.opens_per_s, lambda row, _: _rate(row.opens_per_s),
                    6, right=True, descending=True),
    "closes": Column("CLOSE/s", lambda row: row.closes_per_s,
                     lambda row, _: _rate(row.closes_per_s), 7, right=True, hide=9,
                     descending=True),
    "short": Column("SHORT", lambda row: row.short_share, lambda row, _: _short(row), 5,
                    right=True, hide=8, descending=True),
    "close_wait": Column("CW", lambda row: row.close_wait, lambda row, _: _count(row.close_wait),
                         4, right=True, style=_close_wait_style, descending=True),
    "close_wait_age": Column("CW AGE", lambda row: row.close_wait_age, _age_of_group, 6,
                             right=True, hide=4, style=_close_wait_style, descending=True),
    "queue": Column("QUEUE", _fullness, lambda row, _: _queue(row), 9, right=True, hide=10,
                    style=_queue_style, descending=True),
    "unit": Column("UNIT", lambda row: row.unit, lambda row, _: row.unit or NONE, 20, floor=12,
                   most=40, hide=5),
    "sent": Column("SENT", lambda row: row.traffic and row.traffic.sent,
                   lambda row, _: NONE if row.traffic is None else bytes_text(row.traffic.sent),
                   9, right=True, hide=3, descending=True),
    "received": Column("RECEIVED", lambda row: row.traffic and row.traffic.received,
                       lambda row, _: NONE if row.traffic is None
                       else bytes_text(row.traffic.received),
                       9, right=True, hide=2, descending=True),
    "retransmits": Column("RETR", lambda row: row.traffic and row.traffic.retransmits,
                          lambda row, _: NONE if row.traffic is None
                          else _count(row.traffic.retransmits), 5, right=True, hide=1,
                          descending=True),
    "rtt": Column("RTT", _rtt, lambda row, _: _rtt_text(row), 9, right=True, hide=0,
                  descending=True),
}  # fmt: skip
_OF_PROCESS = frozenset({"pid", "user", "unit"})


def group_columns(grouping: Grouping, *, hosts: bool) -> dict[str, Column[GroupRow]]:
    """Return the columns of groups, ``group`` first; ``hosts``: there are several hosts."""
    columns = {"group": _first(grouping)}
    for name, column in _GROUP.items():
        if name in _OF_PROCESS and grouping is not Grouping.PROCESS:
            continue
        if name == "host" and (not hosts or grouping is Grouping.HOST):
            continue
        columns[name] = column
    return columns
