"""Hypothesis strategies for the values of the model, as far as the kernel can produce them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from agent.model import (
    ATTRIBUTIONS,
    DATAGRAM_STATES,
    INET_PROTOS,
    TCP_STATES,
    UDP_ATTRIBUTION,
    UNIX_STATES,
    CgroupInfo,
    Coverage,
    Holding,
    Owner,
    Process,
    ShortLived,
    Snapshot,
    Socket,
    SocketEnd,
    TcpFigures,
)

from .make import key, process

names = st.text(max_size=20)
small = st.integers(0, 2**32 - 1)
ports = st.integers(0, 65_535)
inodes = st.integers(1, 2**32 - 1)
v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(str)
directions = st.sampled_from([None, "inbound", "outbound", "listen"])
owners = st.none() | st.builds(Owner, small, st.none() | names)


@st.composite
def inet_sockets(draw: st.DrawFn) -> Socket:
    family, addresses = draw(st.sampled_from([("inet", v4), ("inet6", v6)]))
    local = draw(st.just((None, None)) | st.tuples(addresses, ports))
    remote = draw(st.just((None, None)) | st.tuples(addresses, ports))
    queues = draw(st.just((None, None)) | st.tuples(small, small))
    return Socket(
        inode=draw(inodes),
        proto=draw(st.sampled_from(INET_PROTOS)),
        family=family,
        type=None,
        state=draw(st.none() | st.sampled_from(TCP_STATES + DATAGRAM_STATES)),
        local_addr=local[0],
        local_port=local[1],
        remote_addr=remote[0],
        remote_port=remote[1],
        direction=draw(directions),
        recv_q=queues[0],
        send_q=queues[1],
        uid=draw(st.none() | small),
        netns=draw(st.none() | small),
        backlog=draw(st.none() | small),
        interface=draw(st.none() | names),
        cgroup_id=draw(st.none() | small),
    )


def _socket(inode: int = 11, **fields: Any) -> Socket:
    fields = {"type": None, "state": None, **fields}
    return Socket(inode=inode, **fields)


unix_sockets = st.builds(
    _socket,
    inode=inodes,
    proto=st.just("unix"),
    family=st.just("unix"),
    type=st.sampled_from([None, "stream", "dgram", "seqpacket"]),
    state=st.none() | st.sampled_from((*UNIX_STATES, "LISTEN")),
    path=st.none() | names | st.sampled_from(['"', "\\", "a\nb", "\0", "é☃𝄞", "\x7f\u2028"]),
    direction=directions,
    recv_q=st.none() | small,
    send_q=st.none() | small,
    netns=st.none() | small,
    peer_inode=st.none() | inodes,
    backlog=st.none() | small,
)
# Sockets that no table lists, known from their descriptors: a protocol may have any name.
other_sockets = st.builds(
    _socket,
    proto=st.none() | names,
    family=st.none() | names.filter(lambda name: name not in ("inet", "inet6", "unix")),
    state=st.sampled_from([None, *DATAGRAM_STATES]),
    local_addr=st.none() | names,
    local_port=st.none() | small,
    netns=st.none() | small,
    source=st.sampled_from(["procfs", "netlink"]),
)
sockets = inet_sockets() | unix_sockets | other_sockets

processes = st.builds(
    Process,
    pid=st.integers(1, 2**22),
    start_ticks=small,
    comm=names,
    ppid=st.integers(0, 2**22),
    start_time=st.floats(0, 4e9),
    uid=st.none() | small,
    exe=st.none() | names,
    cgroup=st.none() | names,
    unit=st.none() | names,
    container=st.none() | names,
    cmdline=st.none() | st.lists(names, max_size=3).map(tuple),
)
descriptors = st.sets(st.integers(0, 2**20), min_size=1, max_size=3).map(
    lambda fds: tuple(sorted(fds))
)
pids = st.none() | st.integers(1, 2**22)
cgroups = st.none() | st.builds(CgroupInfo, st.none() | names, st.none() | names, st.none() | names)
held = st.builds(
    lambda holding, omitted: holding._replace(omitted_fds=omitted if len(holding.fds) > 1 else 0),
    st.builds(
        Holding, sockets, processes, descriptors, owners, pids, st.none(), st.just(0), st.none()
    ),
    small,
)
without_holder = st.builds(
    Holding, sockets, st.none(), st.just(()), owners, pids, cgroups, st.just(0), st.none()
)
holdings = held | without_holder
# TCP sockets that no poll saw.
unseen = st.builds(
    lambda socket, process, owner, attribution: Holding(
        socket._replace(inode=0, proto="tcp", state=None),
        process,
        (),
        owner,
        attribution=process and attribution,
    ),
    inet_sockets(),
    st.none() | processes,
    owners,
    st.none() | st.sampled_from(ATTRIBUTIONS),
)
unseen_udp = st.builds(
    lambda one: one._replace(
        socket=one.socket._replace(proto="udp"), attribution=one.process and UDP_ATTRIBUTION
    ),
    unseen,
)
times = st.none() | st.floats(1.0e9, 4.0e9)
big = st.integers(0, 2**64 - 1)
tcp_figures = st.builds(TcpFigures, big, big, small, small, small, st.none() | st.floats(0, 1e7))
ends = st.builds(SocketEnd, times, st.none() | tcp_figures)
short_lives = st.builds(
    ShortLived, unseen | holdings, times, ends, st.sampled_from([None, "closed", "exited"])
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Holding, Holding]:
    """Draw a holding as it is now and as it was before."""
    kind = draw(st.sampled_from([inet_sockets(), unix_sockets, other_sockets]))
    now, was = draw(kind), draw(kind)
    was = was._replace(inode=now.inode, proto=now.proto, family=now.family, type=now.type)
    holder = draw(st.none() | processes)
    if holder is None:
        cgroup = draw(cgroups)
        return (
            Holding(now, None, (), draw(owners), draw(pids), cgroup),
            Holding(was, None, (), draw(owners), draw(pids), cgroup),
        )
    before = draw(st.just(holder) | processes.map(lambda other: other._replace(pid=holder.pid)))
    return (
        Holding(now, holder, draw(descriptors), draw(owners), draw(pids)),
        Holding(was, before, draw(descriptors), draw(owners), draw(pids)),
    )


coverages = st.builds(
    Coverage, small, small, small, st.lists(names, max_size=2).map(tuple), st.none() | names
)

# Few keys, so that holdings of successive polls often have the same key and differ.
_busy_processes = st.builds(
    process,
    pid=st.integers(1, 2),
    start_ticks=st.integers(1, 2),
    comm=st.sampled_from(["one", "two"]),
    cmdline=st.none() | st.just(("x",)),
)
_busy_sockets = st.builds(
    _socket,
    inode=st.integers(1, 3),
    proto=st.sampled_from(["tcp", "udp"]),
    family=st.just("inet"),
    state=st.sampled_from(["LISTEN", "ESTABLISHED"]),
    local_addr=st.just("::1"),
    local_port=st.integers(1, 2),
    direction=st.sampled_from([None, "inbound"]),
    recv_q=st.integers(0, 1),
    send_q=st.just(0),
    backlog=st.integers(0, 1),
)
_busy_holdings = st.builds(
    Holding,
    _busy_sockets,
    st.none() | _busy_processes,
    st.sampled_from([(3,), (3, 4)]),
    st.sampled_from([Owner(0, "root"), Owner(1, None)]),
    st.none(),
    st.none(),
    st.just(0),
    st.none(),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Draw a snapshot in which each pid is that of one process."""
    found = draw(st.lists(_busy_holdings, max_size=8))
    holders = {one.process.pid: one.process for one in found if one.process}
    others = {one.pid: one for one in draw(st.lists(_busy_processes, max_size=1))}
    by_pid = others | holders
    consistent = [
        one._replace(process=by_pid[one.process.pid]) if one.process else one._replace(fds=())
        for one in found
    ]
    return Snapshot(
        draw(st.floats(1.0e9, 1.0e9 + 100)),
        {key(one): one for one in consistent},
        {pid: one.start_ticks for pid, one in by_pid.items()},
        Coverage(len(by_pid), draw(st.integers(0, 1)), 1),
        event_times=draw(st.dictionaries(st.integers(1, 3), st.floats(1.0e9, 1.0e9 + 100))),
        ended=draw(st.dictionaries(st.integers(1, 3), ends)),
    )


@st.composite
def runs(draw: st.DrawFn, least: int = 1, most: int = 6) -> list[Snapshot]:
    """Draw successive snapshots, of which some have the keys that changed."""
    polls = draw(st.lists(snapshots(), min_size=least, max_size=most))
    drawn = polls[:1]
    for before, now in pairwise(polls):
        keys = before.holdings.keys() | now.holdings.keys()
        changed = {at for at in keys if before.holdings.get(at) != now.holdings.get(at)}
        drawn.append(now._replace(changed=frozenset(changed) if draw(st.booleans()) else None))
    return drawn


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Return ``data`` truncated, with other bytes, or with lines repeated, swapped and removed."""

    def cut(at: int) -> bytes:
        return data[:at]

    def flip(flips: list[tuple[int, int]]) -> bytes:
        changed = bytearray(data)
        for at, byte in flips:
            changed[at] = byte
        return bytes(changed)

    lines = data.splitlines(keepends=True)
    positions = st.integers(0, max(len(data) - 1, 0))
    if not data:
        return st.just(data)
    return st.one_of(
        positions.map(cut),
        st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=8).map(flip),
        st.lists(st.sampled_from(lines), max_size=len(lines)).map(b"".join),
    )
