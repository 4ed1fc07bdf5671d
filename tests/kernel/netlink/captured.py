"""Captured answers of the kernel, and the dumps that read them."""

from __future__ import annotations

import struct

from agent.kernel.netlink import messages
from agent.kernel.netlink.inet_diag import inet_dump
from agent.kernel.netlink.other_diag import netlink_dump, packet_dump
from agent.kernel.netlink.unix_diag import unix_dump
from agent.kernel.rows import EMPTY, Scope, Table
from agent.model import Socket

from ...captures import capture

NETNS = 4026531833
SCOPE = Scope(NETNS, range(32768, 61000), lambda index: f"if{index}")
DUMPS = {
    "tcp": inet_dump("tcp", include_unowned=True, include_cgroups=True),
    "udp": inet_dump("udp"),
    "udplite": inet_dump("udplite"),
    "unix": unix_dump(),
    "netlink": netlink_dump(),
    "packet": packet_dump(),
}
NAMES = list(DUMPS)


def message(row: bytes, kind: int = messages.SOCK_DIAG_BY_FAMILY) -> bytes:
    """Return a message of the kernel with this body."""
    length = messages.HEADER_BYTES + len(row)
    header = struct.pack("=IHHII", length, kind, 2, 1, 0)
    return header + row + bytes(-length % 4)


def answer(name: str) -> bytes:
    return capture(f"netlink/{name}")


def rows(name: str) -> list[bytes]:
    """Return the rows of a captured table, IPv4 and IPv6."""
    captures = [name, f"{name}6"] if name.startswith("udp") else [name]
    return messages.split_rows(map(answer, captures))


def read(name: str) -> Table:
    """Return a captured table."""
    return DUMPS[name].read(rows(name), SCOPE, EMPTY)


def sockets(name: str) -> dict[int, Socket]:
    """Return the sockets of a captured table by inode."""
    return read(name).sockets()
