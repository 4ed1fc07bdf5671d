"""The WebSocket server: accepts connections, subscribes them to the feed, and ends them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from websockets.frames import CloseCode
from websockets.http11 import Request

from ...stream.feed import Feed, NdjsonSubscription
from ...stream.filters import Filter
from ..http.page import Page, Reply
from . import limits
from .accept import Acceptor
from .access import Access
from .connection import Connection
from .listen import BACKLOG, Listener
from .peers import Peer, tcp_peer, unix_peer
from .protocol import frame
from .pump import Pump
from .query import SubscriptionQuery
from .registry import Registry
from .rejections import TOO_MANY_HANDSHAKES, Overload, Refusal, RejectionLog
from .router import route

# Pages of a snapshot: what the kernel takes at once of a client that reads, and what a client that
# does not read costs.
PAGE_BYTES = 64 * 1024
# How often deadlines are checked.
_SWEEP_SECONDS = 0.5
# Connections whose deadlines are checked in one turn of the event loop.
_SWEPT_PER_TURN = 1000
# Connections that are accepted in one turn.
_ACCEPTED_PER_TURN = 64


class Rules(NamedTuple):
    """What clients may do: make requests (``access``), see what passes ``limit_filter``."""

    access: Access = Access()
    limit_filter: Filter = Filter()


class Server:
    """A publisher that serves subscribers of a feed, and pages by path, on listening sockets."""

    def __init__(
        self,
        feed: Feed,
        listeners: Sequence[Listener],
        rules: Rules,
        registry: Registry,
        pages: Mapping[str, Page],
    ) -> None:
        self._feed = feed
        self._listeners = listeners
        self._rules = rules
        self._registry = registry
        self._pages = pages
        self._pump = Pump()
        self._servers: list[asyncio.Server] = []
        self._all_closed = asyncio.Event()

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._rules

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
        end = asyncio.get_running_loop().time() + limits.CLOSE_SECONDS
        self._pump.schedule(registry.subscribers())
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end - limits.CLOSE_SECONDS / 2):
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
        """Use other rules: access for new requests, the filter for all subscribers.

        Where the filter differs, subscriptions restart.
        """
        is_same_filter = rules.limit_filter == self._rules.limit_filter
        self._rules = rules
        if is_same_filter:
            return
        connections = self._registry.subscribers()
        for connection in connections:
            chosen = connection.requested_filter & rules.limit_filter
            view = self._feed.view(chosen, frame, PAGE_BYTES)
            connection.change_view(view)
            self._registry.change_view(connection, view)
        self._pump.schedule(connections)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if self._feed.stopped:  # `stop` may have closed the sockets.
                return
            peer_of = unix_peer if listener.socket.family == socket.AF_UNIX else tcp_peer
            factory = partial(Acceptor, self, self._add, peer_of, listener.tls)
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
        heartbeats: dict[int, bytes] = {}  # By seq: encoded once for all subscribers.
        for number, connection in enumerate(self._registry.connections(), 1):
            connection.expire(now)
            subscription = connection.idle_subscription(idle_since)
            if subscription is not None:
                heartbeat = heartbeats.get(subscription.seq)
                if heartbeat is None:
                    heartbeat = heartbeats[subscription.seq] = subscription.heartbeat()
                connection.send(heartbeat)
            if number % _SWEPT_PER_TURN == 0:
                await asyncio.sleep(0)

    # Called by connections.

    @property
    def rejections(self) -> RejectionLog:
        """The counters and the log of refusals and evictions."""
        return self._registry.rejections

    def respond(
        self, request: Request, peer: Peer
    ) -> Reply | SubscriptionQuery | Refusal | Overload:
        """Return the response to a request."""
        response = route(request, peer, self._rules.access, self._pages)
        if isinstance(response, SubscriptionQuery):
            overload = self._registry.overload(peer.group)
            if overload is not None:
                return Overload(overload)
        return response

    def subscribe(self, connection: Connection, query: SubscriptionQuery) -> NdjsonSubscription:
        """Register a connection as a subscriber; return its subscription."""
        subscription = self._feed.subscribe(
            query.filter & self._rules.limit_filter,
            resume=query.resume,
            snapshot=query.snapshot,
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

    def _add(self, connection: Connection) -> None:
        self._all_closed.clear()
        displaced = self._registry.add(connection)
        if displaced is None:
            return
        if displaced.is_handshaking:
            displaced.evict(TOO_MANY_HANDSHAKES)
        else:
            displaced.abort()
