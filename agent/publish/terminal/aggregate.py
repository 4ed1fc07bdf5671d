"""Holdings to the rows of the summary: one for each process and service end."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from ...model import INET_FAMILIES, Holding, Process, Socket
from ...stream.state import HostHolding
from .endpoints import ANY_ADDRESSES, is_bound_udp, unmapped
from .peers import Holder, Peers
from .rows import by_host, group

LISTEN, IN, OUT, OTHER = "listen", "in", "out", "-"
_ROLES = {"listen": LISTEN, "inbound": IN, "outbound": OUT}
_ROLE_RANKS = {LISTEN: 0, IN: 1, OUT: 2, OTHER: 3}
# A process that calls one port at more addresses has one row for all of them.
MAX_ADDRESSES = 3
# Families that the summary has only on request.
_OVERVIEW_PROTOS = frozenset({"tcp", "udp", "udplite"})


class End(NamedTuple):
    """One row of the summary: what a process has at one service end.

    ``address`` is None for any address. ``connections`` counts them; ``socket`` is the
    listening socket, with the fullest queue. ``sources`` are the distinct addresses of the
    other ends, ``peers`` counts the holders of those on this machine, ``states`` counts the states.
    """

    role: str
    proto: str
    address: str | None
    port: int | None
    holding: Holding
    others: int
    connections: int
    socket: Socket | None
    sources: frozenset[str]
    peers: Mapping[Holder, int]
    states: Mapping[str | None, int]


class HostSummary(NamedTuple):
    """The summary of one host; ``omitted`` counts sockets without a row, by protocol."""

    host: str
    processes: int
    sockets: int
    ends: Sequence[End]
    omitted: Mapping[str, int]


# Pid, role, protocol, network namespace, address, port.
_Key = tuple[int | None, str, str, int | None, str | None, int | None]
# Protocol, network namespace and port of what listens on all addresses.
_Wild = set[tuple[str | None, int | None, int | None]]
_STATE = attrgetter("socket.state")


def summarize(holdings: Sequence[HostHolding], *, all_families: bool = False) -> list[HostSummary]:
    """Return the summary of each host. ``all_families``: of unix, netlink and other sockets too."""
    return [
        _summarize(host, held, all_families) for host, held in sorted(by_host(holdings).items())
    ]


def _summarize(host: str, holdings: Sequence[HostHolding], all_families: bool) -> HostSummary:
    sockets, several = group(holdings)
    pids = {one.holding.process.pid for one in holdings if one.holding.process is not None}
    peers = Peers(sockets, several)
    wild = _wildcards(sockets)
    omitted: Counter[str] = Counter()
    groups: dict[_Key, list[Holding]] = {}
    key: _Key
    for _host, holding, _since in sockets:
        socket, process = holding.socket, holding.process
        direction, proto = socket.direction, socket.proto
        if proto == "tcp" and direction == "outbound" and process is not None:
            key = (process.pid, OUT, proto, socket.netns, socket.remote_addr, socket.remote_port)
        elif proto == "tcp" and direction == "inbound" and process is not None:
            key = (process.pid, IN, proto, socket.netns, socket.local_addr, socket.local_port)
        elif all_families or proto in _OVERVIEW_PROTOS:
            key = _key(holding, wild)
        else:
            omitted[proto or "?"] += 1
            continue
        members = groups.get(key)
        if members is None:
            groups[key] = [holding]
        else:
            members.append(holding)
    ends = [_end(key, held, peers, several) for key, held in _folded(groups, wild).items()]
    ends.sort(key=_order)
    return HostSummary(host, len(pids), len(sockets), ends, omitted)


def _wildcards(sockets: Sequence[HostHolding]) -> _Wild:
    listening = [
        one.holding.socket for one in sockets if one.holding.socket.local_addr in ANY_ADDRESSES
    ]
    return {
        (socket.proto, socket.netns, socket.local_port)
        for socket in listening
        if socket.state == "LISTEN" or is_bound_udp(socket)
    }


def _key(holding: Holding, wild: _Wild) -> _Key:
    """Return the row of a socket: the slow way, for any socket."""
    socket, process = holding.socket, holding.process
    pid = None if process is None else process.pid
    proto, netns = socket.proto or "?", socket.netns
    local = (socket.local_addr, socket.local_port)
    if socket.family not in INET_FAMILIES:
        role = _ROLES.get(socket.direction or "", OTHER)
        return (pid, role, proto, netns, socket.path or socket.local_addr, None)
    if socket.state == "LISTEN" or is_bound_udp(socket):
        address = None if socket.local_addr in ANY_ADDRESSES else socket.local_addr
        return (pid, LISTEN, proto, netns, address, socket.local_port)
    if socket.direction == "inbound":
        return (pid, IN, proto, netns, *local)
    if socket.remote_addr is None:
        return (pid, OTHER, proto, netns, *local)
    if proto != "tcp" and (proto, netns, socket.local_port) in wild:
        return (pid, IN, proto, netns, *local)
    role = OUT if socket.direction == "outbound" or proto != "tcp" else OTHER
    return (pid, role, proto, netns, socket.remote_addr, socket.remote_port)


def _folded(groups: dict[_Key, list[Holding]], wild: _Wild) -> dict[_Key, list[Holding]]:
    """Return groups in which the address is None where a service listens on all addresses, and
    where a process calls one port at many addresses."""
    addresses = Counter((*key[:4], key[5]) for key in groups if key[1] == OUT)
    folded: dict[_Key, list[Holding]] = {}
    for key, held in groups.items():
        pid, role, proto, netns, _address, port = key
        is_any = role == IN and (proto, netns, port) in wild
        is_any |= role == OUT and addresses[pid, role, proto, netns, port] > MAX_ADDRESSES
        if is_any:
            folded.setdefault((pid, role, proto, netns, None, port), []).extend(held)
        else:
            folded[key] = held
    return folded


def _end(
    key: _Key, held: list[Holding], peers: Peers, several: Mapping[int, Sequence[HostHolding]]
) -> End:
    _pid, role, proto, _netns, address, port = key
    shared = [several[one.socket.inode] for one in held if one.socket.inode in several]
    others = max(map(len, shared), default=1) - 1
    if role == LISTEN:
        fullest = max(held, key=lambda one: one.socket.recv_q or 0)
        return End(role, proto, address, port, fullest, others, len(held), fullest.socket,
                   frozenset(), {}, {})  # fmt: skip
    found = peers.of(held)
    known = [peer for peer in found if peer is not None]
    counts = Counter([peer.pid for peer in known])
    named = {peer.pid: peer for peer in known}
    sources: set[str | None] = set()
    if len(known) < len(found):
        sources = {
            one.socket.remote_addr for one, peer in zip(held, found, strict=True) if peer is None
        }
    return End(
        role, proto, address, port, held[0], others, len(held), None,
        frozenset(unmapped(source) for source in sources if source is not None),
        {named[pid]: count for pid, count in counts.items()},
        Counter(map(_STATE, held)),
    )  # fmt: skip


def _order(end: End) -> tuple[object, ...]:
    process: Process | None = end.holding.process
    comm, pid = ("", 0) if process is None else (process.comm, process.pid)
    return (
        _ROLE_RANKS[end.role], end.proto not in _OVERVIEW_PROTOS, end.proto, end.port or 0,
        end.address or "", comm, pid,
    )  # fmt: skip
