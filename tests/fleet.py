"""A fleet in memory: agents that tests drive, what publishes them, the log of a broker, and checks
of what a consumer passes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from agent.remote.nats.chain import Action, Chains
from agent.remote.nats.lines import lost_line, passed_on
from agent.remote.resume import ResumePosition
from agent.stream.feed import NdjsonSubscription
from agent.stream.fleet import Link

from .feeding import tracked
from .make import Fold, Record, records
from .relaying import Agent

PAGE_BYTES = 900  # A page has one record or two.


class Stored(NamedTuple):
    """A message in the log of a broker."""

    sequence: int
    host: str
    link: Link
    records: bytes


class Log:
    """The log of a broker: messages by their sequence, some of which may be missing."""

    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.end = 0  # The newest sequence.

    def add(self, host: str, link: Link, body: bytes) -> int:
        """Add a message; return its sequence."""
        self.end += 1
        self.messages.append(Stored(self.end, host, link, body))
        return self.end

    def newest(self, host: str) -> Stored | None:
        """Return the newest message of a host."""
        return next((one for one in reversed(self.messages) if one.host == host), None)

    def after(self, sequence: int) -> list[Stored]:
        """Return the messages after a sequence."""
        return [one for one in self.messages if one.sequence > sequence]

    def lose_end(self, sequence: int) -> None:
        """Forget the messages after a sequence, as a broker with an older store does."""
        self.messages = [one for one in self.messages if one.sequence <= sequence]
        self.end = min(self.end, sequence)

    def delete(self, sequence: int) -> None:
        """Forget one message."""
        self.messages = [one for one in self.messages if one.sequence != sequence]


class Publisher:
    """Publishes the feed of an agent in a log, as one run of a publisher: one message at a time,
    and only behind the message that it knows as the newest of its host."""

    def __init__(self, log: Log, run: int) -> None:
        self._log = log
        self._run = f"{run:08x}"
        self._count = 0
        self._agent: Agent | None = None
        self._subscription: NdjsonSubscription | None = None
        self._expected = 0
        self._link = Link("-", 0, 0, None, 0, begins=False, whole=False, id="-")
        self._began = 0  # Where the snapshot under way begins.

    def connect(self, agent: Agent) -> None:
        """Go on behind the newest message of the agent's host."""
        self._agent = agent
        newest = self._log.newest(agent.info.host)
        resume: tuple[tuple[str, int], ...] = ()
        self._position = ResumePosition()
        if newest is None:
            self._expected = 0
            self._link = self._link._replace(id="-", whole=False, snapshot=0, epoch="-", through=0)
        else:
            self._expected = newest.sequence
            self._link = newest.link
            if newest.link.whole:
                resume = ((newest.link.epoch, newest.link.through),)
        self._subscription = agent.feed.subscribe(resume=resume, page_bytes=PAGE_BYTES)

    def checkpoint(self) -> None:
        """Repeat the snapshot, if all changes are published."""
        agent = self._agent
        if agent and self._link.whole and self._link.through == agent.feed.seq:
            self._subscription = agent.feed.subscribe(page_bytes=PAGE_BYTES)

    def publish(self, count: int = 1_000) -> None:
        """Publish up to so many messages."""
        for _ in range(count):
            assert self._agent
            assert self._subscription
            newest = self._log.newest(self._agent.info.host)
            if self._expected != (newest.sequence if newest else 0):
                self.connect(self._agent)
            chunk = self._subscription.take()
            if not chunk:
                return
            self._publish(chunk)

    def _publish(self, chunk: bytes) -> None:
        agent, before = self._agent, self._link
        assert agent
        found = records(chunk)
        first = found[0]
        begins = first["event"] == "lost" or (first["event"] == "hello" and not first["resumed"])
        epoch, through = agent.feed.epoch, found[-1]["seq"]
        if first["event"] == "hello" and before.id != "-" and begins:
            is_same = before.epoch == epoch
            if not (is_same and before.through == through):
                missing = (before.through + 1, through if is_same else None)
                chunk = lost_line(agent.info.host, 1.7e9, through, *missing) + chunk
        whole = before.whole and not begins
        if any(one["event"] == "snapshot_end" for one in found):
            whole = True
        self._count += 1
        link = Link(
            epoch,
            through if begins else before.through,
            through,
            None if before.id == "-" else before.id,
            before.snapshot,
            begins=begins,
            whole=whole,
            id=f"{self._run}.{self._count}",
        )
        sequence = self._log.end + 1
        if begins:
            self._began = sequence
        if whole and not before.whole:
            link = link._replace(snapshot=self._began)
        self._log.add(agent.info.host, link, chunk)
        self._link, self._expected = link, sequence


class Consumer:
    """Reads a log; ``output`` is what it passes on."""

    def __init__(self, log: Log, *, checkpoints: bool = True) -> None:
        self._log = log
        self._checkpoints = checkpoints
        self.chains = Chains(checkpoints=checkpoints)
        self.sequence = 0
        self.output = b""
        self.read_again = 0

    def read(self, count: int = 1_000_000) -> None:
        """Read up to so many messages."""
        self.sequence = min(self.sequence, self._log.end)
        for message in self._log.after(self.sequence)[:count]:
            self._take(message)
            self.sequence = message.sequence

    def copy(self) -> Consumer:
        """Return what a later run makes of what this one wrote last."""
        other = Consumer(self._log)
        other.chains = Chains(self.chains.positions, checkpoints=self._checkpoints)
        other.sequence, other.output = self.sequence, self.output
        return other

    def _take(self, message: Stored, *, again: bool = False) -> None:
        host, link = message.host, message.link
        verdict = self.chains.take(host, link, again=again)
        if verdict.action is Action.READ_AGAIN:
            assert not again
            self.read_again += 1
            for earlier in self._log.after(link.snapshot - 1):
                if earlier.host == host and earlier.sequence < message.sequence:
                    self._take(earlier, again=True)
            self._take(message, again=True)
            return
        self.output += passed_on(verdict, link, host, 1.7e9, message.records)


class Truth:
    """What agents published: the state at the end of each poll, by epoch and number."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, int], Fold] = {}

    def note(self, agent: Agent) -> None:
        """Remember the state of an agent."""
        self.states[agent.info.epoch, agent.feed.seq] = agent.state()


class Checked:
    """The records of one host that a consumer passed on, each of which must fit."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self.state: Fold = {}
        self.epoch: str | None = None
        self.seq = 0
        self.lost: list[tuple[int, int | None]] = []
        self.is_known = False  # Whether ``state`` is that of ``seq``: nothing was lost since.
        self._new: Fold | None = None  # The snapshot that arrives.
        self._ended = False
        self._began = False
        self._seen: set[tuple[str | None, int]] = set()

    def apply(self, found: Iterable[Record]) -> None:
        """Apply records."""
        for record in found:
            self._apply(record)

    def _apply(self, record: Record) -> None:
        event, seq = record["event"], record["seq"]
        key = record.get("pid"), record.get("inode", 0)
        began, self._began = self._began, True
        if event == "hello":
            if record["resumed"]:
                assert (record["epoch"], seq) == (self.epoch, self.seq)
                return
            if self.epoch is not None:
                assert self._ended or (record["epoch"], seq) == (self.epoch, self.seq)
            self.epoch, self.seq, self._new, self._ended = record["epoch"], seq, {}, False
        elif event == "lost":
            self.lost.append((record["from"], record["to"]))
            if began and not self._ended and record["to"] is not None:
                assert record["from"] <= self.seq + 1
                assert seq >= self.seq
            self._ended = self._ended or record["to"] is None
            self.seq, self._new, self.is_known = seq, {}, False
        elif event == "heartbeat":
            assert seq == self.seq
        elif event == "snapshot":
            assert self._new is not None
            assert seq == self.seq
            assert key not in self._new
            self._new[key] = record
        elif event == "snapshot_end":
            assert self._new is not None
            assert seq == self.seq
            assert record["count"] == len(self._new)
            self.state, self._new, self.is_known = self._new, None, True
            self._compare()
        else:
            assert self.is_known
            assert self._new is None
            assert seq == self.seq + 1
            assert (self.epoch, seq) not in self._seen
            self._seen.add((self.epoch, seq))
            self.seq = seq
            if event != "coverage":
                assert (key in self.state) == (event != "open")
                if event == "close":
                    del self.state[key]
                else:
                    self.state[key] = record
            self._compare()

    def _compare(self) -> None:
        # A log whose beginning is lost may begin with ``lost``, which does not have the epoch.
        truth = self._truth.states.get((self.epoch or "", self.seq))
        if truth is not None:
            assert tracked(self.state) == truth


def check(output: bytes, truth: Truth) -> dict[str, Checked]:
    """Check what a consumer passed on; return what it leads to of each host."""
    hosts: dict[str, Checked] = {}
    for line in output.splitlines():
        record = json.loads(line)
        hosts.setdefault(record["host"], Checked(truth)).apply([record])
    return hosts
