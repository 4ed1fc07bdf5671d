"""Records of a fleet for an output that only prints them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from .consumer import Fleet, FleetConsumer, HostRecords

Put = Callable[[bytes], Awaitable[None]]


async def follow_fleet(fleet: Fleet, checkpoints: bool, put: Put) -> NoReturn:
    """Put the records of a fleet until cancelled. ``checkpoints``: also the snapshots that repeat
    what was put. Raises RuntimeFailure."""
    await FleetConsumer(fleet, _Putter(put), checkpoints=checkpoints).run()


class _Putter:
    """Puts records; everything else is for views that show it."""

    def __init__(self, put: Put) -> None:
        self._put = put

    def connect(self) -> None:
        """Do nothing."""

    def disconnect(self, reason: str) -> None:
        """Do nothing: the next connection goes on."""

    async def receive(self, found: HostRecords) -> None:
        """Put records."""
        await self._put(found.records)

    def set_silent(self, host: str, *, silent: bool) -> None:
        """Do nothing: the consumer logs it."""
