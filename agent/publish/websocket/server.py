"""The WebSocket server: who connects, how many, and what is sent to whom when.

One task serves all subscribers: it sends what is new to those that are through with what came
before; the others go on by themselves as they take what was sent. It knows the feed, and nothing
of procfs and the tracker.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from ...errors import UsageError
from ...stream.feed import Feed
from ...stream.filters import Filter
from ...stream.ndjson import NdjsonSubscription
from ...stream.view import View
from . import query
from .access import Access
from .connection import Client, frame
from .limits import Limits
from .listen import BACKLOG, Listener
from .peers import tcp_peer, unix_peer
from .rejections import CROWDED, LATE, SLOW, Eviction, Tally
from .tls import Handshake

# Pages of a snapshot: what the kernel takes at a time from one that reads, and what one costs that
# does not.
PAGE_BYTES = 64 * 1024
# How long a request may take to come, and a message to be taken.
HANDSHAKE_SECONDS = 10.0
STALL_SECONDS = 30.0
# How long a client that is told to go may take; an end of the agent waits for no more.
CLOSE_SECONDS = 1.0
# How often deadlines are looked at.
_SWEEP_SECONDS = 0.5
# How long clients are served in one turn of the event loop, while others wait.
_TURN_SECONDS = 0.003
# Clients whose deadlines are looked at in one turn.
_LOOKED_AT = 1000
# Connections that are accepted in one turn.
_ACCEPTED = 64

# Served without a token.
FREE = frozenset({"/healthz"})
Answer = Callable[[], tuple[int, str, bytes]]  # Status, content type, content.


class Server:
    """Serves subscribers of one feed. ``answers`` are what is to be had besides it, by path;
    those in ``FREE`` without a token. ``narrowed``: nobody sees more than this."""

    def __init__(
        self,
        feed: Feed,
        access: Access,
        limits: Limits,
        answers: dict[str, Answer],
        narrowed: Filter,
    ) -> None:
        self.access = access
        self.stopping: Callable[[], None] = _nothing  # Called as it begins to stop,
        self.stopped: Callable[[], None] = _nothing  # and once all are gone.
        self.tally = Tally()
        self._feed = feed
        self._limits = limits
        self._answers = answers
        self._narrowed = narrowed
        self._clients: set[Client] = set()
        # All that are no subscribers, by origin and in the order in which they came: handshakes,
        # and those that were answered or refused and are not gone yet.
        self._strangers: dict[str, dict[Client, None]] = {}
        self._handshakes: set[Client] = set()
        self._origins: Counter[str] = Counter()  # Subscribers.
        self._subscribers: dict[View, set[Client]] = {}
        self._servers: list[asyncio.Server] = []
        self._listeners: list[Listener] = []
        self._behind: dict[Client, None] = {}  # Who is to be pumped, in the order of their turns.
        self._work = asyncio.Event()  # That there is somebody.
        self._empty = asyncio.Event()

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return sum(map(len, self._subscribers.values()))

    async def listen(self, listeners: Sequence[Listener], tls: ssl.SSLContext | None) -> None:
        """Begin to accept connections, over TCP with TLS if there is any."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            self._listeners.append(listener)
            local = listener.socket.family == socket.AF_UNIX
            factory: Callable[[], asyncio.Protocol] = partial(
                Client, self, unix_peer if local else tcp_peer
            )
            if tls is not None and not local:
                factory = partial(Handshake, self, tls, HANDSHAKE_SECONDS)
            self._servers.append(
                await loop.create_server(factory, sock=listener.socket, backlog=_ACCEPTED)
            )
            # asyncio accepts as many in one turn as may wait: fewer of the one, more of the other.
            listener.socket.listen(BACKLOG)

    async def run(self) -> None:
        """Serve, until it is cancelled."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work) for work in (self._sweep_for_ever(), self._catch_up())]
        seen = self._feed.generation
        try:
            while True:
                newest = await self._feed.wait(seen, _SWEEP_SECONDS)
                if newest != seen:
                    seen = newest
                    await self._pump()
        finally:
            for task in tasks:
                task.cancel()

    async def stop(self) -> None:
        """End all, the stalled ones too; those that read are told that the agent stops."""
        self.stopping()
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.remove()
        until = asyncio.get_running_loop().time() + CLOSE_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until - CLOSE_SECONDS / 2):
                await self._pump()
        for client in list(self._clients):
            client.close(CloseCode.GOING_AWAY, "the agent stops")
        if self._clients:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._empty.wait()
        for client in list(self._clients):
            client.abort()
        await asyncio.sleep(0)
        self.stopped()

    def narrow(self, narrowed: Filter) -> None:
        """Let nobody see more than this from now on: subscribers begin anew."""
        if narrowed == self._narrowed:
            return
        self._narrowed = narrowed
        for client in list(self._clients):
            if client.subscription is not None and client.wanted is not None:
                self._unsubscribe(client)
                chosen = client.wanted & narrowed
                client.subscription.change_view(self._feed.view(chosen, frame, PAGE_BYTES))
                self._subscribe(client)
                self.has_more(client)

    async def _pump(self) -> None:
        """Send what is new to all who are through with what came before."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        for clients in list(self._subscribers.values()):
            for served, client in enumerate(list(clients)):
                client.pump()
                if not served % 16 and clock() - begun >= _TURN_SECONDS:
                    await asyncio.sleep(0)
                    begun = clock()

    def has_more(self, client: Client) -> None:
        """It is to be pumped, when there is time."""
        self._behind[client] = None
        self._work.set()

    async def _catch_up(self) -> None:
        """Send the rest to those for whom one turn was not enough, each in its turn, for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._work.wait()
            begun = clock()
            while self._behind:
                client = next(iter(self._behind))
                del self._behind[client]
                client.pump()
                if clock() - begun >= _TURN_SECONDS:
                    await asyncio.sleep(0)
                    begun = clock()
            self._work.clear()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self._sweep()

    async def _sweep(self) -> None:
        """See to deadlines and heartbeats."""
        now = asyncio.get_running_loop().time()
        quiet = now - self._feed.heartbeat_seconds
        beats: dict[int, bytes] = {}
        for served, client in enumerate(list(self._clients), 1):
            subscription = client.subscription
            if client.ends is not None:
                if now >= client.ends:
                    client.abort()
            elif not client.is_open and (client.closing or client not in self._handshakes):
                client.ends = now + CLOSE_SECONDS
            elif client in self._handshakes:
                if now - client.arrived >= HANDSHAKE_SECONDS:
                    self.evict(client, LATE)
            elif client.stalled is not None:
                if not client.progresses() and now - client.stalled >= STALL_SECONDS:
                    self.evict(client, SLOW)
            elif client.said <= quiet and subscription is not None and self._feed.snapshot:
                beat = beats.get(subscription.seq)
                if beat is None:
                    beat = beats[subscription.seq] = subscription.heartbeat()
                client.send(beat)
            if served % _LOOKED_AT == 0:
                await asyncio.sleep(0)

    # What a client calls.

    def evict(self, client: Client, why: Eviction) -> None:
        """Cut it off."""
        self.tally.evicted(client.peer.name, why)
        self._handshakes.discard(client)
        if why.code is None:
            client.abort()
        else:
            client.close(why.code, why.sentence)

    def refused(self, client: Client, reason: str, sentence: str | None = None) -> None:
        """It is not let in."""
        self.tally.refused(client.peer.name, reason, sentence)

    def arrived(self, client: Client) -> None:
        """Take it in. Where there are too many strangers, the oldest one of the origin that has
        the most of them makes room: they never take the place of a subscriber or of a newcomer."""
        self._clients.add(client)
        self._empty.clear()
        self._handshakes.add(client)
        self._strangers.setdefault(client.peer.origin, {})[client] = None
        if sum(map(len, self._strangers.values())) <= self._limits.handshakes:
            return
        most: dict[Client, None] = max(self._strangers.values(), key=len)
        oldest = next(iter(most))
        self._no_stranger(oldest)
        if oldest in self._handshakes:
            self.evict(oldest, CROWDED)
        else:
            oldest.abort()

    def gone(self, client: Client) -> None:
        """Forget it."""
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._handshakes.discard(client)
        self._no_stranger(client)
        self._behind.pop(client, None)
        if not self._clients:
            self._empty.set()
        if client.subscription is not None:
            origin = client.peer.origin
            self._origins[origin] -= 1
            if not self._origins[origin]:
                del self._origins[origin]
            self._unsubscribe(client)

    def _no_stranger(self, client: Client) -> None:
        origin = client.peer.origin
        strangers = self._strangers.get(origin, {})
        strangers.pop(client, None)
        if not strangers:
            self._strangers.pop(origin, None)

    def _unsubscribe(self, client: Client) -> None:
        if client.subscription is None:
            return
        view = client.subscription.view
        clients = self._subscribers.get(view)
        if clients is not None:
            clients.discard(client)
            if not clients:
                del self._subscribers[view]

    def subscribed(self, client: Client) -> None:
        """It is a subscriber from now on."""
        self._no_stranger(client)
        self._origins[client.peer.origin] += 1
        self._subscribe(client)

    def _subscribe(self, client: Client) -> None:
        assert client.subscription is not None
        self._subscribers.setdefault(client.subscription.view, set()).add(client)

    def asked(
        self, client: Client, request: Request
    ) -> Response | NdjsonSubscription | tuple[int, str]:
        """Answer a request."""
        self._handshakes.discard(client)
        path, _, parameters = request.path.partition("?")
        response = self._refusal(client, request, path)
        if response is not None:
            return response
        if path in self._answers:
            status, kind, content = self._answers[path]()
            response = client.reject(status, "")
            response.headers = _headers(kind, len(content))
            response.body = content
            return response
        try:
            wanted = query.parse(parameters)
        except UsageError as error:
            return self._reject(client, 400, f"{error.argument}: {error}", said=False)
        if self._origins[client.peer.origin] >= self._limits.clients_per_address:
            return self._full(client, f"{self._limits.clients_per_address} clients of one address")
        if self.subscribers >= self._limits.clients:
            return self._full(client, f"{self._limits.clients} clients")
        client.wanted = wanted.filter
        return self._feed.subscribe(
            wanted.filter & self._narrowed,
            resume=wanted.resume,
            snapshot=wanted.snapshot,
            wrap=frame,
            page_bytes=PAGE_BYTES,
        )

    def _full(self, client: Client, what: str) -> tuple[int, str]:
        reason = f"full: there are {what} already"
        self.refused(client, str(int(CloseCode.TRY_AGAIN_LATER)), reason)
        return CloseCode.TRY_AGAIN_LATER, reason

    def _reject(self, client: Client, status: int, sentence: str, *, said: bool) -> Response:
        """Refuse a request; ``said``: it is worth a line."""
        self.refused(client, str(status), sentence if said else None)
        return client.reject(status, sentence)

    def _refusal(self, client: Client, request: Request, path: str) -> Response | None:
        if request.method != "GET":
            response = self._reject(client, 405, "only GET is to be had here", said=False)
            response.headers["Allow"] = "GET"
            return response
        uid = client.peer.uid
        refusal = self.access.refusal(
            request.headers,
            local=uid is not None,
            trusted=uid in (0, os.geteuid()),
            free=path in FREE,
        )
        if refusal is None:
            if path == "/events" or path in self._answers:
                return None
            there = "there is /events, " + ", ".join(sorted(self._answers))
            return self._reject(client, 404, there, said=False)
        response = self._reject(client, refusal.status, refusal.sentence, said=True)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _nothing() -> None:
    pass


def _headers(kind: str, size: int) -> Headers:
    return Headers([("Connection", "close"), ("Content-Length", str(size)), ("Content-Type", kind)])
