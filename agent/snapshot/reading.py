"""The result of reading tables: which sockets came, changed or went. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..kernel.procfs.mount import NetnsMember
from ..model import Socket
from .groups import Group, groups_of

# Network namespaces with the processes or threads that lead to each. A namespace is named by its
# inode, or by a negative number if the inode may not be read.
Namespaces = Mapping[int, Sequence[NetnsMember]]
# The groups of tables to read, or that were read, by namespace.
GroupsByNamespace = Mapping[int, Collection[Group]]


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


class Ended(NamedTuple):
    """Sockets whose end the kernel reported.

    ``listed`` are sockets that a table showed, by inode, as it showed them last. ``unlisted`` are
    sockets that no table showed, in the order in which they ended.
    """

    listed: Mapping[int, Socket]
    unlisted: Sequence[Socket]
