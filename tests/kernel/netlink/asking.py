"""Captured answers, and a Scope to read them in."""

from __future__ import annotations

import struct

from agent.kernel.netlink import inet_diag as diag
from agent.kernel.netlink import other_diag as others
from agent.kernel.rows import EMPTY, Scope, Table
from agent.model import Socket

from ...captures import capture

NETNS = 4026531833
SCOPE = Scope(NETNS, range(32768, 61000), lambda index: f"if{index}")
DUMPS = {
    "tcp": diag.inet("tcp", unowned=True, cgroups=True),
    "udp": diag.inet("udp"),
    "udplite": diag.inet("udplite"),
    "unix": others.unix(),
    "netlink": others.netlink(),
    "packet": others.packet(),
}


def message(row: bytes, kind: int = diag.SOCK_DIAG_BY_FAMILY) -> bytes:
    """Return a row as the kernel sends it."""
    length = diag.HEADER_BYTES + len(row)
    header = struct.pack("=IHHII", length, kind, 2, 1, 0)
    return header + row + bytes(-length % 4)


def answer(name: str) -> bytes:
    return capture(f"netlink/{name}")


def rows(name: str) -> list[bytes]:
    names = [name, f"{name}6"] if name.startswith("udp") else [name]
    return diag.rows_of(answer(one) for one in names)


def read(name: str, scope: Scope = SCOPE, before: Table = EMPTY) -> Table:
    return DUMPS[name].read(rows(name), scope, before)


def sockets(name: str) -> dict[int, Socket]:
    return read(name).sockets()
