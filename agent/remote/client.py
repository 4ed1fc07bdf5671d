"""Follows the feeds of remote agents, each until it is stopped, through every interruption.

It knows the network and the order of a stream, and nothing of sockets and processes.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    WebSocketException,
)

from .. import __version__
from ..errors import RuntimeFailure
from ..log import log, silent_logger
from .resume import InvalidFeed, ResumePosition

# The largest message: a record may be longer than the usual 256 KiB, with a command line in it.
MESSAGE_BYTES = 16 * 1024 * 1024
OPEN_SECONDS = 10.0
# An agent says something every 15 seconds: one that was silent for so long is gone.
SILENT_SECONDS = 45.0
# How long to wait before another attempt: at first, and at most.
FIRST_SECONDS, MOST_SECONDS = 0.5, 30.0
# Messages that wait for stdout, of all agents together.
MOST_WAITING = 32
# Of what an agent answers, so much is told.
_SENTENCE_BYTES = 200
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
# Answers that another attempt would not change.
_FINAL = _REDIRECTS | {400, 401, 403, 404, 405, 426, 501, 505}


class _Connect(connect):
    """A connection that follows no redirect: the library would send the token on in some cases, and
    what answers there is not what the user named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the exception that the answer is."""
        return exc


class RemoteAgent(NamedTuple):
    """An agent to follow: its ``url`` and what to ask of it; ``path`` of a unix socket."""

    url: str
    query: tuple[tuple[str, str], ...]
    token: str | None = None
    tls: ssl.SSLContext | None = None
    snapshots: bool = True

    def address(self, resume: tuple[str, int] | None) -> str:
        """Where to connect, to go on behind ``resume``."""
        parts = urlsplit("ws://localhost/events" if self.unix else self.url)
        path = parts.path if parts.path not in ("", "/") else "/events"
        pairs = list(self.query)
        if resume is not None:
            pairs += [("epoch", resume[0]), ("since", str(resume[1]))]
        query = "&".join(filter(None, (parts.query, urlencode(pairs))))
        return parts._replace(path=path, query=query).geturl()

    @property
    def unix(self) -> str | None:
        """The path of the unix socket, if it is one."""
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else None


async def follow_all(remotes: Sequence[RemoteAgent]) -> AsyncIterator[bytes]:
    """What these agents tell, in chunks of whole records. Raises RuntimeFailure."""
    chunks: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
    hosts: dict[str, str] = {}
    following = [asyncio.create_task(follow(remote, chunks, hosts)) for remote in remotes]
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


async def follow(remote: RemoteAgent, chunks: asyncio.Queue[bytes], hosts: dict[str, str]) -> None:
    """Follow one agent for ever; ``hosts`` are the URLs by host. Raises RuntimeFailure."""
    position = ResumePosition(snapshots=remote.snapshots)
    wait, failing = FIRST_SECONDS, False
    while True:
        try:
            async with _connection(remote, position.resume) as connection:
                position.connected()
                if failing:
                    log(f"{remote.url}: connected again")
                async for message in _messages(connection):
                    await chunks.put(position.take(message))
                    if hosts.setdefault(position.host, remote.url) != remote.url:
                        log(f"warning: {remote.url} has the name of another: {position.host}")
                        hosts[position.host] = remote.url
                    wait, failing = FIRST_SECONDS, False
        except (OSError, WebSocketException, ValueError) as error:
            reason, final = _why(error)
            if final:
                raise RuntimeFailure(f"{remote.url}: {reason}") from error
        if not failing:
            log(f"{remote.url}: {reason}; trying again")
            failing = True
        # Not all clients of an agent that restarts come back at the same moment.
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        wait = min(wait * 2, MOST_SECONDS)


def _connection(remote: RemoteAgent, resume: tuple[str, int] | None) -> connect:
    address = remote.address(resume)
    headers = {} if remote.token is None else {"Authorization": f"Bearer {remote.token}"}
    opening = partial(
        _Connect if remote.unix is None else partial(_Connect, unix=True, path=remote.unix),
        additional_headers=headers,
        compression=None,
        max_size=MESSAGE_BYTES,
        max_queue=4,
        open_timeout=OPEN_SECONDS,
        close_timeout=1.0,
        user_agent_header=f"sockagent/{__version__}",
        logger=silent_logger,
    )
    if address.startswith("wss:"):
        return opening(address, ssl=remote.tls)
    return opening(address)


async def _messages(connection: ClientConnection) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(SILENT_SECONDS):
            message = await connection.recv(decode=False)
        yield message


def _why(error: Exception) -> tuple[str, bool]:
    """What went wrong, and whether another attempt is in vain."""
    reason, final = str(error), False
    match error:
        case InvalidStatus(response=response):
            locations = ", ".join(response.headers.get_all("Location"))[:_SENTENCE_BYTES]
            body = (response.body or b"")[:_SENTENCE_BYTES].decode(errors="replace").strip()
            status = response.status_code
            reason, final = f"{status} {body or response.reason_phrase}", status in _FINAL
            if status in _REDIRECTS and locations:
                reason = (
                    f"it redirects to {locations}, which is not followed; "
                    "if that is the agent, connect to it"
                )
        case ssl.SSLCertVerificationError():
            reason, final = error.verify_message, True
        case InvalidFeed():
            reason, final = "this is no feed of sockagent", True
        case ConnectionClosed(rcvd=close) if close is not None:
            reason = f"it closed the connection: {close.code} {close.reason}".rstrip()
        case ConnectionClosed():
            reason = "the connection broke"
        case TimeoutError():
            reason = "it does not answer"
        case OSError():
            reason = error.strerror or str(error)
        case ValueError():  # The library's: of a host name that cannot be one.
            reason, final = f"the URL cannot be used: {error}", True
        case InvalidMessage():
            reason = "no HTTP comes back: it may take TLS (wss://), or a client certificate"
    return reason, final
