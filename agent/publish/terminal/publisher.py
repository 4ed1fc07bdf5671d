"""Publishers for a person and for scripts: the event log, and the answer whether a socket came."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ...stream.feed import Feed, Subscription
from ...stream.filters import Filter
from ..stdout import STDOUT, ChunkPublisher
from .stream_log import StreamLog, is_match


class LogPublisher(ChunkPublisher):
    """Prints the event log of a feed on a descriptor."""

    def __init__(self, feed: Feed, host: str, log: StreamLog, descriptor: int = STDOUT) -> None:
        """``host`` is the name of this machine."""
        super().__init__(_chunks(Subscription(feed), host, log), descriptor)


async def _chunks(subscription: Subscription, host: str, log: StreamLog) -> AsyncIterator[bytes]:
    async for message in subscription:
        lines = list(log.of_message(host, message))
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
