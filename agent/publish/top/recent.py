"""The newest changes: the event log, and what rates are counted from. Pure."""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ...model import Closed, Coverage, Opened, Updated
from ...stream.filters import Filter
from ...stream.history import Batch
from ..terminal.eventlog import LogValue
from .keys import KEYS
from .model import GroupKey

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
    was dropped, None while all are held; ``count`` counts all of them."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._changes: deque[Change] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self.count = 0

    def append(self, host: str, time: float, value: LogValue, *, counts: bool = False) -> Change:
        """Add a change; drop the oldest ones that exceed the bounds."""
        self.count += 1
        change = Change(self.count, host, time, value, counts)
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

    def newest(self, key: GroupKey | None, chosen: Filter) -> Iterator[Change]:
        """Yield the changes of a group that a filter lets through, the newest first; None: of all
        groups. Those that are of no socket are of each group of their host."""
        for change in reversed(self._changes):
            value = change.value
            if key is not None and change.host != key.host:
                continue
            if not isinstance(value, (Opened, Updated, Closed)):
                if chosen.matches_host(change.host):
                    yield change
                continue
            shown = chosen.of_host(change.host).apply(value)
            if not isinstance(shown, (Opened, Updated, Closed)):
                continue
            if key is None or KEYS[key.grouping](change.host, shown.holding) == key:
                yield change if shown is value else change._replace(value=shown)


def is_short(closed: Closed) -> bool:
    """Return whether a connection lived less than a second or was over before a poll."""
    if closed.seconds is None:
        return not closed.holding.socket.inode
    return closed.seconds < 1
