"""One connection: the handshake, and then a subscription's chunks as WebSocket frames.

The protocol is that of the websockets library, without its tasks and queues: what a subscriber
costs is a cursor and, when it does not read, one message. What a client sends is discarded. It
knows subscriptions, and nothing of who else there is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ..feed import Subscription
from ..filters import Filter
from ..logs import quiet
from .access import PROTOCOL
from .peers import Peer
from .tally import FLOOD, MALFORMED, Eviction

# A client has nothing to say; more than this in one message ends it (1009).
MESSAGE_BYTES = 4096
# What a client may send without end: seconds of silence pay for it.
INBOUND_BYTES_A_SECOND = 4096
INBOUND_BYTES = 64 * 1024
# Chunks that are taken in one turn: a poll's changes, and that there is nothing more.
_CHUNKS = 2


class House(Protocol):
    """What a connection needs of the server."""

    def arrived(self, client: Client) -> bool:
        """It is there, and may begin its handshake."""

    def asked(self, client: Client, request: Request) -> Response | Subscription | tuple[int, str]:
        """What it asks for: an answer, a subscription, or why it is closed at once."""

    def subscribed(self, client: Client) -> None:
        """It is a subscriber now."""

    def has_more(self, client: Client) -> None:
        """It is to be pumped, when there is time."""

    def refused(self, client: Client, reason: str, sentence: str | None = None) -> None:
        """It is not let in, for a reason that is counted and a sentence that is said, if any."""

    def evict(self, client: Client, why: Eviction) -> None:
        """It is to be cut off."""

    def gone(self, client: Client) -> None:
        """It is there no more."""


def frame(chunk: bytes) -> bytes:
    """A chunk as one text frame."""
    return Frame(Opcode.TEXT, chunk).serialize(mask=False)


def _choose(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol(PROTOCOL) if PROTOCOL in offered else None


class Client(asyncio.Protocol):
    """One connection, from its first byte to its end."""

    __slots__ = (
        "_budget",
        "_early",
        "_house",
        "_loop",
        "_protocol",
        "_transport",
        "closing",
        "ends",
        "peer",
        "peer_of",
        "said",
        "since",
        "stalled",
        "subscription",
        "wanted",
    )

    def __init__(self, house: House, peer_of: Callable[[asyncio.BaseTransport], Peer]) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(
            select_subprotocol=_choose, max_size=MESSAGE_BYTES, logger=quiet
        )
        self._transport: asyncio.Transport | None = None
        self._budget = float(INBOUND_BYTES)
        self._early: bytes | None = None  # What came before TLS was told to be ready.
        self.peer_of = peer_of
        self.peer = Peer("", "")
        self.since = self._loop.time()  # When it came, or sent something last.
        self.said = math.inf  # When it was sent something last; nothing precedes ``hello``.
        self.stalled: float | None = None  # Since when it takes nothing.
        self.closing = False
        self.ends: float | None = None  # When it is cut off, at the latest.
        self.subscription: Subscription | None = None
        self.wanted: Filter | None = None  # What it asked for.

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is connected."""
        assert isinstance(transport, asyncio.Transport)
        early, self._early = self._early, None
        if early is None:
            self._transport = transport
            self.peer = self.peer_of(transport)
            if not self._house.arrived(self):
                transport.abort()
        self._transport = transport
        # Whatever the kernel does not take counts as stalling. With 0, TLS would always pause.
        transport.set_write_buffer_limits(high=1, low=0)
        if early:
            self.data_received(early)

    def begins_tls(self, transport: asyncio.Transport) -> bool:
        """It is connected, and its TLS handshake is about to begin; whether it may."""
        self._early = b""
        self._transport = transport
        self.peer = self.peer_of(transport)
        return self._house.arrived(self)

    def data_received(self, data: bytes) -> None:
        """It sent something: its request, or what is discarded."""
        if self._early is not None:
            self._early += data
            return
        now = self._loop.time()
        self._budget += (now - self.since) * INBOUND_BYTES_A_SECOND - len(data)
        self._budget = min(self._budget, INBOUND_BYTES)
        self.since = now
        if self._budget < 0:
            if not self.closing:
                self._house.evict(self, FLOOD)
            return
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
        self._heard()

    def eof_received(self) -> None:
        """It says no more."""
        self._protocol.receive_eof()
        self._protocol.events_received()
        self._heard()

    def pause_writing(self) -> None:
        """It does not take what was sent, for now."""
        self.stalled = self._loop.time()

    def resume_writing(self) -> None:
        """It has taken everything."""
        self.stalled = None
        self._house.has_more(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """It is gone."""
        self._transport = None
        self._house.gone(self)
        if self.subscription is not None:
            self.subscription.close()
            self.subscription = None

    # What the server calls.

    @property
    def is_open(self) -> bool:
        """Whether it may be sent something."""
        return self._protocol.state is OPEN and not self.closing and self._transport is not None

    def pump(self) -> None:
        """Send some of what there is; for the rest it is the server who finds the time."""
        subscription = self.subscription
        if subscription is None or self.stalled is not None or not self.is_open:
            return
        for _ in range(_CHUNKS):
            chunk = subscription.take()
            if chunk is None:
                return
            if chunk and not self.send(chunk):
                return
        self._house.has_more(self)

    def send(self, framed: bytes) -> bool:
        """Send a frame; whether there may be another."""
        assert self._transport is not None
        self._transport.write(framed)
        self.said = self._loop.time()
        return self.stalled is None

    def close(self, code: CloseCode, reason: str) -> None:
        """End it: with a close frame where it can be sent, in any case soon."""
        if self.closing or self._transport is None:
            return
        self.closing = True
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        else:
            self._transport.abort()

    def abort(self) -> None:
        """End it at once."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    # The handshake.

    def _answer(self, request: Request) -> None:
        answer = self._house.asked(self, request)
        protocol = self._protocol
        if isinstance(answer, Response):
            self.closing = True
            if not protocol.eof_sent:
                protocol.send_response(answer)
            elif self._transport is not None:  # It sent more than its request: that ended it.
                self._transport.write(answer.serialize())
            return
        response = protocol.accept(request)
        if not protocol.eof_sent:
            protocol.send_response(response)
        if response.status_code != 101 or protocol.eof_sent:
            self.closing = True
            self._house.refused(self, str(response.status_code))
            if isinstance(answer, Subscription):
                answer.close()
            return
        self._flush()
        if isinstance(answer, tuple):
            code, reason = answer
            self.close(CloseCode(code), reason)
            return
        self.subscription = answer
        self._house.subscribed(self)
        self._house.has_more(self)

    def reject(self, status: int, sentence: str) -> Response:
        """An answer in words."""
        return self._protocol.reject(status, f"{sentence}\n")

    def _heard(self) -> None:
        """What it sent is worked off: reply."""
        if self._protocol.handshake_exc is not None and not self.closing:
            self.closing = True  # That was no request.
            self._house.refused(self, MALFORMED)
        self._flush()

    def _flush(self) -> None:
        """Send what the protocol has to say."""
        transport = self._transport
        for data in self._protocol.data_to_send():
            if transport is None:
                return
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()
