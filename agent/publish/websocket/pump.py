"""Sending to many subscribers, each in its turn, without delaying the rest of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .connection import Connection

# How long connections are served before others of the event loop have their turn.
_TURN_SECONDS = 0.003
# Connections between two readings of the clock.
_CHECKED = 16


class Pump:
    """A queue of connections that have something to send, or may have."""

    def __init__(self) -> None:
        self._due: dict[Connection, None] = {}
        self._has_due = asyncio.Event()

    def schedule(self, connections: Iterable[Connection]) -> None:
        """Queue connections; those that are queued keep their place."""
        self._due.update(dict.fromkeys(connections))
        self._has_due.set()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            await self._has_due.wait()
            self._has_due.clear()
            await self.drain()

    async def drain(self) -> None:
        """Send until no connection is due: each has sent everything or does not take more now."""
        clock = asyncio.get_running_loop().time
        turn_ends = clock() + _TURN_SECONDS
        while self._due:
            # Taken as a whole: finding the first item of a dict takes time for each deleted one.
            round_, self._due = self._due, {}
            for number, connection in enumerate(round_):
                has_more = connection.pump()
                if has_more:
                    self._due[connection] = None
                # A connection that has sent everything takes 10 µs, one with more a page of them.
                if (has_more or not number % _CHECKED) and clock() >= turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = clock() + _TURN_SECONDS
