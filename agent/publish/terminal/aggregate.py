"""Holdings to the rows of the summary: one for each process and service end."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from ...model import INET_FAMILIES, Holding, Process, Socket
from ...stream.filter_values import is_bound
from ...stream.state import HostHolding
from .endpoints import ANY_ADDRESSES, unmapped
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


class _Group:
    """The sockets of one row, while they are counted. ``fullest`` is the listener with the fullest
    queue; of connections the first one."""

    __slots__ = ("connections", "fullest", "others", "peers", "sources", "states")

    def __init__(self, first: Holding) -> None:
        self.fullest = first
        self.connections = 0
        self.others = 0
        self.peers: list[Holder] = []
        self.sources: set[str] = set()
        self.states: list[str | None] = []

    def add(self, holding: Holding, peer: Holder | None) -> None:
        """Count a socket and the holder of its other end."""
        self.connections += 1
        socket = holding.socket
        self.states.append(socket.state)
        if peer is not None:
            self.peers.append(peer)
        elif socket.remote_addr is not None:
            self.sources.add(socket.remote_addr)

    def add_holders(self, others: int) -> None:
        """Note how many more processes hold a socket that was added."""
        self.others = max(self.others, others)

    def add_listener(self, holding: Holding) -> None:
        """Keep the listener with the fullest queue."""
        if holding.socket.state == "LISTEN" and (holding.socket.recv_q or 0) > (
            self.fullest.socket.recv_q or 0
        ):
            self.fullest = holding

    def merge(self, other: Self) -> None:
        """Count the connections of another row too."""
        self.connections += other.connections
        self.peers += other.peers
        self.sources |= other.sources
        self.states += other.states
        self.add_holders(other.others)

    def end(self, key: _Key) -> End:
        """Return the row of these sockets."""
        _pid, role, proto, _netns, address, port = key
        pids = [peer.pid for peer in self.peers]
        named = dict(zip(pids, self.peers, strict=True))
        sources = frozenset(map(unmapped, self.sources))
        peers = {named[pid]: count for pid, count in Counter(pids).items()}
        socket = self.fullest.socket if role == LISTEN else None
        return End(
            role, proto, address, port, self.fullest, self.others, self.connections, socket,
            sources, peers, Counter(self.states),
        )  # fmt: skip


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
    groups: dict[_Key, _Group] = {}
    key: _Key
    found = peers.of([one.holding for one in sockets])
    for (_host, holding, _since), peer in zip(sockets, found, strict=True):
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
            members = groups[key] = _Group(holding)
        members.add(holding, peer)
        if socket.inode in several:
            members.add_holders(len(several[socket.inode]) - 1)
        if socket.state == "LISTEN":
            members.add_listener(holding)
    ends = [members.end(key) for key, members in _folded(groups, wild).items()]
    ends.sort(key=_order)
    return HostSummary(host, len(pids), len(sockets), ends, omitted)


def _wildcards(sockets: Sequence[HostHolding]) -> _Wild:
    listening = [
        one.holding.socket for one in sockets if one.holding.socket.local_addr in ANY_ADDRESSES
    ]
    return {
        (socket.proto, socket.netns, socket.local_port)
        for socket in listening
        if socket.state == "LISTEN" or is_bound(socket)
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
    if socket.state == "LISTEN" or is_bound(socket):
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
            folded[target].merge(members)
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
