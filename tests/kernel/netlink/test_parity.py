"""Netlink and the text tables show the same sockets."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path

import pytest

from agent.kernel.netlink.client import NetlinkClient
from agent.kernel.procfs import net_tables
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.rows import EMPTY

from ...captures import TABLES
from ...unshared import need_root
from .captured import SCOPE

OWN = os.stat("/proc/self/ns/net").st_ino
shared_fields = attrgetter(
    "inode", "proto", "family", "type", "state", "local_addr", "local_port", "remote_addr",
    "remote_port", "path",
)  # fmt: skip


@pytest.fixture
def client() -> Iterator[NetlinkClient]:
    made = NetlinkClient(OWN)
    yield made
    made.close_except([])


def inode_of(opened: socket.socket) -> int:
    return os.fstat(opened.fileno()).st_ino


@contextmanager
def sockets_of_every_kind(directory: Path) -> Iterator[dict[str, set[int]]]:
    """Open sockets of every kind that the tests may open; yield their inodes by protocol."""
    opened: dict[str, list[socket.socket]] = {}
    with ExitStack() as stack:

        def add(*made: socket.socket, proto: str) -> None:
            opened.setdefault(proto, []).extend(map(stack.enter_context, made))

        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            server = socket.create_server((host, 0), family=family)
            client = socket.create_connection(server.getsockname()[:2])
            add(server, client, server.accept()[0], proto="tcp")
            for number, proto in ((0, "udp"), (136, "udplite")):
                try:
                    made = [socket.socket(family, socket.SOCK_DGRAM, number) for _ in range(2)]
                except OSError:  # This kernel has no UDP-Lite.
                    continue
                add(*made, proto=proto)
                made[0].bind((host, 0))
                made[1].connect(made[0].getsockname())
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        client = socket.create_connection(("127.0.0.1", server.getsockname()[1]))
        add(server, client, server.accept()[0], proto="tcp")
        paths = [str(directory / "plain"), str(directory / "new\nline"), "\0sockagent\0nul"]
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            for path in paths:
                listener = socket.socket(socket.AF_UNIX, kind)
                listener.bind(path + str(int(kind)))
                listener.listen()
                client = socket.socket(socket.AF_UNIX, kind)
                client.connect(path + str(int(kind)))
                add(listener, client, listener.accept()[0], proto="unix")
        dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        dgram.bind(str(directory / "dgram"))
        add(dgram, socket.socket(socket.AF_UNIX), *socket.socketpair(), proto="unix")
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        netlink.bind((0, 1))
        add(netlink, proto="netlink")
        if os.geteuid() == 0:
            packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            packet.bind(("lo", 3))
            add(packet, socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM), proto="packet")
        yield {proto: set(map(inode_of, made)) for proto, made in opened.items()}


def test_both_sources_show_the_same_sockets(client: NetlinkClient, tmp_path: Path) -> None:
    with sockets_of_every_kind(tmp_path) as opened:
        texts = ProcFS().read_tables(OWN, [os.getpid()], TABLES).texts
        dumps = [(dump, list(rows)) for dump, rows in client.read_dumps(OWN, "", list(TABLES))]
    assert texts is not None
    from_text, from_netlink = {}, {}
    for name, data in texts.items():
        assert isinstance(data, bytes)
        from_text.update(net_tables.parse(name, data, OWN).sockets())
    for dump, rows in dumps:
        table = dump.read(rows, SCOPE._replace(netns=OWN), EMPTY)
        from_netlink.update(table.sockets())
    for proto, inodes in opened.items():
        for inode in inodes:
            text, row = from_text[inode], from_netlink[inode]
            assert row.proto == proto
            assert shared_fields(text) == shared_fields(row)
            # A connecting unix socket is known by its peer, which the text lacks.
            is_outbound_unix = proto == "unix" and row.direction == "outbound"
            assert text.direction == (None if is_outbound_unix else row.direction)
            assert text.netns == row.netns
            assert row.uid in (text.uid, os.geteuid())
            if text.uid is not None and row.uid is not None:
                assert text.uid == row.uid


def test_a_packet_socket_has_a_receive_queue(client: NetlinkClient) -> None:
    need_root()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        ((dump, rows),) = client.read_dumps(OWN, "", ("packet",))
        found = {row.inode: row for row in dump.read(rows, SCOPE, EMPTY).rows.values()}
        assert found[inode_of(opened)].recv_q is not None
