"""Bytes of ``/proc/net/{sockstat,sockstat6,snmp,protocols}`` to what tells of sockets. Pure.

The counters move when a TCP or UDP socket appears, connects, is accepted or goes, and when the
number of sockets of any protocol changes: while they stand still there is little to read in the
tables. Formats: ``net/ipv4/proc.c``, ``net/ipv6/proc.c``, ``net/core/sock.c`` (proto_seq_show).
"""

from __future__ import annotations

# The files, in the order in which ``parse`` takes their bytes.
FILES = ("sockstat", "sockstat6", "snmp", "protocols")
# The columns of the second Tcp: line of snmp that count connections: ActiveOpens, PassiveOpens,
# AttemptFails, EstabResets, CurrEstab (RFC 1213).
_TCP_COLUMNS = slice(5, 10)


def parse(contents: tuple[bytes, ...]) -> tuple[object, ...]:
    """What counts sockets in these files; to be compared with what it was before."""
    sockstat, sockstat6, snmp, protocols = contents
    return (
        *(_without_memory(data) for data in (sockstat, sockstat6)),
        *(line.split()[_TCP_COLUMNS] for line in snmp.split(b"\n") if line.startswith(b"Tcp:")),
        [line.split(None, 3)[:3:2] for line in protocols.split(b"\n")],
    )


def _without_memory(data: bytes) -> list[bytes]:
    """The lines but for their memory, which moves with the traffic."""
    return [line.partition(b" mem ")[0] for line in data.split(b"\n")]
