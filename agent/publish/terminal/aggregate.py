"""Holdings to the rows of the summary: one for each process and service end."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...model import INET_FAMILIES, Holding, HostHolding, Process, Socket
from ...stream.filter_values import is_bound
from .endpoints import ANY_ADDRESSES, unmapped
from .peers import Holder, Peers
from .rows import Grouping, by_host

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


# The sockets of each row.
_Groups = dict[_Key, list[Holding]]


def _end(
    key: _Key, holdings: Sequence[Holding], peers: Peers, several: Mapping[int, Sequence[object]]
) -> End:
    """Return the row of sockets; ``several`` is that of a Grouping."""
    _pid, role, proto, _netns, address, port = key
    ends = peers.of(holdings)
    shown = _fullest(holdings) if role == LISTEN else holdings[0]
    others = 0
    if several:
        inodes = [one.socket.inode for one in holdings if one.socket.inode in several]
        others = max((len(several[inode]) for inode in inodes), default=1) - 1
    unknown = (
        [
            one.socket.remote_addr
            for one, end in zip(holdings, ends, strict=True)
            if end is None and one.socket.remote_addr is not None
        ]
        if None in ends
        else ()
    )
    known = [end for end in ends if end is not None]
    named = {end.pid: end for end in known}
    counts = Counter([end.pid for end in known])
    return End(
        role, proto, address, port, shown, others, len(holdings),
        shown.socket if role == LISTEN else None,
        frozenset(map(unmapped, unknown)),
        {named[pid]: count for pid, count in counts.items()},
        Counter([one.socket.state for one in holdings]),
    )  # fmt: skip


def _fullest(holdings: Sequence[Holding]) -> Holding:
    """Return the listener with the fullest queue."""
    fullest = holdings[0]
    for one in holdings[1:]:
        if one.socket.state == "LISTEN" and (one.socket.recv_q or 0) > (fullest.socket.recv_q or 0):
            fullest = one
    return fullest


class Summarizer:
    """Makes the summary of one host of holdings that come in parts."""

    def __init__(self, host: str, *, all_families: bool = False) -> None:
        """``all_families``: sockets of unix, netlink and others have rows, too."""
        self._host = host
        self._all_families = all_families
        self._pids: set[int] = set()
        self._shown, self._others = Grouping(), Grouping()
        self._omitted: Counter[str] = Counter()
        self._peers = Peers(self._shown.several)
        self._wild: _Wild = set()
        self._groups: _Groups = {}
        self._rest: list[Holding] = []  # Their rows depend on which sockets listen.

    def add(self, holdings: Sequence[HostHolding]) -> None:
        """Add holdings of the host."""
        self._pids.update(
            [one.holding.process.pid for one in holdings if one.holding.process is not None]
        )
        if not self._all_families:
            omitted = [one for one in holdings if one.holding.socket.proto not in _OVERVIEW_PROTOS]
            if omitted:
                added = self._others.add(omitted)
                self._omitted.update([one.holding.socket.proto or "?" for one in added])
                holdings = [one for one in holdings if one.holding.socket.proto in _OVERVIEW_PROTOS]
        added = self._shown.add(holdings)
        self._peers.add(added)
        self._wild.update(_wildcards(added))
        self._assign(added)

    def _assign(self, sockets: Iterable[HostHolding]) -> None:
        """Add sockets to their rows."""
        groups, rest = self._groups, self._rest
        key: _Key
        for _host, holding, _since in sockets:
            socket, process = holding.socket, holding.process
            if process is None or socket.proto != "tcp":
                rest.append(holding)
                continue
            if socket.direction == "outbound":
                there = socket.remote_addr, socket.remote_port
                key = (process.pid, OUT, "tcp", socket.netns, *there)
            elif socket.direction == "inbound":
                key = (process.pid, IN, "tcp", socket.netns, socket.local_addr, socket.local_port)
            else:
                rest.append(holding)
                continue
            members = groups.get(key)
            if members is None:
                groups[key] = [holding]
            else:
                members.append(holding)

    def summary(self) -> HostSummary:
        """Return the summary of all that was added."""
        several, wild = self._shown.several, self._wild
        has_moved = self._shown.has_older_holders()
        sockets = self._shown.sockets()
        if has_moved:  # To the rows of the older holders.
            self._groups, self._rest = {}, []
            self._assign(sockets)
            self._peers.add([holders[0] for holders in several.values()])
        groups = {key: list(members) for key, members in self._groups.items()}
        for holding in self._rest:
            groups.setdefault(_key(holding, wild), []).append(holding)
        ends = [
            _end(key, members, self._peers, several)
            for key, members in _folded(groups, wild).items()
        ]
        ends.sort(key=_order)
        count = len(sockets) + self._omitted.total()
        return HostSummary(self._host, len(self._pids), count, ends, self._omitted)


def summarize(holdings: Sequence[HostHolding], *, all_families: bool = False) -> list[HostSummary]:
    """Return the summary of each host. ``all_families``: of unix, netlink and other sockets too."""
    summaries = []
    for host, held in sorted(by_host(holdings).items()):
        summarizer = Summarizer(host, all_families=all_families)
        summarizer.add(held)
        summaries.append(summarizer.summary())
    return summaries


def _wildcards(sockets: Iterable[HostHolding]) -> _Wild:
    listening = [
        one.holding.socket for one in sockets if one.holding.socket.local_addr in ANY_ADDRESSES
    ]
    return {
        (socket.proto, socket.netns, socket.local_port)
        for socket in listening
        if socket.state == "LISTEN" or is_bound(socket)
    }


def _key(holding: Holding, wild: _Wild) -> _Key:
    """Return the row of any socket."""
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


def _folded(groups: _Groups, wild: _Wild) -> _Groups:
    """Return groups in which the address is None where a service listens on all addresses, and
    where a process calls one port at many addresses."""
    addresses = Counter((*key[:4], key[5]) for key in groups if key[1] == OUT)
    folded: _Groups = {}
    for key, members in groups.items():
        pid, role, proto, netns, _address, port = key
        is_any = role == IN and (proto, netns, port) in wild
        is_any |= role == OUT and addresses[pid, role, proto, netns, port] > MAX_ADDRESSES
        target = (pid, role, proto, netns, None, port) if is_any else key
        if target in folded:
            folded[target].extend(members)
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
