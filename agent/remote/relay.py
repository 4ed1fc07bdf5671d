"""Mirrors of remote agents: what a relay serves again.

Each agent has one connection, and for a moment a second one: when the relay starts, it fetches the
history of the agent, so that the subscribers of the relay before it can resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol

from websockets.exceptions import WebSocketException

from ..errors import RuntimeFailure
from ..log import log
from ..stream.decoder import Began, Decoded, Dropped, decode
from ..stream.feed import Feed
from ..stream.fields import DecodeError
from ..stream.history import Batch
from ..stream.merged import MergedFeed
from ..stream.mirror import InvalidStream, Mirror, batches_of
from ..stream.publication import Positions
from .attempts import Attempts
from .client import RemoteAgent, attempts_at, connection_to, explain, follow, messages
from .resume import MAX_HOSTS, InvalidFeed

# How long the history of an agent may take: meanwhile its changes wait.
HISTORY_SECONDS = 5.0
# The agent drops old changes while they are asked for.
_HISTORY_ATTEMPTS = 3
# Records that are decoded in one turn of the event loop, in 5 ms or so.
_DECODED_PER_TURN = 100
# Time between attempts that will most likely fail in the same way: a wrong token, or no agent.
FINAL_SECONDS = 30.0
# The same failure of an agent is logged again after so many seconds.
REPEAT_SECONDS = 600.0


class Link(NamedTuple):
    """The connection to a remote agent: since when (on the monotonic clock) it is, or is not
    ``connected``, when the last message came, and why it ended. ``hosts`` came over it; ``refused``
    are those of them that another agent has, and ``silent`` hosts of a fleet that send nothing."""

    url: str
    connected: bool
    since: float
    heard_at: float
    reason: str
    hosts: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


class Followed(Protocol):
    """Something remote that is followed."""

    async def run(self) -> None:
        """Follow it until cancelled."""

    def link(self) -> Link:
        """Return the state of the connection."""


async def keep_following(following: Callable[[], Awaitable[object]], attempts: Attempts) -> None:
    """Follow something remote until cancelled. What cannot be repaired by another attempt is
    logged, and tried again now and then: other agents are served meanwhile."""
    loop = asyncio.get_running_loop()
    logged: dict[str, float] = {}
    while True:
        try:
            await following()
        except RuntimeFailure as error:
            message = str(error)
            if loop.time() - logged.get(message, float("-inf")) >= REPEAT_SECONDS:
                logged = {message: loop.time()}
                attempts.fail(f"{message}; trying again every {FINAL_SECONDS:.0f} s")
        await asyncio.sleep(FINAL_SECONDS)


class Relay:
    """Follows remote agents, and keeps a mirror of each host in ``merged``."""

    def __init__(
        self,
        remotes: Sequence[RemoteAgent],
        merged: MergedFeed,
        others: Callable[[dict[str, str]], Sequence[Followed]] = lambda _owners: (),
    ) -> None:
        """``others`` returns what else is followed; its argument has the URL of each host name."""
        self.merged = merged
        owners: dict[str, str] = {}
        self._receivers: list[Followed] = [
            _MirrorReceiver(remote, merged, owners) for remote in remotes
        ]
        self._receivers += others(owners)

    async def run(self) -> None:
        """Follow the agents until cancelled."""
        async with asyncio.TaskGroup() as group:
            for receiver in self._receivers:
                group.create_task(receiver.run())

    def links(self) -> list[Link]:
        """Return the connection to each agent."""
        return [receiver.link() for receiver in self._receivers]


class _MirrorReceiver:
    """Applies the messages of one agent, or of another relay, to a mirror of each host. ``owners``
    has the URL of each host name: of two agents with one name the first is kept."""

    def __init__(self, remote: RemoteAgent, merged: MergedFeed, owners: dict[str, str]) -> None:
        self._remote = remote
        self._merged = merged
        self._owners = owners
        self._mirrors: dict[str, Mirror] = {}
        self._refused: set[str] = set()  # Hosts that another agent has.
        self._greeted: set[str] = set()  # Hosts of this connection.
        now = asyncio.get_running_loop().time()
        self._link = Link(remote.url, False, now, now, "not connected yet")

    async def run(self) -> None:
        """Follow the agent until cancelled."""
        attempts = attempts_at(self._remote)
        await keep_following(partial(follow, self._remote, self, attempts), attempts)

    def link(self) -> Link:
        """Return the state of the connection."""
        refused = tuple(sorted(self._refused))
        return self._link._replace(hosts=tuple(self._mirrors), refused=refused)

    @property
    def resume(self) -> Positions:
        """The position in the stream of each host."""
        found = (mirror.position for mirror in self._mirrors.values())
        return tuple(position for position in found if position is not None)

    async def receive(self, message: bytes, *, is_first: bool) -> None:
        """Apply the records of a message. Raises InvalidFeed."""
        now = asyncio.get_running_loop().time()
        if is_first:
            self._greeted.clear()
            self._link = self._link._replace(connected=True, since=now)
        self._link = self._link._replace(heard_at=now)
        try:
            records: list[Decoded] = []
            for record in _decoded(message):
                records.append(record)
                if len(records) % _DECODED_PER_TURN == 0:
                    await asyncio.sleep(0)
            for host, of_host in groupby(records, attrgetter("host")):
                await self._apply(host, list(of_host))
        except (DecodeError, InvalidStream) as error:
            raise InvalidFeed(f"disconnected because of what it sends: {error}") from error
        await asyncio.sleep(0)  # Several messages may be there: others have their turn.

    def disconnect(self, reason: str) -> None:
        """Note that the agent is cut off."""
        if self._link.connected:
            now = asyncio.get_running_loop().time()
            self._link = self._link._replace(connected=False, since=now)
        self._link = self._link._replace(reason=reason)
        for host in self._mirrors:
            self._merged.set_connected(host, connected=False)

    async def _apply(self, host: str, records: list[Decoded]) -> None:
        mirror = self._mirrors.get(host) or self._add(host)
        if mirror is None:
            return
        first, *rest = records
        mirror.apply([first], is_first=host not in self._greeted)
        self._greeted.add(host)
        self._merged.set_connected(host, connected=True)
        if mirror.feed is None and isinstance(first.value, Began):
            history = await self._history(first, first.value)
            if history is not None:
                mirror.restore(*history)
        mirror.apply(rest, is_first=False)

    def _add(self, host: str) -> Mirror | None:
        """Return the mirror of a new host; None if another agent has this name."""
        url, owner = self._remote.url, self._owners.setdefault(host, self._remote.url)
        if owner != url:
            if host not in self._refused:
                log(f"{url}: refused, because {owner} has the same host name {host}")
            self._refused.add(host)
            return None
        if len(self._mirrors) >= MAX_HOSTS:
            raise InvalidStream(f"there are more than {MAX_HOSTS} hosts")

        def put(feed: Feed) -> None:
            self._merged.put(host, feed)

        mirror = self._mirrors[host] = Mirror(host, put, self._merged.wake)
        return mirror

    async def _history(self, hello: Decoded, began: Began) -> tuple[list[Batch], int] | None:
        """Fetch all changes that the agent has up to its ``hello``, over another connection. Return
        them, and the number after which they begin; None if they cannot be had."""
        oldest, reason = began.oldest, "it drops them too fast"
        if oldest is None or oldest >= hello.seq:
            return None
        try:
            async with asyncio.timeout(HISTORY_SECONDS):
                for _ in range(_HISTORY_ATTEMPTS):
                    found = await self._fetch(hello, (began.epoch, oldest))
                    if not isinstance(found, int):
                        return found, oldest
                    oldest = found
                    if oldest >= hello.seq:
                        break
        except (OSError, WebSocketException) as error:
            reason = explain(error)[0]
        except DecodeError as error:
            reason = str(error)
        log(
            f"{self._remote.url}: the changes before this start cannot be fetched: {reason}; "
            f"subscribers of {hello.host} cannot resume over it"
        )
        return None

    async def _fetch(self, hello: Decoded, after: tuple[str, int]) -> list[Batch] | int:
        """Return the changes after a position up to ``hello``, or, where the agent has dropped
        them, the number after which it has them. Raises OSError, WebSocketException and
        DecodeError."""
        remote = self._remote
        remote = remote._replace(query=(*remote.query, ("snapshot", "0")))
        found: list[Decoded] = []
        async with connection_to(remote, (after,)) as connection:
            async for message in messages(connection):
                for record in _decoded(message):
                    if record.host != hello.host:
                        continue
                    if isinstance(record.value, Began):
                        if not record.value.resumed:
                            return record.value.oldest or hello.seq
                    elif isinstance(record.value, Dropped):
                        return record.seq
                    elif record.seq <= hello.seq:
                        found.append(record)
                    if record.seq >= hello.seq:
                        return list(batches_of(found))
        raise TimeoutError  # Not reached: messages ends with an exception.


def _decoded(message: bytes) -> Iterator[Decoded]:
    """Yield the records of a message. Raises DecodeError."""
    return (decode(line) for line in message.split(b"\n") if line)
