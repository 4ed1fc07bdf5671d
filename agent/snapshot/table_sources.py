"""Where tables of sockets, and events about sockets, come from: procfs text and netlink.

A new source of tables implements ``TableSource``, a new source of events ``EventSource``; the
application passes lists of them to the poller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from socket import AF_INET
from typing import NamedTuple, Protocol

from ..kernel.direction import DEFAULT_EPHEMERAL_PORTS
from ..kernel.netlink.client import NetlinkClient
from ..kernel.netlink.inet_diag import read_tcp_row, tcp_lookup
from ..kernel.netlink.monitor import DestroyMonitor, DestroyReport
from ..kernel.procfs import net_tables
from ..kernel.procfs.mount import NetnsMember, ProcFS
from ..kernel.rows import Scope, Table
from ..kernel.trace.connections import ConnectionReport, Endpoints
from ..model import Socket
from .reading import Group
from .senders import SenderSource

# A file in /proc/net, or the files that one netlink dump stands for.
TableName = str | Group


class Namespace(NamedTuple):
    """A network namespace: its name in ``Namespaces``, its inode, None if that may not be read, and
    the processes or threads that lead to it."""

    name: int
    inode: int | None
    ways: Sequence[NetnsMember]


class TableReading(NamedTuple):
    """Tables that were read, and for those that could not be read the reason. ``vanished``: no
    process of the namespace exists any more. ``moved_pids`` are processes that are in another
    namespace."""

    tables: Mapping[TableName, Table]
    failed: Mapping[TableName, str]
    vanished: bool = False
    moved_pids: frozenset[int] = frozenset()


class TableSource(Protocol):
    """Reads tables of network namespaces. The methods block and are called in several threads."""

    def read(
        self, namespace: Namespace, names: Sequence[str], before: Callable[[TableName], Table]
    ) -> TableReading:
        """Read the named tables, as far as this source has them; ``before`` returns a table as it
        was read last."""

    def look_up(self, netns: int, inode: int, ends: Endpoints) -> Socket | None:
        """Return the TCP socket with these ends in a namespace whose tables were read; None if
        there is none, or if this source cannot look up sockets."""

    def missing(self) -> Mapping[int, str]:
        """Return, by namespace, what this source cannot read there, as the end of a sentence."""


class EventSource(Protocol):
    """Receives events about sockets, in the event loop."""

    def follow(self, namespaces: Collection[int]) -> None:
        """Receive the events of these namespaces, and leave all others."""

    def pending(self) -> Mapping[int, Collection[str]]:
        """Return the protocols, by namespace, of which sockets were or may have been destroyed."""

    def take(self) -> DestroyReport:
        """Return the events since the last call."""


class ConnectionSource(SenderSource, Protocol):
    """Reports TCP connections with their processes, and senders over UDP, in the event loop."""

    @property
    def is_reading(self) -> bool:
        """Return whether connections are reported at present."""

    def take(self) -> ConnectionReport:
        """Return what happened since the last call."""


class ProcfsTables:
    """The text tables in ``/proc/PID/net``, proc_pid_net(5)."""

    def __init__(self, procfs: ProcFS) -> None:
        self._procfs = procfs
        self._ephemeral = procfs.ephemeral_ports() or DEFAULT_EPHEMERAL_PORTS

    def read(
        self, namespace: Namespace, names: Sequence[str], before: Callable[[TableName], Table]
    ) -> TableReading:
        """Read and parse all named tables that this kernel has."""
        tables: dict[TableName, Table] = {}
        failed: dict[TableName, str] = {}
        texts, moved = self._procfs.read_tables(namespace.name, namespace.ways, names)
        if texts is None:
            return TableReading(tables, failed, vanished=True, moved_pids=moved)
        for name, data in texts.items():
            if not isinstance(data, bytes):
                failed[name] = os.strerror(data.errno or 0)
            elif not data:  # A table has at least a heading: this is no proof of absence.
                failed[name] = "the file is empty"
            else:
                tables[name] = net_tables.parse(
                    name, data, namespace.inode, self._ephemeral, before(name)
                )
        return TableReading(tables, failed, moved_pids=moved)

    def look_up(self, _netns: int, _inode: int, _ends: Endpoints) -> None:
        """Return None: a text table shows a socket only among all others."""

    def missing(self) -> Mapping[int, str]:
        """Return nothing: ``read`` reports each failure."""
        return {}


class NetlinkTables:
    """The dumps of sock_diag(7), in the namespaces where a netlink socket can be opened."""

    def __init__(self, client: NetlinkClient, procfs: ProcFS) -> None:
        self._client = client
        self._procfs = procfs
        self._ephemeral = procfs.ephemeral_ports() or DEFAULT_EPHEMERAL_PORTS

    def read(
        self, namespace: Namespace, names: Sequence[str], before: Callable[[TableName], Table]
    ) -> TableReading:
        """Read the dumps that stand for the named tables, where the kernel supports them."""
        tables: dict[TableName, Table] = {}
        if namespace.inode is not None:
            path = f"{self._procfs.root}/{namespace.ways[0]}/ns/net"
            scope = Scope(namespace.inode, self._ephemeral, partial(self._interface, namespace))
            for dump, rows in self._client.read_dumps(namespace.inode, path, names):
                tables[dump.tables] = dump.read(rows, scope, before(dump.tables))
        return TableReading(tables, {})

    def look_up(self, _netns: int, inode: int, ends: Endpoints) -> Socket | None:
        """Look up a TCP socket by its ends."""
        family, local, local_port, remote, remote_port = ends
        if family == AF_INET:
            local, remote = local[12:].ljust(16, b"\0"), remote[12:].ljust(16, b"\0")
        request = tcp_lookup(family, local, local_port, remote, remote_port)
        (row,) = self._client.look_up(inode, [request])
        socket = None if row is None else read_tcp_row(row, Scope(inode, self._ephemeral), None)
        # Where no connection has these ends, the kernel answers with the listener.
        return socket if socket is not None and (socket.remote_port or 0) == remote_port else None

    def _interface(self, namespace: Namespace, index: int) -> str:
        """Return the name of an interface of the namespace, or its index in digits."""
        texts, _moved = self._procfs.read_tables(
            namespace.name, namespace.ways, net_tables.INTERFACE_TABLES
        )
        if texts is None:
            return str(index)
        readable = [data for data in texts.values() if isinstance(data, bytes)]
        return net_tables.parse_interfaces(readable).get(index, str(index))

    def missing(self) -> Mapping[int, str]:
        """Return the namespaces that may not be entered."""
        sentence = "cannot be entered without CAP_SYS_ADMIN: its tables are read as text"
        return dict.fromkeys(self._client.refused_namespaces(), sentence)


class NetlinkEvents:
    """The kernel's notices of destroyed sockets, in the namespaces that a client has entered."""

    def __init__(self, client: NetlinkClient) -> None:
        self._client = client
        self._monitor = DestroyMonitor()

    def follow(self, namespaces: Collection[int]) -> None:
        """Receive the notices of these namespaces; close the netlink sockets of all others."""
        for netns in list(self._monitor.namespaces):
            if netns not in namespaces or self._client.destroy_socket(netns) is None:
                self._monitor.remove([netns])
        self._client.close_except(namespaces)
        for netns in namespaces:
            subscribed = self._client.destroy_socket(netns)
            if subscribed is not None:
                self._monitor.add(netns, subscribed)

    def pending(self) -> Mapping[int, Collection[str]]:
        """Return the protocols, by namespace, of which sockets were or may have been destroyed."""
        return self._monitor.affected_protocols()

    def take(self) -> DestroyReport:
        """Return the notices since the last call."""
        report = self._monitor.take()
        return report._replace(ignored=report.ignored + self._client.take_ignored())


def sources_of(
    procfs: ProcFS, client: NetlinkClient | None
) -> tuple[list[TableSource], list[EventSource]]:
    """Return all sources of a procfs, those over netlink first if there is a client."""
    if client is None:
        return [ProcfsTables(procfs)], []
    events: list[EventSource] = [NetlinkEvents(client)] if client.is_subscribed else []
    return [NetlinkTables(client, procfs), ProcfsTables(procfs)], events
