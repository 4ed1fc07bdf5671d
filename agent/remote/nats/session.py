"""A connection to a broker: requests to its JetStream, and messages of a stream, in order.

The connection is not repaired: whatever goes wrong ends it, and the caller makes another one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from orjson import dumps

from ...broker_answers import InvalidAnswer, field_of, parse_answer, refusal, whole
from ...broker_login import EXTRA, OPEN_SECONDS, Entry, login, new_client, reader_inbox
from ...errors import RuntimeFailure
from ...stream.fleet import Broker
from .pull import NANOSECONDS, Message, Queue, Requests, StreamMessage
from .reports import Reports, SessionError

T = TypeVar("T")

REQUEST_SECONDS = 5.0
# A connection of which nothing is heard is given up: the broker sends signs of life.
_SILENT_SECONDS = 15.0
# How often the reader of an idle stream gets its turn.
TICK_SECONDS = 1.0
# The broker forgets a consumer whose reader has left.
_INACTIVE_SECONDS = 60
# Codes of errors that another attempt would not change: no such stream, and no JetStream.
NO_STREAM_CODES = frozenset({10059})
_FINAL_CODES = NO_STREAM_CODES | {10076, 10039}
# There is a stream of that name, with other settings.
_IN_USE = 10058


class StreamInfo(NamedTuple):
    """The state of a stream: its oldest and newest sequences, and its subjects."""

    first: int
    last: int
    subjects: tuple[str, ...]
    made: str = ""  # When; another stream of the name has another time.


class _Subscription(Protocol):
    """A subscription of the client library."""

    async def unsubscribe(self) -> None: ...


class _Client(Protocol):
    """What is used of the client library."""

    async def request(self, subject: str, payload: bytes, timeout: float) -> Message: ...  # noqa: ASYNC109

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
            state = field_of(found, "state")
            subjects = field_of(found, "config").get("subjects")
            if not isinstance(subjects, list):
                raise InvalidAnswer
            first, last = whole(state.get("first_seq")), whole(state.get("last_seq"))
            made = str(found.get("created", ""))
            return StreamInfo(first, last, tuple(map(str, subjects)), made)
        except InvalidAnswer as error:
            raise SessionError(str(error)) from error

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
        self, start: Mapping[str, object], subject: str | None = None, *, to_end: bool = False
    ) -> AsyncGenerator[StreamMessage | None, None]:
        """Yield the messages from a point on, in order, and None each second without one. Whoever
        leaves before the end must close it. ``start`` are settings of a consumer; ``subject``: only
        messages with it; ``to_end``: only those that there are. Raises SessionError, also where a
        message is missing."""
        name = f"sockagent-{os.urandom(8).hex()}"
        config: dict[str, object] = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _INACTIVE_SECONDS * NANOSECONDS,
            **start,
        }
        api = f"CONSUMER.CREATE.{self._stream}.{name}"
        if subject is not None:
            config["filter_subject"] = subject
            api += f".{subject}"
        queue = Queue()
        inbox = self._client.new_inbox()
        subscription = await self._guarded(self._client.subscribe(inbox, cb=queue.put))
        try:
            made = await self._request(api, {"stream_name": self._stream, "config": config})
            if to_end and not made.get("num_pending"):
                return
            async for message in self._pull(name, inbox, queue):
                yield message
                if to_end and message is not None and message.pending == 0:
                    return
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
        self, name: str, inbox: str, queue: Queue
    ) -> AsyncIterator[StreamMessage | None]:
        api = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{name}"
        clock = asyncio.get_running_loop().time
        requests = Requests()
        heard_at = clock()
        while True:
            if requests.are_low:
                await self._guarded(self._client.publish(api, requests.next(), inbox))
            found = queue.take()
            if found is None:
                await queue.wait(TICK_SECONDS)
                found = queue.take()
            if found is None:
                if self._closed.is_set():
                    raise self._reports.lost()
                if (denial := self._reports.denial(api)) is not None:
                    raise denial
                if clock() - heard_at > _SILENT_SECONDS:
                    raise SessionError("the broker does not answer")
                yield None
                continue
            heard_at = clock()
            message = requests.take(found)
            if message is not None:
                yield message

    async def _request(self, api: str, payload: Mapping[str, object]) -> Mapping[str, object]:
        """Return the response to a request. Raises SessionError."""
        subject = f"$JS.API.{api}"
        asking = asyncio.ensure_future(
            self._client.request(subject, dumps(payload), timeout=REQUEST_SECONDS)
        )
        # A broker does not answer what it does not permit; it reports it as an error.
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
            response = parse_answer(reply.data)
            refused = refusal(response)
        except InvalidAnswer as problem:
            raise SessionError(str(problem)) from problem
        if refused is not None:
            code, text = refused
            raise SessionError(f"{self._stream}: {text}", is_final=code in _FINAL_CODES, code=code)
        return response

    async def _guarded(self, awaitable: Awaitable[T]) -> T:
        """Await a call of the library. Raises SessionError."""
        try:
            return await awaitable
        except (OSError, TimeoutError, self._errors) as error:
            if self._closed.is_set():
                raise self._reports.lost() from error
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> SessionError:
        from nats.errors import NoRespondersError

        if isinstance(error, NoRespondersError):
            return SessionError("the broker has no JetStream, or is starting")
        return self._reports.explained(error)
