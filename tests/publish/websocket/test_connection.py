"""Clients that break rules, read slowly or leave, over real connections."""

import asyncio
import gc
import socket
import struct
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.server import ServerProtocol

from agent.publish.http.pages import PLAIN, Reply, fixed
from agent.publish.websocket import rejections
from agent.publish.websocket.connection import Connection

from ...feeding import ONE, events, seqs
from .serving import HANGS_SECONDS, MANY, UPGRADE, end_of, message, read_until, serving


def alive(kind: type) -> int:
    """Return how many objects of a type exist, including garbage that is not collected yet."""
    return sum(isinstance(one, kind) for one in gc.get_objects())


async def answer_to(
    port: int, request: bytes, *, eof: bool = False
) -> tuple[int, dict[str, str], str]:
    """Return the status, headers and body of the response, which must be all that is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if eof:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), HANGS_SECONDS)
    writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(body) == int(headers["Content-Length"])
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize("eof", [False, True])
@pytest.mark.parametrize(
    "request_",
    [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n",
        "GET / HTTP/0.9\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /\xe9 HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_answered_and_counted(request_: str, eof: bool) -> None:
    async with serving() as running:
        status, _, body = await answer_to(running.port, request_.encode("latin-1"), eof=eof)
        assert (status, body) == (400, "malformed request; expected HTTP/1.1\n")
        assert running.registry.rejections.refusals == {"malformed": 1}
        running.poll(ONE)
        async with running.client() as connection:
            assert events(await message(connection)) == ["hello"]


@pytest.mark.parametrize(
    ("request_", "answered"),
    [
        ("", False),
        ("\x16\x03\x01\x02\x00", True),
        ("GET /", True),
        ("GET / HTTP/1.1\r\nHost: x\r\n", True),
    ],
)
async def test_a_request_that_ends_early_is_counted(request_: str, answered: bool) -> None:
    async with serving() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request_.encode("latin-1"))
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), HANGS_SECONDS)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ") == answered
        assert answered or not answer
        assert running.registry.rejections.refusals == {"malformed": 1}


BODIES = [
    "Content-Length: 3\r\n\r\nx=1",
    "content-LENGTH:3\r\n\r\nx=1",
    "Transfer-Encoding: chunked\r\n\r\n3\r\nx=1\r\n0\r\n\r\n",
    "Content-Length: 1000\r\n\r\n",  # It does not come.
    "Content-Length: 0\r\nContent-Length: 3\r\n\r\nx=1",
    "Content-Length: 9\r\n\r\n\x88\x80\0\0\0\0\0\0\0",  # As a frame.
    f"Content-Length: 9000\r\n\r\n{'x' * 9000}",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize(
    ("request_", "status", "text", "allowed"),
    [
        ("POST /events", 405, "method not allowed; use GET\n", "GET"),
        ("PUT /x", 405, "method not allowed; use GET or HEAD\n", "GET, HEAD"),
        ("GET /events", 400, "a request with a body is not accepted\n", None),
        ("GET /x", 404, "not found; available are /events\n", None),
    ],
)
async def test_a_request_with_a_body_is_answered(
    body: str, is_whole: bool, request_: str, status: int, text: str, allowed: str | None
) -> None:
    async with serving() as running:
        sent = body if is_whole else body.partition("\r\n\r\n")[0] + "\r\n\r\n"
        whole = f"{request_} HTTP/1.1\r\nHost: localhost\r\n{sent}"
        answer = await answer_to(running.port, whole.encode("latin-1"))
        assert (answer[0], answer[1].get("Allow"), answer[2]) == (status, allowed, text)
        assert running.registry.rejections.refusals == {str(status): 1}


async def test_a_subscription_with_a_body_is_refused() -> None:
    async with serving() as running:
        request = UPGRADE.format(path="/events").removesuffix("\r\n") + BODIES[0]
        status, _, _ = await answer_to(running.port, request.encode())
        assert status == 400
        assert running.registry.subscriber_count == 0
        request = UPGRADE.format(path="/events").removesuffix("\r\n") + "Content-Length: 0\r\n\r\n"
        made = running.raw(request)
        await running.subscribed(1)
        made.close()


@pytest.mark.parametrize("more", ["junk", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
@pytest.mark.parametrize("path", ["/nowhere", "/events"])
async def test_data_after_a_request_causes_no_error(
    more: str, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        plain = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write((plain + more).encode())
        answer = await asyncio.wait_for(reader.read(), HANGS_SECONDS)
        writer.close()
        if path == "/nowhere":
            assert answer.startswith(b"HTTP/1.1 404 ")
        upgrade = running.raw(UPGRADE.format(path="/events") + more)
        with suppress(ConnectionError):
            async with asyncio.timeout(HANGS_SECONDS):
                while await asyncio.get_running_loop().sock_recv(upgrade, 65536):
                    pass
        upgrade.close()
        await running.subscribed(0)
    await asyncio.sleep(0.1)
    assert "rror" not in capfd.readouterr().err


async def test_a_request_with_large_headers_is_refused() -> None:
    async with serving() as running:
        running.poll(ONE)
        large = [f"X-{number}: {'x' * 4000}" for number in range(5)]
        assert (await running.get("/events", "Host: localhost", *large))[0] == 431
        assert running.registry.rejections.refusals == {"431": 1}
        assert (await running.get("/events", "Host: localhost", *large[:3]))[0] == 426


async def test_an_endless_request_line_is_disconnected() -> None:
    async with serving() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(HANGS_SECONDS):
                while True:
                    writer.write(b"GET /" + b"x" * 65536)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()
        del reader


async def test_an_incomplete_handshake_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "HANDSHAKE_SECONDS", 0.2)
    async with serving() as running:
        stuck = running.raw("GET /events HTTP/1.1\r\nHost: loc")
        async with asyncio.timeout(HANGS_SECONDS):
            assert await asyncio.get_running_loop().sock_recv(stuck, 1) == b""
        assert running.registry.rejections.evictions == {"handshake": 1}
        stuck.close()


async def test_a_request_sent_byte_by_byte_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rejections, "HANDSHAKE_SECONDS", 0.3)
    async with serving() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(HANGS_SECONDS):
                while True:
                    writer.write(b"G")
                    await writer.drain()
                    await asyncio.sleep(0.02)
        writer.close()
        assert running.registry.rejections.evictions == {"handshake": 1}
        del reader


async def test_a_client_that_does_not_read_delays_no_other_and_is_evicted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rejections, "STALL_SECONDS", 0.5)
    async with serving() as running:
        running.poll(*MANY)
        running.feed.history._max_bytes = 10**9
        stuck = running.raw(UPGRADE.format(path="/events"))
        name = "{}:{}".format(*stuck.getsockname())
        async with running.client() as connection:
            await read_until(connection, "snapshot_end")
            await running.subscribed(2)
            for turn in range(1, 20):
                running.poll(*MANY[turn * 50 :])
                got: list[int] = []
                while len(got) < 50:
                    got += seqs(await message(connection))
                assert got == list(range(turn * 50 - 49, turn * 50 + 1))
            await running.subscribed(1)
        assert running.registry.rejections.evictions == {"slow": 1}
        stuck.close()
    await asyncio.sleep(0.1)
    lines = [line for line in capfd.readouterr().err.splitlines() if name in line]
    assert lines == [f"sockagent: disconnected {name}: too slow: no data read for 30 s"]


async def test_a_slow_reader_is_kept_and_a_stalled_one_evicted() -> None:
    async with serving(history_bytes=10**9) as running:
        running.poll(*MANY)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # With the segments of 64 KiB of loopback, the kernel acknowledges 64 KiB at once.
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        slow.connect(("127.0.0.1", running.port))
        slow.sendall(UPGRADE.format(path="/events?snapshot=0").encode())
        slow.setblocking(False)
        await running.subscribed(1)
        running.poll()  # A message of 256 KiB, of which the kernel takes 128.
        (connection,) = running.registry.connections()
        async with asyncio.timeout(HANGS_SECONDS):
            while connection._stalled_at is None:  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        now = loop.time()
        total = 0
        for _ in range(20):
            received = 0
            while received < 4096:
                received += len(await loop.sock_recv(slow, 4096 - received))
            async with asyncio.timeout(HANGS_SECONDS):
                while connection._count_taken() == connection._taken:  # noqa: ASYNC110 (as above)
                    await asyncio.sleep(0.01)
            now += 2 * rejections.STALL_SECONDS
            connection.expire(now)
            assert connection._stalled_at == now
            assert connection.is_open
            total += received
        assert total < 128 * 1024  # It is still the same message.
        connection.expire(now + 2 * rejections.STALL_SECONDS)
        assert not connection.is_open
        assert running.registry.rejections.evictions == {"slow": 1}
        slow.close()


async def test_a_long_reply_is_sent_for_as_long_as_the_client_reads() -> None:
    content = bytes(8 * 1024 * 1024)
    page = fixed(Reply(200, PLAIN, content))
    async with serving(pages=lambda _feed, _registry: {"/long": page}) as running:
        request = "GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n"
        slow, stuck = running.raw(request), running.raw(request)
        async with asyncio.timeout(HANGS_SECONDS):
            while sum(one._stalled_at is not None for one in running.registry.connections()) < 2:  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        now, received = loop.time(), b""
        async with asyncio.timeout(HANGS_SECONDS):
            while len(received) < 4 * 1024 * 1024:
                received += await loop.sock_recv(slow, 1024 * 1024)
            name = "{}:{}".format(*slow.getsockname())
            (reading,) = (one for one in running.registry.connections() if one.peer.name == name)
            (other,) = (one for one in running.registry.connections() if one.peer.name != name)
            now += 2 * rejections.STALL_SECONDS
            for connection in (reading, other):
                connection.expire(now)
            assert running.registry.rejections.evictions == {"slow": 1}
            while chunk := await loop.sock_recv(slow, 1024 * 1024):
                received += chunk
        assert received.endswith(content)
        slow.close()
        stuck.close()


async def test_a_client_that_falls_behind_gets_lost_and_a_snapshot() -> None:
    async with serving(history_records=100) as running:
        running.poll(*MANY)
        slow = running.raw(UPGRADE.format(path="/events"))
        await running.subscribed(1)
        await asyncio.sleep(0.2)
        for turn in range(1, 40):
            running.poll(*MANY[turn * 20 :])
            await asyncio.sleep(0.01)
        got = b""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(HANGS_SECONDS):
            while got.count(b'"snapshot_end"') < 2:
                got += await loop.sock_recv(slow, 65536)
        slow.close()
        assert got.count(b'"event":"lost"') >= 1
        assert running.feed.lost >= 1
        assert not running.registry.rejections.evictions


async def test_a_large_message_ends_the_connection() -> None:
    async with serving() as running:
        running.poll(ONE)
        async with running.client() as connection:
            await connection.send(b"x" * 50_000)
            assert (await end_of(connection))[0] == 1009


async def test_a_flooding_client_is_evicted() -> None:
    async with serving() as running:
        running.poll(ONE)
        async with running.client() as connection, running.client() as other:
            await read_until(other, "snapshot_end")
            with pytest.raises(ConnectionClosed) as raised:
                while True:
                    await connection.send("x" * 1000)
                    await asyncio.sleep(0)
            assert raised.value.rcvd
            assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (
                1008,
                "too much data sent; the limit is 4096 bytes/s",
            )
            assert running.registry.rejections.evictions == {"flood": 1}
            running.poll()
            assert events(await message(other)) == ["close"]


async def test_a_client_flooding_with_small_frames_is_evicted() -> None:
    ping = b"\x89\x80\0\0\0\0"
    async with serving() as running:
        running.poll(ONE)
        flooding = running.raw(UPGRADE.format(path="/events"))
        await running.subscribed(1)
        flooding.setblocking(True)
        flooding.sendall(ping * 5000)  # Fewer bytes than the budget, but much work.
        await running.subscribed(0)
        assert running.registry.rejections.evictions == {"flood": 1}
        flooding.close()


async def test_nothing_is_written_to_a_reset_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ping = b"\x89\x80\0\0\0\0"
    async with serving() as running:
        running.poll(ONE)
        for _ in range(10):
            gone = running.raw(UPGRADE.format(path="/events"))
            await running.subscribed(1)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.setblocking(True)
            gone.sendall(ping * 500)
            gone.close()
            await running.subscribed(0)
    assert [record.getMessage() for record in caplog.records] == []


async def test_client_messages_are_discarded_and_pings_answered() -> None:
    async with serving() as running:
        running.poll(ONE)
        async with running.client() as connection:
            for _ in range(100):
                await connection.send("hello")
            await (await connection.ping())
            running.poll()
            assert "close" in events(await read_until(connection, "close"))


@pytest.mark.parametrize(
    "request_",
    [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        UPGRADE.format(path="/events"),
        "junk\r\n",
    ],
)
async def test_a_closed_connection_leaves_no_reference_cycle(request_: str) -> None:
    async with serving() as running:
        running.poll(ONE)
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
                writer.write(request_.encode())
                await asyncio.wait_for(reader.read(12), HANGS_SECONDS)
                writer.close()
            # A local variable may still refer to the last one.
            async with asyncio.timeout(HANGS_SECONDS):
                while alive(Connection) > 1 or alive(ServerProtocol) > 1:  # noqa: ASYNC110 (there is no event)
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_a_half_closed_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as running:
        running.poll(ONE)
        half = running.raw(UPGRADE.format(path="/events"))
        await running.subscribed(1)
        half.shutdown(socket.SHUT_WR)
        await running.subscribed(0)
        half.close()
