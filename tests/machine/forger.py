"""Send forged sock_diag messages to the netlink sockets of others in this network namespace.

Run as ``forger.py INODE``, with CAP_NET_ADMIN over the namespace. Print ``ready``, send until
standard input ends, then print how many messages were delivered, by kind, as JSON. The script
needs the standard library only, so that any interpreter and any user can run it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from itertools import cycle

ADDRESS = "198.51.100.66"  # Reserved for documentation: no real socket has it.
PORT = 6666
SOCK_DIAG, BY_FAMILY, ERROR, DONE = 4, 20, 2, 3
DESTROY_GROUPS = (1, 2, 3, 4)
ERRORS = (errno.ENOENT, errno.EPERM, errno.EINVAL, errno.EBUSY)
PAUSE_SECONDS = 0.0005


def message(kind: int, body: bytes, sequence: int = 1) -> bytes:
    """Return a netlink message."""
    return struct.pack("=IHHII", 16 + len(body), kind, 2, sequence, 0) + body


def row(inode: int) -> bytes:
    """Return the body of an inet_diag row of a listener on ADDRESS."""
    local = socket.inet_aton(ADDRESS).ljust(16, b"\0")
    ports = struct.pack("!HH", PORT, 0)
    head = bytes([socket.AF_INET, 10, 0, 0]) + ports + local + bytes(16) + bytes(4)
    return head + os.urandom(8) + struct.pack("=IIIII", 0, 0, 0, 0, inode)


def answers(inode: int, sequence: int) -> Iterator[tuple[str, bytes]]:
    """Yield forged answers to a dump."""
    done = message(DONE, bytes(4), sequence)
    yield "rows", message(BY_FAMILY, row(inode), sequence) + done
    yield "malformed", message(BY_FAMILY, row(inode), sequence)[:-30]
    for code in ERRORS:
        yield "errors", message(DONE, struct.pack("=i", -code), sequence)
        yield "errors", message(ERROR, struct.pack("=i", -code) + bytes(16), sequence)


def notices() -> Iterator[tuple[str, bytes]]:
    """Yield forged and malformed destroy notices."""
    protocol = struct.pack("=HHB3x", 5, 10, socket.IPPROTO_TCP)
    whole = message(BY_FAMILY, row(0) + protocol)
    yield "notices", whole
    yield "malformed notices", message(BY_FAMILY, row(0) + struct.pack("=HH", 4, 10))
    for size in (0, 3, 17, 60, 88):
        yield "malformed notices", whole[:size]


def port_ids(own: int) -> list[int]:
    """Return the port ids of the other sock_diag sockets in this namespace."""
    with open("/proc/net/netlink", encoding="ascii") as table:
        rows = [line.split() for line in list(table)[1:]]
    return [int(port) for _sk, protocol, port, *_ in rows
            if int(protocol) == SOCK_DIAG and int(port) not in (0, own)]  # fmt: skip


def main() -> None:
    """Send until standard input ends."""
    inode = int(sys.argv[1])
    delivered: dict[str, int] = {}
    listener = socket.create_server(("0.0.0.0", 0))  # A real socket beside the forged ones.
    with listener, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as link:
        link.bind((0, 0))
        own = link.getsockname()[0]
        print("ready", flush=True)
        for sequence in cycle(range(1, 200)):
            if select.select([sys.stdin], [], [], 0)[0]:
                break
            sent = [(kind, data, (port, 0)) for port in port_ids(own)
                    for kind, data in answers(inode, sequence)]  # fmt: skip
            sent += [(kind, data, (0, 1 << group - 1)) for group in DESTROY_GROUPS
                     for kind, data in notices()]  # fmt: skip
            for kind, data, to in sent:
                try:
                    link.sendto(data, socket.MSG_DONTWAIT, to)
                except OSError:
                    continue
                delivered[kind] = delivered.get(kind, 0) + 1
            time.sleep(PAUSE_SECONDS)
    print(json.dumps(delivered), flush=True)


if __name__ == "__main__":
    main()
