"""Publishers: each sends the records of the feed to one kind of destination, which is standard
output or the clients of the WebSocket server."""

from __future__ import annotations

from typing import Protocol


class Publisher(Protocol):
    """Sends the records of a feed to one destination. It is constructed with the feed."""

    async def run(self) -> None:
        """Publish until the feed stops or the reader leaves. Raises RuntimeFailure."""

    async def stop(self) -> None:
        """Deliver what is left and close everything, within about a second. Call it after
        ``Feed.stop()``, while ``run`` may still be running; cancel ``run`` after it."""
