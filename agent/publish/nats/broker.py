"""A connection to a NATS broker with JetStream: store a message, read the newest of a subject."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ...broker_answers import InvalidAnswer, digits, parse_answer, refusal, whole
from ...broker_login import Entry, is_denial, login, new_client
from ...errors import ConfigFailure, RuntimeFailure
from ...stream.fleet import (
    HEADER,
    Broker,
    InvalidFleetMessage,
    Link,
    format_link,
    no_stream,
    parse_link,
    prefix_note,
)
from .position import Message

if TYPE_CHECKING:
    from nats.aio.client import Client

ACK_SECONDS = 5.0
# How long the end of a connection may take.
_CLOSE_SECONDS = 0.5
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_SEQUENCE, _STATUS = "Nats-Sequence", "Status"
_WRONG_SEQUENCE, _NOT_FOUND = 10071, "404"
# Codes of a cluster in which no server leads, or that has not yet stored an earlier message.
_BUSY = frozenset({10008, 10163, 10164})


class BrokerTrouble(Exception):
    """The broker cannot be reached, or refuses. ``is_lasting``: only an administrator ends it, so
    that attempts may be rare. ``is_lost``: the connection is of no more use."""

    def __init__(self, reason: str, *, is_lasting: bool = False, is_lost: bool = False) -> None:
        super().__init__(reason)
        self.is_lasting = is_lasting
        self.is_lost = is_lost


class WrongSequence(Exception):
    """A message was refused because the newest one of its subject is not the expected one.
    ``sequence`` is that of the newest one, 0: there is none."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"the newest message has the sequence {sequence}")
        self.sequence = sequence


class Access(NamedTuple):
    """Where the broker is and how to get in. ``url`` is what was configured, for messages;
    ``credentials`` is the path of a file: see ``--nats-creds``."""

    url: str
    broker: Broker
    tls: ssl.SSLContext | None = None
    credentials: str | None = None

    @property
    def entry(self) -> Entry:
        """How to get into the broker."""
        return Entry(self.broker.servers, self.broker.user, self.credentials, self.tls)


class Connection(Protocol):
    """A connection to a broker."""

    @property
    def max_payload(self) -> int:
        """The largest message that the broker takes, with its headers."""

    async def publish(self, subject: str, message: Message) -> int:
        """Store a message; return its sequence. Raises WrongSequence and BrokerTrouble."""

    async def last(self, subject: str) -> tuple[int, Link | None]:
        """Return the sequence of the newest message of a subject, 0: there is none, and its header,
        None: it has none of ours. Raises BrokerTrouble."""

    async def close(self) -> None:
        """End the connection."""


async def connect(access: Access, inbox: str, name: str) -> Connection:
    """Connect. ``inbox`` is the subject below which answers arrive, ``name`` is shown by tools of
    the broker. Raises BrokerTrouble, ConfigFailure and RuntimeFailure."""
    from nats.errors import Error

    client = new_client(is_encrypted=access.broker.is_encrypted)
    connection = NatsConnection(access, client)
    try:
        await connection.open(inbox, name)
    except (Error, OSError, TimeoutError) as error:
        await connection.close()
        raise connection.trouble(error) from error
    except (ConfigFailure, RuntimeFailure):
        await connection.close()
        raise
    return connection


class NatsConnection:
    """A connection made by nats-py."""

    def __init__(self, access: Access, client: Client) -> None:
        self._access = access
        self._client = client
        self._lost = asyncio.get_running_loop().create_future()
        self._error: Exception | None = None  # The newest one that the library reported.
        self._denied = asyncio.Event()

    async def open(self, inbox: str, name: str) -> None:
        """Connect. Raises exceptions of the library, OSError, ConfigFailure and RuntimeFailure."""
        entry = self._access.entry
        options = {**login(entry.credentials, entry.user), "name": name, "inbox_prefix": inbox}
        await entry.connect(self._client, self._report, self._close, **options)

    @property
    def max_payload(self) -> int:
        """The largest message that the broker takes, with its headers."""
        return int(self._client.max_payload)

    async def publish(self, subject: str, message: Message) -> int:
        """Store a message; return its sequence. Raises WrongSequence and BrokerTrouble."""
        headers = {HEADER: format_link(message.link), _EXPECTED: str(message.expected)}
        data, _ = await self._request(subject, message.body, headers)
        try:
            answer = parse_answer(data)
            refused = refusal(answer)
            if refused is None:
                return whole(answer.get("seq"))
            code, text = refused
            wrong = digits(text.rpartition(":")[2].strip()) if code == _WRONG_SEQUENCE else None
        except InvalidAnswer as error:
            raise BrokerTrouble(str(error)) from error
        if wrong is not None:
            raise WrongSequence(wrong)
        if code in _BUSY:
            raise BrokerTrouble(f"the broker is busy: {text}")
        raise BrokerTrouble(f"the stream refuses messages: {text}", is_lasting=True)

    async def last(self, subject: str) -> tuple[int, Link | None]:
        """Return the sequence of the newest message of a subject, 0: there is none, and its header,
        None: it has none of ours. Raises BrokerTrouble."""
        stream = self._access.broker.stream
        name = f"$JS.API.DIRECT.GET.{stream}.{subject}"
        try:
            _, headers = await self._request(name, b"", {})
        except BrokerTrouble as trouble:
            # Where there is no such stream, a broker may send no answer.
            no_answer = trouble.is_lost and not trouble.is_lasting
            if no_answer and await self._is_alive():
                raise self._no_stream() from trouble
            raise
        if headers.get(_STATUS) == _NOT_FOUND:
            return 0, None
        try:
            number = digits(headers.get(_SEQUENCE, ""))
        except InvalidAnswer as error:
            reason = headers.get("Description") or "no sequence"
            text = f"the broker's answer to {name} is not understood: {reason}"
            raise BrokerTrouble(text) from error
        try:
            return number, parse_link(headers.get(HEADER, ""))
        except InvalidFleetMessage:
            return number, None

    async def _request(
        self, subject: str, body: bytes, headers: dict[str, str]
    ) -> tuple[bytes, dict[str, str]]:
        """Send a request; return the answer."""
        from nats.errors import Error, NoRespondersError

        self._denied.clear()
        asking = asyncio.ensure_future(
            self._client.request(subject, body, timeout=ACK_SECONDS, headers=headers or None)
        )
        denied = asyncio.ensure_future(self._denied.wait())
        try:
            await asyncio.wait((asking, denied, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise self.trouble(self._error)
            answer = asking.result()
        except NoRespondersError as error:
            raise self._no_stream() from error
        except (Error, OSError) as error:
            raise self.trouble(error) from error
        finally:
            for task in (asking, denied):
                task.cancel()
        return answer.data, dict(answer.headers or {})

    def _no_stream(self) -> BrokerTrouble:
        return BrokerTrouble(no_stream(self._access.broker), is_lasting=True)

    async def _is_alive(self) -> bool:
        from nats.errors import Error

        if self._lost.done():
            return False
        try:
            await self._client.flush(timeout=ACK_SECONDS)
        except (Error, OSError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """End the connection."""
        with suppress(Exception):  # Whatever the library raises, the connection is given up.
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._client.close()

    async def _report(self, error: Exception) -> None:
        self._error = error
        if is_denial(error):
            self._denied.set()

    async def _close(self) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    def trouble(self, error: Exception | None) -> BrokerTrouble:
        """Return what an exception of the library means."""
        reason = self._access.entry.explain(error, self._error)
        text = reason.text
        if error is not None and is_denial(error):
            text += prefix_note(self._access.broker)
        return BrokerTrouble(text, is_lasting=reason.is_lasting, is_lost=reason.is_lost)
