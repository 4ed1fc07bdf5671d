"""What consumers of a fleet recorded, compared with the truth that its hosts wrote. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import NamedTuple

import orjson

from agent.model import Holding, HoldingKey
from agent.stream.decoder import decode
from agent.stream.diff import is_changed, is_same
from agent.stream.state import State

# Records that are no changes: they may occur more than once, or be left out.
_OTHERS = frozenset({"hello", "snapshot", "snapshot_end", "heartbeat", "lost"})
_MAX_EXAMPLES = 5

Fold = dict[HoldingKey, Holding]


def whole_lines(content: bytes) -> list[bytes]:
    """Return the lines of a file; the last one may have been cut by a kill."""
    return content[: content.rfind(b"\n") + 1].splitlines()


def last_change(lines: Sequence[bytes]) -> bytes | None:
    """Return the last change among records."""
    return next((line for line in reversed(lines) if _is_change(line)), None)


def _is_change(line: bytes) -> bool:
    return orjson.loads(line)["event"] not in _OTHERS


def fold(lines: Iterable[bytes]) -> tuple[Fold, int]:
    """Return the holdings that records of one host lead to, and how many records did not fit."""
    state = State()
    for line in lines:
        state.apply(decode(line))
    found: Fold = {}
    for one in state.holdings():
        process = one.holding.process
        found[None if process is None else process.pid, one.holding.socket.inode] = one.holding
    return found, state.violations


def are_equal(found: Fold, true: Fold) -> bool:
    """Return whether two states are equal, but for what no ``update`` reports, such as the length
    of queues: it is as old as the newest snapshot of each reader."""
    return found.keys() == true.keys() and all(
        is_same(true[key], one) and not is_changed(true[key], one) for key, one in found.items()
    )


class Truth:
    """The changes of one host, by the epochs of its agent."""

    def __init__(self, runs: Iterable[Sequence[bytes]], final: Sequence[bytes]) -> None:
        """``runs`` has the records of each run; ``final`` is the snapshot in the end."""
        self.epochs: list[str] = []
        self.changes: dict[bytes, tuple[int, int]] = {}  # Epoch and number of each line.
        for run in runs:
            for line in run:
                record = orjson.loads(line)
                event = record["event"]
                if event == "hello" and record["epoch"] not in self.epochs:
                    self.epochs.append(record["epoch"])
                elif event not in _OTHERS:
                    self.changes[line] = len(self.epochs) - 1, record["seq"]
        self.fold, _ = fold(final)

    def admit(self, lines: Iterable[bytes]) -> int:
        """Add what consumers have of the last poll before an agent was killed, which a reader
        beside the agent had not read; return how many changes that is.

        The truth is that of the reader: of any other poll it has all changes.
        """
        last = dict.fromkeys(range(len(self.epochs)), (0, ""))
        last |= {epoch: (seq, "") for epoch, seq in self.changes.values()}
        at, added = -1, 0
        for line in lines:
            record = orjson.loads(line)
            if record["event"] == "hello":
                at = self.epochs.index(record["epoch"]) if record["epoch"] in self.epochs else -1
            elif at in last and record["event"] not in _OTHERS and line not in self.changes:
                (seq, time), killed = last[at], at < len(self.epochs) - 1
                if killed and record["seq"] == seq + 1 and time in ("", record["time"]):
                    self.changes[line] = at, record["seq"]
                    last[at] = record["seq"], record["time"]
                    added += 1
        return added


def gaps(lines: Iterable[bytes]) -> int:
    """Return how often changes are missing between those of an epoch."""
    found, epoch, last = 0, "", 0
    for line in lines:
        record = orjson.loads(line)
        event, seq = record["event"], record["seq"]
        if event == "hello" and record["epoch"] != epoch:
            epoch, last = record["epoch"], seq
        elif event not in _OTHERS:
            found += seq != last + 1
            last = seq
    return found


class Outcome(NamedTuple):
    """One host in the files of one consumer. ``silent`` changes are lost without a record,
    ``told`` ones with one of ``losses``; ``foreign`` ones are no changes of the host;
    ``violations`` are records that do not fit those before. ``is_equal``: the state is the
    true one."""

    truth: int
    doubled: int
    silent: int
    told: int
    losses: int
    foreign: int
    violations: int
    is_equal: bool
    examples: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether nothing is doubled, and nothing is lost without a record."""
        wrong = self.doubled or self.silent or self.foreign or self.violations
        return self.is_equal and not wrong


class _Ranges:
    """Which changes a consumer need not have, by the index of the epoch."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, float]] = []

    def add(self, epoch: int, first: int, last: float) -> None:
        """Add changes of an epoch."""
        self._ranges.append((epoch, first, last))

    def has(self, epoch: int, seq: int) -> bool:
        """Return whether a change is among them."""
        return any(one == epoch and first <= seq <= last for one, first, last in self._ranges)


class _Reading:
    """Reads the records of one host, as a consumer recorded them."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._seen: set[bytes] = set()
        self._before = _Ranges()  # Changes before the first snapshot,
        self._told = _Ranges()  # and those that are told as lost.
        self._at: tuple[int, int] | None = None  # Epoch and number of the newest record.
        self._is_ended = False  # It is told that the run of the agent has ended.
        self.doubled = self.foreign = self.losses = 0
        self.examples: list[str] = []

    def take(self, line: bytes) -> None:
        """Take a record."""
        record = orjson.loads(line)
        event, seq = record["event"], record["seq"]
        if event == "lost":
            self._lose(record["from"], record["to"])
        elif event == "hello" and record["epoch"] not in self._truth.epochs:
            self.foreign += 1
            self._note("unknown epoch", line)
        elif event == "hello":
            self._begin(self._truth.epochs.index(record["epoch"]), seq)
        elif event not in _OTHERS:
            self._change(line)

    def _lose(self, first: int, last: int | None) -> None:
        self.losses += 1
        if self._at is not None:
            epoch, seq = self._at
            self._told.add(epoch, max(first, seq + 1), inf if last is None else last)
            self._is_ended |= last is None

    def _begin(self, epoch: int, seq: int) -> None:
        if self._at is None:
            for earlier in range(epoch):
                self._before.add(earlier, 0, inf)
            self._before.add(epoch, 0, seq)
        elif self._is_ended and epoch != self._at[0]:
            for ended in range(self._at[0] + 1, epoch):
                self._told.add(ended, 0, inf)
            self._told.add(epoch, 0, seq)
        self._at, self._is_ended = (epoch, seq), False

    def _change(self, line: bytes) -> None:
        place = self._truth.changes.get(line)
        if place is None:
            self.foreign += 1
            self._note("not of the host", line)
            return
        if line in self._seen:
            self.doubled += 1
            self._note("doubled", line)
        elif self._at is not None and place[0] == self._at[0] and place <= self._at:
            self.foreign += 1
            self._note("out of order", line)
        self._seen.add(line)
        self._at = place if self._at is None else max(self._at, place)

    def missing(self) -> tuple[int, int]:
        """Return how many changes are lost in silence, and how many are told as lost."""
        silent = told = 0
        for line, place in self._truth.changes.items():
            if line in self._seen or self._before.has(*place):
                continue
            if self._told.has(*place):
                told += 1
            else:
                silent += 1
                self._note("lost in silence", line)
        return silent, told

    def _note(self, what: str, line: bytes) -> None:
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{what}: {line[:120].decode()}")


def check(truth: Truth, lines: Sequence[bytes]) -> Outcome:
    """Compare the records of one host, as a consumer recorded them, with the truth."""
    reading = _Reading(truth)
    for line in lines:
        reading.take(line)
    silent, told = reading.missing()
    found, violations = fold(lines)
    return Outcome(
        len(truth.changes), reading.doubled, silent, told, reading.losses, reading.foreign,
        violations, are_equal(found, truth.fold), tuple(reading.examples),
    )  # fmt: skip


def by_host(content: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Return the lines of each host."""
    hosts: dict[str, list[bytes]] = {}
    for line in content:
        hosts.setdefault(orjson.loads(line)["host"], []).append(line)
    return hosts


def table(outcomes: Iterable[tuple[str, str, Outcome]]) -> Iterator[str]:
    """Yield the outcomes of hosts at consumers as the lines of a table."""
    yield (
        "| consumer | host | truth records | doubled | lost in silence | told as lost "
        "| `lost` records | foreign | violations | fold |"
    )
    yield "|---|---|" + "---:|" * 7 + "---|"
    for consumer, host, one in outcomes:
        cells = (
            one.truth, one.doubled, one.silent, one.told, one.losses, one.foreign, one.violations
        )  # fmt: skip
        numbers = " | ".join(f"{cell:,}" for cell in cells)
        yield f"| {consumer} | {host} | {numbers} | {'equal' if one.is_equal else 'differs'} |"
