"""The connection to a broker."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from agent.remote.nats.reports import SessionError
from agent.remote.nats.session import open_session
from agent.stream.fleet import parse_broker

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
