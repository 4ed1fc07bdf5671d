"""The groups of tables that a poll reads together, and the result of reading them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..kernel.procfs.mount import NetnsMember
from ..kernel.procfs.net_tables import table_of
from ..kernel.trace.connections import Finished, Started
from ..kernel.trace.routes import Sender
from ..model import Socket, TcpFigures

# Names of files in /proc/net. Each group is read in a thread of its own.
Group = tuple[str, ...]

TCP = ("tcp", "tcp6")
UNIX = ("unix",)
UDP = ("udp", "udp6", "udplite", "udplite6")
OTHERS = ("raw", "raw6", "icmp", "icmp6", "netlink", "packet")
# In the order of the counters in ``sockstat.SocketCounters`` that count the sockets of each group.
GROUPS: tuple[Group, ...] = (TCP, UNIX, UDP, OTHERS)
ALL_GROUPS = frozenset(GROUPS)
GROUP_OF = {name: group for group in GROUPS for name in group}

# Network namespaces with the processes or threads that lead to each. A namespace is named by its
# inode, or by a negative number if the inode may not be read.
Namespaces = Mapping[int, Sequence[NetnsMember]]
# The groups of tables to read, or that were read, by namespace.
GroupsByNamespace = Mapping[int, Collection[Group]]


def groups_of(socket: Socket) -> frozenset[Group]:
    """Return the groups whose tables may list the socket. These are all groups if its protocol is
    unknown, none if no table lists its protocol."""
    if socket.proto is None:
        return ALL_GROUPS
    group = GROUP_OF.get(table_of(socket))
    return frozenset() if group is None else frozenset((group,))


class Change(NamedTuple):
    """Inodes whose sockets were ``added`` or changed, and those whose sockets are ``gone``."""

    added: set[int]
    gone: set[int]


class Reading(NamedTuple):
    """What a poll knows of the sockets in the tables.

    ``sockets`` are all sockets of all tables, by inode, as they were last read. ``change`` is the
    difference from the reading before. ``groups`` are the groups that were read completely, by the
    namespace's name in ``Namespaces`` and by its inode. ``moved_pids`` are processes that are in
    another namespace than expected.
    """

    sockets: Mapping[int, Socket]
    change: Change
    groups: GroupsByNamespace
    moved_pids: frozenset[int] = frozenset()

    def covers(self, socket: Socket) -> bool | None:
        """Return whether the tables that should list such a socket were read; None if no table
        lists its protocol."""
        groups = groups_of(socket)
        if not groups:
            return None
        return socket.netns is not None and groups.issubset(self.groups.get(socket.netns, ()))

    def joined(self, later: Reading) -> Reading:
        """Return this reading and a later one of the same poll as one."""
        groups = {netns: set(read) for netns, read in self.groups.items()}
        for netns, read in later.groups.items():
            groups.setdefault(netns, set()).update(read)
        gone = (self.change.gone | later.change.gone) - later.change.added
        change = Change(self.change.added | later.change.added, gone)
        return Reading(later.sockets, change, groups, self.moved_pids | later.moved_pids)


class EndedSocket(NamedTuple):
    """A socket that ended, as a table showed it last, or as the report of its end shows it.

    ``finished`` is the trace event of its end, ``figures`` are those of the destroy notice.
    ``sender`` is a process that sent from its port, which may be that of the socket.
    """

    socket: Socket
    finished: Finished | None = None
    figures: TcpFigures | None = None
    sender: Sender | None = None


class Ended(NamedTuple):
    """Sockets whose end the kernel reported. ``listed`` are sockets that a table showed, by inode.
    ``unlisted`` are sockets that no table showed, in the order in which they ended. ``started`` are
    connections and listeners that trace events showed to begin or change, and that have not ended.
    """

    listed: Mapping[int, EndedSocket]
    unlisted: Sequence[EndedSocket]
    started: Sequence[Started] = ()
