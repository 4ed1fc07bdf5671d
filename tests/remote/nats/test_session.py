"""The connection to a broker."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from agent.broker_login import OPEN_SECONDS
from agent.errors import ConfigFailure
from agent.remote.nats.session import SessionError, open_session
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
            raise ValueError("no seed")

        async def close(self) -> None:
            pass

    monkeypatch.setattr("agent.remote.nats.session.new_client", lambda **_options: Client())
    with pytest.raises(ConfigFailure, match=r"creds: no seed$"):
        async with open_session(parse_broker("nats://127.0.0.1"), str(creds), None):
            pass
