"""One client: the HTTP request, then a subscription's chunks as WebSocket frames.

A subscriber costs a cursor into the history and, while it does not read, one message.
"""

from __future__ import annotations

import asyncio
import math
import sys
import termios
from collections.abc import Hashable, Iterable
from fcntl import ioctl
from http import HTTPStatus
from typing import Protocol

from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN

from ...stream.filters import Filter
from ...stream.publication import Beating, ChunkSubscription
from ..http.pages import PLAIN, Reply
from . import rejections
from .access import Peer
from .protocol import MAX_REQUEST_BYTES, LimitedProtocol, http_response
from .rejections import (
    FLOODING,
    HANDSHAKE_TIMEOUT,
    MALFORMED,
    NO_TLS,
    TOO_SLOW,
    Eviction,
    Overload,
    Refusal,
    RejectionLog,
)
from .router import SubscriptionQuery

_TOO_LARGE = Refusal(431, f"request too large; the limit is {MAX_REQUEST_BYTES} bytes")
_NO_REQUEST = Reply(400, PLAIN, b"malformed request; expected HTTP/1.1\n")
_HAS_BODY = Refusal(400, "a request with a body is not accepted")
_INT_BYTES = 4
# Chunks that are sent in one turn: usually the changes of a poll, and no further one.
_CHUNKS_PER_TURN = 2


class Host(Protocol):
    """What a connection calls of its server."""

    rejections: RejectionLog

    def respond(
        self, request: Request, peer: Peer
    ) -> Reply | SubscriptionQuery | Refusal | Overload:
        """Return the response to a request."""

    def subscribe(self, connection: Connection, query: SubscriptionQuery) -> ChunkSubscription:
        """Register a connection as a subscriber; return its subscription."""

    def schedule(self, connection: Connection) -> None:
        """Call ``pump`` of the connection soon."""

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is lost."""


class Connection(asyncio.Protocol):
    """The connection of one client, from its first byte to its end, with all of its deadlines."""

    __slots__ = (
        "_abort_at",
        "_closing",
        "_early",
        "_host",
        "_loop",
        "_opened_at",
        "_protocol",
        "_raw",
        "_sent_at",
        "_stalled_at",
        "_subscription",
        "_taken",
        "_transport",
        "_written",
        "peer",
        "requested_filter",
    )

    def __init__(
        self, host: Host, transport: asyncio.Transport, peer: Peer, *, awaits_tls: bool
    ) -> None:
        self.peer = peer
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._protocol = LimitedProtocol(self._opened_at)
        self._transport: asyncio.Transport | None = None
        self._raw: asyncio.Transport | None = transport  # Below TLS, or the same as _transport.
        self._written = self._taken = 0  # Bytes; see _count_taken.
        # Data that TLS delivers before `secure` is called; None without TLS and after that call.
        self._early: bytes | None = b"" if awaits_tls else None
        self._sent_at = math.inf  # Until ``hello``: no heartbeat may precede it.
        self._stalled_at: float | None = None
        self._abort_at: float | None = None
        self._closing = False
        self._subscription: ChunkSubscription | None = None
        self.requested_filter = Filter()
        self._use(transport)

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # A client stalls when the kernel does not take everything. With 0, TLS would always pause.
        transport.set_write_buffer_limits(high=1, low=0)

    @property
    def is_open(self) -> bool:
        """Whether records may be sent: the WebSocket handshake is complete, no end has begun."""
        return self._protocol.state is OPEN and not self._closing and self._transport is not None

    @property
    def _awaits_reader(self) -> bool:
        """Whether a page is being sent, of which the client has not taken everything."""
        is_page = self._protocol.has_request and self._subscription is None
        return is_page and self._stalled_at is not None

    @property
    def is_handshaking(self) -> bool:
        """Whether the request is not complete yet."""
        return not (self._protocol.has_request or self._closing)

    # TLS.

    def secure(self, transport: asyncio.Transport) -> None:
        """Use the transport of a completed TLS handshake."""
        early, self._early = self._early, None
        self._use(transport)
        if early:
            self.data_received(early)

    def fail_tls(self) -> None:
        """End the connection because its TLS handshake failed."""
        if not self._closing:  # Otherwise the server ended it.
            self._host.rejections.refused(self.peer.name, NO_TLS)
        self.abort()
        self.connection_lost(None)

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        """Parse the request, and then what is discarded."""
        if self._early is not None:
            self._early += data
            return
        protocol = self._protocol
        for request in protocol.receive(data, self._loop.time()):
            if request is not None:
                self._respond(request)
            elif protocol.is_request_too_large and not protocol.eof_sent:
                self._refuse(_TOO_LARGE)
            self._reply()
        if protocol.is_overdrawn and not self._closing:
            self.evict(FLOODING)

    def eof_received(self) -> None:
        """Handle the end of the client's data."""
        self._protocol.receive_eof()
        self._protocol.events_received()
        self._reply()

    def _reply(self) -> None:
        """Send what the protocol replies to the data received."""
        if self._protocol.handshake_exc is not None and not self._closing:
            self._closing = True  # It was not an HTTP request.
            self._host.rejections.refused(self.peer.name, MALFORMED)
            if self._protocol.is_malformed:
                self._write(http_response(_NO_REQUEST).serialize())
        self._flush()

    def pause_writing(self) -> None:
        """Note that the client does not take what was sent."""
        self._stalled_at = self._loop.time()
        self._taken = self._count_taken()

    def resume_writing(self) -> None:
        """Note that the client has taken everything."""
        self._stalled_at = None
        self._host.schedule(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Release everything."""
        self._transport = self._raw = None
        self._host.remove(self)
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self._protocol.release()

    # The request.

    def _respond(self, request: Request) -> None:
        response = self._host.respond(request, self.peer)
        if self._protocol.has_body and not isinstance(response, Refusal):
            response = _HAS_BODY
        is_head = request.method == "HEAD"
        if isinstance(response, Refusal):
            self._refuse(response, is_head=is_head)
        elif isinstance(response, Reply):
            self._send_response(http_response(response, is_head=is_head))
        else:
            self._upgrade(request, response)

    def _refuse(self, refusal: Refusal, *, is_head: bool = False) -> None:
        message = refusal.message if refusal.is_logged else None
        self._host.rejections.refused(self.peer.name, str(refusal.status), message)
        body = f"{refusal.message}\n".encode()
        reply = Reply(refusal.status, PLAIN, body, refusal.headers)
        self._send_response(http_response(reply, is_head=is_head))

    def _send_response(self, response: Response) -> None:
        self._closing = True
        if not self._protocol.eof_sent:
            self._protocol.send_response(response)
        else:  # The client sent more than a request, which ended the protocol.
            self._write(response.serialize())

    def _upgrade(self, request: Request, response: SubscriptionQuery | Overload) -> None:
        """Complete the WebSocket handshake, then subscribe or close."""
        protocol = self._protocol
        handshake = protocol.accept(request)
        if not protocol.eof_sent:
            protocol.send_response(handshake)
        if handshake.status_code != HTTPStatus.SWITCHING_PROTOCOLS or protocol.eof_sent:
            self._closing = True
            self._host.rejections.refused(self.peer.name, str(handshake.status_code))
            return
        self._flush()
        if isinstance(response, Overload):
            code = CloseCode.TRY_AGAIN_LATER
            self._host.rejections.refused(self.peer.name, str(int(code)), response.message)
            self.close(code, response.message)
        else:
            self.requested_filter = response.filter
            self._subscription = self._host.subscribe(self, response)

    # Called by the server.

    def pump(self) -> bool:
        """Send the next chunks; return whether there may be more that can be sent now."""
        subscription = self._subscription
        if subscription is None or self._stalled_at is not None or not self.is_open:
            return False
        for _ in range(_CHUNKS_PER_TURN):
            chunk = subscription.take()
            if chunk is None:
                return False
            if not chunk:  # Many records were compared with the filter: others have their turn.
                return True
            if not self.send(chunk):
                return False
        return True

    def send(self, framed: bytes) -> bool:
        """Send a frame; return whether the client has taken it, so that another may follow."""
        assert self._transport is not None
        self._written += len(framed)
        self._transport.write(framed)
        self._sent_at = self._loop.time()
        return self._stalled_at is None

    def idle(self, since: float) -> Iterable[Beating]:
        """Return the streams of which nothing was sent since then, if a heartbeat may be sent."""
        if self._stalled_at is not None or self._subscription is None or not self.is_open:
            return ()
        return self._subscription.idle(since, self._sent_at)

    def change_filter(self, chosen: Filter) -> Hashable:
        """Restart the subscription with another filter; return its view."""
        if self._subscription is None:
            return None
        self._subscription.change_filter(chosen)
        return self._subscription.view

    def expire(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        if self._abort_at is not None:
            if now >= self._abort_at:
                self.abort()
        elif self.is_open or self._awaits_reader:
            if self._stalled_at is not None:
                self._check_progress(now, self._stalled_at)
        elif self.is_handshaking:
            if now - self._opened_at >= rejections.HANDSHAKE_SECONDS:
                self.evict(HANDSHAKE_TIMEOUT)
        else:
            self._abort_at = now + rejections.CLOSE_SECONDS

    def _check_progress(self, now: float, stalled_at: float) -> None:
        taken = self._count_taken()
        if taken > self._taken:
            self._taken, self._stalled_at = taken, now
        elif now - stalled_at >= rejections.STALL_SECONDS:
            self.evict(TOO_SLOW)

    def _count_taken(self) -> int:
        """Return how many written bytes the peer has taken: over TCP those that its kernel has
        acknowledged, over a unix socket those that the client has read."""
        transport, raw = self._transport, self._raw
        if transport is None or raw is None:
            return self._taken
        waiting = raw.get_write_buffer_size()
        if transport is not raw:  # With TLS: what is not encrypted yet.
            waiting += transport.get_write_buffer_size()
        try:
            number = raw.get_extra_info("socket").fileno()
            queued = ioctl(number, termios.TIOCOUTQ, bytes(_INT_BYTES))
        except OSError:  # The connection is lost; connection_lost is about to be called.
            return self._taken
        return self._written - waiting - int.from_bytes(queued, sys.byteorder)

    def evict(self, eviction: Eviction) -> None:
        """End the connection because of what the client does; count and log it."""
        self._host.rejections.evicted(self.peer.name, eviction)
        if eviction.code is None or self._closing:
            self.abort()
        else:
            self.close(eviction.code, eviction.message)

    def close(self, code: CloseCode, reason: str) -> None:
        """End the connection, with a close frame if the WebSocket handshake is complete."""
        if self._closing or self._transport is None:
            return
        self._closing = True
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        else:
            self._transport.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        """Write the output of the protocol."""
        data, is_end = self._protocol.output()
        self._write(data)
        transport = self._transport
        if is_end and transport is not None:
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
