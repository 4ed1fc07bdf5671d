"""Captured answers, and a Scope to read them in."""

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


def message(row: bytes, kind: int = messages.SOCK_DIAG_BY_FAMILY) -> bytes:
    """Return a row as the kernel sends it."""
    length = messages.HEADER_BYTES + len(row)
    header = struct.pack("=IHHII", length, kind, 2, 1, 0)
    return header + row + bytes(-length % 4)


def answer(name: str) -> bytes:
    return capture(f"netlink/{name}")


def rows(name: str) -> list[bytes]:
    names = [name, f"{name}6"] if name.startswith("udp") else [name]
    return messages.split_rows(answer(one) for one in names)


def read(name: str, scope: Scope = SCOPE, before: Table = EMPTY) -> Table:
    return DUMPS[name].read(rows(name), scope, before)


def sockets(name: str) -> dict[int, Socket]:
    return read(name).sockets()
