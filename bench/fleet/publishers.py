"""Simulated hosts: ``python -m bench.fleet.publishers URL RATE NAME COUNT``.

Each has a feed of synthetic sockets, of which RATE change a second, in one poll, and the publisher
of sockagent with a connection of its own. A line on standard input starts them.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agent.publish.nats.broker import Access
from agent.publish.nats.publisher import FeedPublisher, HostPublisher
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.fleet import parse_broker

from ..page_feed import Sockets

_INTERVAL = 1.0  # Seconds between two polls of a host.
_ROWS, _PROCESSES = 20, 5
_CHECKPOINT_SECONDS = 300.0
# What an agent holds for readers that are late belongs to the agent, not to its publisher.
_HISTORY_RECORDS = 100
# The hosts begin one after the other, as those of a fleet do.
_START_SECONDS = 0.04


class _Host:
    """A host, its feed and its publisher."""

    def __init__(self, name: str, access: Access, seed: int) -> None:
        agent = AgentInfo(name, None, os.urandom(8).hex(), _INTERVAL)
        self._feed = Feed(agent, history_records=_HISTORY_RECORDS)
        self._publisher = FeedPublisher(
            self._feed, Filter(), HostPublisher(access), _CHECKPOINT_SECONDS
        )
        self._sockets = Sockets(_ROWS, seed, _PROCESSES)
        self._tracker = DeltaTracker()

    async def run(self, wait: float, changes: int) -> None:
        """Poll and publish for ever, after so many seconds."""
        await asyncio.sleep(wait)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.run())
            group.create_task(self._poll(changes))

    async def _poll(self, changes: int) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            snapshot = self._sockets.snapshot()
            self._feed.publish(snapshot, self._tracker.advance(snapshot))
            due += _INTERVAL
            await asyncio.sleep(max(0.0, due - clock()))
            self._sockets.change(changes)


async def publish(url: str, rate: float, name: str, count: int) -> None:
    """Run the hosts for ever."""
    access = Access(url, parse_broker(url))
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            host = _Host(f"{name}-{number}", access, 1 + number)
            group.create_task(host.run(number * _START_SECONDS, round(rate * _INTERVAL)))


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(publish(sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
