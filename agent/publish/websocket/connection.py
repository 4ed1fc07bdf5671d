"""One connection: the handshake, and then a subscription's chunks as WebSocket frames.

The protocol is that of the websockets library, without its tasks and queues: what a subscriber
costs is a cursor and, when it does not read, one message. What a client sends is discarded. It
knows subscriptions, and nothing of who else there is.
"""

from __future__ import annotations

import asyncio
import math
import sys
import termios
from collections.abc import Callable, Sequence
from fcntl import ioctl
from typing import Protocol

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from ...log import silent_logger
from ...stream.filters import Filter
from ...stream.ndjson import NdjsonSubscription
from .access import PROTOCOL
from .peers import Peer
from .rejections import FLOOD, MALFORMED, Eviction

# A client has nothing to say; more than this in one message ends it (1009).
MESSAGE_BYTES = 4096
# What a client may send without end: seconds of silence pay for it.
INBOUND_BYTES_A_SECOND = 4096
INBOUND_BYTES = 64 * 1024
# What each frame counts besides its bytes: a ping without content is 6 bytes, and 3 µs of work.
FRAME_BYTES = 64
# What is parsed before what it contains is counted: 2 ms of the smallest frames.
_SLICE_BYTES = 2048
# A request's line, which may be 8 KiB, and its headers.
MAX_REQUEST_BYTES = 16 * 1024
_INT = 4  # Bytes.
_TOO_LARGE = 431  # Request Header Fields Too Large.
# Chunks that are taken in one turn: a poll's changes, and that there is nothing more.
_CHUNKS = 2


class House(Protocol):
    """What a connection needs of the server."""

    def arrived(self, client: Client) -> None:
        """Count a connection whose handshake begins; an older one may have to go."""

    def asked(
        self, client: Client, request: Request
    ) -> Response | NdjsonSubscription | tuple[int, str]:
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


class _Protocol(ServerProtocol):
    """The library's protocol; a method of its own, as one handed over would make a cycle."""

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Return the one subprotocol that there is, if it is offered."""
        return Subprotocol(PROTOCOL) if PROTOCOL in subprotocols else None

    def release(self) -> None:
        """Break the cycles, of 20 KiB: the garbage collector runs seldom."""
        self.parser.close()
        self.handshake_exc = self.parser_exc = None


class Client(asyncio.Protocol):
    """One connection, from its first byte to its end."""

    __slots__ = (
        "_budget",
        "_early",
        "_house",
        "_loop",
        "_protocol",
        "_raw",
        "_request_bytes",
        "_taken",
        "_transport",
        "_written",
        "arrived",
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
        self._protocol = _Protocol(max_size=MESSAGE_BYTES, logger=silent_logger)
        self._transport: asyncio.Transport | None = None
        self._raw: asyncio.Transport | None = None  # The one below TLS, or the same.
        self._request_bytes: int | None = 0  # What came of the request; None once it is whole.
        self._written = self._taken = 0  # Bytes: see _count_taken.
        self._budget = float(INBOUND_BYTES)
        self._early: bytes | None = None  # What came before TLS was told to be ready.
        self.peer_of = peer_of
        self.peer = Peer("", "")
        self.arrived = self._loop.time()
        self.since = self.arrived  # When it came, or sent something last.
        self.said = math.inf  # When it was sent something last; nothing precedes ``hello``.
        self.stalled: float | None = None  # Since when it takes nothing.
        self.closing = False
        self.ends: float | None = None  # When it is cut off, at the latest.
        self.subscription: NdjsonSubscription | None = None
        self.wanted: Filter | None = None  # What it asked for.

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is connected."""
        assert isinstance(transport, asyncio.Transport)
        early, self._early = self._early, None
        self._transport = transport
        if early is None:
            self._raw = transport
            self.peer = self.peer_of(transport)
            self._house.arrived(self)
        # Whatever the kernel does not take counts as stalling. With 0, TLS would always pause.
        transport.set_write_buffer_limits(high=1, low=0)
        if early:
            self.data_received(early)

    def begins_tls(self, transport: asyncio.Transport) -> None:
        """It is connected, and its TLS handshake is about to begin."""
        self._early = b""
        self._transport = self._raw = transport
        self.peer = self.peer_of(transport)
        self._house.arrived(self)

    def data_received(self, data: bytes) -> None:
        """It sent something: its request, or what is discarded."""
        if self._early is not None:
            self._early += data
            return
        now = self._loop.time()
        self._budget += (now - self.since) * INBOUND_BYTES_A_SECOND
        self._budget = min(self._budget, INBOUND_BYTES)
        self.since = now
        for begin in range(0, len(data), _SLICE_BYTES):
            if not self._receive(data[begin : begin + _SLICE_BYTES]):
                return

    def _receive(self, data: bytes) -> bool:
        """Parse some of what it sent; return whether more of it is wanted."""
        self._budget -= len(data)
        if self._is_overdrawn():
            return False
        protocol = self._protocol
        protocol.receive_data(data)
        events = protocol.events_received()
        self._budget -= FRAME_BYTES * len(events)
        for event in events:
            if isinstance(event, Request):
                self._request_bytes = None
                self._answer(event)
        if self._request_bytes is not None:
            self._request_bytes += len(data)
            if self._request_bytes > MAX_REQUEST_BYTES and not protocol.eof_sent:
                self.closing = True
                self._house.refused(self, str(_TOO_LARGE))
                protocol.send_response(self.reject(_TOO_LARGE, "the request is too large"))
        self._heard()
        return not self._is_overdrawn()

    def _is_overdrawn(self) -> bool:
        """Return whether it has sent more than it may; then it is cut off."""
        if self._budget >= 0:
            return False
        if not self.closing:
            self._house.evict(self, FLOOD)
        return True

    def eof_received(self) -> None:
        """It says no more."""
        self._protocol.receive_eof()
        self._protocol.events_received()
        self._heard()

    def pause_writing(self) -> None:
        """It does not take what was sent, for now."""
        self.stalled = self._loop.time()
        self._taken = self._count_taken()

    def resume_writing(self) -> None:
        """It has taken everything."""
        self.stalled = None
        self._house.has_more(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """It is gone."""
        self._transport = self._raw = None
        self._house.gone(self)
        if self.subscription is not None:
            self.subscription.close()
            self.subscription = None
        self._protocol.release()

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
            if not chunk:  # Many records were compared with the filter: others are next.
                break
            if not self.send(chunk):
                return
        self._house.has_more(self)

    def send(self, framed: bytes) -> bool:
        """Send a frame; whether there may be another."""
        assert self._transport is not None
        self._written += len(framed)
        self._transport.write(framed)
        self.said = self._loop.time()
        return self.stalled is None

    def progresses(self) -> bool:
        """Return whether it has taken anything since it stalled, or since it was last asked; then
        it has stalled only now."""
        taken = self._count_taken()
        if taken <= self._taken:
            return False
        self._taken = taken
        self.stalled = self._loop.time()
        return True

    def _count_taken(self) -> int:
        """Return how many bytes of what was written were taken: the kernel at the other end has
        acknowledged them, or, over a unix socket, the client has read them."""
        transport, raw = self._transport, self._raw
        if transport is None or raw is None:
            return self._taken
        waiting = raw.get_write_buffer_size()
        if transport is not raw:  # TLS: what is still to be encrypted.
            waiting += transport.get_write_buffer_size()
        try:
            queued = ioctl(raw.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_INT))
        except OSError:  # The connection is lost, which is about to be reported.
            return self._taken
        return self._written - waiting - int.from_bytes(queued, sys.byteorder)

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
            else:  # It sent more than its request: that ended it.
                self._write(answer.serialize())
            return
        response = protocol.accept(request)
        if not protocol.eof_sent:
            protocol.send_response(response)
        if response.status_code != 101 or protocol.eof_sent:
            self.closing = True
            self._house.refused(self, str(response.status_code))
            if isinstance(answer, NdjsonSubscription):
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
        pending = self._protocol.data_to_send()
        if not pending:
            return
        self._write(b"".join(pending))
        transport = self._transport
        if pending[-1] == SEND_EOF and transport is not None:
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()

    def _write(self, data: bytes) -> None:
        """Write to the connection unless it is lost: asyncio would log each attempt."""
        transport = self._transport
        if data and transport is not None and not transport.is_closing():
            self._written += len(data)
            transport.write(data)
