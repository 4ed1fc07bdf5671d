"""The other end of a socket on the same machine."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...model import Holding, HostHolding
from .endpoints import unmapped

# Local and remote port, local and remote address, network namespace. Addresses of IPv4 that are
# mapped into IPv6 are plain.
_Ends = tuple[int | None, int | None, str | None, str | None, int | None]


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

    def __init__(self, several: Mapping[int, Sequence[HostHolding]]) -> None:
        """``several`` has by inode the holders of sockets that have more than one, the oldest
        first; it may grow until ``of`` is called."""
        self._several = several
        self._tcp: dict[_Ends, Holding] = {}
        self._unix: dict[int, Holding] = {}
        self._comms: dict[int, str] = {}
        self._known: dict[int, Holder] = {}
        # Only a connection to an address of this machine can have its other end here.
        self._local: set[str | None] = set()

    def add(self, holdings: Iterable[HostHolding]) -> None:
        """Add sockets; a further holding of a socket replaces the one before."""
        tcp, local = self._tcp, self._local
        for _host, holding, _since in holdings:
            socket = holding.socket
            family = socket.family
            if family == "inet":
                local.add(socket.local_addr)
                if socket.proto == "tcp":
                    tcp[
                        socket.local_port, socket.remote_port, socket.local_addr,
                        socket.remote_addr, socket.netns,
                    ] = holding  # fmt: skip
            elif family == "inet6":
                here, there = unmapped(socket.local_addr or ""), unmapped(socket.remote_addr or "")
                local.add(here)
                if socket.proto == "tcp":
                    ports = socket.local_port, socket.remote_port
                    tcp[*ports, here, there, socket.netns] = holding
            elif family == "unix":
                self._unix[socket.inode] = holding
                if holding.process is not None:
                    self._comms[holding.process.pid] = holding.process.comm

    def of(self, holdings: Iterable[Holding]) -> list[Holder | None]:
        """Return who holds the other end of each socket."""
        holders: list[Holder | None] = []
        tcp, several, known, local = self._tcp, self._several, self._known, self._local
        for holding in holdings:
            socket = holding.socket
            there = socket.remote_addr
            if there is None:
                holders.append(None if socket.state == "LISTEN" else self._of_unix(holding))
                continue
            here = socket.local_addr
            if socket.family == "inet6":
                here, there = unmapped(here or ""), unmapped(there)
            if there not in local or socket.proto != "tcp" or socket.netns is None:
                holders.append(None)
                continue
            end = tcp.get((socket.remote_port, socket.local_port, there, here, socket.netns))
            if end is None:
                holders.append(None)
            elif end.process is None or end.socket.inode in several:
                holders.append(self._holder(end))
            else:
                holders.append(known.get(end.process.pid) or self._holder(end))
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
