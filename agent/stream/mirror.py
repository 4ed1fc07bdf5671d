"""The stream of one remote agent, kept from its records so that it can be served again. Pure.

A mirror numbers the changes as the agent does, and has a history and a state of its own. A
subscriber of it gets what a subscriber of the agent gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..model import (
    Closed,
    Coverage,
    Delta,
    Holding,
    HoldingKey,
    Opened,
    Snapshot,
    Updated,
)
from ..snapshot.stats import PollSummary
from .decoder import Alive, Began, Decoded, Dropped, Present, SnapshotEnd
from .diff import is_same
from .encoder import AgentInfo
from .feed import HISTORY_BURST_SECONDS, Feed
from .history import Batch

# More sockets than any machine has: a remote side must not fill the memory.
MAX_HOLDINGS = 2_000_000


class InvalidStream(ValueError):
    """Records that do not follow the rules of a stream; the message is a clause that says why."""


class Mirror:
    """Keeps the stream of one host in ``feed``, which is None until the first snapshot is complete.

    ``apply`` takes the records of all connections to the agent, in order. Where the stream begins
    anew, another feed replaces the one before, and ``on_replace`` is called with it; ``on_change``
    is called after every other publication.
    """

    def __init__(
        self, host: str, on_replace: Callable[[Feed], None], on_change: Callable[[], None]
    ) -> None:
        self.feed: Feed | None = None
        self._host = host
        self._on_replace = on_replace
        self._on_change = on_change
        self._agent = AgentInfo(host, None, "", 0.0)
        self._state = _State()
        self._changes = _Changes()
        self._arriving: _Arriving | None = None
        self._restored: tuple[Sequence[Batch], int] | None = None
        self._figures: PollSummary | None = None

    @property
    def position(self) -> tuple[str, int] | None:
        """The (epoch, seq) after which the agent is to resume; None: a snapshot is needed."""
        if self.feed is None or self._arriving is not None:
            return None
        return self.feed.epoch, self.feed.seq

    def restore(self, batches: Sequence[Batch], oldest: int) -> None:
        """Add all changes after ``oldest`` up to the first snapshot, which has begun to arrive."""
        self._restored = batches, oldest

    def apply(self, records: Iterable[Decoded], *, is_first: bool) -> None:
        """Apply records of a message. ``is_first``: they are the first ones of this host in a
        connection. Raises InvalidStream."""
        try:
            for record in records:
                value = record.value
                if is_first and not isinstance(value, Began):
                    raise InvalidStream("it does not begin with hello")
                if isinstance(value, Opened | Updated | Closed | Coverage):
                    self._change(value, record.seq, record.time)
                else:
                    self._publish()
                    self._control(record, is_first=is_first)
                is_first = False
        finally:  # What precedes an invalid record counts.
            self._publish()

    # Changes.

    def _change(self, delta: Delta, seq: int, time: float) -> None:
        feed = self._complete_feed()
        changes = self._changes
        if seq <= max(feed.seq, changes.last):
            raise InvalidStream("the numbers of the changes do not grow")
        if not changes.accepts(delta, seq, time):
            self._publish()
        if isinstance(delta, Opened) and len(self._state.holdings) >= MAX_HOLDINGS:
            raise InvalidStream(f"there are more than {MAX_HOLDINGS} sockets")
        changes.add(self._state.apply(delta, time), seq, time)

    def _complete_feed(self) -> Feed:
        """Return the feed. An agent whose filter lets no snapshots through sends none: what follows
        then ends the wait for one. Raises InvalidStream within a snapshot."""
        arriving = self._arriving
        if arriving is not None:
            if arriving.holdings:
                raise InvalidStream("a snapshot does not end")
            self._complete(arriving)
        if self.feed is None:
            raise InvalidStream("it does not begin with hello")
        return self.feed

    def _publish(self) -> None:
        numbered = self._changes.take()
        if numbered is not None and self.feed is not None:
            self.feed.publish(self._snapshot(numbered.time), numbered.deltas, numbered.first)
            self._on_change()

    def _snapshot(self, time: float) -> Snapshot:
        # The state itself: whoever takes the holdings of the feed takes them before it changes.
        state = self._state
        return Snapshot(time, state.holdings, state.processes, state.coverage)

    # Records of the stream itself.

    def _control(self, record: Decoded, *, is_first: bool) -> None:
        seq, time = record.seq, record.time
        match record.value:
            case Began() as began:
                self._begin(began, seq, time, is_first=is_first)
            case Dropped():
                feed = self.feed
                if feed is None or self._arriving is not None:
                    raise InvalidStream("a snapshot does not end")
                coverage = self._state.coverage
                self._arriving = _Arriving(self._agent, seq, time, coverage, restarts=False)
            case Present(holding):
                self._add(holding, seq)
            case SnapshotEnd(count):
                arriving = self._arriving
                if arriving is None or count != len(arriving.holdings):
                    raise InvalidStream("a snapshot is not whole")
                self._complete(arriving)
            case value:
                if isinstance(value, Alive):
                    self._figures = value.stats or self._figures
                elif self._arriving is not None:  # Of a kind that this version does not know.
                    return
                self._complete_feed().pass_over(seq)

    def _begin(self, began: Began, seq: int, time: float, *, is_first: bool) -> None:
        agent = AgentInfo(self._host, began.boot_id, began.epoch, began.interval, began.version)
        self._restored = None
        if not began.resumed:
            self._arriving = _Arriving(agent, seq, time, began.coverage, restarts=not is_first)
        elif self.feed is None or self.position != (began.epoch, seq):
            raise InvalidStream("it resumes where nothing ended")
        else:
            self.feed.identify(agent)
        self._agent = agent

    def _add(self, holding: Holding, seq: int) -> None:
        arriving = self._arriving
        if arriving is None or seq != arriving.seq:
            raise InvalidStream("a snapshot does not follow hello or lost")
        key = _key(holding)
        if key in arriving.holdings:
            raise InvalidStream("a snapshot has a socket twice")
        if len(arriving.holdings) >= MAX_HOLDINGS:
            raise InvalidStream(f"there are more than {MAX_HOLDINGS} sockets")
        arriving.holdings[key] = holding

    def _complete(self, arriving: _Arriving) -> None:
        """Publish the snapshot that has arrived."""
        self._arriving = None
        self._state = self._state.replaced_by(arriving.holdings, arriving.coverage)
        agent, seq, time, feed = arriving.agent, arriving.seq, arriving.time, self.feed
        is_known = feed is not None and feed.epoch == agent.epoch and not arriving.restarts
        if feed is not None and is_known and feed.seq < seq:
            feed.identify(agent)
            feed.skip_to(seq, self._snapshot(time))
            self._on_change()
            return
        batches, oldest = self._restored or ((), seq)
        self._restored = None
        self.feed = feed = Feed(
            agent,
            figures=lambda: self._figures,
            history_burst=HISTORY_BURST_SECONDS,
            is_kernels=False,
        )
        feed.restore(seq, batches, oldest)
        feed.publish(self._snapshot(time), ())
        self._on_replace(feed)


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A snapshot that has begun, with what ``hello`` or ``lost`` said. ``restarts``: it is another
    one although no changes are lost, because a filter of the agent changed."""

    agent: AgentInfo
    seq: int
    time: float
    coverage: Coverage
    restarts: bool
    holdings: dict[HoldingKey, Holding] = field(default_factory=dict)


class _State:
    """The newest state: the holdings, and the start ticks of the processes that have them."""

    def __init__(self) -> None:
        self.coverage = Coverage(0, 0, 0)
        self.holdings: dict[HoldingKey, Holding] = {}
        self.processes: dict[int, int] = {}
        self._counts: Counter[int] = Counter()  # Of the holdings of each process.
        self._opened_at: dict[HoldingKey, float] = {}  # Of those that opened since the beginning.

    def replaced_by(self, holdings: dict[HoldingKey, Holding], coverage: Coverage) -> _State:
        """Return the state of a snapshot. What was open before keeps the time of its opening."""
        state = _State()
        state.coverage = coverage
        for key, holding in holdings.items():
            state._put(key, holding)
            was, at = self.holdings.get(key), self._opened_at.get(key)
            if was is not None and at is not None and is_same(was, holding):
                state._opened_at[key] = at
        return state

    def apply(self, delta: Delta, time: float) -> Delta:
        """Apply a delta; return it with how long the holding of an update has been open."""
        if isinstance(delta, Coverage):
            self.coverage = delta
            return delta
        key = _key(delta.holding)
        if not key[1]:  # It opened and closed between two polls.
            return delta
        match delta:
            case Opened(holding):
                self._put(key, holding)
                self._opened_at[key] = time
            case Updated(holding):
                self._put(key, holding)
                at = self._opened_at.get(key)
                return delta if at is None else delta._replace(seconds=time - at)
            case Closed():
                self._remove(key)
        return delta

    def _put(self, key: HoldingKey, holding: Holding) -> None:
        process = holding.process
        if process is not None:
            self._counts[process.pid] += key not in self.holdings
            self.processes[process.pid] = process.start_ticks
        self.holdings[key] = holding

    def _remove(self, key: HoldingKey) -> None:
        self._opened_at.pop(key, None)
        removed = self.holdings.pop(key, None)
        if removed is None or removed.process is None:
            return
        pid = removed.process.pid
        self._counts[pid] -= 1
        if not self._counts[pid]:
            del self._counts[pid], self.processes[pid]


def _key(holding: Holding) -> HoldingKey:
    process = holding.process
    return (None if process is None else process.pid, holding.socket.inode)


class _Numbered(NamedTuple):
    """Deltas of one poll at ``time``, of which the first one has the number ``first``."""

    time: float
    deltas: list[Delta]
    first: int


class _Changes:
    """Collects deltas as long as they are of one poll, and their numbers have no gap. ``last`` is
    the number of the newest one, 0 if there is none."""

    def __init__(self) -> None:
        self.last = 0
        self._deltas: list[Delta] = []
        self._polled: float | None = None  # The time of the poll, once a delta has it.
        self._newest = 0.0

    def accepts(self, delta: Delta, seq: int, time: float) -> bool:
        """Return whether a delta belongs to those that were collected."""
        if not self._deltas:
            return True
        polled = _poll_time(delta, time)
        return seq == self.last + 1 and (
            polled is None or self._polled is None or polled == self._polled
        )

    def add(self, delta: Delta, seq: int, time: float) -> None:
        """Collect a delta."""
        polled = _poll_time(delta, time)
        if polled is not None:
            self._polled = polled
        self._newest = max(self._newest, time)
        self._deltas.append(delta)
        self.last = seq

    def take(self) -> _Numbered | None:
        """Return what was collected, and begin anew; None if that is nothing."""
        deltas, last, polled = self._deltas, self.last, self._polled
        if not deltas:
            return None
        time = self._newest if polled is None else polled
        self.last, self._deltas, self._polled, self._newest = 0, [], None, 0.0
        return _Numbered(time, deltas, last - len(deltas) + 1)


def _poll_time(delta: Delta, time: float) -> float | None:
    """Return the time of the poll that found a delta; None if an event showed it."""
    is_of_poll = isinstance(delta, Coverage) or delta.time is None
    return time if is_of_poll else None


def batches_of(records: Iterable[Decoded]) -> Iterator[Batch]:
    """Yield the changes of a stream, for the history."""
    changes = _Changes()
    for record in records:
        delta = record.value
        if not isinstance(delta, Opened | Updated | Closed | Coverage):
            continue
        if not changes.accepts(delta, record.seq, record.time):
            yield from _batch(changes)
        changes.add(delta, record.seq, record.time)
    yield from _batch(changes)


def _batch(changes: _Changes) -> Iterator[Batch]:
    numbered = changes.take()
    if numbered is not None:
        yield Batch(*numbered)
