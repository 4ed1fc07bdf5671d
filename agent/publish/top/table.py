"""All groups of one grouping, kept current by each change: rows are made anew only for groups that
changed, and once a second for those whose rates or ages change by themselves. Pure.

A walk over all holdings instead takes eight times as long (bench.micro: top_groups).
"""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from ...model import Closed, Holding, HostHolding, Opened
from ...stream.filters import Filter
from .groups import Group, Queues, Since
from .keys import KEYS
from .model import Grouping, GroupKey, GroupRow, Queue, SocketKey
from .rates import WINDOW, Clocks, Rates
from .recent import NO_ENDS, Change, is_short

# Seconds for which a group without sockets stays on the screen.
LINGER_SECONDS = 5.0
# Groups without sockets whose counts of the last minute are kept, about 1 KiB each: a scan makes
# one for each remote address.
MAX_IDLE = 10_000


class Held(NamedTuple):
    """A holding; ``since`` is of one in CLOSE_WAIT."""

    one: HostHolding
    since: Since | None


# A holding with its key, and since when it is in CLOSE_WAIT.
Entry = tuple[SocketKey, HostHolding, Since | None]


class Table:
    """The groups of one grouping, of the holdings that a filter chooses."""

    def __init__(self, grouping: Grouping, chosen: Filter, since: float | None = None) -> None:
        """``since``: changes before that time are not known."""
        self.grouping = grouping
        self.chosen = chosen
        self._since = since
        self._key: Callable[[str, Holding], GroupKey] = KEYS[grouping]
        self._groups: dict[GroupKey, Group] = {}
        self._rows: dict[GroupKey, GroupRow] = {}
        self._stale: set[GroupKey] = set()  # Their rows must be made anew.
        self._active: set[GroupKey] = set()  # Their rows change by themselves.
        self._idle: dict[GroupKey, None] = {}  # They have no socket; the first ended first.
        self._waiting: set[GroupKey] = set()  # They have sockets in CLOSE_WAIT.
        self._listening: set[GroupKey] = set()  # They have accept queues.
        self._second = 0

    def change(self, key: SocketKey, before: Held | None, after: Held | None, time: float) -> None:
        """Replace a holding at a time; None where there is none."""
        if before is not None and self._matches(before.one.host, before.one.holding):
            self._remove(key, before, time)
        if after is not None and self._matches(after.one.host, after.one.holding):
            self._add(key, after)

    def fill(self, entries: Iterable[Entry]) -> None:
        """Add holdings to a table that is empty: faster than a change for each."""
        passes_all, group_of = self.chosen.passes_all, self._group
        for key, one, since in entries:
            if passes_all or self._matches(one.host, one.holding):
                group_of(one.host, one.holding).add(key, one, since)
        for group in self._groups.values():
            self._note(group)

    def _matches(self, host: str, holding: Holding) -> bool:
        return self.chosen.passes_all or self.chosen.of_host(host).matches(holding)

    def _add(self, key: SocketKey, held: Held) -> None:
        one = held.one
        group = self._group(one.host, one.holding)
        group.add(key, one, held.since)
        self._idle.pop(group.key, None)
        self._note(group)

    def _remove(self, key: SocketKey, held: Held, time: float) -> None:
        group = self._groups[self._key(held.one.host, held.one.holding)]
        group.remove(key, held.since)
        self._note(group)
        if not group.members:
            self._rest(group, time)

    def _group(self, host: str, holding: Holding) -> Group:
        """Return the group of a holding."""
        at = self._key(host, holding)
        group = self._groups.get(at)
        if group is None:
            group = self._groups[at] = Group(at, holding)
        group.describe(holding)
        return group

    def _note(self, group: Group) -> None:
        """Note that a group changed."""
        at = group.key
        self._stale.add(at)
        (self._waiting.add if group.close_wait else self._waiting.discard)(at)
        (self._listening.add if group.listeners else self._listening.discard)(at)

    def count(self, change: Change) -> None:
        """Count an open or close. By process each holder counts, else each socket once."""
        value = change.value
        if not isinstance(value, (Opened, Closed)):
            return
        counts = change.counts
        if self.grouping is Grouping.PROCESS:
            counts = isinstance(value, Opened) or value.reason not in NO_ENDS
        if not self._matches(change.host, value.holding):
            return
        if not counts:
            if isinstance(value, Closed) and value.reason in NO_ENDS:
                self._hide(self._key(change.host, value.holding), change.time)
            return
        group = self._group(change.host, value.holding)
        if isinstance(value, Opened):
            group.rates.open(change.time)
        else:
            group.rates.close(change.time, value.figures, short=is_short(value))
        group.note_change(value)
        self._stale.add(group.key)
        if not group.members:
            self._rest(group, change.time)

    def _rest(self, group: Group, time: float) -> None:
        """Note that a group has no socket; forget the oldest of too many."""
        group.end(time)
        self._idle.pop(group.key, None)
        self._idle[group.key] = None
        if len(self._idle) > MAX_IDLE:
            self._forget(next(iter(self._idle)))

    def _hide(self, at: GroupKey, time: float) -> None:
        """Let a group without a socket linger no longer."""
        group = self._groups.get(at)
        if group is not None and not group.members:
            self._stale.add(at)
            self._rest(group, time - LINGER_SECONDS)

    def _forget(self, at: GroupKey) -> None:
        del self._groups[at]
        self._idle.pop(at, None)
        self._rows.pop(at, None)
        for keys in (self._stale, self._active, self._waiting, self._listening):
            keys.discard(at)

    def touch_queues(self) -> None:
        """Note that accept queues changed."""
        self._stale |= self._listening

    def rows(
        self, now: float, clocks: Clocks, since: Mapping[str, float], queues: Queues
    ) -> list[GroupRow]:
        """Return the rows. ``since`` is when the counting of a host began."""
        keys = self._stale
        if int(now) != self._second:
            self._second = int(now)
            keys = keys | self._active
        self._stale = set()
        for at in keys:
            self._renew(self._groups[at], clocks.of(at.host), since, queues)
        self._expire(clocks)
        return list(self._rows.values())

    def _renew(self, group: Group, now: float, since: Mapping[str, float], queues: Queues) -> None:
        at = group.key
        moves = group.rates.expire(now) or bool(group.close_wait)
        if group.members or group.is_lingering(now, LINGER_SECONDS):
            begin = since.get(at.host, now)
            if self._since is not None:
                begin = max(begin, int(self._since) + 1)
            self._rows[at] = group.row(now, begin, queues)
            moves = moves or not group.members
        else:
            self._rows.pop(at, None)
            moves = False
        (self._active.add if moves else self._active.discard)(at)

    def _expire(self, clocks: Clocks) -> None:
        """Forget groups that ended before the window."""
        while self._idle:
            at = next(iter(self._idle))
            if self._groups[at].is_lingering(clocks.of(at.host), WINDOW):
                break
            self._forget(at)

    def known_rows(self) -> Iterable[GroupRow]:
        """Return the rows as they were made last."""
        return self._rows.values()

    def members(self, at: GroupKey) -> Mapping[SocketKey, HostHolding]:
        """Return the holdings of a group."""
        group = self._groups.get(at)
        return {} if group is None else group.members

    def rates(self, at: GroupKey) -> Rates | None:
        """Return the rates of a group, None if nothing is known of it."""
        group = self._groups.get(at)
        return None if group is None else group.rates

    def holds(self, at: GroupKey, inode: int) -> bool:
        """Return whether a process of a group holds a socket."""
        group = self._groups.get(at)
        return group is not None and group.holds(inode)

    def close_waiting(self) -> Iterator[tuple[GroupRow, list[Since]]]:
        """Yield the rows of groups with sockets in CLOSE_WAIT, and since when the oldest of these
        are."""
        for at in sorted(self._waiting, key=repr):
            if at in self._rows:
                yield self._rows[at], self._groups[at].oldest()

    def full_queues(self, queues: Queues) -> Iterable[tuple[GroupRow, Queue]]:
        """Yield accept queues that take no more connections."""
        for at in sorted(self._listening, key=repr):
            for queue in self._groups[at].full_queues(queues):
                yield self._rows[at], queue
