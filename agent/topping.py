"""What ``sockagent top`` shows: this machine, remote agents, or a recording, on the screen."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, tzinfo
from functools import partial
from typing import NoReturn

from .config import Config
from .log import LineLimit
from .output import view_options
from .publish.terminal.eventlog import clock_text
from .publish.top.publisher import ScreenPublisher
from .publish.top.screen import Settings, TopApp
from .publish.top.sources import FeedSource, Queues, RecordingSource, RemoteSource, Source
from .remote.client import RemoteAgent, follow, follow_all
from .remote.nats.printing import follow_fleet
from .remote.resume import ResumePosition
from .remotes import configured_fleets, configured_remotes
from .services import read_services, with_numbers
from .snapshot.poller import Poller
from .sources import host_name
from .stream.decoder import Decoded, decode
from .stream.feed import Feed
from .stream.fields import DecodeError
from .stream.filters import Filter
from .stream.publication import Positions
from .stream.targets import parse_targets
from .stream.times import Span, parse_time

# What shlex.split interprets.
_SPECIAL = re.compile(r"[\s'\"\\#]")


def feed_screen(config: Config, feed: Feed, poller: Poller) -> ScreenPublisher:
    """Return what shows the feed of this machine."""
    host = host_name()
    source = FeedSource(feed, host, partial(_queues, host, poller))
    return ScreenPublisher(source, _app(config, source))


def screen(config: Config) -> ScreenPublisher:
    """Return what shows remote agents or a recording. Raises ConfigFailure."""
    view = config.view
    source: Source
    if view.read is None:
        source = _remote(config)
    else:
        find = None if view.at is None else partial(_start, view.at, UTC if view.utc else None)
        source = RecordingSource(view.read, find)
    return ScreenPublisher(source, _app(config, source))


def _app(config: Config, source: Source) -> TopApp:
    view = config.view
    settings = Settings(
        view_options(config, "log", os.environ),
        may_signal=source.is_local and not view.read_only and config.proc == "/proc",
        names=view.resolve,
        services=read_services(),
        parse=parse_filter,
    )
    return TopApp(source, filter_text(config.filter), settings)


def _start(text: str, zone: tzinfo | None, span: Span) -> float:
    return parse_time(text, lambda: span, zone)


def _queues(host: str, poller: Poller) -> Queues:
    """Return the accept queues as the poller has read them."""
    return {
        (host, socket.inode): (socket.recv_q, socket.backlog)
        for socket in poller.tables.sockets.values()
        if socket.state == "LISTEN" and socket.recv_q is not None and socket.backlog is not None
    }


# The filter.


def parse_filter(text: str) -> Filter:
    """Return the filter that a line of targets means. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return Filter(parse_targets(with_numbers(words)))


def filter_text(chosen: Filter) -> str:
    """Return a line that ``parse_filter`` makes a filter of."""
    words = (f"{name}={','.join(sorted(values))}" for name, values in sorted(chosen.values))
    return " ".join(shlex.quote(word) if _SPECIAL.search(word) else word for word in words)


# Remote agents.


def _remote(config: Config) -> RemoteSource:
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
    since = f"{first.url}: cut off since {clock_text(first.since, utc=utc)}, {first.reason}"
    return since if len(lost) == 1 else f"{since}; and {len(lost) - 1} more"


class _Link:
    """The connection to a remote agent. ``reason`` is why there is none since ``since``; None if
    there is one."""

    def __init__(self, agent: RemoteAgent) -> None:
        self.url = agent.url
        self.reason: str | None = "not connected yet"
        self.since = time.time()
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
        self.reason = None
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
