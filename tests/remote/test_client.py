"""Following remote agents: real servers that break connections, restart and refuse clients."""

import asyncio
import gc
import ssl
import subprocess
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.server import ServerProtocol

from agent.errors import RuntimeFailure
from agent.publish.websocket.access import Access
from agent.publish.websocket.connection import Connection
from agent.remote import client as client_module
from agent.remote.client import RemoteAgent, follow_all

from ..feeding import AGENT, ONE, THREE, TWO, events
from ..make import Record, records
from ..publish.websocket.serving import HANGS_SECONDS, LIMITS, Serving, serving

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MIN_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(client_module, "MAX_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "MAX_LOCAL_BACKOFF_SECONDS", 0.1)


class Records:
    """The records of remote agents."""

    def __init__(self, *remotes: RemoteAgent) -> None:
        self._chunks: AsyncIterator[bytes] = follow_all(remotes)
        self.all: list[Record] = []

    async def until(self, event: str, *, times: int = 1) -> list[Record]:
        """Return the new records up to this many of an event."""
        new: list[Record] = []
        async with asyncio.timeout(HANGS_SECONDS):
            while events(new).count(event) < times:
                new += records(await anext(self._chunks))
        self.all += new
        return new

    async def failure(self) -> str:
        async with asyncio.timeout(HANGS_SECONDS):
            with pytest.raises(RuntimeFailure) as raised:
                while True:
                    await anext(self._chunks)
        return str(raised.value)

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


def remote(there: Serving, **more: object) -> RemoteAgent:
    return RemoteAgent(f"ws://127.0.0.1:{there.port}", (), **more)  # type: ignore[arg-type]


def cut(there: Serving) -> None:
    """Break all connections of a server."""
    for client in there.registry.connections():
        client.abort()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://h:1", "ws://h:1/events?proto=tcp&epoch=e&since=5"),
        ("ws://h:1/", "ws://h:1/events?proto=tcp&epoch=e&since=5"),
        ("wss://h/agents/1?port=80", "wss://h/agents/1?port=80&proto=tcp&epoch=e&since=5"),
        ("unix:/run/feed.sock", "ws://localhost/events?proto=tcp&epoch=e&since=5"),
    ],
)
def test_the_requested_url(url: str, expected: str) -> None:
    one = RemoteAgent(url, (("proto", "tcp"),))
    assert one.request_url([("e", 5)]) == expected
    assert one.request_url([("e", 5), ("f", 6)]) == f"{expected}&epoch=f&since=6"
    assert one.request_url(()) == expected.removesuffix("&epoch=e&since=5")


async def test_the_records_of_a_remote_agent_are_passed_on() -> None:
    async with serving() as there:
        there.poll(ONE)
        stream = Records(remote(there))
        assert events(await stream.until("snapshot_end")) == ["hello", "snapshot", "snapshot_end"]
        there.poll(ONE, TWO)
        assert [(one["event"], one["seq"]) for one in await stream.until("open")] == [("open", 1)]
        await stream.close()
        await there.subscribed(0)


async def test_after_an_interruption_the_stream_resumes_without_loss() -> None:
    async with serving() as there:
        there.poll(ONE)
        stream = Records(remote(there))
        await stream.until("snapshot_end")
        for turn in range(5):
            cut(there)
            there.poll(ONE, *([TWO] if turn % 2 == 0 else []))
            new = await stream.until("open" if turn % 2 == 0 else "close")
            assert [one.get("resumed") for one in new] == [True, None]
        assert [one["seq"] for one in stream.all if one["event"] in ("open", "close")] == [
            1, 2, 3, 4, 5
        ]  # fmt: skip
        await stream.close()


async def test_records_dropped_from_the_history_are_reported_as_lost() -> None:
    async with serving(history_records=2) as there:
        there.poll(ONE)
        stream = Records(remote(there))
        await stream.until("snapshot_end")
        cut(there)
        for held in ([ONE, TWO], [TWO], [THREE], [ONE]):
            there.poll(*held)
        new = await stream.until("snapshot_end")
        assert events(new) == ["lost", "hello", "snapshot", "snapshot_end"]
        assert (new[0]["from"], new[0]["to"]) == (1, there.feed.seq)
        await stream.close()


async def test_a_restarted_agent_starts_a_new_epoch(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as there:
        there.poll(ONE)
        port = there.port
        stream = Records(remote(there))
        await stream.until("snapshot_end")
        there.feed.stop()
    await asyncio.sleep(0.2)  # Nothing listens for a while.
    async with serving(f"127.0.0.1:{port}", agent=AGENT._replace(epoch="another")) as again:
        again.poll(TWO)
        new = await stream.until("snapshot_end")
        assert events(new) == ["lost", "hello", "snapshot", "snapshot_end"]
        assert (new[0]["to"], new[1]["epoch"], new[2]["inode"]) == (None, "another", 2)
        await stream.close()
    await asyncio.sleep(0.1)
    url = f"ws://127.0.0.1:{port}"
    lines = [line for line in capfd.readouterr().err.splitlines() if url in line]
    assert lines == [
        f"sockagent: {url}: connection closed by the server: 1001 the agent is stopping; retrying",
        f"sockagent: {url}: connected again",
    ]


async def test_an_agent_that_starts_later() -> None:
    async with serving() as there:
        port = there.port
    stream = Records(RemoteAgent(f"ws://127.0.0.1:{port}", ()))
    waiting = asyncio.create_task(stream.until("snapshot_end"))
    await asyncio.sleep(0.1)
    async with serving(f"127.0.0.1:{port}") as there:
        there.poll(ONE)
        assert events(await waiting) == ["hello", "snapshot", "snapshot_end"]
        await stream.close()


async def test_the_streams_of_several_agents_are_merged(tmp_path: Path) -> None:
    async with serving() as one, serving("127.0.0.1:0", f"unix:{tmp_path}/feed.sock") as two:
        one.poll(ONE)
        two.poll(TWO)
        stream = Records(remote(one), RemoteAgent(f"unix:{tmp_path}/feed.sock", ()))
        new = await stream.until("snapshot_end", times=2)
        assert sorted(events(new)) == sorted(["hello", "snapshot", "snapshot_end"] * 2)
        cut(one)
        two.poll()
        one.poll(ONE, THREE)
        new = await stream.until("open")
        if "close" not in events(new):
            new += await stream.until("close")
        assert {("open", 3), ("close", 2)} <= {(one["event"], one.get("inode")) for one in new}
        await stream.close()


async def test_filters_and_the_token_are_passed_on() -> None:
    async with serving(access=Access(tokens=(TOKEN,))) as there:
        there.poll(ONE, TWO)
        url = f"ws://127.0.0.1:{there.port}"
        stream = Records(RemoteAgent(url, (("port", "2"), ("port", "7")), TOKEN))
        new = await stream.until("snapshot_end")
        assert [one["inode"] for one in new if one["event"] == "snapshot"] == [2]
        await stream.close()
        assert await Records(RemoteAgent(url, ())).failure() == f"{url}: 401 token required"
        wrong = RemoteAgent(url, (("port", "x"),), TOKEN)
        assert (await Records(wrong).failure()).startswith(f"{url}: 400 port: 'x' is not a port")


async def test_an_agent_with_too_many_clients_is_retried() -> None:
    async with serving(limits=LIMITS._replace(clients=1)) as there:
        there.poll(ONE)
        async with there.client():
            await there.subscribed(1)
            stream = Records(remote(there))
            waiting = asyncio.create_task(stream.until("snapshot_end"))
            await asyncio.sleep(0.2)
            assert not waiting.done()
        assert events(await waiting)[-1] == "snapshot_end"
        await stream.close()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 503 Busy\r\n\r\n"])
async def test_a_server_of_another_protocol_is_retried(answer: bytes) -> None:
    asked = 0

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(1000)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    stream = Records(RemoteAgent(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", ()))
    waiting = asyncio.create_task(stream.until("hello"))
    async with asyncio.timeout(HANGS_SECONDS):
        while asked < 3:  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.close()
    server.close()


async def test_a_silent_agent_is_reconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENT_SECONDS", 0.2)
    async with serving() as there:
        there.poll(ONE)
        stream = Records(remote(there))
        new = await stream.until("hello", times=3)
        assert [one["resumed"] for one in new if one["event"] == "hello"] == [False, True, True]
        await stream.close()


async def test_trouble_with_an_agent_and_its_end_are_said_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client_module, "SILENT_SECONDS", 0.1)
    accepted = 0

    async def accept(connection: ServerConnection) -> None:
        nonlocal accepted
        accepted += 1
        await connection.wait_closed()

    async with serve(accept, "127.0.0.1", 0) as silent:
        port = next(iter(silent.sockets)).getsockname()[1]
        stream = Records(RemoteAgent(f"ws://127.0.0.1:{port}", ()))
        waiting = asyncio.create_task(stream.until("snapshot_end"))
        async with asyncio.timeout(HANGS_SECONDS):
            while accepted < 3:  # noqa: ASYNC110 (no event to wait for)
                await asyncio.sleep(0.01)
    monkeypatch.setattr(client_module, "SILENT_SECONDS", HANGS_SECONDS)
    async with serving(f"127.0.0.1:{port}") as there:
        there.poll(ONE)
        await waiting
        await stream.close()
    await asyncio.sleep(0.1)
    url = f"ws://127.0.0.1:{port}"
    lines = [line for line in capfd.readouterr().err.splitlines() if url in line]
    assert lines == [
        f"sockagent: {url}: no response; retrying",
        f"sockagent: {url}: connected again",
    ]


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("tls")
    key, cert = str(directory / "key.pem"), str(directory / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def test_tls_is_verified(certificate: tuple[str, str]) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with serving(tls=served) as there:
        there.poll(ONE)
        url = f"wss://127.0.0.1:{there.port}"
        stream = Records(RemoteAgent(url, (), None, trusting))
        assert events(await stream.until("snapshot_end"))[0] == "hello"
        there.poll(TWO)
        await stream.until("open")
        await stream.close()
        failure = await Records(RemoteAgent(url, (), None, ssl.create_default_context())).failure()
        assert failure.startswith(f"{url}: self-signed certificate")


async def test_a_missing_client_certificate_is_retried_and_reported(
    certificate: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate[0])
    served.load_cert_chain(*certificate)
    served.verify_mode = ssl.CERT_REQUIRED
    bare = ssl.create_default_context(cafile=certificate[0])
    known = ssl.create_default_context(cafile=certificate[0])
    known.load_cert_chain(*certificate)
    async with serving(tls=served) as there:
        there.poll(ONE)
        url = f"wss://127.0.0.1:{there.port}"
        stream = Records(RemoteAgent(url, (), None, known))
        await stream.until("snapshot_end")
        await stream.close()
        refused = Records(RemoteAgent(url, (), None, bare))
        waiting = asyncio.create_task(refused.until("hello"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await refused.close()
    assert "the server may require TLS (wss://) or a client certificate" in capfd.readouterr().err


async def test_tls_handshakes_are_limited_like_others(certificate: tuple[str, str]) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with serving(tls=served, limits=LIMITS._replace(handshakes=5)) as there:
        there.poll(ONE)
        idle = [there.raw() for _ in range(30)]  # Without a byte of a handshake.
        stream = Records(RemoteAgent(f"wss://127.0.0.1:{there.port}", (), None, trusting))
        await stream.until("snapshot_end")
        assert len(there.registry.connections()) <= 6
        plain = there.raw("GET /events HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(HANGS_SECONDS):
            loop = asyncio.get_running_loop()
            while await loop.sock_recv(plain, 100):  # Perhaps an alert, then the end.
                pass
        assert there.registry.rejections.refusals == {"tls": 1}
        assert there.registry.rejections.evictions["handshake"] >= 25
        await stream.close()
        for one in (*idle, plain):
            one.close()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01garbage" * 9, b""])
async def test_a_failed_tls_handshake_leaves_nothing_in_memory(
    certificate: tuple[str, str], sent: bytes
) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*certificate)
    async with serving(tls=served) as there:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
                writer.write(sent)
                writer.write_eof()
                with suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), HANGS_SECONDS)
                writer.close()
            async with asyncio.timeout(HANGS_SECONDS):
                while there.registry.connections():  # noqa: ASYNC110 (no event to wait for)
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            kinds = (SSLProtocol, Connection, ServerProtocol)
            assert [one for one in gc.get_objects() if isinstance(one, kinds)] == []
        finally:
            gc.enable()


# Servers that are not agents.

REDIRECTS = "redirects to {}, which is not followed; pass that URL instead"


async def test_a_redirect_is_not_followed_and_the_token_not_passed_on() -> None:
    reached: list[bytes] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(1000))
        writer.close()

    async def redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {there}\r\n\r\n".encode())
        writer.close()

    target = await asyncio.start_server(other, "127.0.0.1", 0)
    there = f"ws://127.0.0.1:{target.sockets[0].getsockname()[1]}/x"
    server = await asyncio.start_server(redirecting, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert (
        await Records(RemoteAgent(url, (), TOKEN)).failure() == f"{url}: {REDIRECTS.format(there)}"
    )
    assert reached == []
    server.close()
    target.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("302 Found\r\nLocation: ws://[::1", REDIRECTS.format("ws://[::1")),
        ("308 Moved\r\nLocation: /feed", REDIRECTS.format("/feed")),
        ("301 Moved\r\nLocation: " + "x" * 8000, REDIRECTS.format("x" * 200)),
        ("302 Found\r\nLocation: ws://a/\r\nLocation: b", REDIRECTS.format("ws://a/, b")),
        ("300 Choose", "300 Choose"),
        ("403 No\r\nContent-Length: 100000\r\n\r\n" + "x" * 100_000, "403 " + "x" * 200),
        ("101 Switching\r\n\r\n", None),
    ],
)
async def test_a_hostile_answer_is_reported_in_short(answer: str, reason: str | None) -> None:
    asked = asyncio.Event()

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {answer}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stream = Records(RemoteAgent(url, ()))
    if reason is not None:
        assert await stream.failure() == f"{url}: {reason}"
    else:
        waiting = asyncio.create_task(stream.until("hello"))
        await asyncio.wait_for(asked.wait(), HANGS_SECONDS)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.close()
    server.close()


async def test_an_impossible_host_name_is_reported() -> None:
    failure = await Records(RemoteAgent("ws://a..b:1/", ())).failure()
    assert failure.startswith("ws://a..b:1/: invalid URL: ")


async def test_two_agents_with_the_same_host_name_cause_a_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with serving() as one, serving() as two:
        one.poll(ONE)
        two.poll(TWO)
        stream = Records(remote(one), remote(two))
        await stream.until("snapshot_end", times=2)
        await stream.close()
    await asyncio.sleep(0.1)
    assert "have the same host name host" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("unix:/run/sockagent.sock", True),
        ("ws://127.0.0.1:8765", True),
        ("ws://[::1]:8765/events", True),
        ("wss://localhost:8765", True),
        ("wss://web1.example:8765", False),
        ("ws://127.0.0.1.example:8765", False),
    ],
)
def test_agents_of_this_machine_are_tried_again_sooner(url: str, is_local: bool) -> None:
    assert RemoteAgent(url, ()).is_local == is_local
