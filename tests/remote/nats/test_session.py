"""The connection to a broker."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.broker_answers import UnusableCredentials
from agent.broker_login import OPEN_SECONDS, Entry
from agent.errors import ConfigFailure
from agent.remote.nats.pull import BATCH
from agent.remote.nats.reports import Reports, SessionError
from agent.remote.nats.session import Session, open_session
from agent.stream.fleet import parse_broker

from ...broker import free_port

pytest.importorskip("nats", reason="nats-py is not installed")
# What a broker without TLS, or an attacker in its place, sends first.
INFO = b'INFO {"server_id":"x","version":"2.9.10","headers":true,"max_payload":1048576}\r\n'


async def test_nothing_is_sent_where_the_broker_offers_no_tls(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        while data := await reader.read(4096):
            received.extend(data)
            writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    broker = parse_broker(f"tls://me@127.0.0.1:{port}")
    async with server:
        with pytest.raises(SessionError, match=r"^the broker does not use TLS$"):
            async with open_session(broker, str(password), ssl.create_default_context()):
                pass
    assert received == b""


async def refused(url: str, creds: str | None = None) -> SessionError:
    """Return why a connection cannot be made."""
    with pytest.raises(SessionError) as raised:
        async with asyncio.timeout(OPEN_SECONDS / 2), open_session(parse_broker(url), creds, None):
            pass
    return raised.value


async def test_a_broker_that_is_not_there_is_reported_at_once() -> None:
    error = await refused(f"nats://127.0.0.1:{free_port()}")
    assert (str(error), error.is_final) == ("Connection refused", False)


@pytest.mark.parametrize(
    ("answer", "user", "reason", "is_final"),
    [
        (
            "Authorization Violation",
            "",
            "the broker requires credentials; give a file with --nats-creds",
            True,
        ),
        (
            "Authorization Violation",
            "me@",
            "the broker refuses the credentials: Authorization Violation",
            True,
        ),
        ("Authentication Timeout", "me@", "Authentication Timeout", False),
        ("maximum connections exceeded", "", "maximum connections exceeded", False),
    ],
)
async def test_a_broker_that_refuses(
    answer: str, user: str, reason: str, is_final: bool, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        await reader.readline()
        writer.write(f"-ERR '{answer}'\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        error = await refused(f"nats://{user}127.0.0.1:{port}", str(password) if user else None)
    assert (str(error), error.is_final) == (reason, is_final)


async def test_a_file_without_credentials_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    creds = tmp_path / "creds"
    creds.write_text("secret")

    class Client:
        """Refuses the file, as the library does."""

        async def connect(self, *_servers: object, **_options: object) -> None:
            raise UnusableCredentials("no seed")

        async def close(self) -> None:
            pass

    monkeypatch.setattr("agent.remote.nats.session.new_client", lambda **_options: Client())
    with pytest.raises(ConfigFailure, match=r"creds: no seed$"):
        async with open_session(parse_broker("nats://127.0.0.1"), str(creds), None):
            pass


@dataclass
class Message:
    """A message of the client library."""

    data: bytes
    reply: str = ""
    headers: dict[str, str] | None = None
    subject: str = "sockagent.a"


class PullingClient:
    """A client whose broker has messages for ever, and serves requests for them in turn."""

    def __init__(self, pending: int = 9) -> None:
        self.open: list[int] = []  # What is left of each request.
        self.sent = 0
        self.pending = pending  # Messages that the stream has for a new consumer.

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def request(self, subject: str, payload: bytes, timeout: float) -> Message:  # noqa: ASYNC109
        return Message(json.dumps({"num_pending": self.pending}).encode())

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        if ".MSG.NEXT." in subject:
            self.open.append(json.loads(payload)["batch"])

    async def subscribe(self, subject: str, *, cb: Callable[[Message], Awaitable[None]]) -> Self:
        self._put = cb
        return self

    async def unsubscribe(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def deliver(self, count: int) -> None:
        """Send messages, as many as are asked for at most."""
        for _ in range(count):
            if not self.open:
                return
            left = self.open.pop(0) - 1
            if left:
                self.open.append(left)
            self.sent += 1
            pending = max(0, self.pending - self.sent)
            reply = f"$JS.ACK.S.C.1.{self.sent}.{self.sent}.0.{pending}"
            await self._put(Message(b"{", reply, {}))

    async def expire(self) -> None:
        """End the oldest request, and report what was left of it."""
        left = str(self.open.pop(0))
        headers = {"Status": "408", "Description": "Request Timeout", "Nats-Pending-Messages": left}
        await self._put(Message(b"", "", headers))


@asynccontextmanager
async def pulling() -> AsyncIterator[tuple[PullingClient, list[int]]]:
    """Read messages of a client; yield it, and the sequences that were read."""
    client, found = PullingClient(), list[int]()
    session = Session(client, "S", Reports(Entry(())), Exception)

    async def read() -> None:
        async for message in session.messages({}):
            if message is not None:
                found.append(message.sequence)

    reading = asyncio.create_task(read())
    await settle()
    yield client, found
    assert not reading.done()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_more_messages_are_asked_for_before_the_last_ones_have_arrived() -> None:
    async with pulling() as (client, found):
        assert client.open == [BATCH]
        await client.deliver(BATCH // 2)
        await settle()
        assert sorted(client.open) == [BATCH // 2, BATCH]
        assert len(found) == BATCH // 2


# Messages that arrive; None: a request ends.
@given(st.lists(st.one_of(st.integers(1, BATCH), st.none()), max_size=30))
def test_whatever_requests_expire_some_are_open_and_not_too_many(steps: list[int | None]) -> None:
    async def run() -> None:
        async with pulling() as (client, found):
            for step in steps:
                if step is None:
                    await client.expire()
                else:
                    await client.deliver(step)
                await settle()
                assert 0 < sum(client.open) <= BATCH + BATCH // 2
            assert found == list(range(1, client.sent + 1))

    asyncio.run(run())


async def test_a_request_that_ends_without_a_number_is_followed_by_another() -> None:
    async with pulling() as (client, _):
        client.open.clear()
        await client._put(Message(b"", "", {"Status": "404", "Description": "No Messages"}))
        await settle()
        assert client.open == [BATCH]


@pytest.mark.parametrize("count", [0, 1, BATCH + 1])
async def test_messages_to_the_end_are_those_that_there_are(count: int) -> None:
    client = PullingClient(count)
    session = Session(client, "S", Reports(Entry(())), Exception)

    async def read() -> list[int]:
        found = [message async for message in session.messages({}, to_end=True)]
        return [message.sequence for message in found if message is not None]

    reading = asyncio.create_task(read())
    while client.sent < count:
        await settle()
        await client.deliver(1)
    async with asyncio.timeout(10):
        assert await reading == list(range(1, count + 1))


@pytest.mark.parametrize(
    "answer",
    [
        b"[]", b"[" * 100_000, b'{"error":"x"}', b'{"error":{"err_code":[1]}}',
        b'{"error":{"err_code":1,"description":{}}}', b'{"state":[],"config":{}}',
        b'{"state":{"first_seq":1e300,"last_seq":5},"config":{"subjects":[]}}',
        b'{"state":{"first_seq":-5,"last_seq":5},"config":{"subjects":[]}}',
        b'{"state":{"first_seq":1,"last_seq":Infinity},"config":{"subjects":[]}}',
        b'{"state":{"first_seq":1,"last_seq":5},"config":{"subjects":null}}',
    ],
)  # fmt: skip
async def test_answers_that_are_not_understood(answer: bytes) -> None:
    class Client(PullingClient):
        async def request(self, *_: object, **_options: object) -> Message:
            return Message(answer)

    session = Session(Client(), "S", Reports(Entry(())), Exception)
    with pytest.raises(SessionError, match=r"^the broker's answer is not understood$") as raised:
        await session.info()
    assert not raised.value.is_final


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_reader_may_leave_while_messages_wait(is_lost: bool) -> None:
    client = PullingClient()
    session = Session(client, "S", Reports(Entry(())), Exception)
    messages = session.messages({})
    reading = asyncio.ensure_future(anext(messages))
    await settle()
    await client.deliver(2)
    await reading

    async def fail() -> None:
        raise OSError("closed")

    if is_lost:
        client.unsubscribe = fail  # type: ignore[method-assign]
    await messages.aclose()
