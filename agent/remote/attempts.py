"""Attempts to connect to a remote agent or a broker: what is logged of them, and when they come."""

from __future__ import annotations

import asyncio
import random

from ..log import log


class Attempts:
    """The attempts at one URL. A line is logged when they begin to fail, and when they succeed
    again; the time between them, ``shortest`` seconds at first, is doubled up to ``longest``."""

    def __init__(self, url: str, shortest: float, longest: float) -> None:
        self._url = url
        self._shortest, self._longest = shortest, longest
        self._pause = shortest
        self._failing = False

    def succeed(self) -> None:
        """Note that records come."""
        if self._failing:
            log(f"{self._url}: connected again")
        self._failing, self._pause = False, self._shortest

    def fail(self, message: str) -> None:
        """Log that an attempt failed, even if the one before it did."""
        log(message)
        self._failing = True

    async def wait(self, reason: str) -> None:
        """Wait until the next attempt is due, after one that failed."""
        if not self._failing:
            self.fail(f"{self._url}: {reason}; retrying")
        # Random, so that the clients of a restarted server do not reconnect at the same moment.
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 (not a secret)
        self._pause = min(self._pause * 2, self._longest)
