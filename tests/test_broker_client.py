"""The client of the library, and programs in the place of a broker."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.broker_login import Entry, new_client
from agent.errors import ConfigFailure

errors = pytest.importorskip("nats.errors", reason="nats-py is not installed")
NOT_UNDERSTOOD = "the broker's answer is not understood"
INFO = {"server_id": "x", "version": "2.10.0", "headers": True, "max_payload": 1048576}


def info(**fields: object) -> bytes:
    return b"INFO " + json.dumps({**INFO, **fields}).encode() + b"\r\n"


async def connect(
    first: bytes, then: bytes, use: Callable[[list[Exception]], Awaitable[None]], **options: str
) -> None:
    """Connect to a program that sends ``first``, answers a ping, and sends ``then``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n" + then)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client, reported, closed = new_client(is_encrypted=False), list[Exception](), asyncio.Event()

    async def note(error: Exception) -> None:
        reported.append(error)

    async def close() -> None:
        closed.set()

    entry = Entry((f"nats://127.0.0.1:{port}",), None, options.get("user_credentials"))
    async with server:
        try:
            async with asyncio.timeout(10):
                await entry.connect(client, note, close, **options)
                await closed.wait()
                await use(reported)
        finally:
            await client.close()


async def nothing(_: list[Exception]) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    "first",
    [
        b"INFO []\r\n", b"INFO 3\r\n", b'INFO "x"\r\n', b"INFO " + b"[" * 50_000 + b"\r\n",
        b"A" * 300_000, info(max_payload="abc"), info(max_payload=0), info(max_payload=True),
        info(max_payload=float("inf")), info(max_payload=None), info(headers=[1]),
        info(auth_required=True, nonce=5), info(auth_required=True, nonce="\ud800"),
        info(connect_urls=5), info(connect_urls=["[", "::::", None]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("has_credentials", [False, True])
async def test_a_beginning_that_is_not_understood(
    first: bytes, tmp_path: Path, *, has_credentials: bool
) -> None:
    path = tmp_path / "me.creds"
    path.write_text("-----BEGIN NATS USER JWT-----\nx\n")
    options = {"user_credentials": str(path)} if has_credentials else {}
    with pytest.raises(errors.Error, match=f"^{NOT_UNDERSTOOD}$"):
        await connect(first, b"", nothing, **options)


@pytest.mark.parametrize("seed", ["", "-----BEGIN USER NKEY SEED-----\n", "SECRET"])
async def test_a_file_that_the_library_cannot_use(tmp_path: Path, seed: str) -> None:
    pytest.importorskip("nkeys", reason="nkeys is not installed")
    path = tmp_path / "me.creds"
    begins = "-----BEGIN USER NKEY SEED-----\n" if seed else ""
    path.write_text(f"-----BEGIN NATS USER JWT-----\nx\n------\n{begins}{seed}\n")
    with pytest.raises(ConfigFailure, match=f"^credentials {path}: ") as raised:
        first = info(auth_required=True, nonce="abc")
        await connect(first, b"", nothing, user_credentials=str(path))
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    "then",
    [
        b"INFO {x\r\n", b"INFO []\r\n", b"INFO " + b"[" * 50_000 + b"\r\n", b"MSG a x 5\r\n",
        b"MSG a 1 999999999999\r\n", b"MSG a 1 " + b"9" * 5000 + b"\r\n", b"A" * 2_000_000,
        b"HELLO\r\n", b"-ERR '\xff'\r\n",
    ],
)  # fmt: skip
async def test_what_is_not_understood_ends_the_connection(
    then: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(reported: list[Exception]) -> None:
        assert [str(error) for error in reported] == [NOT_UNDERSTOOD]

    with caplog.at_level(logging.DEBUG, logger="nats"):
        await connect(info(), then, check)
    assert not [record for record in caplog.records if record.exc_info]
