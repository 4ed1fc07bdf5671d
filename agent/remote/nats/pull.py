"""Messages of a stream that are pulled from a broker: what is asked for, and what arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from orjson import dumps

from ...broker_answers import InvalidAnswer, digits
from ...stream.fleet import HEADER
from .reports import SessionError

NANOSECONDS = 1_000_000_000
# Messages that are asked for at a time: of up to 1 MiB, mostly of some KiB. The next ones are asked
# for while half of them are on their way, so that a distant broker does not wait for the reader.
BATCH = 256
_LOW = BATCH // 2
# A request for messages ends after so many seconds without one; the broker sends a sign of life in
# between.
_EXPIRE_SECONDS = 30
_HEARTBEAT_SECONDS = 5
_TIMES = {
    "expires": _EXPIRE_SECONDS * NANOSECONDS,
    "idle_heartbeat": _HEARTBEAT_SECONDS * NANOSECONDS,
}
# Bytes that are asked for at a time: what waits for a reader that is slow is in its memory.
MAX_BYTES = 16 * 1024 * 1024
_REQUEST = dumps({"batch": BATCH, "max_bytes": MAX_BYTES, **_TIMES})
# Where the next message is larger than what is left of the bytes: it may be larger than all.
_LARGE_REQUEST = dumps({"batch": 1, **_TIMES})
# What may wait at most: what two requests ask for, with a large message or some statuses. A broker
# that sends more is none.
_MAX_WAITING, _MAX_WAITING_BYTES = 2 * BATCH, 2 * MAX_BYTES + 64 * 1024 * 1024
# Statuses of a sign of life, and of a request that has ended; how many messages it did not get.
_ALIVE, _ENDED = "100", frozenset({"404", "408"})
_CONFLICT, _TOO_LARGE = "409", "exceeds maxbytes"
_UNSENT = "Nats-Pending-Messages"


class Message(Protocol):
    """A message of the client library."""

    subject: str
    reply: str
    data: bytes

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The header lines; a status is one of them."""


class StreamMessage(NamedTuple):
    """A message of a stream. ``time`` is when the broker stored it, in seconds since the Unix
    epoch; ``pending`` messages follow. ``link`` is the value of its header."""

    subject: str
    sequence: int
    time: float
    pending: int
    link: str
    body: bytes


class Requests:
    """The requests of one consumer for messages, and the order of what arrives. Pure."""

    def __init__(self) -> None:
        self._remaining = 0  # Messages that are asked for and have not arrived.
        self._number = 0  # Of the newest message among those of the consumer.
        self._is_large = False  # The next message did not fit.

    @property
    def are_low(self) -> bool:
        """Whether the next request is due."""
        return self._remaining <= _LOW

    def next(self) -> bytes:
        """Return the next request, which is sent."""
        is_large, self._is_large = self._is_large, False
        self._remaining += 1 if is_large else BATCH
        return _LARGE_REQUEST if is_large else _REQUEST

    def take(self, message: Message) -> StreamMessage | None:
        """Return what arrives as a message of the stream; None if it is a status. Raises
        SessionError, also where a message is missing."""
        headers = message.headers or {}
        # What is stored has a subject for its acknowledgement, and any header: its publisher may be
        # an attacker.
        status = None if message.reply else headers.get("Status")
        if status is None:
            self._remaining -= 1
            self._number += 1
            number, found = _parse(message)
            if number != self._number:
                raise SessionError("messages are missing")
            return found
        reason = headers.get("Description", status)
        is_too_large = status == _CONFLICT and _TOO_LARGE in reason.lower()
        if status in _ENDED or is_too_large:
            self._is_large = self._is_large or is_too_large
            # Without a number, none of the requests is relied on.
            unsent = headers.get(_UNSENT)
            try:
                unanswered = self._remaining if unsent is None else digits(unsent)
            except InvalidAnswer as error:
                raise SessionError(str(error)) from error
            self._remaining = max(0, self._remaining - unanswered)
        elif status != _ALIVE:
            raise SessionError(f"the broker ended the reading: {reason}")
        return None


def _parse(message: Message) -> tuple[int, StreamMessage]:
    """Return the number of a message among those of its consumer, and the message. Raises
    SessionError."""
    # $JS.ACK[.DOMAIN.ACCOUNT].STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.TIME.PENDING[.TOKEN]
    tokens = message.reply.split(".")
    numbers = tokens[5:9] if len(tokens) == 9 else tokens[7:11]
    try:
        sequence, number, time, pending = map(digits, numbers)
    except ValueError as error:
        raise SessionError("a message without metadata") from error
    link = (message.headers or {}).get(HEADER, "")
    return number, StreamMessage(
        message.subject, sequence, time / NANOSECONDS, pending, link, message.data
    )


class Queue:
    """Messages that wait for the reader: at most as many as it asked for. ``is_exceeded``: the
    broker has sent more."""

    def __init__(self) -> None:
        self.is_exceeded = False
        self._messages: deque[Message] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    async def put(self, message: Message) -> None:
        """Add a message."""
        size = self._size + len(message.data)
        if len(self._messages) >= _MAX_WAITING or size > _MAX_WAITING_BYTES:
            self.is_exceeded = True
        if not self.is_exceeded:
            self._messages.append(message)
            self._size = size
        self._changed.set()

    def take(self) -> Message | None:
        """Return the next message, None: there is none. Raises SessionError."""
        if self.is_exceeded:
            raise SessionError("the broker sends what was not asked for")
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._size -= len(message.data)
        return message

    async def wait(self, seconds: float) -> None:
        """Wait for a message, at most so many seconds."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
