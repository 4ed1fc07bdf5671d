"""The open connections: subscribers, and those that are pending. No I/O.

Pending are handshakes, and connections that were answered or refused and have not ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from itertools import chain
from typing import NamedTuple

from .connection import Connection
from .rejections import RejectionLog


class Limits(NamedTuple):
    """Maximum numbers of subscribers, in all and of one address or user, and of connections that
    are not subscribers."""

    clients: int
    clients_per_address: int
    handshakes: int


class Registry:
    """The open connections and their numbers, within limits."""

    def __init__(self, limits: Limits) -> None:
        self.rejections = RejectionLog()
        self._limits = limits
        self._connections: set[Connection] = set()
        # Pending connections by peer group, each in the order of arrival.
        self._pending: dict[str, dict[Connection, None]] = {}
        self._views: dict[Connection, Hashable] = {}  # Of the subscribers.
        self._subscribers: dict[Hashable, set[Connection]] = {}
        self._group_subscribers: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def subscriber_count(self) -> int:
        """The number of subscribers."""
        return len(self._views)

    def connections(self) -> list[Connection]:
        """Return all connections."""
        return list(self._connections)

    def subscribers(self) -> list[Connection]:
        """Return all subscribers; those with the same view, whose chunks are cached, in a row."""
        return list(chain.from_iterable(self._subscribers.values()))

    def add(self, connection: Connection) -> Connection | None:
        """Add a pending connection; return the one to end if there are too many pending ones.

        That is the oldest one of the peer group with the most of them: they take the place neither
        of subscribers nor of new connections of other groups.
        """
        self._connections.add(connection)
        self._pending.setdefault(connection.peer.group, {})[connection] = None
        if sum(map(len, self._pending.values())) <= self._limits.handshakes:
            return None
        largest: dict[Connection, None] = max(self._pending.values(), key=len)
        oldest = next(iter(largest))
        self._discard_pending(oldest)
        return oldest

    def overload(self, group: str) -> str | None:
        """Return which limit another subscriber of a peer group would exceed, or None."""
        clients, per_address, _ = self._limits
        if self._group_subscribers[group] >= per_address:
            return f"too many clients of one address; --max-clients-per-address is {per_address}"
        if self.subscriber_count >= clients:
            return f"too many clients; --max-clients is {clients}"
        return None

    def subscribe(self, connection: Connection, view: Hashable) -> None:
        """Make a pending connection a subscriber."""
        self._discard_pending(connection)
        self._group_subscribers[connection.peer.group] += 1
        self._add_view(connection, view)

    def change_view(self, connection: Connection, view: Hashable) -> None:
        """Change the view of a subscriber."""
        self._remove_view(connection)
        self._add_view(connection, view)

    def remove(self, connection: Connection) -> None:
        """Remove a connection, if it is there."""
        self._connections.discard(connection)
        self._discard_pending(connection)
        if connection in self._views:
            self._remove_view(connection)
            group = connection.peer.group
            self._group_subscribers[group] -= 1
            if not self._group_subscribers[group]:
                del self._group_subscribers[group]

    def _discard_pending(self, connection: Connection) -> None:
        group = connection.peer.group
        pending = self._pending.get(group, {})
        pending.pop(connection, None)
        if not pending:
            self._pending.pop(group, None)

    def _add_view(self, connection: Connection, view: Hashable) -> None:
        self._views[connection] = view
        self._subscribers.setdefault(view, set()).add(connection)

    def _remove_view(self, connection: Connection) -> None:
        view = self._views.pop(connection)
        subscribers = self._subscribers[view]
        subscribers.discard(connection)
        if not subscribers:
            del self._subscribers[view]
