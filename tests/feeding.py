"""A feed as its subscribers see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from agent.model import Coverage, Holding, Snapshot
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.ndjson import NdjsonSubscription

from .make import (
    SIGHT,
    Fold,
    Record,
    fold,
    holding,
    records,
    snapshot,
    tcp,
)

AGENT = AgentInfo("host", "boot", "epoch", 1.0)
# What moves without an update, and what is a record's own.
UNTOLD = {"recv_q", "send_q", "cmdline", "peer_pid", "event", "seq", "time", "previous"}


class Source:
    """A feed, and the tracker before it. With no heartbeat to wait for, an idle one says so."""

    def __init__(self, **bounds: Any) -> None:
        self.feed = Feed(AGENT, clock=lambda: 0.0, heartbeat_seconds=0.0, **bounds)
        self._tracker = DeltaTracker()

    def poll(self, *holdings: Holding, coverage: Coverage = SIGHT) -> None:
        self.show(snapshot(*holdings, coverage=coverage))

    def show(self, current: Snapshot) -> None:
        self.feed.publish(current, self._tracker.advance(current))

    def subscribe(self, chosen: Filter | None = None, **options: Any) -> Subscriber:
        wanted = chosen or Filter()
        whole = not options and "event" not in dict(wanted.values)
        return Subscriber(self.feed.subscribe(wanted, **options), folds=whole)

    def state(self, chosen: Filter | None = None) -> Fold:
        """What a subscriber should have folded to, but for what is told by the way."""
        assert self.feed.snapshot
        held = self.feed.snapshot.holdings
        head = self.feed.encoder.head("snapshot", 0, 0.0)
        found = [one for one in held.values() if chosen is None or chosen.matches(one)]
        return fold({}, [records(line)[0] for line in self.feed.encoder.holdings(head, found)])


class Subscriber:
    def __init__(self, subscription: NdjsonSubscription, *, folds: bool = True) -> None:
        self._chunks: AsyncIterator[bytes] = aiter(subscription)
        self._folds = folds
        self.fold: Fold = {}

    async def read_chunk(self) -> list[Record]:
        told = records(await anext(self._chunks))
        if self._folds:
            self.fold = fold(self.fold, told)
        return told

    async def read(self) -> list[Record]:
        """Everything up to the heartbeat that an idle feed sends."""
        told: list[Record] = []
        while not told or told[-1]["event"] != "heartbeat":
            told += await self.read_chunk()
        return told[:-1]

    async def read_to_end(self) -> list[Record]:
        """Everything up to the end of the stream."""
        return [record async for chunk in self._chunks for record in records(chunk)]


def events(told: Iterable[Record]) -> list[str]:
    return [record["event"] for record in told]


def seqs(told: Iterable[Record]) -> list[int]:
    return [record["seq"] for record in told]


def tracked(state: Fold) -> Fold:
    return {
        at: {name: value for name, value in record.items() if name not in UNTOLD}
        for at, record in state.items()
    }


ONE, TWO, THREE = (holding(tcp(inode, local_port=inode)) for inode in (1, 2, 3))
