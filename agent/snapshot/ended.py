"""Sockets that ended, from the kernel's notices and the rows that showed these sockets before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from ..bounded import drop_oldest
from ..kernel.netlink.destroy import short_lived
from ..kernel.netlink.monitor import DestroyReport
from ..kernel.rows import Scope, Table
from ..model import Socket
from .reading import GROUP_OF, TCP, UDP, Ended, Group
from .table_sources import EventSource, TableName

# Cookies kept of a namespace: more than the sockets of a large machine; 100 bytes each.
MAX_COOKIES = 250_000


class EndedSockets:
    """Matches destroy notices with rows, by the socket's cookie."""

    def __init__(self, sources: Sequence[EventSource], ephemeral: range) -> None:
        self._sources = sources
        self._ephemeral = ephemeral
        # Sockets that a table showed and whose end was not reported yet, by namespace and cookie,
        # in the order in which they were read first.
        self._rows: dict[int, dict[int, Socket]] = {}
        self._noted: set[tuple[int, TableName]] = set()  # Tables whose cookies are in ``_rows``.
        self._following: Collection[int] = ()
        self._events: list[DestroyReport] = []  # What the last poll took.

    def forced(self) -> dict[int, set[Group]]:
        """Return the groups of tables, by namespace, that lost a socket or may have."""
        groups: dict[int, set[Group]] = {}
        for source in self._sources:
            for netns, protos in source.pending().items():
                groups.setdefault(netns, set()).update(GROUP_OF[proto] for proto in protos)
        return groups

    def note(self, netns: int, name: TableName, table: Table, before: Table) -> None:
        """Keep the cookies of a table's sockets that a process can hold; ``before`` is the table's
        reading before this one."""
        if not self._sources or isinstance(name, str) or GROUP_OF[name[0]] not in (TCP, UDP):
            return
        is_noted = (netns, name) in self._noted
        if is_noted and table is before:
            return
        # Rows that were read before the notices began count too.
        new = table.added if is_noted else table.rows
        self._noted.add((netns, name))
        rows = self._rows.setdefault(netns, {})
        rows.update((row.cookie, row) for row in new.values() if row.inode and row.cookie)
        drop_oldest(rows, MAX_COOKIES)  # An end that was not reported leaves its cookie behind.

    def follow(self, namespaces: Collection[int]) -> None:
        """Receive events of these namespaces from now on; forget all others."""
        self._rows = {netns: rows for netns, rows in self._rows.items() if netns in namespaces}
        self._noted = {key for key in self._noted if key[0] in namespaces}
        for source in self._sources:
            source.follow(namespaces)

    def take(
        self, tcp_table: Callable[[int], Table], netns_inode: Callable[[int], int | None]
    ) -> tuple[Ended, dict[int, dict[int, Socket]]]:
        """Return the sockets that ended since the last call; and those that a table showed, by
        namespace and inode, of which the caller drops the rows.

        ``tcp_table`` returns the newest TCP table of a namespace, whose listeners show which side
        began a connection; ``netns_inode`` the inode of a namespace.
        """
        listed: dict[int, dict[int, Socket]] = {}
        unlisted: list[Socket] = []
        self._events = [source.take() for source in self._sources]
        for events in self._events:
            for netns, notices in events.notices.items():
                rows = self._rows.get(netns, {})
                unseen = []
                for notice in notices:
                    socket = rows.pop(notice.cookie, None)
                    if socket is None:
                        unseen.append(notice)
                    else:
                        listed.setdefault(netns, {})[socket.inode] = socket
                if unseen:
                    scope = Scope(netns_inode(netns), self._ephemeral)
                    unlisted += short_lived(unseen, tcp_table(netns), scope)
        by_inode = {inode: row for rows in listed.values() for inode, row in rows.items()}
        return Ended(by_inode, unlisted), listed

    def missing(self, name_of: Callable[[int], str]) -> list[str]:
        """Return a sentence for each kind of event of the last poll that was not used."""
        ignored: Counter[int] = Counter()
        malformed: Counter[int] = Counter()
        for events in self._events:
            ignored.update(events.ignored)
            malformed.update(events.malformed)
        sentences = [
            f"{count} messages of another process to the agent's netlink sockets in "
            f"{name_of(netns)} were ignored"
            for netns, count in ignored.items()
        ]
        sentences += [
            f"{count} malformed messages on ended sockets in {name_of(netns)} were skipped"
            for netns, count in malformed.items()
        ]
        if any(events.lost for events in self._events):
            sentences.append("more sockets ended at once than the kernel's notices could report")
        return sentences
