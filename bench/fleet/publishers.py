"""Simulated hosts: ``python -m bench.fleet.publishers URL RATE NAME COUNT``.

Each sends RATE changes a second, in one message, to a publisher of sockagent with a connection of
its own. The records are those of a feed of synthetic sockets, with the name of the host, new
numbers and times: making them costs little. A line on standard input starts the hosts.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time

from agent.publish.nats.broker import Access
from agent.publish.nats.publisher import HostPublisher, PositionMoved
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import Feed
from agent.stream.fleet import parse_broker
from agent.stream.times import timestamp

from ..page_feed import Sockets

_INTERVAL = 1.0  # Seconds between two polls of a host.
_ROWS, _PROCESSES = 50, 10
_POLLS = 50  # After so many, the same records come again.
_CHECKPOINT_SECONDS = 300.0
# The hosts of a process begin one after the other, and so are their polls.
_START_SECONDS = 0.044
_HEAD = re.compile(
    rb'(\{"event":"\w+","seq":)\d+(,"time":")[^"]+(","host":")[^"]+(".*\n)', re.DOTALL
)

# What precedes number, time and host of a record, and what follows.
Line = tuple[bytes, bytes, bytes, bytes]


def lines_of(chunk: bytes) -> list[Line]:
    """Return the parts of the records of a chunk."""
    found = []
    for line in chunk.splitlines(keepends=True):
        match = _HEAD.fullmatch(line)
        assert match, line
        found.append((match[1], match[2], match[3], match[4]))
    return found


def chunk_of(lines: list[Line], first: int, step: int, time: bytes, host: bytes) -> bytes:
    """Return records with these numbers from ``first`` on, with this time and host."""
    return b"".join(
        b"%b%d%b%b%b%b%b" % (begin, first + step * index, at, time, of, host, rest)
        for index, (begin, at, of, rest) in enumerate(lines)
    )


class Records:
    """The records that all hosts send: those of a snapshot, and those of each poll."""

    def __init__(self, changes: int, epoch: str) -> None:
        feed = Feed(AgentInfo("x", None, epoch, _INTERVAL))
        sockets, tracker = Sockets(_ROWS, 1, _PROCESSES), DeltaTracker()
        subscription = feed.subscribe()
        self.snapshot: list[list[Line]] = []
        self.polls: list[list[Line]] = []
        for poll in range(_POLLS + 1):
            current = sockets.snapshot()
            feed.publish(current, tracker.advance(current))
            while chunk := subscription.take():
                (self.polls if poll else self.snapshot).append(lines_of(chunk))
            sockets.change(changes)


class Host:
    """A host that sends records to its publisher."""

    def __init__(self, name: str, access: Access, records: Records) -> None:
        self._name = name.encode()
        self._publisher = HostPublisher(access)
        self._records = records
        self._seq = 0

    async def run(self, wait: float) -> None:
        """Send a poll each second for ever, after so many seconds."""
        await asyncio.sleep(wait)
        clock = asyncio.get_running_loop().time
        due, poll = clock(), 0
        whole_at = float("-inf")
        while True:
            try:
                if clock() - whole_at >= _CHECKPOINT_SECONDS:
                    for lines in self._records.snapshot:
                        await self._send(lines, 0)
                    whole_at = clock()
                lines = self._records.polls[poll % _POLLS]
                self._seq += len(lines)
                poll += 1
                await self._send(lines, 1)
            except PositionMoved:  # As an agent without a history: it begins anew.
                whole_at = float("-inf")
            due += _INTERVAL
            await asyncio.sleep(max(0.0, due - clock()))

    async def _send(self, lines: list[Line], step: int) -> None:
        first = self._seq - step * (len(lines) - 1)
        now = timestamp(time.time()).encode()
        await self._publisher.receive(chunk_of(lines, first, step, now, self._name))


async def publish(url: str, rate: float, name: str, count: int) -> None:
    """Run the hosts for ever."""
    access = Access(url, parse_broker(url))
    records = Records(round(rate * _INTERVAL), os.urandom(8).hex())
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            host = Host(f"{name}-{number}", access, records)
            group.create_task(host.run(number * _START_SECONDS))


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(publish(sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
