"""The server's side of HTTP and WebSocket, with limits to what a client may send. No I/O.

The protocol is that of the websockets library, without its tasks and queues.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from email.utils import formatdate
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.typing import Subprotocol

from ...log import silent_logger
from ..http.pages import Reply
from .access import PROTOCOL
from .rejections import INBOUND_BYTES, INBOUND_BYTES_PER_SECOND

# The largest message of a client; a larger one ends the connection (1009).
MAX_MESSAGE_BYTES = 4096
# A request line, which may be 8 KiB, and the headers.
MAX_REQUEST_BYTES = 16 * 1024
# What a frame costs of the inbound budget besides its bytes: a ping is 6 bytes, and 3 µs of work.
FRAME_BYTES = 64
# Inbound bytes that are parsed before their frames are charged: 2 ms of the smallest frames.
_SLICE_BYTES = 2048
# Headers that announce a body.
_LENGTH, _ENCODING = b"content-length", b"transfer-encoding"


def frame(chunk: bytes) -> bytes:
    """Return a chunk as one text frame."""
    return Frame(Opcode.TEXT, chunk).serialize(mask=False)


def http_response(reply: Reply, *, is_head: bool = False) -> Response:
    """Return the HTTP response with a reply, after which the connection ends. ``is_head``: the
    method of the request is HEAD, and the response has no body."""
    status = HTTPStatus(reply.status)
    fields = Headers([("Date", formatdate(usegmt=True)), ("Connection", "close"), *reply.headers])
    if status is not HTTPStatus.NOT_MODIFIED:
        fields["Content-Length"] = str(len(reply.body))
        fields["Content-Type"] = reply.content_type
    return Response(status.value, status.phrase, fields, b"" if is_head else reply.body)


class _RequestReader(StreamReader):
    """Reads lines without the headers that announce a body, at which the library ends the
    connection without a response."""

    def __init__(self) -> None:
        super().__init__()
        self.has_body = False

    def read_line(
        self, m: int, too_long_exc_type: type[Exception] = RuntimeError
    ) -> Generator[None, None, bytearray]:
        """Return the next line that is no such header."""
        while True:
            line = yield from super().read_line(m, too_long_exc_type)
            name, _, value = line.partition(b":")
            name = name.lower()
            if not (name == _ENCODING or (name == _LENGTH and value.strip() != b"0")):
                return line
            self.has_body = True


class LimitedProtocol(ServerProtocol):
    """The protocol of one connection, with a budget of inbound bytes, opened at ``now``."""

    reader: _RequestReader

    def __init__(self, now: float) -> None:
        super().__init__(max_size=MAX_MESSAGE_BYTES, logger=silent_logger)
        self._budget = float(INBOUND_BYTES)
        self._received_at = now
        self._request_bytes: int | None = 0  # Received so far; None once the request is complete.

    @property
    def has_request(self) -> bool:
        """Whether a complete request was received."""
        return self._request_bytes is None

    @property
    def has_body(self) -> bool:
        """Whether the request has a body, which is discarded."""
        return self.reader.has_body

    @property
    def is_malformed(self) -> bool:
        """Whether something was received that is no request, and was not answered."""
        return isinstance(self.handshake_exc, InvalidMessage) and bool(self._request_bytes)

    @property
    def is_request_too_large(self) -> bool:
        """Whether the request, incomplete as yet, is larger than MAX_REQUEST_BYTES."""
        return self._request_bytes is not None and self._request_bytes > MAX_REQUEST_BYTES

    @property
    def is_overdrawn(self) -> bool:
        """Whether the client has sent more than its budget."""
        return self._budget < 0

    def receive(self, data: bytes, now: float) -> Iterator[Request | None]:
        """Parse inbound data in slices; yield after each one, with the request if it is complete.
        Messages are discarded. Parsing ends when the budget is overdrawn."""
        earned = (now - self._received_at) * INBOUND_BYTES_PER_SECOND
        self._budget = min(self._budget + earned, INBOUND_BYTES)
        self._received_at = now
        for begin in range(0, len(data), _SLICE_BYTES):
            piece = data[begin : begin + _SLICE_BYTES]
            self._budget -= len(piece)
            if self.is_overdrawn:
                return
            yield self._parse(piece)

    def _parse(self, piece: bytes) -> Request | None:
        if self._request_bytes is not None:
            self._request_bytes += len(piece)
        self.receive_data(piece)
        events = self.events_received()
        self._budget -= FRAME_BYTES * len(events)
        request = next((event for event in events if isinstance(event, Request)), None)
        if request is not None:
            self._request_bytes = None
        return request

    def output(self) -> tuple[bytes, bool]:
        """Return the bytes to send, and whether the end of the data follows them."""
        pending = self.data_to_send()
        if not pending:
            return b"", False
        return b"".join(pending), pending[-1] == SEND_EOF

    def release(self) -> None:
        """Break reference cycles of 20 KiB: the garbage collector runs rarely."""
        self.parser.close()
        self.handshake_exc = self.parser_exc = None

    def parse(self) -> Generator[None]:
        """Parse what is received: called once, by the constructor."""
        self.reader = _RequestReader()
        yield from super().parse()

    # Overridden, since a select_subprotocol argument makes a reference cycle.
    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Return the supported subprotocol if the client offers it."""
        return Subprotocol(PROTOCOL) if PROTOCOL in subprotocols else None
