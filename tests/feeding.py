"""A feed that tests drive, and subscribers that fold what they read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from agent.model import Coverage, Holding, HoldingKey, Snapshot
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo, Encoder
from agent.stream.feed import Feed, NdjsonSubscription
from agent.stream.filters import Filter

from .make import (
    FULL_COVERAGE,
    Fold,
    Record,
    fold,
    holding,
    records,
    snapshot,
    tcp,
)

AGENT = AgentInfo("host", "boot", "epoch", 1.0)
# Fields that change without an update, and those that differ from record to record.
UNTRACKED = {
    "recv_q",
    "send_q",
    "cmdline",
    "peer_pid",
    "event",
    "seq",
    "time",
    "time_source",
    "previous",
}


class Source:
    """A feed with a tracker before it. Without a wait for heartbeats, an idle feed sends one."""

    def __init__(self, **bounds: Any) -> None:
        agent = bounds.pop("agent", AGENT)
        self.feed = Feed(agent, clock=lambda: 0.0, heartbeat_seconds=0.0, **bounds)
        self._tracker = DeltaTracker()

    def poll(self, *holdings: Holding, coverage: Coverage = FULL_COVERAGE) -> None:
        """Publish a poll with these holdings."""
        self.publish(snapshot(*holdings, coverage=coverage))

    def publish(self, current: Snapshot) -> None:
        """Publish a snapshot, and the deltas that lead to it."""
        self.feed.publish(current, self._tracker.advance(current))

    def opened_at(self) -> dict[HoldingKey, float]:
        """Return when holdings opened, without those that were open at the first poll."""
        return self._tracker.opened_at

    def subscribe(self, chosen: Filter | None = None, **options: Any) -> Subscriber:
        """Return a new subscriber, which folds the records if it gets all of them."""
        wanted = chosen or Filter()
        whole = not options and "event" not in dict(wanted.values)
        return Subscriber(self.feed.subscribe(wanted, **options), folds=whole)

    def state(self, chosen: Filter | None = None) -> Fold:
        """Return what a subscriber should have folded, but for untracked fields."""
        assert self.feed.snapshot
        encoder = Encoder(AGENT)
        holdings = self.feed.snapshot.holdings.values()
        found = [one for one in holdings if chosen is None or chosen.matches(one)]
        lines = encoder.holdings(encoder.head("snapshot", 0, 0.0), found)
        return fold({}, [records(line)[0] for line in lines])


class Subscriber:
    """A reader of a subscription, which parses the records and folds them."""

    def __init__(self, subscription: NdjsonSubscription, *, folds: bool = True) -> None:
        self._chunks: AsyncIterator[bytes] = aiter(subscription)
        self._folds = folds
        self.fold: Fold = {}

    async def read_chunk(self) -> list[Record]:
        """Return the records of the next chunk."""
        found = records(await anext(self._chunks))
        if self._folds:
            self.fold = fold(self.fold, found)
        return found

    async def read(self) -> list[Record]:
        """Return all records before the heartbeat that an idle feed sends."""
        found: list[Record] = []
        while not found or found[-1]["event"] != "heartbeat":
            found += await self.read_chunk()
        return found[:-1]

    async def read_to_end(self) -> list[Record]:
        """Return all records up to the end of the stream."""
        return [record async for chunk in self._chunks for record in records(chunk)]


def events(found: Iterable[Record]) -> list[str]:
    """Return the event of each record."""
    return [record["event"] for record in found]


def seqs(found: Iterable[Record]) -> list[int]:
    """Return the number of each record."""
    return [record["seq"] for record in found]


def tracked(state: Fold) -> Fold:
    """Return a fold without untracked fields."""
    return {
        key: {name: value for name, value in record.items() if name not in UNTRACKED}
        for key, record in state.items()
    }


ONE, TWO, THREE = (holding(tcp(inode, local_port=inode)) for inode in (1, 2, 3))
