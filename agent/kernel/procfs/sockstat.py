"""Parse the counters of sockets in ``/proc/net/{sockstat,sockstat6,snmp,protocols}``. Pure.

The counters change when a TCP or UDP socket is created, connects, is accepted or ends, and with the
number of sockets of any protocol: while they do not change, the tables need not be read. Formats:
``net/ipv4/proc.c``, ``net/ipv6/proc.c``, ``net/core/sock.c`` (proto_seq_show).
"""

from __future__ import annotations

from typing import NamedTuple

# The files, in the order in which ``parse`` expects their contents.
FILES = ("sockstat", "sockstat6", "snmp", "protocols")
# The columns of the second Tcp: line of snmp that count connections: ActiveOpens, PassiveOpens,
# AttemptFails, EstabResets, CurrEstab (RFC 1213).
_TCP_COLUMNS = slice(5, 10)
_SEGMENTS_COLUMNS = slice(10, 11)  # InSegs.
_TCP, _UNIX, _UDP, _USED = b"TCP", b"UNIX", b"UDP", b"sockets:"
# Counters of TCP for the whole machine, not for the namespace.
_GLOBAL_COUNTERS = (b"orphan", b"alloc")


class SocketCounters(NamedTuple):
    """The counters of sockets in these files, only to be compared with an earlier reading.

    ``tcp``, ``unix`` and ``udp`` (with udplite) count sockets of these protocols, ``others`` those
    of every other protocol, ``used`` all sockets; all are None when the counters cannot be read.
    ``segments`` counts the TCP segments that were received.
    """

    tcp: object
    unix: object
    udp: object
    others: object
    used: object
    segments: object = None


UNREADABLE = SocketCounters(None, None, None, None, None)


def parse(contents: tuple[bytes, ...]) -> SocketCounters:
    """Return the counters in the contents of FILES, where a missing file is empty."""
    sockstat, sockstat6, snmp, protocols = contents
    # Without the memory, which changes with the traffic; in protocols, the third column is the
    # number of sockets.
    counts = [line.partition(b" mem ")[0] for line in (sockstat + b"\n" + sockstat6).split(b"\n")]
    counts += [b" ".join(line.split(None, 3)[:3:2]) for line in protocols.split(b"\n")]
    tcp_rows = [line.split() for line in snmp.split(b"\n") if line.startswith(b"Tcp:")]
    return SocketCounters(
        tcp=(
            [_without_global_counters(line) for line in counts if line.startswith(_TCP)],
            [row[_TCP_COLUMNS] for row in tcp_rows],
        ),
        unix=[line for line in counts if line.startswith(_UNIX)],
        udp=[line for line in counts if line.startswith(_UDP)],
        others=[line for line in counts if not line.startswith((_TCP, _UNIX, _UDP, _USED))],
        used=[line for line in counts if line.startswith(_USED)],
        segments=[row[_SEGMENTS_COLUMNS] for row in tcp_rows[1:]],
    )


def _without_global_counters(line: bytes) -> bytes:
    """Return a line of names and values without those of _GLOBAL_COUNTERS."""
    words = line.split()
    return b" ".join(
        word
        for i, word in enumerate(words)
        if word not in _GLOBAL_COUNTERS and words[i - 1] not in _GLOBAL_COUNTERS
    )
