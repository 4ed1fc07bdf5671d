"""Every kind of socket of this kernel, in a snapshot and in the stream."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from .helpers import (
    Follow,
    Holder,
    Record,
    by_inode,
    must_have,
    snapshot,
)


class Kind(NamedTuple):
    """How to open a socket, fields of its record, and expressions for others, for the holder."""

    code: str
    fields: dict[str, object]
    expressions: Mapping[str, str] = MappingProxyType({})


LOOPBACK = {"local_addr": "127.0.0.1", "remote_addr": "127.0.0.1"}
LOOPBACK6 = {"local_addr": "::1", "remote_addr": "::1"}
NO_ADDRESS = dict.fromkeys(("local_addr", "local_port", "remote_addr", "remote_port"))
TCP = {"proto": "tcp", "family": "inet"}
TCP6 = {"proto": "tcp", "family": "inet6"}
UDP = {"proto": "udp", "family": "inet", "direction": None}
UNIX = {"proto": "unix", "family": "unix"}
ENDS = {"local_port": "s.getsockname()[1]", "remote_port": "s.getpeername()[1]"}
BOUND = {"local_port": "s.getsockname()[1]"}
NO_PEER: dict[str, object] = {"remote_addr": None, "remote_port": None}

KINDS = {
    "tcp_listener": Kind(
        "s = l = tcp_listener()",
        {**TCP, "state": "LISTEN", "direction": "listen", "local_addr": "127.0.0.1", **NO_PEER},
        BOUND,
    ),
    "tcp_outbound": Kind(
        "s, t = tcp_pair(l)",
        {**TCP, **LOOPBACK, "state": "ESTABLISHED", "direction": "outbound"},
        ENDS,
    ),
    "tcp_inbound": Kind(
        "s = t", {**TCP, **LOOPBACK, "state": "ESTABLISHED", "direction": "inbound"}, ENDS
    ),
    "tcp_bound_nowhere": Kind(
        "s = socket.socket()", {**TCP, **NO_ADDRESS, "state": "CLOSE", "direction": None}
    ),
    "tcp6_listener": Kind(
        "s = l6 = tcp_listener('::1')",
        {**TCP6, "state": "LISTEN", "direction": "listen", "local_addr": "::1", **NO_PEER},
        BOUND,
    ),
    "tcp6_outbound": Kind(
        "s, t = tcp_pair(l6)",
        {**TCP6, **LOOPBACK6, "state": "ESTABLISHED", "direction": "outbound"},
        ENDS,
    ),
    "tcp6_inbound": Kind(
        "s = t", {**TCP6, **LOOPBACK6, "state": "ESTABLISHED", "direction": "inbound"}, ENDS
    ),
    "tcp6_bound_nowhere": Kind(
        "s = socket.socket(socket.AF_INET6)",
        {**TCP6, **NO_ADDRESS, "state": "CLOSE", "direction": None},
    ),
    "tcp6_mapped": Kind(
        "m = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "mc = socket.create_connection(('127.0.0.1', m.getsockname()[1]))\n"
        "s = m.accept()[0]",
        {
            **TCP6,
            "state": "ESTABLISHED",
            "direction": "inbound",
            "local_addr": "::ffff:127.0.0.1",
            "remote_addr": "::ffff:127.0.0.1",
        },
        ENDS,
    ),
    "udp_bound": Kind(
        "s = u = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))",
        {**UDP, "state": "UNCONNECTED", "local_addr": "127.0.0.1", **NO_PEER},
        BOUND,
    ),
    "udp_connected": Kind(
        "s = socket.socket(type=socket.SOCK_DGRAM); s.connect(u.getsockname())",
        {**UDP, **LOOPBACK, "state": "ESTABLISHED"},
        ENDS,
    ),
    "udp_bound_nowhere": Kind(
        "s = socket.socket(type=socket.SOCK_DGRAM)", {**UDP, **NO_ADDRESS, "state": "UNCONNECTED"}
    ),
    "udp6_bound": Kind(
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::1', 0))",
        {**UDP, "family": "inet6", "state": "UNCONNECTED", "local_addr": "::1", **NO_PEER},
        BOUND,
    ),
    "udplite_bound": Kind(
        "s = socket.socket(type=socket.SOCK_DGRAM, proto=136); s.bind(('127.0.0.1', 0))",
        {**UDP, "proto": "udplite", "state": "UNCONNECTED", "local_addr": "127.0.0.1", **NO_PEER},
        BOUND,
    ),
    "raw": Kind(
        "s = socket.socket(type=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP)",
        {"proto": "raw", "family": "inet", "state": "UNCONNECTED", "local_addr": "0.0.0.0"},
    ),
    "raw6": Kind(
        "s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)",
        {"proto": "raw", "family": "inet6", "state": "UNCONNECTED", "local_addr": "::"},
    ),
    "icmp": Kind(
        "s = socket.socket(type=socket.SOCK_DGRAM, proto=socket.IPPROTO_ICMP)\n"
        "s.bind(('127.0.0.1', 0))",
        {"proto": "icmp", "family": "inet", "state": "UNCONNECTED", "local_addr": "127.0.0.1"},
        BOUND,
    ),
    "unix_listener": Kind(
        "s = x = socket.socket(socket.AF_UNIX); x.bind(directory + '/plain'); x.listen()",
        {**UNIX, "type": "stream", "state": "LISTEN", "direction": "listen"},
        {"path": "x.getsockname()"},
    ),
    "unix_inbound": Kind(
        "y = socket.socket(socket.AF_UNIX); y.connect(x.getsockname()); s = x.accept()[0]",
        {**UNIX, "type": "stream", "state": "CONNECTED", "direction": "inbound"},
        {"path": "x.getsockname()"},
    ),
    "unix_client": Kind(
        "s = y",
        {**UNIX, "type": "stream", "state": "CONNECTED", "path": None, "direction": "outbound"},
    ),
    "unix_abstract": Kind(
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('\\0here %d' % os.getpid())",
        {**UNIX, "type": "dgram", "state": "UNCONNECTED", "direction": None},
        {"path": "'@here %d' % os.getpid()"},
    ),
    "unix_newlines": Kind(
        "s = socket.socket(socket.AF_UNIX); s.bind(directory + '/a b\\nc\\n\\nd')",
        {**UNIX, "type": "stream", "state": "UNCONNECTED"},
        {"path": "s.getsockname()"},
    ),
    "unix_seqpacket": Kind(
        "s, p = socket.socketpair(type=socket.SOCK_SEQPACKET)",
        {**UNIX, "type": "seqpacket", "state": "CONNECTED", "path": None},
    ),
    "unix_bound_nowhere": Kind(
        "s = socket.socket(socket.AF_UNIX)",
        {**UNIX, "type": "stream", "state": "UNCONNECTED", "path": None},
    ),
    "netlink": Kind(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)\n"
        "s.bind((0, 0))",
        {"proto": "netlink", "family": "netlink", "state": "UNCONNECTED", "local_addr": "route"},
        {"local_port": "s.getsockname()[0]"},
    ),
    "netlink_bound_nowhere": Kind(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)",
        {"proto": "netlink", "family": "netlink", "state": "UNCONNECTED"},
    ),
    "packet": Kind(
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))",
        {"proto": "packet", "family": "packet", "state": "UNCONNECTED", "local_addr": "*"},
    ),
    "vsock": Kind(
        "s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        {"proto": "vsock", "family": "vsock", "state": None},
    ),
    "mptcp": Kind(
        "s = socket.socket(proto=262)", {"proto": "mptcp", "family": "inet", "state": None}
    ),
}
# Not available on every kernel and for every user.
OPTIONAL = {"udplite_bound", "raw", "raw6", "icmp", "packet", "vsock", "mptcp"}


class Seen(NamedTuple):
    """Opened sockets and their records: in a snapshot, in a stream, in the snapshot of a stream."""

    holder: Holder
    opened: dict[str, tuple[int, int, dict[str, object]]]  # Inode, descriptor, further fields.
    refused: dict[str, str]
    once: dict[int, Record]
    opens: dict[int, Record]
    followed: dict[int, Record]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    opened: dict[str, tuple[int, int, dict[str, object]]] = {}
    refused: dict[str, str] = {}
    with Holder() as holder:
        pid = str(holder.pid)
        with Follow("--pid", pid) as follow:
            follow.started()
            holder.do(f"directory = {str(tmp_path_factory.mktemp('unix'))!r}; kept = []")
            for name, kind in KINDS.items():
                try:
                    inode = holder.open(f"s = None\n{kind.code}\nkept.append(s)")
                except OSError as error:
                    refused[name] = str(error).splitlines()[-1]
                    continue
                values = {field: holder.do(code) for field, code in kind.expressions.items()}
                opened[name] = (inode, holder.do("s.fileno()"), values)
            follow.until(
                lambda: {inode for inode, _, _ in opened.values()} <= set(follow.of(holder.pid))
            )
            opens = {r["inode"]: r for r in follow.records if r["event"] == "open"}
        once = by_inode(snapshot("--pid", pid))
        with Follow("--pid", pid) as follow:
            followed = follow.started().of(holder.pid)
        yield Seen(holder, opened, refused, once, opens, followed)


@pytest.mark.parametrize("name", KINDS)
def test_a_record_has_the_fields_of_its_kind(name: str, seen: Seen) -> None:
    if name in seen.refused:
        must_have(name in OPTIONAL, f"{name} should open: {seen.refused[name]}")
        pytest.skip(seen.refused[name])
    inode, descriptor, values = seen.opened[name]
    expected: dict[str, Any] = {
        **KINDS[name].fields,
        **values,
        "inode": inode,
        "fds": [descriptor],
        "pid": seen.holder.pid,
        "ppid": os.getpid(),
        "comm": Path(f"/proc/{seen.holder.pid}/comm").read_text().rstrip("\n"),
        "exe": str(Path(f"/proc/{seen.holder.pid}/exe").readlink()),
        "uid": os.geteuid(),
        "user": pwd.getpwuid(os.geteuid()).pw_name,
    }
    record = seen.once[inode]
    assert {field: record.get(field) for field in expected} == expected
    assert seen.followed[inode] == {**seen.followed[inode], **expected}


@pytest.mark.parametrize("name", KINDS)
def test_a_snapshot_and_the_stream_agree(name: str, seen: Seen) -> None:
    if name in seen.refused:
        pytest.skip(seen.refused[name])
    own = {"event", "seq", "time", "recv_q", "send_q", "state", "direction", "remote_addr"}
    own |= {"local_addr", "local_port", "remote_port", "path"}  # Steps of the opening.
    own |= {"time_source"}
    inode = seen.opened[name][0]
    once, opened = seen.once[inode], seen.opens[inode]
    assert once.keys() == opened.keys() - {"time_source"}
    assert {k: v for k, v in once.items() if k not in own} == {
        k: v for k, v in opened.items() if k not in own
    }
    own = {"event", "time", "time_source"}
    if name == "packet":  # It receives what any process on the machine sends.
        own.add("recv_q")
    assert {k: v for k, v in once.items() if k not in own} == {
        k: v for k, v in seen.followed[inode].items() if k not in own
    }


def test_the_namespace_is_that_of_the_process(seen: Seen) -> None:
    listed = {seen.once[seen.opened[name][0]]["netns"] for name in ("tcp_listener", "unix_client")}
    assert listed == {Path(f"/proc/{seen.holder.pid}/ns/net").stat().st_ino}
