"""A connection to a broker: requests to its JetStream, and messages of a stream, in order.

The connection is not repaired: whatever goes wrong ends it, and the caller makes another one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from orjson import JSONDecodeError, dumps, loads

from ...broker_login import EXTRA, OPEN_SECONDS, Entry, login, new_client, reader_inbox
from ...errors import RuntimeFailure
from ...stream.fleet import HEADER, Broker
from .reports import Reports, SessionError

if TYPE_CHECKING:
    from ...stream.fields import Json

T = TypeVar("T")

REQUEST_SECONDS = 5.0
# Messages that are asked for at a time: of up to 1 MiB, mostly of some KiB. The next ones are asked
# for while half of them are on their way, so that a distant broker does not wait for the reader.
BATCH = 256
_LOW = BATCH // 2
# A request for messages ends after so many seconds without one; the broker sends a sign of life in
# between, and without several of them the connection is given up.
_EXPIRE_SECONDS = 30
_HEARTBEAT_SECONDS = 5
_SILENT_SECONDS = 15.0
# How often the reader of an idle stream gets its turn.
TICK_SECONDS = 1.0
# The broker forgets a consumer whose reader has left.
_INACTIVE_SECONDS = 60
_NANOSECONDS = 1_000_000_000
# Codes of errors that another attempt would not change: no such stream, and no JetStream.
NO_STREAM = 10059
_FINAL_CODES = frozenset({NO_STREAM, 10076, 10039})
# There is a stream of that name, with other settings.
_IN_USE = 10058
# Statuses of a request for messages that has ended; how many of them it did not get.
_ENDED = frozenset({"404", "408"})
_UNSENT = "Nats-Pending-Messages"


class StreamMessage(NamedTuple):
    """A message of a stream. ``time`` is when the broker stored it, in seconds since the Unix
    epoch; ``pending`` messages follow. ``link`` is the value of its header."""

    subject: str
    sequence: int
    time: float
    pending: int
    link: str
    body: bytes


class StreamInfo(NamedTuple):
    """The state of a stream: its oldest and newest sequences, and its subjects."""

    first: int
    last: int
    subjects: tuple[str, ...]


class _Message(Protocol):
    """A message of the client library."""

    subject: str
    reply: str
    data: bytes

    @property
    def headers(self) -> Mapping[str, str] | None: ...


class _Subscription(Protocol):
    """A subscription of the client library."""

    async def unsubscribe(self) -> None: ...


class _Client(Protocol):
    """What is used of the client library."""

    async def request(self, subject: str, payload: bytes, timeout: float) -> _Message: ...  # noqa: ASYNC109

    async def publish(self, subject: str, payload: bytes, reply: str) -> None: ...

    async def subscribe(
        self, subject: str, *, cb: Callable[[Any], Awaitable[None]]
    ) -> _Subscription: ...

    def new_inbox(self) -> str: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def open_session(
    broker: Broker, creds: str | None, tls: ssl.SSLContext | None
) -> AsyncIterator[Session]:
    """Connect to a broker. ``creds`` is the path of a file: see ``broker_login``. Raises
    SessionError, ConfigFailure, and RuntimeFailure without the client library."""
    try:
        import nats.errors

        client = new_client(is_encrypted=broker.is_encrypted)
    except ModuleNotFoundError as error:
        raise RuntimeFailure(EXTRA) from error
    entry = Entry(broker.servers, broker.user, creds, tls)
    options = login(creds, broker.user)
    options["inbox_prefix"] = reader_inbox(creds, broker.user)
    reports = Reports(entry)
    try:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await entry.connect(
                    client, reports.note, reports.close, name="sockagent",
                    **options,
                )  # fmt: skip
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise reports.explained(error) from error
        yield Session(client, broker.stream, reports, nats.errors.Error)
    finally:
        try:
            async with asyncio.timeout(1.0):
                await client.close()
        except (OSError, TimeoutError, nats.errors.Error):
            pass  # It is lost already.


class Session:
    """An open connection to a broker, and the stream of a fleet in it."""

    def __init__(
        self, client: _Client, stream: str, reports: Reports, errors: type[Exception]
    ) -> None:
        self._client = client
        self._stream = stream
        self._reports = reports
        self._closed = reports.closed
        self._errors = errors

    async def info(self) -> StreamInfo:
        """Return the state of the stream. Raises SessionError."""
        found = await self._request(f"STREAM.INFO.{self._stream}", {})
        try:
            state = found["state"]
            subjects = tuple(map(str, found["config"]["subjects"]))
            return StreamInfo(int(state["first_seq"]), int(state["last_seq"]), subjects)
        except (LookupError, TypeError, ValueError) as error:
            raise SessionError("invalid response of the broker") from error

    async def make_stream(self, settings: Mapping[str, object]) -> bool:
        """Make the stream, or change its settings; return whether it is new. Raises
        SessionError."""
        try:
            await self._request(f"STREAM.CREATE.{self._stream}", settings)
        except SessionError as error:
            if error.code != _IN_USE:
                raise
            await self._request(f"STREAM.UPDATE.{self._stream}", settings)
            return False
        return True

    async def messages(
        self, start: Mapping[str, object], subject: str | None = None
    ) -> AsyncGenerator[StreamMessage | None]:
        """Yield the messages from a point on, in order, and None each second without one. Whoever
        leaves before the end must close it. ``start`` are settings of a consumer; ``subject``: only
        messages with it. Raises SessionError, also where a message is missing."""
        name = f"sockagent-{os.urandom(8).hex()}"
        config: dict[str, object] = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _INACTIVE_SECONDS * _NANOSECONDS,
            **start,
        }
        api = f"CONSUMER.CREATE.{self._stream}.{name}"
        if subject is not None:
            config["filter_subject"] = subject
            api += f".{subject}"
        queue = _Queue()
        inbox = self._client.new_inbox()
        subscription = await self._guarded(self._client.subscribe(inbox, cb=queue.put))
        try:
            await self._request(api, {"stream_name": self._stream, "config": config})
            async for message in self._pull(name, inbox, queue):
                yield message
        finally:
            if not self._closed.is_set():
                with suppress(SessionError):  # The broker forgets the consumer by itself.
                    await self._guarded(subscription.unsubscribe())
                    await self._guarded(
                        self._client.publish(
                            f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"", ""
                        )
                    )

    async def _pull(
        self, name: str, inbox: str, queue: _Queue
    ) -> AsyncIterator[StreamMessage | None]:
        request = dumps({
            "batch": BATCH,
            "expires": _EXPIRE_SECONDS * _NANOSECONDS,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _NANOSECONDS,
        })  # fmt: skip
        api = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{name}"
        clock = asyncio.get_running_loop().time
        remaining = expected = 0
        heard_at = clock()
        while True:
            if remaining <= _LOW:
                await self._guarded(self._client.publish(api, request, inbox))
                remaining += BATCH
            if not queue.messages:
                await queue.wait(TICK_SECONDS)
            if not queue.messages:
                if self._closed.is_set():
                    raise SessionError("connection lost")
                if (denial := self._reports.denial(api)) is not None:
                    raise denial
                if clock() - heard_at > _SILENT_SECONDS:
                    raise SessionError("the broker does not answer")
                yield None
                continue
            heard_at = clock()
            message = queue.messages.popleft()
            headers = message.headers or {}
            status = headers.get("Status")
            if status is not None:
                if status in _ENDED:
                    unsent = headers.get(_UNSENT, "")
                    remaining = max(0, remaining - int(unsent)) if unsent.isdecimal() else 0
                elif status != "100":
                    reason = headers.get("Description", status)
                    raise SessionError(f"the broker ended the reading: {reason}")
                continue
            remaining -= 1
            expected += 1
            number, found = _parse(message)
            if number != expected:
                raise SessionError("messages are missing")
            yield found

    async def _request(self, api: str, payload: Mapping[str, object]) -> Json:
        """Return the response to a request. Raises SessionError."""
        subject = f"$JS.API.{api}"
        asking = asyncio.ensure_future(
            self._client.request(subject, dumps(payload), timeout=REQUEST_SECONDS)
        )
        # A broker does not answer what it does not permit; it says so elsewhere.
        denied = asyncio.ensure_future(self._reports.denied(subject))
        try:
            await asyncio.wait((asking, denied), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise denied.result()
            reply = await self._guarded(asking)
        finally:
            asking.cancel()
            denied.cancel()
        try:
            response = loads(reply.data)
            error = response.get("error")
        except (JSONDecodeError, AttributeError) as problem:
            raise SessionError("invalid response of the broker") from problem
        if error:
            code, text = error.get("err_code"), error.get("description")
            raise SessionError(f"{self._stream}: {text}", is_final=code in _FINAL_CODES, code=code)
        return dict(response)

    async def _guarded(self, awaitable: Awaitable[T]) -> T:
        """Await a call of the library. Raises SessionError."""
        try:
            return await awaitable
        except (OSError, TimeoutError, self._errors) as error:
            if self._closed.is_set():
                raise SessionError("connection lost") from error
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> SessionError:
        from nats.errors import NoRespondersError

        if isinstance(error, NoRespondersError):
            return SessionError("the broker has no JetStream, or is starting")
        return self._reports.explained(error)


class _Queue:
    """Messages that wait for the reader: at most as many as it asked for."""

    def __init__(self) -> None:
        self.messages: deque[_Message] = deque()
        self._changed = asyncio.Event()

    async def put(self, message: _Message) -> None:
        """Add a message."""
        self.messages.append(message)
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a message, at most so many seconds."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass


def _parse(message: _Message) -> tuple[int, StreamMessage]:
    """Return the number of a message among those of its consumer, and the message. Raises
    SessionError."""
    # $JS.ACK[.DOMAIN.ACCOUNT].STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.TIME.PENDING[.TOKEN]
    tokens = message.reply.split(".")
    numbers = tokens[5:9] if len(tokens) == 9 else tokens[7:11]
    try:
        sequence, number, time, pending = map(int, numbers)
    except ValueError as error:
        raise SessionError("a message without metadata") from error
    link = (message.headers or {}).get(HEADER, "")
    return number, StreamMessage(
        message.subject, sequence, time / _NANOSECONDS, pending, link, message.data
    )
