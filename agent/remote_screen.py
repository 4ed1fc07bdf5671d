"""The records of remote agents and fleets, as the screen takes them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn

from .config import Config
from .log import LineLimit
from .publish.terminal.eventlog import clock_text
from .publish.top.sources import RemoteSource
from .remote.client import RemoteAgent, follow, follow_all
from .remote.nats.printing import follow_fleet
from .remote.resume import ResumePosition
from .remotes import configured_fleets, configured_remotes
from .stream.decoder import Decoded, decode
from .stream.fields import DecodeError
from .stream.filters import Filter
from .stream.publication import Positions


def remote_source(config: Config) -> RemoteSource:
    """Return the records of the remote agents and fleets, all of them: the filter of the screen may
    change. Raises ConfigFailure."""
    everything = Filter()
    links = [_Link(agent) for agent in configured_remotes(config.network, everything)]
    fleets = configured_fleets(config, everything)
    followers = [link.follow for link in links]
    others = [partial(follow_fleet, fleet, False) for fleet in fleets]
    chunks = follow_all((), [*followers, *others])
    return RemoteSource(_decoded(chunks), partial(_notice, links, config.view.utc))


def _notice(links: Sequence[_Link], utc: bool) -> str | None:
    """Return which agents are not connected, and why; None if all are."""
    lost = [link for link in links if link.reason is not None]
    if not lost:
        return None
    first = lost[0]
    what = "cut off" if first.was_connected else "not connected"
    since = f"{first.url}: {what} since {clock_text(first.since, utc=utc)}, {first.reason}"
    return since if len(lost) == 1 else f"{since}; and {len(lost) - 1} more"


class _Link:
    """The connection to a remote agent. ``reason`` is why there is none since ``since``, None if
    there is one; ``was_connected``: there was one before."""

    def __init__(self, agent: RemoteAgent) -> None:
        self.url = agent.url
        self.reason: str | None = "connecting"
        self.since = time.time()
        self.was_connected = False
        self._agent = agent
        self._position = ResumePosition(snapshots=agent.snapshots)
        self._put: Callable[[bytes], Awaitable[None]] | None = None

    async def follow(self, put: Callable[[bytes], Awaitable[None]]) -> NoReturn:
        """Put the records of the agent until cancelled. Raises RuntimeFailure."""
        self._put = put
        await follow(self._agent, self)

    @property
    def resume(self) -> Positions:
        """Where the next connection is to resume."""
        return self._position.resume

    async def receive(self, message: bytes, *, is_first: bool) -> None:
        """Put the records of a message. Raises InvalidFeed."""
        records = self._position.pass_on(message, is_first=is_first)
        self.reason, self.was_connected = None, True
        if self._put is not None:
            await self._put(records)

    def disconnect(self, reason: str) -> None:
        """Note that the agent is cut off."""
        if self.reason is None:
            self.since = time.time()
        self.reason = reason


async def _decoded(chunks: AsyncIterator[bytes]) -> AsyncIterator[Sequence[Decoded]]:
    """Yield the records of each chunk; those that this version cannot read are left out."""
    limit = LineLimit("about records of remote agents")
    async for chunk in chunks:
        records: list[Decoded] = []
        for line in chunk.splitlines():
            try:
                records.append(decode(line))
            except DecodeError as error:
                message = f"warning: a record of a remote agent is left out: {error}"
                limit.log(message, time.monotonic())
        yield records
