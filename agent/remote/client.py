"""Client of the feeds of remote agents: reconnects after every interruption and resumes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    WebSocketException,
)

from .. import __version__
from ..address import ListenAddress
from ..errors import RuntimeFailure
from ..log import log, silent_logger
from ..stream.filters import Filter
from ..stream.publication import Positions
from .attempts import Attempts
from .resume import InvalidFeed, ResumePosition

# A record with a command line may be longer than the library's limit of 1 MiB.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
OPEN_SECONDS = 10.0
# An agent sends a heartbeat every 15 seconds at least.
SILENT_SECONDS = 45.0
# Time between attempts, doubled after each one.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 30.0
# At an agent of this machine: an attempt costs next to nothing, and a publisher that waits longer
# would miss what the restarted agent no longer remembers.
MAX_LOCAL_BACKOFF_SECONDS = 2.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Messages of all agents that wait for stdout.
MAX_WAITING = 32
# Text of a server that is quoted in a message.
_MAX_QUOTED = 200
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
# Positions that a request states, which may have 8 KiB. Hosts beyond them begin anew.
MAX_POSITIONS = 150
# HTTP statuses that another attempt would not change.
_FINAL = _REDIRECTS | {400, 401, 403, 404, 405, 426, 501, 505}


class _Connect(connect):
    """A connection without redirects: the library would send the token to the new address in some
    cases, and that address is not the one the user named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the exception: the attempt fails."""
        return exc


class RemoteAgent(NamedTuple):
    """An agent to follow: its ``url`` (ws, wss or unix:PATH) and the ``query`` of filters."""

    url: str
    query: tuple[tuple[str, str], ...]
    token: str | None = None
    tls: ssl.SSLContext | None = None
    snapshots: bool = True

    def request_url(self, resume: Positions) -> str:
        """Return the URL to request, which resumes after these (epoch, seq)."""
        parts = urlsplit("ws://localhost/events" if self.unix_path else self.url)
        path = parts.path if parts.path not in ("", "/") else "/events"
        pairs = list(self.query)
        for epoch, seq in resume[:MAX_POSITIONS]:
            pairs += [("epoch", epoch), ("since", str(seq))]
        query = "&".join(filter(None, (parts.query, urlencode(pairs))))
        return parts._replace(path=path, query=query).geturl()

    @property
    def unix_path(self) -> str | None:
        """The path of the unix socket; None of a TCP connection."""
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else None

    @property
    def is_local(self) -> bool:
        """Whether the agent runs on this machine."""
        return self.unix_path is not None or urlsplit(self.url).hostname in _LOOPBACK


def remote_agents(
    urls: Sequence[str], chosen: Filter, token: str | None, tls: ssl.SSLContext | None
) -> list[RemoteAgent]:
    """Return the agents at ``urls``, each asked for the records that pass a filter."""
    query = tuple((name, value) for name, values in chosen.values for value in sorted(values))
    has_snapshots = "snapshot" in chosen.events
    for url in urls:
        host = ListenAddress(urlsplit(url).hostname or "", 0)
        if token is not None and url.startswith("ws:") and not host.is_local:
            log(f"warning: the token is sent to {url} without encryption; use wss://")
    return [RemoteAgent(url, query, token, tls, has_snapshots) for url in urls]


class BeginAgain(Exception):
    """Raised by a receiver: connect to the agent again, at once."""


class Receiver(Protocol):
    """Takes the messages of a remote agent, over all connections to it."""

    @property
    def resume(self) -> Positions:
        """Where the next connection is to resume."""

    async def receive(self, message: bytes, *, is_first: bool) -> None:
        """Take a message. ``is_first``: it is the first one of a connection. Raises InvalidFeed and
        BeginAgain."""

    def disconnect(self, reason: str) -> None:
        """Note that the connection has ended, or could not be made."""


# Puts records until it is cancelled. Raises RuntimeFailure.
Follower = Callable[[Callable[[bytes], Awaitable[None]]], Coroutine[object, object, NoReturn]]


async def follow_all(
    remotes: Sequence[RemoteAgent], others: Sequence[Follower] = ()
) -> AsyncIterator[bytes]:
    """Yield the records of these agents, and of what else puts records, in chunks of whole lines.
    Raises RuntimeFailure."""
    chunks: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
    urls: dict[str, str] = {}
    following = [
        asyncio.create_task(follow(remote, _Queue(remote, chunks, urls))) for remote in remotes
    ] + [asyncio.create_task(other(chunks.put)) for other in others]
    try:
        while True:
            getting = asyncio.ensure_future(chunks.get())
            await asyncio.wait((getting, *following), return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
                continue
            getting.cancel()
            for task in following:
                if task.done():
                    task.result()
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


class _Queue:
    """Puts the records of an agent into a queue. ``urls`` has the URL of each host name, to warn of
    two agents with the same name."""

    def __init__(
        self, remote: RemoteAgent, chunks: asyncio.Queue[bytes], urls: dict[str, str]
    ) -> None:
        self._url = remote.url
        self._chunks = chunks
        self._urls = urls
        self._position = ResumePosition(snapshots=remote.snapshots)

    @property
    def resume(self) -> Positions:
        """Where the next connection is to resume."""
        return self._position.resume

    async def receive(self, message: bytes, *, is_first: bool) -> None:
        """Put the records of a message. Raises InvalidFeed."""
        await self._chunks.put(self._position.pass_on(message, is_first=is_first))
        urls, url = self._urls, self._url
        for host in self._position.hosts:
            if urls.setdefault(host, url) != url:
                other, urls[host] = urls[host], url
                log(f"warning: {url} and {other} have the same host name {host}")

    def disconnect(self, reason: str) -> None:
        """Do nothing: the next connection resumes."""


def attempts_at(remote: RemoteAgent) -> Attempts:
    """Return the attempts to connect to an agent, of which there was none yet."""
    longest = MAX_LOCAL_BACKOFF_SECONDS if remote.is_local else MAX_BACKOFF_SECONDS
    return Attempts(remote.url, MIN_BACKOFF_SECONDS, longest)


async def follow(
    remote: RemoteAgent, receiver: Receiver, attempts: Attempts | None = None
) -> NoReturn:
    """Pass the messages of an agent to a receiver until cancelled. ``attempts`` are those before,
    if there were any. Raises RuntimeFailure."""
    attempts = attempts or attempts_at(remote)
    while True:
        try:
            async with connection_to(remote, receiver.resume) as connection:
                is_first = True
                async for message in messages(connection):
                    await receiver.receive(message, is_first=is_first)
                    attempts.succeed()
                    is_first = False
        except BeginAgain:
            continue
        except (OSError, WebSocketException, ValueError) as error:
            reason, is_final = explain(error)
            receiver.disconnect(reason)
            if is_final:
                raise RuntimeFailure(f"{remote.url}: {reason}") from error
        await attempts.wait(reason)


def connection_to(remote: RemoteAgent, resume: Positions) -> connect:
    """Return a connection to the feed of an agent, to be entered."""
    url, path = remote.request_url(resume), remote.unix_path
    headers = {} if remote.token is None else {"Authorization": f"Bearer {remote.token}"}
    opening = partial(
        _Connect if path is None else partial(_Connect, unix=True, path=path),
        additional_headers=headers,
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
        max_queue=4,
        open_timeout=OPEN_SECONDS,
        close_timeout=1.0,
        user_agent_header=f"sockagent/{__version__}",
        logger=silent_logger,
    )
    return opening(url, ssl=remote.tls) if url.startswith("wss:") else opening(url)


async def messages(connection: ClientConnection) -> AsyncIterator[bytes]:
    """Yield the messages of a connection. Raises TimeoutError after SILENT_SECONDS without one."""
    while True:
        async with asyncio.timeout(SILENT_SECONDS):
            message = await connection.recv(decode=False)
        yield message


def explain(error: Exception) -> tuple[str, bool]:
    """Return what failed, and whether another attempt is useless."""
    reason, is_final = str(error), False
    match error:
        case InvalidStatus(response=response):
            locations = ", ".join(response.headers.get_all("Location"))[:_MAX_QUOTED]
            body = (response.body or b"")[:_MAX_QUOTED].decode(errors="replace").strip()
            status = response.status_code
            reason, is_final = f"{status} {body or response.reason_phrase}", status in _FINAL
            if status in _REDIRECTS and locations:
                reason = f"redirects to {locations}, which is not followed; pass that URL instead"
        case ssl.SSLCertVerificationError():
            reason, is_final = error.verify_message, True
        case InvalidFeed():
            reason, is_final = str(error) or "the server is not a sockagent", True
        case ConnectionClosed(rcvd=close) if close is not None:
            reason = f"connection closed by the server: {close.code} {close.reason}".rstrip()
        case ConnectionClosed():
            reason = "connection lost"
        case TimeoutError():
            reason = "no response"
        case OSError():
            reason = error.strerror or str(error)
        case ValueError():  # Raised by the library for an impossible host name.
            reason, is_final = f"invalid URL: {error}", True
        case InvalidMessage():
            reason = "no HTTP response; the server may require TLS (wss://) or a client certificate"
    return reason, is_final
