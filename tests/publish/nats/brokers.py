"""A model of a broker, and a reader of its log that trusts the headers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agent.publish.nats.broker import Access, BrokerTrouble, WrongSequence
from agent.publish.nats.position import Message
from agent.stream.fleet import Link, decode_body, parse_broker

from ...make import Fold, Record, fold, records

ACCESS = Access("nats://b", parse_broker("nats://b"))
FAULTS = ("none", "unsent", "unacknowledged", "late")


class Stored(NamedTuple):
    sequence: int
    link: Link
    body: bytes


class ModelBroker:
    """The stream of one broker, with the messages of one host and room for those of others.

    ``faults`` says of each message what happens to it: nothing, it is not stored, it is stored and
    not acknowledged, or it is stored only before the next one.
    """

    def __init__(self) -> None:
        self.log: list[Stored] = []
        self.sequence = 0
        self.faults: list[str] = []
        self.stale_reads = 0  # Reads that miss the newest message.
        self.before_publish: Callable[[], None] = lambda: None
        self.max_payload = 1 << 20
        self.connections = 0
        self._late: Message | None = None

    async def connect(self, _access: Access, _inbox: str, _name: str) -> ModelBroker:
        self.connections += 1
        return self

    async def close(self) -> None:
        pass

    @property
    def newest(self) -> int:
        return self.log[-1].sequence if self.log else 0

    async def publish(self, _subject: str, message: Message) -> int:
        self.before_publish()
        if self._late is not None:
            late, self._late = self._late, None
            if late.expected == self.newest:
                self.store(late.link, late.body)
        fault = self.faults.pop() if self.faults else "none"
        if fault == "unsent":
            raise BrokerTrouble("unsent", is_lost=True)
        if fault == "late":
            self._late = message
            raise BrokerTrouble("late", is_lost=True)
        if message.expected != self.newest:
            raise WrongSequence(self.newest)
        assert len(message.body) < self.max_payload
        sequence = self.store(message.link, message.body)
        if fault == "unacknowledged":
            raise BrokerTrouble("unacknowledged", is_lost=True)
        return sequence

    async def last(self, _subject: str) -> tuple[int, Link | None]:
        log = self.log
        if self.stale_reads:
            self.stale_reads -= 1
            log = log[:-1]
        return (log[-1].sequence, log[-1].link) if log else (0, None)

    def store(self, link: Link, body: bytes) -> int:
        self.sequence += 1
        self.log.append(Stored(self.sequence, link, body))
        return self.sequence

    def skip(self) -> None:
        """Store a message of another host."""
        self.sequence += 1

    def lose_end(self, count: int) -> None:
        """Lose the newest messages, as after a power failure."""
        del self.log[max(0, len(self.log) - count) :]
        self.sequence = self.newest


class Reader:
    """Reads a log in order. A break in it, or a change that is told twice, fails."""

    def __init__(self) -> None:
        self.state: Fold = {}
        self.lost = 0  # Records of it.
        self.previous: Link | None = None
        self.snapshots: list[int] = []  # Where they begin.
        self._waiting: list[Record] = []  # The snapshot under way.

    def read(self, stored: Stored) -> list[Record]:
        """Read a message; return its records."""
        link, before = stored.link, self.previous
        found = records(decode_body(stored.body))
        assert link.previous == (None if before is None else before.id)
        assert link.through == found[-1]["seq"]
        kinds = [record["event"] for record in found]
        self.lost += "lost" in kinds
        is_new = before is None or link.epoch != before.epoch
        assert link.begins == ("lost" in kinds or found[-1].get("resumed") is False)
        if link.begins:
            assert link.after == link.through
            if before is not None and (is_new or link.through != before.through):
                assert found[0]["event"] == "lost"
                assert found[0]["from"] == before.through + 1
                assert found[0]["to"] == (None if is_new else link.through)
            self.snapshots.append(stored.sequence)
            self._waiting = found
        else:
            assert before is not None
            assert not is_new
            assert link.after == before.through
            changes = [one["seq"] for one in found if one["event"] in ("open", "update", "close")]
            assert all(seq > link.after for seq in changes)
            if self._waiting:
                self._waiting += found
            else:
                self.state = fold(self.state, found)
        if "snapshot_end" in kinds:
            self.state, self._waiting = fold(self.state, self._waiting), []
            assert link.snapshot == self.snapshots[-1]
        assert link.whole == (not self._waiting)
        self.previous = link
        return found


def read_all(broker: ModelBroker) -> Reader:
    reader = Reader()
    for stored in broker.log:
        reader.read(stored)
    return reader
