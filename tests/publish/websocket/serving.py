"""A server on loopback, whose feed a test publishes to, and clients of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.address import parse_address
from agent.model import Coverage, Holding
from agent.publish.http.pages import Page
from agent.publish.websocket.access import Access
from agent.publish.websocket.listen import Listener, open_listeners
from agent.publish.websocket.registry import Limits, Registry
from agent.publish.websocket.server import Rules, Server
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.publication import Subscribable

from ...feeding import AGENT
from ...make import (
    FULL_COVERAGE,
    Record,
    holding,
    records,
    snapshot,
    tcp,
)

# A test that waits longer than this hangs.
HANGS_SECONDS = 20.0
LIMITS = Limits(1000, 250, 200)
TOKEN = "0123456789abcdef"
MANY = [holding(tcp(inode, local_port=inode)) for inode in range(1, 1001)]
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Serving:
    """The server, the feed that it serves, its connections and its listening sockets."""

    def __init__(
        self, server: Server, feed: Feed, registry: Registry, listeners: list[Listener]
    ) -> None:
        self.server = server
        self.feed = feed
        self.registry = registry
        self.listeners = listeners
        self._tracker = DeltaTracker()

    @property
    def port(self) -> int:
        port: int = self.listeners[0].socket.getsockname()[1]
        return port

    def poll(self, *held: Holding, coverage: Coverage = FULL_COVERAGE) -> None:
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
        """Return a connection that is not read from, after sending a request."""
        made = socket.create_connection(("127.0.0.1", self.port))
        if request is not None:
            made.sendall(request.encode())
        made.setblocking(False)
        return made

    async def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
        """Return the status and the body of the response to a plain request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", *(headers or ("Host: localhost",)), "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = (await asyncio.wait_for(reader.read(), HANGS_SECONDS)).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def subscribed(self, count: int) -> None:
        """Wait until there are ``count`` subscribers."""
        async with asyncio.timeout(HANGS_SECONDS):
            while self.registry.subscriber_count != count:  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    *addresses: str,
    access: Access | None = None,
    limits: Limits | None = None,
    tls: SSLContext | None = None,
    limit_filter: Filter | None = None,
    pages: Callable[[Feed, Registry], dict[str, Page]] = lambda _feed, _registry: {},
    agent: AgentInfo = AGENT,
    served: Subscribable | None = None,
    **feed_options: Any,
) -> AsyncIterator[Serving]:
    """Run a server at these addresses, by default at one of loopback. ``served`` is what it serves,
    by default the feed of an agent."""
    feed = Feed(agent, **feed_options)
    registry = Registry(limits or LIMITS)
    listeners = [
        listener
        for address in addresses or ("127.0.0.1:0",)
        for listener in open_listeners(parse_address(address), 0o600, tls)
    ]
    rules = Rules(access or Access(), limit_filter or Filter())
    server = Server(served or feed, listeners, rules, registry, pages(feed, registry))
    running = asyncio.create_task(server.run())
    try:
        yield Serving(server, feed, registry, listeners)
    finally:
        await server.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def message(connection: ClientConnection) -> list[Record]:
    """Return the records of the next message."""
    async with asyncio.timeout(HANGS_SECONDS):
        text = await connection.recv()
    assert isinstance(text, str)
    return records(text.encode())


async def read_until(connection: ClientConnection, event: str) -> list[Record]:
    """Return all records up to one of this event."""
    received: list[Record] = []
    while not received or received[-1]["event"] != event:
        received += await message(connection)
    return received


async def status_of(connecting: connect) -> tuple[int, str]:
    """Return the status and the body with which a WebSocket handshake is refused."""
    with pytest.raises(InvalidStatus) as raised:
        async with connecting:
            pass
    response = raised.value.response
    return response.status_code, (response.body or b"").decode()


async def end_of(connection: ClientConnection) -> tuple[int, str]:
    """Return the code and the reason with which the server closes a connection."""
    async with asyncio.timeout(HANGS_SECONDS):
        with pytest.raises(ConnectionClosed) as raised:
            while True:
                await connection.recv()
    closed = raised.value.rcvd
    assert closed
    return closed.code, closed.reason
