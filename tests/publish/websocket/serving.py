"""A server on loopback over a feed that a test drives, and clients of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from websockets.asyncio.client import ClientConnection, connect, unix_connect

from agent.address import parse_address
from agent.model import Coverage, Holding
from agent.publish.websocket.access import Access
from agent.publish.websocket.limits import Limits
from agent.publish.websocket.listen import Listener, opened
from agent.publish.websocket.server import Answer, Server
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from ...feeding import AGENT
from ...make import (
    SIGHT,
    Fold,
    Record,
    fold,
    records,
    snapshot,
)

# Nothing here takes so long, unless it hangs.
HANGS_SECONDS = 20.0
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Serving:
    """The server, its feed, and where it is."""

    def __init__(self, server: Server, feed: Feed, listeners: list[Listener]) -> None:
        self.server = server
        self.feed = feed
        self.listeners = listeners
        self._tracker = DeltaTracker()

    @property
    def port(self) -> int:
        port: int = self.listeners[0].socket.getsockname()[1]
        return port

    def poll(self, *held: Holding, coverage: Coverage = SIGHT) -> None:
        current = snapshot(*held, coverage=coverage)
        self.feed.publish(current, self._tracker.advance(current))

    def client(self, query: str = "", **options: Any) -> connect:
        scheme = "wss" if "ssl" in options else "ws"
        options = {"max_size": 256 * 1024, "host": "127.0.0.1", **options}
        return connect(
            f"{scheme}://localhost:{self.port}/events{query}",
            compression=None,
            **options,
        )

    def unix(self, query: str = "", **options: Any) -> connect:
        path = self.listeners[-1].listen.path
        assert path
        return unix_connect(path, uri=f"ws://localhost/events{query}", **options)

    def raw(self, request: str | None = None) -> socket.socket:
        """A connection of which nothing is read; ``request`` is sent on it."""
        made = socket.create_connection(("127.0.0.1", self.port))
        if request is not None:
            made.sendall(request.encode())
        made.setblocking(False)
        return made

    async def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
        """The status and the body of a plain request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", *(headers or ("Host: localhost",)), "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = (await asyncio.wait_for(reader.read(), HANGS_SECONDS)).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def subscribed(self, count: int) -> None:
        """Wait until there are so many subscribers."""
        async with asyncio.timeout(HANGS_SECONDS):
            while self.server.subscribers != count:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    *addresses: str,
    access: Access | None = None,
    limits: Limits | None = None,
    tls: SSLContext | None = None,
    answers: dict[str, Answer] | None = None,
    narrowed: Filter | None = None,
    agent: AgentInfo = AGENT,
    **feed: Any,
) -> AsyncIterator[Serving]:
    """A server at these addresses, by default at one of loopback."""
    made = Feed(agent, **feed)
    server = Server(
        made,
        access or Access(),
        limits or Limits(),
        answers or {},
        narrowed=narrowed or Filter(),
    )
    listeners = [
        listener
        for address in addresses or ("127.0.0.1:0",)
        for listener in opened(parse_address(address), 0o600)
    ]
    await server.listen(listeners, tls)
    running = asyncio.create_task(server.run())
    try:
        yield Serving(server, made, listeners)
    finally:
        running.cancel()
        await server.stop()


async def message(connection: ClientConnection) -> list[Record]:
    """The records of the next message."""
    async with asyncio.timeout(HANGS_SECONDS):
        text = await connection.recv()
    assert isinstance(text, str)
    return records(text.encode())


async def told(connection: ClientConnection, until: str) -> list[Record]:
    """Everything up to a record of this event."""
    found: list[Record] = []
    while not found or found[-1]["event"] != until:
        found += await message(connection)
    return found


async def folded(connection: ClientConnection, seq: int, state: Fold | None = None) -> Fold:
    """What a client holds once it has seen this delta."""
    state = state or {}
    whole = False
    while True:
        got = await message(connection)
        state = fold(state, got)
        whole = whole or any(one["event"] == "snapshot_end" for one in got)
        if whole and got[-1]["seq"] >= seq:
            return state
