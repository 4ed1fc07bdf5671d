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
_SEGMENTS_COLUMN = slice(10, 11)  # InSegs.
_TCP, _UNIX, _UDP, _USED = b"TCP", b"UNIX", b"UDP", b"sockets:"
# SocketCounters for the whole machine, not for the namespace.
_GLOBAL_OF_TCP = (b"orphan", b"alloc")


class SocketCounters(NamedTuple):
    """What counts sockets in these files; to be compared with what it was before.

    ``tcp``, ``unix`` and ``udp`` (with udplite) count those, ``others`` those of every other
    protocol, ``used`` all; it is None when the counters cannot be read. ``segments`` counts the
    TCP segments that were received.
    """

    tcp: object
    unix: object
    udp: object
    others: object
    used: object
    segments: object = None


UNREADABLE = SocketCounters(None, None, None, None, None)


def parse(contents: tuple[bytes, ...]) -> SocketCounters:
    """The counters in these files."""
    sockstat, sockstat6, snmp, protocols = contents
    # Memory moves with the traffic: of protocols the second column is the number of sockets.
    counts = [line.partition(b" mem ")[0] for line in (sockstat + b"\n" + sockstat6).split(b"\n")]
    counts += [b" ".join(line.split(None, 3)[:3:2]) for line in protocols.split(b"\n")]
    tcp = [_of_namespace(line) for line in counts if line.startswith(_TCP)]
    unix = [line for line in counts if line.startswith(_UNIX)]
    udp = [line for line in counts if line.startswith(_UDP)]
    used = [line for line in counts if line.startswith(_USED)]
    others = [line for line in counts if not line.startswith((_TCP, _UNIX, _UDP, _USED))]
    rows = [line.split() for line in snmp.split(b"\n") if line.startswith(b"Tcp:")]
    return SocketCounters(
        tcp=(tcp, [row[_TCP_COLUMNS] for row in rows]),
        unix=unix,
        udp=udp,
        others=others,
        used=used,
        segments=[row[_SEGMENTS_COLUMN] for row in rows[1:]],
    )


def _of_namespace(line: bytes) -> bytes:
    """Return a line on TCP sockets without what counts those of the whole machine."""
    words = line.split()
    kept = [
        word
        for at, word in enumerate(words)
        if word not in _GLOBAL_OF_TCP and words[at - 1] not in _GLOBAL_OF_TCP
    ]
    return b" ".join(kept)
