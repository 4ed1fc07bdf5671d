"""Holdings to the rows of the summary: one for each process and service end."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...model import INET_FAMILIES, Holding, HostHolding, Process, Socket
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


class _Group(NamedTuple):
    """The sockets of one row, and who holds the other end of each, as far as it is known."""

    holdings: list[Holding]
    peers: list[Holder | None]

    def end(self, key: _Key, several: Mapping[int, Sequence[HostHolding]]) -> End:
        """Return the row of these sockets; ``several`` is from ``rows.group``."""
        _pid, role, proto, _netns, address, port = key
        shown = _fullest(self.holdings)
        sockets = [one.socket for one in self.holdings]
        held = (len(several[one.inode]) for one in sockets if one.inode in several)
        others = max(held, default=1) - 1
        sources = {
            unmapped(one.remote_addr)
            for one, peer in zip(sockets, self.peers, strict=True)
            if peer is None and one.remote_addr is not None
        }
        known = [peer for peer in self.peers if peer is not None]
        named = {peer.pid: peer for peer in known}
        peers = {named[pid]: count for pid, count in Counter([one.pid for one in known]).items()}
        states = Counter([one.state for one in sockets])
        socket = shown.socket if role == LISTEN else None
        return End(
            role, proto, address, port, shown, others, len(sockets), socket,
            frozenset(sources), peers, states,
        )  # fmt: skip


def _fullest(holdings: Sequence[Holding]) -> Holding:
    """Return the listener with the fullest queue; of connections the first one."""
    fullest = holdings[0]
    for one in holdings if len(holdings) > 1 else ():
        if one.socket.state == "LISTEN" and (one.socket.recv_q or 0) > (fullest.socket.recv_q or 0):
            fullest = one
    return fullest


def summarize(holdings: Sequence[HostHolding], *, all_families: bool = False) -> list[HostSummary]:
    """Return the summary of each host. ``all_families``: of unix, netlink and other sockets too."""
    return [
        _summarize(host, held, all_families) for host, held in sorted(by_host(holdings).items())
    ]


def _summarize(host: str, holdings: Sequence[HostHolding], all_families: bool) -> HostSummary:
    sockets, several = group(holdings)
    pids = {one.holding.process.pid for one in holdings if one.holding.process is not None}
    protos = Counter([one.holding.socket.proto for one in sockets])
    omitted = {} if all_families else {
        proto or "?": count for proto, count in protos.items() if proto not in _OVERVIEW_PROTOS
    }  # fmt: skip
    shown = sockets
    if omitted:
        shown = [one for one in sockets if one.holding.socket.proto in _OVERVIEW_PROTOS]
    wild = _wildcards(shown)
    groups: dict[_Key, _Group] = {}
    key: _Key
    peers = Peers(shown, several).of([one.holding for one in shown])
    for (_host, holding, _since), peer in zip(shown, peers, strict=True):
        socket, process = holding.socket, holding.process
        direction, proto = socket.direction, socket.proto
        if proto == "tcp" and direction == "outbound" and process is not None:
            key = (process.pid, OUT, proto, socket.netns, socket.remote_addr, socket.remote_port)
        elif proto == "tcp" and direction == "inbound" and process is not None:
            key = (process.pid, IN, proto, socket.netns, socket.local_addr, socket.local_port)
        else:
            key = _key(holding, wild)
        members = groups.get(key)
        if members is None:
            groups[key] = _Group([holding], [peer])
        else:
            members.holdings.append(holding)
            members.peers.append(peer)
    ends = [members.end(key, several) for key, members in _folded(groups, wild).items()]
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


def _folded(groups: dict[_Key, _Group], wild: _Wild) -> dict[_Key, _Group]:
    """Return groups in which the address is None where a service listens on all addresses, and
    where a process calls one port at many addresses."""
    addresses = Counter((*key[:4], key[5]) for key in groups if key[1] == OUT)
    folded: dict[_Key, _Group] = {}
    for key, members in groups.items():
        pid, role, proto, netns, _address, port = key
        is_any = role == IN and (proto, netns, port) in wild
        is_any |= role == OUT and addresses[pid, role, proto, netns, port] > MAX_ADDRESSES
        target = (pid, role, proto, netns, None, port) if is_any else key
        if target in folded:
            folded[target].holdings.extend(members.holdings)
            folded[target].peers.extend(members.peers)
        else:
            folded[target] = members
    return folded


def _order(end: End) -> tuple[object, ...]:
    process: Process | None = end.holding.process
    comm, pid = ("", 0) if process is None else (process.comm, process.pid)
    return (
        _ROLE_RANKS[end.role], end.proto not in _OVERVIEW_PROTOS, end.proto, end.port or 0,
        end.address or "", comm, pid,
    )  # fmt: skip
