"""The other end of a socket on the same machine."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...model import Holding, Socket
from ...stream.state import HostHolding
from .endpoints import MAPPED, unmapped


class Holder(NamedTuple):
    """The oldest process that holds a socket, and how many ``others`` hold it too. ``path`` is that
    of its unix socket."""

    comm: str
    pid: int
    others: int
    path: str | None = None

    @property
    def label(self) -> str:
        """Return ``comm[pid] +others``, which is not yet safe."""
        more = f" +{self.others}" if self.others else ""
        return f"{self.comm}[{self.pid}]{more}"


class Peers:
    """Finds the other ends among the sockets of one host.

    TCP: the socket with the swapped addresses and ports in the same network namespace. Unix: the
    socket ``peer_inode``, or else the process ``peer_pid``.
    """

    def __init__(
        self, sockets: Sequence[HostHolding], several: Mapping[int, Sequence[HostHolding]]
    ) -> None:
        """``sockets`` and ``several`` are from ``rows.group``."""
        self._several = several
        # By both ports: numbers are found faster than tuples, and cost the garbage collector
        # nothing. Connections between the same ports are a list.
        self._tcp: dict[int, Holding | list[Holding]] = {}
        self._unix: dict[int, Holding] = {}
        self._comms: dict[int, str] = {}
        self._known: dict[int, Holder] = {}
        local = {one.holding.socket.local_addr for one in sockets} - {None}
        local |= {f"{MAPPED}{address}" for address in local}
        local |= {unmapped(address) for address in local if address is not None}
        self._local = local
        for _host, holding, _since in sockets:
            socket = holding.socket
            if socket.family == "unix":
                self._unix[socket.inode] = holding
                if holding.process is not None:
                    self._comms[holding.process.pid] = holding.process.comm
            elif socket.remote_addr in local and socket.proto == "tcp":
                ports = (socket.local_port or 0) << 16 | (socket.remote_port or 0)
                known = self._tcp.setdefault(ports, holding)
                if known is not holding:
                    self._add(ports, known, holding)

    def _add(self, ports: int, known: Holding | list[Holding], holding: Holding) -> None:
        if isinstance(known, list):
            known.append(holding)
        else:
            self._tcp[ports] = [known, holding]

    def of(self, holdings: Iterable[Holding]) -> list[Holder | None]:
        """Return who holds the other end of each socket."""
        holders = []
        local, tcp, is_plain = self._local, self._tcp, not self._several
        for holding in holdings:
            socket = holding.socket
            if socket.remote_addr is None:
                holders.append(None if socket.state == "LISTEN" else self._of_unix(holding))
                continue
            end = None
            if socket.remote_addr in local and socket.proto == "tcp":
                end = tcp.get((socket.remote_port or 0) << 16 | (socket.local_port or 0))
            if end is None:
                holders.append(None)
            elif type(end) is Holding and _are_ends(socket, end.socket):
                process = end.process
                known = None
                if process is not None and (is_plain or end.socket.inode not in self._several):
                    known = self._known.get(process.pid)
                holders.append(known or self._holder(end))
            else:
                ends = end if isinstance(end, list) else ()
                matching = (one for one in ends if _are_ends(socket, one.socket))
                found = next(matching, None)
                holders.append(None if found is None else self._holder(found))
        return holders

    def _of_unix(self, holding: Holding) -> Holder | None:
        if holding.socket.peer_inode:
            end = self._unix.get(holding.socket.peer_inode)
            if end is not None and end.process is not None:
                return self._holder(end)
        if holding.peer_pid is not None:
            return Holder(self._comms.get(holding.peer_pid, "?"), holding.peer_pid, 0)
        return None

    def _holder(self, holding: Holding) -> Holder | None:
        process = holding.process
        if process is None:
            return None
        socket = holding.socket
        if socket.path is None and socket.inode not in self._several:
            known = self._known.get(process.pid)
            if known is None:
                known = self._known[process.pid] = Holder(process.comm, process.pid, 0)
            return known
        others = len(self._several.get(socket.inode, (None,))) - 1
        return Holder(process.comm, process.pid, others, socket.path)


def _are_ends(one: Socket, other: Socket) -> bool:
    """Return whether sockets with swapped ports are the ends of one connection."""
    if one.netns != other.netns or one.netns is None:
        return False
    if one.local_addr == other.remote_addr:
        return one.remote_addr == other.local_addr
    # One end may have IPv4 addresses that are mapped into IPv6.
    ends = (one.local_addr, one.remote_addr, other.remote_addr, other.local_addr)
    local, remote, others_remote, others_local = (unmapped(end or "") for end in ends)
    return local == others_remote and remote == others_local
