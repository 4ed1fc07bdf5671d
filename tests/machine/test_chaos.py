"""A minute of churn, with 200 subscribers that stall, disconnect and resume, each with a filter.

The agent's own stdout is the truth: whatever a subscriber folded up to a number is what the stream
has at that number, filtered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from orjson import loads
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .churning import churner
from .helpers import DEADLINE, Key, Record
from .live import Agent
from .test_live import free_port

SUBSCRIBERS = 200
SECONDS = 60.0
# Maximum between two steps of the churn, so that 200 subscribers in one process keep up.
PAUSE_SECONDS = 0.08
# Samples of each subscriber: each is compared with its whole state.
MOST_SAMPLES = 40

State = dict[Key, tuple[object, ...]]


class Chosen(NamedTuple):
    """A filter as a query and as a test of records."""

    query: str
    passes: Callable[[Record], bool]


FILTERS = (
    Chosen("", lambda _one: True),
    Chosen("proto=tcp", lambda one: one["proto"] == "tcp"),
    Chosen("proto=unix,udp", lambda one: one["proto"] in ("unix", "udp")),
    Chosen("state=LISTEN", lambda one: one["state"] == "LISTEN"),
    Chosen("direction=inbound,outbound", lambda one: one["direction"] in ("inbound", "outbound")),
    Chosen(
        "port=1-45000",
        lambda one: (
            one["family"] in ("inet", "inet6")
            and one["proto"] != "raw"
            and any(1 <= (one[end] or 0) <= 45_000 for end in ("local_port", "remote_port"))
        ),
    ),
    Chosen("family=inet6&proto=tcp", lambda one: (one["family"], one["proto"]) == ("inet6", "tcp")),
)


def compared_fields(record: Record) -> tuple[object, ...]:
    """Return the fields that are compared: those whose changes make an update."""
    names = ("proto", "state", "local_port", "remote_port", "path", "direction", "comm")
    return (*(record.get(name) for name in names), tuple(record.get("fds", ())))


class Sample(NamedTuple):
    """The state of a subscriber after the record with number ``seq``."""

    chosen: Chosen
    seq: int
    state: State


class Subscriber:
    """A subscriber that behaves at random."""

    def __init__(self, url: str, seed: int, samples: list[Sample]) -> None:
        self._random = random.Random(seed)
        self._chosen = self._random.choice(FILTERS)
        self._url = f"{url}?{self._chosen.query}"
        self._samples = samples
        self._sampled = 0
        self._fold: dict[Key, Record] = {}
        self._seq = 0
        self._epoch = ""
        self._whole = False
        self.counts: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            resume = f"&epoch={self._epoch}&since={self._seq}" if self._whole else ""
            with suppress(ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                async with connect(
                    self._url + resume, compression=None, max_queue=2, ping_interval=None,
                    close_timeout=1, open_timeout=DEADLINE,
                ) as feed:  # fmt: skip
                    await self._read(
                        feed, min(until, time.monotonic() + self._random.expovariate(0.1))
                    )
                    if self._random.random() < 0.5:
                        feed.transport.abort()
            self.counts["connections"] += 1

    async def _read(self, feed: object, until: float) -> None:
        first = True
        while time.monotonic() < until:
            async with asyncio.timeout(2 * DEADLINE):
                message = await feed.recv(decode=False)  # type: ignore[attr-defined]
            records = [loads(line) for line in message.splitlines()]
            if first:
                self._greeted(records[0])
                records = records[1:]
                first = False
            for record in records:
                self._take(record)
            if self._whole and self._sampled < MOST_SAMPLES and self._random.random() < 0.1:
                self._sample()
            if self._random.random() < 0.02:
                await asyncio.sleep(self._random.uniform(0, 4))
        if self._whole:
            self._sample()

    def _sample(self) -> None:
        self._sampled += 1
        state = {key: compared_fields(record) for key, record in self._fold.items()}
        self._samples.append(Sample(self._chosen, self._seq, state))

    def _greeted(self, hello: Record) -> None:
        assert hello["event"] == "hello"
        if hello["resumed"]:
            assert (hello["epoch"], hello["seq"]) == (self._epoch, self._seq)
            self.counts["resumed"] += 1
        else:
            self._fold, self._whole = {}, False
        self._epoch, self._seq = hello["epoch"], hello["seq"]

    def _take(self, record: Record) -> None:
        event, seq = record["event"], record["seq"]
        self.counts[event] += 1
        key: Key = (record.get("pid"), record.get("inode") or 0)
        if event == "lost":
            assert record["to"] == seq
            # Records that the filter hid are not lost.
            begins = record["from"]
            assert begins > self._seq if self._chosen.query else begins == self._seq + 1
            self._fold, self._whole, self._seq = {}, False, seq
        elif event in ("snapshot", "snapshot_end"):
            assert not self._whole
            assert seq == self._seq
            if event == "snapshot":
                assert key not in self._fold
                self._fold[key] = record
            else:
                assert record["count"] == len(self._fold)
                self._whole = True
        elif event == "heartbeat":
            assert seq >= self._seq
        else:
            assert self._whole, f"{event} inside a snapshot"
            # A filter hides records; without one there is no gap.
            assert seq == self._seq + 1 if not self._chosen.query else seq > self._seq
            self._seq = seq
            if event == "coverage":
                return
            assert (key in self._fold) == (event != "open"), record
            if event == "close":
                del self._fold[key]
            else:
                self._fold[key] = record


def check(records: list[Record], samples: list[Sample]) -> None:
    """Compare every sample with the state that all records lead to."""
    waiting = sorted(samples, key=lambda sample: sample.seq)
    fold: dict[Key, Record] = {}
    at = 0

    def compare(seq: float) -> None:
        """Return the samples of the state before the record with number ``seq``."""
        nonlocal at
        while at < len(waiting) and waiting[at].seq < seq:
            sample = waiting[at]
            passing = {
                key: compared_fields(record)
                for key, record in fold.items()
                if sample.chosen.passes(record)
            }
            assert sample.state == passing, (sample.chosen.query, sample.seq)
            at += 1

    for record in records:
        if record["event"] in ("open", "update", "close"):
            compare(record["seq"])
        key: Key = (record.get("pid"), record.get("inode") or 0)
        if record["event"] in ("snapshot", "open", "update"):
            fold[key] = record
        elif record["event"] == "close":
            del fold[key]
    compare(float("inf"))
    assert at == len(samples)


def test_every_subscriber_has_the_right_state_at_all_times(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    port = free_port()
    samples: list[Sample] = []
    counts: Counter[str] = Counter()

    async def subscribe() -> None:
        until = time.monotonic() + SECONDS
        url = f"ws://127.0.0.1:{port}/events"
        subscribers = [Subscriber(url, seed + number, samples) for number in range(SUBSCRIBERS)]
        async with asyncio.TaskGroup() as group:
            for subscriber in subscribers:
                group.create_task(subscriber.run(until))
        for subscriber in subscribers:
            counts.update(subscriber.counts)

    # Written to a file, which never stalls: this stream has no gaps.
    with (
        (tmp_path / "truth").open("wb") as file,
        Agent("--follow", listen=f"127.0.0.1:{port}", stdout=file.fileno()),
        ExitStack() as stack,
    ):
        process = stack.enter_context(churner(tmp_path, seed, SECONDS, PAUSE_SECONDS))
        stack.callback(process.kill)
        asyncio.run(subscribe())
    with (tmp_path / "truth").open("rb") as lines:
        records = [loads(line) for line in lines]
    assert not any(record["event"] == "lost" for record in records)
    check(records, samples)
    # There were other connections than those of the subscribers.
    protos = Counter(record["proto"] for record in records if record["event"] == "open")
    assert min(protos["udp"], protos["unix"]) > 50, protos
    # Subscribers did stall, disconnect, resume and lose records.
    assert len(samples) > SUBSCRIBERS
    assert counts["resumed"] > 50, counts
    assert counts["connections"] > SUBSCRIBERS * 2, counts
    assert counts["close"] > 1000, counts
