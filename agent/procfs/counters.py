"""Bytes of ``/proc/net/{sockstat,sockstat6,snmp,protocols}`` to what tells of sockets. Pure.

The counters move when a TCP or UDP socket appears, connects, is accepted or goes, and when the
number of sockets of any protocol changes: while they stand still there is little to read in the
tables. Formats: ``net/ipv4/proc.c``, ``net/ipv6/proc.c``, ``net/core/sock.c`` (proto_seq_show).
"""

from __future__ import annotations

from typing import NamedTuple

# The files, in the order in which ``parse`` takes their bytes.
FILES = ("sockstat", "sockstat6", "snmp", "protocols")
# The columns of the second Tcp: line of snmp that count connections: ActiveOpens, PassiveOpens,
# AttemptFails, EstabResets, CurrEstab (RFC 1213).
_TCP_COLUMNS = slice(5, 10)
_USED = b"sockets:"


class Counted(NamedTuple):
    """What counts sockets in these files; to be compared with what it was before.

    ``unix`` counts unix sockets, ``others`` those of every other protocol, ``used`` all of them.
    """

    unix: object
    others: object
    used: object


def parse(contents: tuple[bytes, ...]) -> Counted:
    """The counters in these files."""
    sockstat, sockstat6, snmp, protocols = contents
    lines = [*sockstat.split(b"\n"), *sockstat6.split(b"\n")]
    by_protocol = [line.split(None, 3)[:3:2] for line in protocols.split(b"\n")]
    return Counted(
        unix=[count for count in by_protocol if count and count[0].startswith(b"UNIX")],
        others=(
            [count for count in by_protocol if not (count and count[0].startswith(b"UNIX"))],
            # Memory moves with the traffic.
            [line.partition(b" mem ")[0] for line in lines if not line.startswith(_USED)],
            [line.split()[_TCP_COLUMNS] for line in snmp.split(b"\n") if line.startswith(b"Tcp:")],
        ),
        used=[line for line in lines if line.startswith(_USED)],
    )
