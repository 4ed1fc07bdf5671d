"""The newest changes: the event log, and what rates are counted from. Pure."""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ...model import Closed, Coverage, Opened, Updated
from ...stream.history import Batch
from ..terminal.eventlog import LogValue

# A minute of 300 changes per second. The bytes are those of values that the feed of this machine
# keeps too; texts of a hostile agent may be long.
MAX_CHANGES, MAX_BYTES = 20_000, 48 << 20
_OTHER_BYTES = 512
# Closes for these reasons end no connection.
NO_ENDS = frozenset({"attributed", "filtered"})


class Change(NamedTuple):
    """A change of a host. ``counts``: it is the open or close of a connection, and not that of one
    more holder of a socket or of one that was attributed."""

    number: int
    host: str
    time: float
    value: LogValue
    counts: bool


class Recent:
    """The newest changes, bounded in number and bytes. ``since`` is the time of the newest one that
    was dropped, None while all are held."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._changes: deque[Change] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._number = 0

    def append(self, host: str, time: float, value: LogValue, *, counts: bool = False) -> Change:
        """Add a change; drop the oldest ones that exceed the bounds."""
        self._number += 1
        change = Change(self._number, host, time, value, counts)
        size = _OTHER_BYTES
        if isinstance(value, (Opened, Updated, Closed, Coverage)):
            size = Batch(time, (value,), 0).size
        self._changes.append(change)
        self._sizes.append(size)
        self._bytes += size
        while len(self._changes) > MAX_CHANGES or self._bytes > MAX_BYTES:
            self.since = self._changes.popleft().time
            self._bytes -= self._sizes.popleft()
        return change

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __reversed__(self) -> Iterator[Change]:
        return reversed(self._changes)


def is_short(closed: Closed) -> bool:
    """Return whether a connection lived less than a second or was over before a poll."""
    if closed.seconds is None:
        return not closed.holding.socket.inode
    return closed.seconds < 1
