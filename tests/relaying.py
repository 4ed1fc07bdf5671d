"""What tests of relays share: agents that tests drive, and subscribers that check what they get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.model import Holding, Snapshot
from agent.remote.resume import ResumePosition
from agent.stream.decoder import Decoded, decode
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo, Encoder
from agent.stream.feed import Feed

from .feeding import tracked
from .make import Fold, Record, fold, records, snapshot


class Agent:
    """The feed of one run of an agent."""

    def __init__(self, host: str, epoch: str, **bounds: Any) -> None:
        self.info = AgentInfo(host, "boot", epoch, 1.0, "9.9")
        self.feed = Feed(self.info, clock=lambda: 1.7e9, heartbeat_seconds=0.0, **bounds)
        self._tracker = DeltaTracker()

    def poll(self, *holdings: Holding) -> None:
        """Publish a poll with these holdings."""
        self.publish(snapshot(*holdings))

    def publish(self, current: Snapshot) -> None:
        """Publish a snapshot, and the deltas that lead to it."""
        self.feed.publish(current, self._tracker.advance(current))

    def state(self) -> Fold:
        """Return what a subscriber should have folded, but for untracked fields."""
        assert self.feed.snapshot
        encoder = Encoder(self.info)
        lines = encoder.holdings(encoder.head("snapshot", 0, 0.0), self.feed.holdings())
        return tracked(fold({}, [records(line)[0] for line in lines]))


def decoded(chunk: bytes) -> list[Decoded]:
    """Return the records of a chunk."""
    return [decode(line) for line in chunk.splitlines()]


class HostFold:
    """The state of one host, from records of which each must fit: no gap, nothing twice."""

    def __init__(self) -> None:
        self.state: Fold = {}
        self.epoch: str | None = None
        self.seq = 0
        self._count: int | None = None  # Of the records of the snapshot that arrives.

    @property
    def is_whole(self) -> bool:
        """Whether no snapshot is awaited."""
        return self._count is None

    def apply(self, record: Record) -> None:
        """Apply a record."""
        event, seq = record["event"], record["seq"]
        if event == "hello":
            if record["resumed"]:
                assert self.is_whole
                assert (record["epoch"], seq) == (self.epoch, self.seq)
            else:
                self._restart(seq)
            self.epoch = record["epoch"]
        elif event == "lost":
            assert record["from"] == self.seq + 1
            assert record["to"] in (None, seq)
            self._restart(seq)
        elif event in ("snapshot", "snapshot_end"):
            assert self._count is not None
            assert seq == self.seq
            if event == "snapshot":
                self._count += 1
                self._open(record)
            else:
                assert record["count"] == self._count
                self._count = None
        elif event == "heartbeat":
            assert seq == self.seq
        else:
            assert self.is_whole
            assert seq == self.seq + 1
            self.seq = seq
            self._change(event, record)

    def _restart(self, seq: int) -> None:
        self.state, self.seq, self._count = {}, seq, 0

    def _open(self, record: Record) -> None:
        key = record["pid"], record["inode"]
        if record["inode"] is None:  # It opens and closes between two polls.
            return
        assert key not in self.state
        self.state[key] = record

    def _change(self, event: str, record: Record) -> None:
        key = record.get("pid"), record.get("inode")
        if event == "open":
            self._open(record)
        elif event != "coverage" and key[1] is not None:
            assert key in self.state
            del self.state[key]
            if event == "update":
                self.state[key] = record


class Folds:
    """What a subscriber of a relay has: the state of each host, over several connections."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostFold] = {}
        self.position = ResumePosition()
        self.events: list[tuple[str, str]] = []
        self._is_first = True

    def connect(self) -> None:
        """Begin another connection."""
        self._is_first = True

    def take(self, chunk: bytes) -> list[Record]:
        """Apply a message, which must be of one host; return its records."""
        got = records(self.position.pass_on(chunk, is_first=self._is_first))
        self._is_first = False
        assert len({record["host"] for record in got}) == 1
        self.apply(got)
        return got

    def apply(self, got: Iterable[Record]) -> None:
        """Apply records."""
        for record in got:
            self.events.append((record["host"], record["event"]))
            self.hosts.setdefault(record["host"], HostFold()).apply(record)

    def state(self, host: str) -> Fold:
        """Return the state of a host, without untracked fields."""
        assert self.hosts[host].is_whole
        return tracked(self.hosts[host].state)
