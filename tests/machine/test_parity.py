"""A snapshot has every socket that ss, netstat and lsof show, with the same details.

All look twice, in turns: what one of them shows both times was there when the other observed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from .anyone import NOBODY, Anyone
from .helpers import Holder, Record, need_root, need_tool, snapshot
from .tools import (
    INET,
    Row,
    lsof,
    netstat,
    record_place,
    ss,
)

# What each tool lists.
LISTED = {
    "ss": {"tcp", "udp", "raw", "unix", "packet"},
    "netstat": {"tcp", "udp", "udplite", "raw", "unix"},
    "lsof": {"tcp", "udp", "udplite", "unix"},
}
TOOLS: dict[str, Callable[[tuple[str, ...]], Iterator[Row]]] = {
    "ss": ss,
    "netstat": netstat,
    "lsof": lsof,
}
COMMON = """
l = tcp_listener(); c, a = tcp_pair(l); l6 = tcp_listener('::1'); c6, a6 = tcp_pair(l6)
m = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)
mc = socket.create_connection(('127.0.0.1', m.getsockname()[1])); ma = m.accept()[0]
u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0))
v = socket.socket(type=socket.SOCK_DGRAM); v.connect(u.getsockname())
u6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u6.bind(('::1', 0))
x, y = socket.socketpair(); q, r = socket.socketpair(type=socket.SOCK_SEQPACKET)
p = socket.socket(socket.AF_UNIX); p.bind(f'\\0parity-{os.getpid()}'); p.listen()
pc = socket.socket(socket.AF_UNIX); pc.connect(p.getsockname()); pa = p.accept()[0]
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE); n.bind((0, 0))
hc, ha = tcp_pair(l); hc.shutdown(socket.SHUT_WR)
nowhere = socket.socket(); o = l.dup(); child = fork()
"""
PRIVILEGED = """
w = socket.socket(type=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP)
w6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
k = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
"""


class Observed(NamedTuple):
    """The output of tools and snapshots, in the order: tools, snapshot, tools, snapshot."""

    uid: int
    held: dict[int, set[int]]  # pid → inodes, of the processes that the tests began
    tools: list[dict[str, list[Row]]]
    snapshots: list[list[Record]]


@pytest.fixture(scope="module", params=["root", "unprivileged"])
def observed(request: pytest.FixtureRequest) -> Iterator[Observed]:
    need_root()
    for tool in TOOLS:
        need_tool(tool)
    anyone: Anyone = request.getfixturevalue("anyone")
    with ExitStack() as stack:
        root = stack.enter_context(Holder())
        user = stack.enter_context(Holder(anyone.python, anyone.holder))
        away = stack.enter_context(Holder())
        threaded = stack.enter_context(Holder())
        root.do(COMMON + PRIVILEGED)
        user.do(COMMON)
        away.do("unshare(CLONE_NEWNET); s = tcp_listener('0.0.0.0')")
        threaded.do("thread_with_own_descriptors()")
        held = {}
        for holder in (root, user):
            names = "[inode(s) for s in list(globals().values()) if isinstance(s, socket.socket)]"
            held[holder.pid] = set(holder.do(names))
        as_root = request.param == "root"
        become = () if as_root else anyone.become
        uid = os.geteuid() if as_root else NOBODY
        observed = Observed(uid, held, [], [])
        for _ in range(2):
            observed.tools.append({name: list(tool(become)) for name, tool in TOOLS.items()})
            observed.snapshots.append(
                snapshot() if as_root else snapshot(command=anyone.sockagent, cwd="/")
            )
        yield observed


def shown(record: Record) -> tuple[object, ...]:
    """Return what a tool shows of a record's socket."""
    return record["inode"], record["proto"], record["state"], record_place(record), record["uid"]


@pytest.mark.parametrize("tool", TOOLS)
def test_the_snapshot_has_every_socket_that_a_tool_shows(tool: str, observed: Observed) -> None:
    rows = set(observed.tools[0][tool]) & set(observed.tools[1][tool])
    assert rows
    by_inode: dict[int, list[Record]] = {}
    by_place: dict[tuple[str, str], list[Record]] = {}
    for record in observed.snapshots[0]:
        by_inode.setdefault(record["inode"], []).append(record)
        by_place.setdefault((record["proto"], record_place(record)), []).append(record)
    wrong = []
    for row in rows:
        if row.inode is None:
            records = by_place.get((row.proto, row.place), [])
        else:
            records = by_inode.get(row.inode, [])
        matching = [
            record
            for record in records
            if record["proto"] == row.proto
            and row.state in (None, record["state"])
            and row.place == record_place(record)
            and row.uid in (None, record["uid"])
        ]
        fds = {(record["pid"], fd) for record in matching for fd in record.get("fds", [])}
        known = fds | {(pid, None) for pid, _ in fds}
        if not matching or not row.holders <= known:
            wrong.append((row, records))
    assert not wrong, wrong[:5]


# Sockets that tools cannot show, by tool.


def in_another_namespace(record: Record) -> bool:
    """Whether it is in another namespace, or in no table, where the namespace is unknown."""
    own = Path("/proc/self/ns/net").stat().st_ino
    return not in_no_table(record) and record["netns"] != own


def in_no_table(record: Record) -> bool:
    """Whether it is not bound, connected or listening, or of a protocol without a table."""
    if record["proto"] in INET:
        return record["local_addr"] is None
    return record["proto"] not in {"unix", "netlink", "packet"}


def on_a_threads_own_descriptor(record: Record) -> bool:
    fds = record.get("fds", [])
    return not all(Path(f"/proc/{record['pid']}/fd/{fd}").is_symlink() for fd in fds)


UNSEEN = (in_another_namespace, in_no_table, on_a_threads_own_descriptor)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_shows_every_socket_that_it_can(tool: str, observed: Observed) -> None:
    rows = observed.tools[1][tool]
    inodes = {row.inode for row in rows}
    # Without an inode, the address is compared.
    places = {(row.proto, row.place) for row in rows if row.inode is None}
    holders = {(row.inode, pid) for row in rows for pid, _ in row.holders}
    without_holder = {(row.proto, row.place, pid) for row in rows for pid, _ in row.holders}
    first = {(record["pid"], shown(record)) for record in observed.snapshots[0]}
    more = []
    unseen = set()
    for record in observed.snapshots[1]:
        pid, key = record["pid"], (record["proto"], record_place(record))
        if (pid, shown(record)) not in first or record["proto"] not in LISTED[tool]:
            continue
        reasons = {name.__name__ for name in UNSEEN if name(record)}
        if reasons:
            unseen |= reasons
        elif pid is None or tool == "netstat":  # netstat shows one holder only.
            if record["inode"] not in inodes and key not in places and tool != "lsof":
                more.append(record)  # lsof shows sockets with a holder only.
        elif (record["inode"], pid) not in holders and (*key, pid) not in without_holder:
            more.append(record)
    assert not more, more[:5]
    if observed.uid == 0:
        assert unseen == {name.__name__ for name in UNSEEN}


def test_netlink_sockets_equal_those_of_ss(observed: Observed) -> None:
    stay = [{row.place for row in rows["ss"] if row.proto == "netlink"} for rows in observed.tools]
    known = [
        {
            record_place(record)
            for record in records
            if record["proto"] == "netlink"
            and record["local_port"]
            and not in_another_namespace(record)
        }
        for records in observed.snapshots
    ]
    assert stay[0] & stay[1] <= known[0]
    assert known[0] & known[1] <= stay[1]
    assert known[0] & known[1]


def test_the_sockets_of_this_test_are_compared(observed: Observed) -> None:
    listed = {(record["pid"], record["inode"]) for record in observed.snapshots[0]}
    for pid, inodes in observed.held.items():
        visible = observed.uid == 0 or Path(f"/proc/{pid}").stat().st_uid == observed.uid
        assert len(inodes) > 15
        if visible:
            assert {(pid, inode) for inode in inodes} <= listed
        else:
            assert not {(pid, inode) for inode in inodes} & listed
            # Listed without a process, except those in no table.
            assert len({(None, inode) for inode in inodes} & listed) > len(inodes) - 5
        for tool, rows in observed.tools[0].items():
            if visible or tool != "lsof":
                assert len(inodes & {row.inode for row in rows}) > 10
