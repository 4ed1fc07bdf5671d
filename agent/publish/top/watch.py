"""What the live screen knows: the state that records lead to, and what happened lately. Pure.

``now`` is the time of the screen; the times of records are those of their hosts, whose clocks may
differ.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...stream.decoder import Decoded
from ...stream.filters import Filter
from ...stream.history import Message
from .model import Alarm, Event, Grouping, GroupKey, GroupRow, Header, PeerRow, SocketRow

_EVERYTHING = Filter()


class Watch:
    """Takes records and returns what the screen shows. ``changes`` counts the records taken that
    change what is shown."""

    def __init__(self) -> None:
        self.changes = 0

    def apply(self, record: Decoded) -> None:
        """Apply a decoded record."""
        raise NotImplementedError

    def apply_message(self, host: str, message: Message) -> None:
        """Apply a message of the feed of this machine, whose name is ``host``."""
        raise NotImplementedError

    def queues(self, values: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        """Set the accept queues that were read now: host and inode → queue and backlog. Listeners
        that ``values`` lack have the queue of their records."""
        raise NotImplementedError

    def groups(
        self, grouping: Grouping, now: float, chosen: Filter = _EVERYTHING
    ) -> list[GroupRow]:
        """Return the rows of a grouping, in no order, of the holdings that a filter chooses."""
        raise NotImplementedError

    def sockets(self, key: GroupKey, now: float, chosen: Filter = _EVERYTHING) -> list[SocketRow]:
        """Return the sockets of a group, in no order, those that ended less than 5 s ago too."""
        raise NotImplementedError

    def peers(self, key: GroupKey, now: float, chosen: Filter = _EVERYTHING) -> list[PeerRow]:
        """Return the other ends of the connections of a group, those with most connections
        first."""
        raise NotImplementedError

    def events(self, key: GroupKey | None, chosen: Filter = _EVERYTHING) -> list[Event]:
        """Return the newest events of a group, None: of all groups, the newest last; 2,000 at
        most. Coverage and lost records of its host are among them."""
        raise NotImplementedError

    def header(self, now: float) -> Header:
        """Return the first line, of all hosts and holdings."""
        raise NotImplementedError

    def alarms(self, now: float) -> list[Alarm]:
        """Return what is wrong now, the most important first, of all hosts and holdings."""
        raise NotImplementedError
