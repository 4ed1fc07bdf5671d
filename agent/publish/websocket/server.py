"""The WebSocket server: accepts connections, subscribes them to the feed, and ends them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from websockets.frames import CloseCode
from websockets.http11 import Request

from ...stream.filters import Filter
from ...stream.publication import ChunkSubscription, Subscribable
from ..http.pages import Page, Reply
from . import rejections
from .access import Access, Peer, tcp_peer, unix_peer
from .connection import Connection
from .listen import BACKLOG, Listener
from .protocol import frame
from .registry import Registry
from .rejections import TOO_MANY_HANDSHAKES, Overload, Refusal
from .router import SubscriptionQuery, route

# Pages of a snapshot: what the kernel takes at once of a client that reads, and what a client that
# does not read costs.
PAGE_BYTES = 64 * 1024
# How often deadlines are checked.
_SWEEP_SECONDS = 0.5
# Connections whose deadlines are checked in one turn of the event loop.
_SWEPT_PER_TURN = 1000
# Connections that are accepted in one turn.
_ACCEPTED_PER_TURN = 64
# How long connections are served before others of the event loop have their turn.
_TURN_SECONDS = 0.003
# Connections between two readings of the clock.
_CHECKED = 16
# How long asyncio waits for the peer's TLS close_notify.
_TLS_SHUTDOWN_SECONDS = 1.0


class Rules(NamedTuple):
    """What clients may do: make requests (``access``), see what passes ``limit_filter``."""

    access: Access = Access()
    limit_filter: Filter = Filter()


class Server:
    """A publisher that serves subscribers of a stream, and pages by path, on listening sockets."""

    def __init__(
        self,
        feed: Subscribable,
        listeners: Sequence[Listener],
        rules: Rules,
        registry: Registry,
        pages: Mapping[str, Page],
    ) -> None:
        self._feed = feed
        self._listeners = listeners
        self.rules = rules
        self._registry = registry
        self.rejections = registry.rejections
        self._pages = pages
        self._pump = Pump()
        self._servers: list[asyncio.Server] = []
        self._all_closed = asyncio.Event()

    async def run(self) -> None:
        """Accept and serve clients until the feed stops."""
        feed = self._feed
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._sweep_forever()), group.create_task(self._pump.run())]
            await self._listen()
            seen = feed.generation
            while not feed.stopped:
                generation = await feed.wait(seen, _SWEEP_SECONDS)
                if generation != seen:
                    seen = generation
                    self._pump.schedule(self._registry.subscribers())
            for task in tasks:
                task.cancel()

    async def stop(self) -> None:
        """Send what is left, close all connections, and wait CLOSE_SECONDS at most for it."""
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        registry = self._registry
        end = asyncio.get_running_loop().time() + rejections.CLOSE_SECONDS
        self._pump.schedule(registry.subscribers())
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end - rejections.CLOSE_SECONDS / 2):
                await self._pump.drain()
        for connection in registry.connections():
            connection.close(CloseCode.GOING_AWAY, "the agent is stopping")
        if len(registry):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._all_closed.wait()
        for connection in registry.connections():
            connection.abort()
        await asyncio.sleep(0)  # For connection_lost.

    def set_rules(self, rules: Rules) -> None:
        """Use other rules: access for new requests, the filter for all subscribers. Where the
        filter differs, subscriptions restart."""
        is_same_filter = rules.limit_filter == self.rules.limit_filter
        self.rules = rules
        if is_same_filter:
            return
        connections = self._registry.subscribers()
        for connection in connections:
            chosen = connection.requested_filter & rules.limit_filter
            view = connection.change_filter(chosen)
            self._registry.change_view(connection, view)
        self._pump.schedule(connections)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if self._feed.stopped:  # `stop` may have closed the sockets.
                return
            peer_of = unix_peer if listener.socket.family == socket.AF_UNIX else tcp_peer
            factory = partial(Acceptor, self, peer_of, listener.tls)
            self._servers.append(
                await loop.create_server(factory, sock=listener.socket, backlog=_ACCEPTED_PER_TURN)
            )
            # asyncio accepts up to `backlog` connections per turn and passes the same number to
            # listen(2): restore the larger one there.
            if not self._feed.stopped:
                listener.socket.listen(BACKLOG)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self._sweep()

    async def _sweep(self) -> None:
        """Act on deadlines, and send heartbeats."""
        now = asyncio.get_running_loop().time()
        idle_since = now - self._feed.heartbeat_seconds
        # By epoch and seq: encoded once for all subscribers.
        heartbeats: dict[tuple[str, int], bytes] = {}
        for number, connection in enumerate(self._registry.connections(), 1):
            connection.expire(now)
            for silent in connection.idle(idle_since):
                position = silent.position
                heartbeat = heartbeats.get(position)
                if heartbeat is None:
                    heartbeat = heartbeats[position] = silent.heartbeat()
                if not connection.send(heartbeat):
                    break
                self.schedule(connection)  # A checkpoint may be due.
            if number % _SWEPT_PER_TURN == 0:
                await asyncio.sleep(0)

    # Called by connections.

    def respond(
        self, request: Request, peer: Peer
    ) -> Reply | SubscriptionQuery | Refusal | Overload:
        """Return the response to a request."""
        response = route(request, peer, self.rules.access, self._pages)
        if isinstance(response, SubscriptionQuery):
            overload = self._registry.overload(peer.group)
            if overload is not None:
                return Overload(overload)
        return response

    def subscribe(self, connection: Connection, query: SubscriptionQuery) -> ChunkSubscription:
        """Register a connection as a subscriber; return its subscription."""
        subscription = self._feed.subscribe(
            query.filter & self.rules.limit_filter,
            resume=query.positions,
            snapshot=query.snapshot,
            checkpoint=query.checkpoint,
            wrap=frame,
            page_bytes=PAGE_BYTES,
        )
        self._registry.subscribe(connection, subscription.view)
        self.schedule(connection)
        return subscription

    def schedule(self, connection: Connection) -> None:
        """Call ``pump`` of a connection soon."""
        self._pump.schedule((connection,))

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is lost."""
        self._registry.remove(connection)
        if not len(self._registry):
            self._all_closed.set()

    def add(self, connection: Connection) -> None:
        """Count a new connection; end another one if there are too many."""
        self._all_closed.clear()
        displaced = self._registry.add(connection)
        if displaced is None:
            return
        if displaced.is_handshaking:
            displaced.evict(TOO_MANY_HANDSHAKES)
        else:
            displaced.abort()


class Acceptor(asyncio.Protocol):
    """The protocol of a new connection, until ``connection_made`` replaces it.

    asyncio itself reports a TLS connection only after its handshake. Here it is counted as pending
    from its first moment on, as any other.
    """

    def __init__(
        self,
        server: Server,
        peer_of: Callable[[asyncio.BaseTransport], Peer],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._server = server
        self._peer_of = peer_of
        self._tls = tls
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the connection and add it to the server."""
        assert isinstance(transport, asyncio.Transport)
        tls = self._tls
        peer = self._peer_of(transport)._replace(has_tls=tls is not None)
        connection = Connection(self._server, transport, peer, awaits_tls=tls is not None)
        transport.set_protocol(connection)
        self._server.add(connection)
        if tls is not None:
            self._handshake = asyncio.create_task(_start_tls(connection, transport, tls))


async def _start_tls(
    connection: Connection, transport: asyncio.Transport, tls: ssl.SSLContext
) -> None:
    try:
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            connection,
            tls,
            server_side=True,
            ssl_handshake_timeout=rejections.HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_TLS_SHUTDOWN_SECONDS,
        )
    except OSError as error:
        # Not TLS, no accepted client certificate, or disconnected. The traceback refers to the
        # error in one of its frames, and to asyncio's buffer of 256 KiB in another: a cycle, which
        # would stay until the garbage collector runs, which is rare.
        error.__traceback__ = None
        secured = None
    if secured is None:
        connection.fail_tls()
    else:
        connection.secure(secured)


class Pump:
    """A queue of connections that have something to send, or may have."""

    def __init__(self) -> None:
        self._due: dict[Connection, None] = {}
        self._has_due = asyncio.Event()

    def schedule(self, connections: Iterable[Connection]) -> None:
        """Queue connections; those that are queued keep their place."""
        self._due.update(dict.fromkeys(connections))
        self._has_due.set()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            await self._has_due.wait()
            self._has_due.clear()
            await self.drain()

    async def drain(self) -> None:
        """Send until no connection is due: each has sent everything or does not take more now."""
        clock = asyncio.get_running_loop().time
        turn_ends = clock() + _TURN_SECONDS
        while self._due:
            # Taken as a whole: finding the first item of a dict takes time for each deleted one.
            round_, self._due = self._due, {}
            for number, connection in enumerate(round_):
                has_more = connection.pump()
                if has_more:
                    self._due[connection] = None
                # A connection that has sent everything takes 10 µs, one with more a page of them.
                if (has_more or not number % _CHECKED) and clock() >= turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = clock() + _TURN_SECONDS
