"""What is read over netlink is what the text tables show."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


@pytest.fixture
def reader() -> Iterator[NetlinkClient]:
    made = NetlinkClient(OWN)
    yield made
    made.close_except([])


def inode_of(opened: socket.socket) -> int:
    return os.fstat(opened.fileno()).st_ino


@contextmanager
def of_every_kind(directory: Path) -> Iterator[dict[str, set[int]]]:
    """Sockets of every kind that we may open; their inodes by protocol."""
    opened: dict[str, list[socket.socket]] = {}
    with ExitStack() as stack:

        def add(*made: socket.socket, proto: str) -> None:
            opened.setdefault(proto, []).extend(map(stack.enter_context, made))

        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            server = socket.create_server((host, 0), family=family)
            one = socket.create_connection(server.getsockname()[:2])
            add(server, one, server.accept()[0], proto="tcp")
            for number, proto in ((0, "udp"), (136, "udplite")):
                try:
                    made = [socket.socket(family, socket.SOCK_DGRAM, number) for _ in range(2)]
                except OSError:  # This kernel has no UDP-Lite.
                    continue
                add(*made, proto=proto)
                made[0].bind((host, 0))
                made[1].connect(made[0].getsockname())
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        one = socket.create_connection(("127.0.0.1", both.getsockname()[1]))
        add(both, one, both.accept()[0], proto="tcp")
        paths = [str(directory / "plain"), str(directory / "new\nline"), "\0sockagent\0nul"]
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            for path in paths:
                listener = socket.socket(socket.AF_UNIX, kind)
                listener.bind(path + str(int(kind)))
                listener.listen()
                one = socket.socket(socket.AF_UNIX, kind)
                one.connect(path + str(int(kind)))
                add(listener, one, listener.accept()[0], proto="unix")
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
        yield {proto: {inode_of(one) for one in made} for proto, made in opened.items()}


def test_both_readers_see_the_same_sockets(reader: NetlinkClient, tmp_path: Path) -> None:
    with of_every_kind(tmp_path) as wanted:
        texts = ProcFS().read_tables(OWN, [os.getpid()], TABLES).texts
        dumps = [(dump, list(rows)) for dump, rows in reader.read_dumps(OWN, "", list(TABLES))]
    assert texts is not None
    as_text, as_rows = {}, {}
    for name, data in texts.items():
        assert isinstance(data, bytes)
        as_text.update(net_tables.parse(name, data, OWN).sockets())
    for dump, rows in dumps:
        as_rows.update(dump.read(rows, SCOPE._replace(netns=OWN), EMPTY).sockets())
    for proto, found in wanted.items():
        for inode in found:
            text, row = as_text[inode], as_rows[inode]
            assert row.proto == proto
            # Inode, protocol, family, type, state, both ends, path.
            assert text[:10] == row[:10]
            # Which side connected shows in a unix socket's peer only, which the text has not.
            told = None if proto == "unix" and row.direction == "outbound" else row.direction
            assert text.direction == told
            assert text.netns == row.netns
            assert row.uid in (text.uid, os.geteuid())
            if text.uid is not None and row.uid is not None:
                assert text.uid == row.uid


def test_a_packet_socket_has_its_memory(reader: NetlinkClient) -> None:
    need_root()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        ((dump, rows),) = reader.read_dumps(OWN, "", ("packet",))
        found = {one.inode: one for one in dump.read(rows, SCOPE, EMPTY).rows.values()}
        assert found[inode_of(opened)].recv_q is not None
