"""The sockets of one group, and their other ends. Pure."""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ...model import INET_FAMILIES, Closed, Holding, HostHolding
from ...stream.filters import Filter
from ..terminal.endpoints import listens, unmapped
from ..terminal.eventlog import seconds_text
from ..terminal.peers import Holder, Peers
from ..terminal.rows import group
from .groups import Queues, Since, queue_of
from .model import GroupKey, PeerRow, SocketKey, SocketRow
from .recent import Change

# Sockets without an inode that are over have numbers of their own, below those that a snapshot
# gives to sockets without one.
_UNSEEN = -(1 << 40)
_DIRECTIONS = {"inbound": "in", "outbound": "out"}


class Shown(NamedTuple):
    """The sockets of a group that were returned last, and when."""

    key: GroupKey
    chosen: Filter
    made: float
    changes: int
    rows: list[SocketRow]


def index_peers(holdings: Iterable[HostHolding], ended: Iterable[HostHolding] = ()) -> Peers:
    """Return the other ends among the holdings of a host, and those that ended, the oldest
    first."""
    sockets, several = group(holdings)
    peers = Peers(several)
    peers.add(ended)
    peers.add(sockets)
    return peers


def socket_rows(
    members: Mapping[SocketKey, HostHolding],
    peers: Peers,
    close_wait: Mapping[SocketKey, Since],
    queues: Queues,
    now: float,
) -> Iterator[SocketRow]:
    """Yield the rows of the open sockets of a group; ``now`` is the time of the host."""
    keys = {id(one): key for key, one in members.items()}
    sockets, several = group(members.values())
    found = peers.of([one.holding for one in sockets])
    for one, peer in zip(sockets, found, strict=True):
        key, holding = keys[id(one)], one.holding
        recv_q, backlog = queue_of(key.host, key.inode, holding, queues)
        since = close_wait.get(key)
        yield SocketRow(
            key,
            holding,
            len(several.get(key.inode, (one,))) - 1,
            None if one.since is None else max(0.0, now - one.since),
            peer,
            recv_q,
            backlog,
            None if since is None else max(0.0, now - since.time),
            since is not None and since.before,
            None,
            "",
        )


def ended_row(change: Change, closed: Closed, now: float) -> SocketRow:
    """Return the row of a socket that is over."""
    holding = closed.holding
    socket, process = holding.socket, holding.process
    inode = socket.inode or _UNSEEN - change.number
    key = SocketKey(change.host, None if process is None else process.pid, inode)
    ending = closed.reason
    if closed.seconds is not None:
        ending += f" after {seconds_text(closed.seconds)}"
    return SocketRow(
        key, holding, 0, closed.seconds, None, socket.recv_q, socket.backlog, None, False,
        max(0.0, now - change.time), ending,
    )  # fmt: skip


def peer_rows(
    members: Iterable[HostHolding], ended: Iterable[HostHolding], peers: Peers
) -> list[PeerRow]:
    """Return the other ends of the connections of a group, and of those that ended, the ones with
    most connections first."""
    sockets = [
        one.holding for one in (*group(members)[0], *ended)
        if not listens(one.holding.socket) and _has_peer(one.holding)
    ]  # fmt: skip
    ends = Counter(map(_end, sockets, peers.of(sockets)))
    rows = [end._replace(connections=count) for end, count in ends.items()]
    return sorted(rows, key=_place_of)


def _place_of(row: PeerRow) -> tuple[object, ...]:
    """Return what sorts the rows. Those with equally many connections hold still."""
    return -row.connections, row.direction, row.service, str(row.peer), str(row.address)


def _has_peer(holding: Holding) -> bool:
    socket = holding.socket
    return socket.remote_addr is not None or bool(socket.peer_inode or holding.peer_pid)


def _end(holding: Holding, peer: Holder | None) -> PeerRow:
    socket = holding.socket
    direction = _DIRECTIONS.get(socket.direction or "", "-")
    if socket.family not in INET_FAMILIES:
        return PeerRow(direction, socket.path or socket.proto or "?", peer, socket.remote_addr, 0)
    port = socket.local_port if direction == "in" else socket.remote_port
    address = None if socket.remote_addr is None else unmapped(socket.remote_addr)
    return PeerRow(direction, f"{socket.proto or '?'}:{port or '*'}", peer, address, 0)
