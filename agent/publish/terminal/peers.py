"""The other end of a socket on the same machine."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...model import Holding, HostHolding
from .endpoints import unmapped, with_or_without_map


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
        self._unix: dict[int, Holding] = {}
        self._comms: dict[int, str] = {}
        self._known: dict[int, Holder] = {}
        # Only a connection to an address of this machine can have its other end here.
        addresses = {one.holding.socket.local_addr for one in sockets} - {None}
        self._local = addresses | {with_or_without_map(address or "") for address in addresses}
        sockets_of_inet6 = []
        self._tcp: dict[tuple[object, ...], Holding] = {
            (socket.local_port, socket.remote_port, socket.local_addr, socket.remote_addr,
             socket.netns): one.holding
            for one in sockets
            if (socket := one.holding.socket).remote_addr in self._local and socket.proto == "tcp"
        }  # fmt: skip
        for _host, holding, _since in sockets:
            family = holding.socket.family
            if family == "unix":
                self._unix[holding.socket.inode] = holding
                if holding.process is not None:
                    self._comms[holding.process.pid] = holding.process.comm
            elif family == "inet6":
                sockets_of_inet6.append(holding)
        for holding in sockets_of_inet6:
            socket = holding.socket
            if socket.proto == "tcp" and socket.remote_addr is not None:
                ends = unmapped(socket.local_addr or ""), unmapped(socket.remote_addr)
                ports = socket.local_port, socket.remote_port
                self._tcp.setdefault((*ports, *ends, socket.netns), holding)

    def of(self, holdings: Iterable[Holding]) -> list[Holder | None]:
        """Return who holds the other end of each socket."""
        holders: list[Holder | None] = []
        tcp, several, known = self._tcp, self._several, self._known
        for holding in holdings:
            socket = holding.socket
            if socket.remote_addr is None:
                holders.append(None if socket.state == "LISTEN" else self._of_unix(holding))
                continue
            if (
                socket.remote_addr not in self._local
                or socket.proto != "tcp"
                or socket.netns is None
            ):
                holders.append(None)
                continue
            end = tcp.get(
                (socket.remote_port, socket.local_port, socket.remote_addr, socket.local_addr,
                 socket.netns)
            )  # fmt: skip
            if end is None and socket.family == "inet6":
                ends = unmapped(socket.remote_addr), unmapped(socket.local_addr or "")
                end = tcp.get((socket.remote_port, socket.local_port, *ends, socket.netns))
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
