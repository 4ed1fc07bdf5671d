"""Publishers for a person and for scripts: the event log, and the answer whether a socket came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from ...stream.feed import Feed, Subscription
from ...stream.filters import Filter
from ..stdout import STDOUT, STOP_SECONDS, publish
from .stream_log import StreamLog, is_match


class LogPublisher:
    """Prints the event log of a feed on a descriptor."""

    def __init__(self, feed: Feed, host: str, log: StreamLog, descriptor: int = STDOUT) -> None:
        """``host`` is the name of this machine."""
        self._subscription = Subscription(feed)
        self._host = host
        self._log = log
        self._descriptor = descriptor
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Print until the feed stops or the reader leaves. Raises RuntimeFailure."""
        try:
            await publish(self._chunks(), self._descriptor)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Wait until the reader has taken what is left, at most STOP_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for message in self._subscription:
            lines = list(self._log.of_message(self._host, message))
            if lines:
                yield encode_lines(lines)


class MatchPublisher:
    """Finds out whether a socket passes a filter. ``matched`` is the answer so far."""

    def __init__(self, feed: Feed, chosen: Filter, *, once: bool) -> None:
        """``once``: ``run`` returns at the first match."""
        self.matched = False
        self._subscription = Subscription(feed)
        self._filter = chosen
        self._once = once

    async def run(self) -> None:
        """Read the feed until it stops, or until the first match if only that is wanted."""
        async for message in self._subscription:
            self.matched = self.matched or is_match(self._filter, message)
            if self.matched and self._once:
                return

    async def stop(self) -> None:
        """Do nothing: nothing is left to deliver."""


def encode_lines(lines: list[str]) -> bytes:
    """Return lines as bytes in UTF-8, each with its end."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
