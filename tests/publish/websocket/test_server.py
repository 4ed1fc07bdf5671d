"""What subscribers get, over real connections."""

import asyncio
import gc
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from agent.publish.websocket import server as websocket
from agent.publish.websocket.access import Access
from agent.publish.websocket.connection import Client, frame
from agent.publish.websocket.limits import Limits
from agent.publish.websocket.server import PAGE_BYTES
from agent.stream.filters import Filter
from agent.stream.lines import CHUNK_BYTES

from ...feeding import ONE, THREE, TWO, events, seqs
from ...make import holding, process, records, tcp
from .serving import HANGS_SECONDS, UPGRADE, message, serving, told

MANY = [holding(tcp(inode, local_port=inode)) for inode in range(1, 1001)]
TOKEN = "0123456789abcdef"


async def status_of(connecting: object) -> tuple[int, str]:
    """How a handshake is refused."""
    with pytest.raises(InvalidStatus) as raised:
        async with connecting:  # type: ignore[attr-defined]
            pass
    response = raised.value.response
    return response.status_code, (response.body or b"").decode()


async def end_of(connection: object) -> tuple[int, str]:
    """Code and reason of a connection's end."""
    async with asyncio.timeout(HANGS_SECONDS):
        with pytest.raises(ConnectionClosed) as raised:
            while True:
                await connection.recv()  # type: ignore[attr-defined]
    closed = raised.value.rcvd
    assert closed
    return closed.code, closed.reason


def alive(kind: type) -> int:
    """How many objects of a type there are, in use or not collected yet."""
    return sum(isinstance(one, kind) for one in gc.get_objects())


async def test_a_subscriber_gets_the_snapshot_and_what_follows() -> None:
    async with serving() as there:
        there.poll(ONE)
        async with there.client() as connection:
            assert events(await told(connection, "snapshot_end")) == [
                "hello", "snapshot", "snapshot_end"
            ]  # fmt: skip
            there.poll(TWO, THREE)
            assert events(await message(connection)) == ["close", "open", "open"]
            there.poll(TWO)
            assert seqs(await message(connection)) == [4]


async def test_no_publication_is_lost_however_it_meets_the_end_of_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With no time to wait, each turn of the event loop ends a wait or begins one.
    monkeypatch.setattr(websocket, "_SWEEP_SECONDS", 0.0)
    async with serving() as there:
        there.poll()
        async with there.client() as connection:
            await told(connection, "snapshot_end")
            for turn in range(3000):
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                there.poll(*([] if turn % 2 else [ONE]))
                assert seqs(await message(connection)) == [turn + 1]


async def test_what_is_published_while_clients_are_served_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "_SWEEP_SECONDS", 3600.0)
    monkeypatch.setattr(websocket, "_TURN_SECONDS", 0.0)  # Each client is served in its own turn.
    async with serving() as there, there.client() as one, there.client() as two:
        there.poll()
        both = [one, two]
        for connection in both:
            await told(connection, "snapshot_end")
        for turn in range(0, 600, 2):
            there.poll(ONE)
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            there.poll()
            for connection in both:
                got: list[int] = []
                while len(got) < 2:
                    got += seqs(await message(connection))
                assert got == [turn + 1, turn + 2]


async def test_one_before_the_first_poll_waits_for_it() -> None:
    async with serving() as there, there.client() as connection:
        await asyncio.sleep(0.05)
        there.poll(ONE)
        assert events(await told(connection, "snapshot_end"))[0] == "hello"


async def test_messages_are_bounded_and_of_whole_records() -> None:
    async with serving() as there:
        there.poll(*MANY)
        async with there.client() as connection:

            async def sizes(until: tuple[str, int]) -> list[int]:
                found = []
                last = None
                while last != until:
                    text = await connection.recv()
                    assert isinstance(text, str)
                    found.append(len(text))
                    record = records(text.encode())[-1]
                    last = (record["event"], record["seq"])
                return found

            assert max(await sizes(("snapshot_end", 0))) <= PAGE_BYTES
            there.poll()
            # A poll's deltas go in as few messages as there may be.
            closes = await sizes(("close", len(MANY)))
            assert max(closes) <= CHUNK_BYTES
            assert len(closes) <= sum(closes) // CHUNK_BYTES + 2


async def test_filters_and_what_they_may_not_see() -> None:
    async with serving(narrowed=Filter({"port": ["1,2"]})) as there:
        there.poll(ONE, TWO, THREE)
        async with there.client("?port=2,3") as connection:
            got = await told(connection, "snapshot_end")
            assert [one["inode"] for one in got if one["event"] == "snapshot"] == [2]


async def test_who_may_see_less_from_now_on_begins_anew() -> None:
    async with serving() as there:
        there.poll(ONE, TWO, THREE)
        async with there.client("?port=1,2") as connection:
            got = await told(connection, "snapshot_end")
            assert [one["inode"] for one in got if one["event"] == "snapshot"] == [1, 2]
            there.server.narrow(Filter({"port": ["2-3"]}))
            got = await told(connection, "snapshot_end")
            assert (events(got)[0], got[0]["resumed"]) == ("hello", False)
            assert [one["inode"] for one in got if one["event"] == "snapshot"] == [2]
            there.server.narrow(Filter({"port": ["2-3"]}))  # That is no change.
            there.poll()
            assert [one.get("inode") for one in await message(connection)] == [2]
        await there.subscribed(0)
        assert not there.server._subscribers


async def test_resuming() -> None:
    async with serving() as there:
        there.poll(ONE)
        there.poll(ONE, TWO)
        there.poll(TWO)
        async with there.client("?epoch=epoch&since=1") as connection:
            hello, close = await message(connection) + await message(connection)
            assert (hello["resumed"], hello["seq"]) == (True, 1)
            assert (close["event"], close["seq"]) == ("close", 2)
        async with there.client("?epoch=other&since=1") as connection:
            got = await told(connection, "snapshot_end")
            assert (got[0]["resumed"], got[0]["seq"]) == (False, 2)


async def test_deltas_only() -> None:
    async with serving() as there:
        there.poll(ONE)
        async with there.client("?snapshot=0") as connection:
            assert events(await message(connection)) == ["hello"]
            there.poll()
            assert events(await message(connection)) == ["close"]


async def test_heartbeats() -> None:
    async with serving(heartbeat_seconds=0.1) as there:
        there.poll(ONE)
        async with there.client() as connection:
            got = await told(connection, "heartbeat")
            assert (events(got)[-2:], got[-1]["seq"]) == (["snapshot_end", "heartbeat"], 0)
            assert events(await message(connection)) == ["heartbeat"]


async def test_no_heartbeat_comes_before_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(heartbeat_seconds=0.01) as there:
        there.poll(ONE)
        waiting: list[Client] = []
        monkeypatch.setattr(there.server, "has_more", waiting.append)
        async with there.client() as connection:
            while not waiting:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.01)
            await there.server._sweep()
            waiting.pop().pump()
            assert events(await message(connection)) == ["hello"]


async def test_both_families_and_a_unix_socket(tmp_path: Path) -> None:
    addresses = ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/feed.sock")
    async with serving(*addresses) as there:
        there.poll(ONE)
        for listener in there.listeners:
            if listener.listen.path is not None:
                async with there.unix() as connection:
                    assert events(await message(connection)) == ["hello"]
                continue
            port = listener.socket.getsockname()[1]
            async with there.client(host=listener.listen.host, port=port) as connection:
                assert events(await message(connection)) == ["hello"]
    assert not (tmp_path / "feed.sock").exists()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("?what=1", "what: there is no such parameter\n"), ("?port=x", "port: 'x' is no port or ")],
)
async def test_a_query_that_is_not_understood(query: str, sentence: str) -> None:
    async with serving() as there:
        status, body = await status_of(there.client(query))
        assert (status, body[: len(sentence)]) == (400, sentence)
        assert there.server.tally.refusals == {"400": 1}


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/", "GET", 404),
        ("/Events", "GET", 404),
        ("/events", "GET", 426),
        ("/events", "POST", 405),
        ("/events", "HEAD", 405),
        ("/healthz", "DELETE", 405),
    ],
)
async def test_what_is_no_subscription(path: str, method: str, expected: int) -> None:
    async with serving() as there:
        there.poll(ONE)
        view = there.feed.view(Filter(), frame, PAGE_BYTES)
        status, body = await there.get(path, method=method)
        assert status == expected
        assert body.endswith("\n")
        assert there.server.tally.refusals == {str(expected): 1}
        assert view.readers == 0


@pytest.mark.parametrize(
    "request_", ["\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\x00", "GET / HTTP/0.9\r\n\r\n"]
)
async def test_what_is_no_request(request_: str) -> None:
    async with serving() as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        writer.write(request_.encode("latin-1"))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), HANGS_SECONDS)
        writer.close()
        assert there.server.tally.refusals == {"malformed": 1}
        there.poll(ONE)
        async with there.client() as connection:
            assert events(await message(connection)) == ["hello"]


@pytest.mark.parametrize("more", ["junk", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
@pytest.mark.parametrize("path", ["/nowhere", "/events"])
async def test_what_follows_a_request_does_no_harm(
    more: str, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving() as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        plain = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write((plain + more).encode())
        answer = await asyncio.wait_for(reader.read(), HANGS_SECONDS)
        writer.close()
        if path == "/nowhere":
            assert answer.startswith(b"HTTP/1.1 404 ")
        upgrade = there.raw(UPGRADE.format(path="/events") + more)
        with suppress(ConnectionError):
            async with asyncio.timeout(HANGS_SECONDS):
                while await asyncio.get_running_loop().sock_recv(upgrade, 65536):
                    pass
        upgrade.close()
        await there.subscribed(0)
    await asyncio.sleep(0.1)
    assert "rror" not in capfd.readouterr().err


async def test_a_request_with_too_much_in_its_headers_is_refused() -> None:
    async with serving() as there:
        there.poll(ONE)
        large = [f"X-{number}: {'x' * 4000}" for number in range(5)]
        assert (await there.get("/events", "Host: localhost", *large))[0] == 431
        assert there.server.tally.refusals == {"431": 1}
        assert (await there.get("/events", "Host: localhost", *large[:3]))[0] == 426


async def test_a_request_without_end_is_cut_off() -> None:
    async with serving() as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(HANGS_SECONDS):
                while True:
                    writer.write(b"GET /" + b"x" * 65536)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()
        del reader


# Who may.


async def test_a_token_in_the_header_or_among_the_subprotocols() -> None:
    async with serving(access=Access(tokens=(TOKEN,))) as there:
        there.poll(ONE)
        assert await status_of(there.client()) == (401, "a token is needed\n")
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with there.client(additional_headers=bearer) as connection:
            assert connection.subprotocol is None
            assert events(await message(connection)) == ["hello"]
        offered = [Subprotocol("sockagent.v1"), Subprotocol(f"sockagent.token.{TOKEN}")]
        async with there.client(subprotocols=offered) as connection:
            assert connection.subprotocol == "sockagent.v1"
            assert connection.response
            assert TOKEN not in str(connection.response.headers)
        assert (await there.get("/healthz"))[0] == 404  # No token is needed; it is not there.


async def test_a_wrong_token_is_told_of_but_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving(access=Access(tokens=(TOKEN,))) as there:
        wrong = {"Authorization": "Bearer wrong-token-0123456"}
        assert await status_of(there.client(additional_headers=wrong)) == (
            401, "the token is wrong\n"
        )  # fmt: skip
    await asyncio.sleep(0.1)
    said = capfd.readouterr().err
    assert "is refused: the token is wrong" in said
    assert "wrong-token" not in said
    assert TOKEN not in said


async def test_a_foreign_page_and_a_rebound_name() -> None:
    async with serving(access=Access(origins=frozenset({"https://dash.example"}))) as there:
        there.poll(ONE)
        status, _ = await status_of(there.client(origin="https://evil.example"))
        assert status == 403
        async with there.client(origin="https://dash.example") as connection:
            assert events(await message(connection)) == ["hello"]
        for path in ("/events", "/healthz"):
            assert (await there.get(path, "Host: evil.example"))[0] == 403


async def test_over_a_unix_socket_the_agents_own_user_needs_no_token(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/feed.sock"
    async with serving(address, access=Access(tokens=(TOKEN,))) as there:
        there.poll(ONE)
        async with there.unix() as connection:
            assert events(await message(connection)) == ["hello"]


# How many.


async def test_there_is_an_end_to_how_many() -> None:
    async with serving(limits=Limits(clients=2)) as there:
        there.poll(ONE)
        async with there.client() as one, there.client():
            async with there.client() as third:
                assert await end_of(third) == (1013, "full: there are 2 clients already")
                assert there.server.tally.refusals == {"1013": 1}
            await message(one)
        await there.subscribed(0)
        async with there.client() as again:
            assert events(await message(again)) == ["hello"]


async def test_and_of_one_address() -> None:
    async with serving(limits=Limits(clients_per_address=1)) as there:
        there.poll(ONE)
        async with there.client(), there.client() as second:
            code, reason = await end_of(second)
            assert (code, reason) == (1013, "full: there are 1 clients of one address already")


async def test_the_oldest_handshake_makes_room() -> None:
    async with serving(limits=Limits(handshakes=10)) as there:
        there.poll(ONE)
        waiting = [there.raw("GET /events HTTP/1.1\r\n") for _ in range(50)]
        async with there.client() as connection:
            assert events(await message(connection)) == ["hello"]
        assert there.server.tally.evictions["handshake"] >= 40
        for one in waiting:
            one.close()


async def test_a_handshake_that_stops_midway_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HANDSHAKE_SECONDS", 0.2)
    async with serving() as there:
        stuck = there.raw("GET /events HTTP/1.1\r\nHost: loc")
        async with asyncio.timeout(HANGS_SECONDS):
            assert await asyncio.get_running_loop().sock_recv(stuck, 1) == b""
        assert there.server.tally.evictions == {"handshake": 1}
        stuck.close()


async def test_who_has_no_token_takes_no_place_of_who_has_one() -> None:
    limits = Limits(clients=3, clients_per_address=3, handshakes=10)
    async with serving(access=Access(tokens=(TOKEN,)), limits=limits) as there:
        there.poll(ONE)
        slow = [there.raw("GET /events HTTP/1.1\r\n") for _ in range(9)]
        refused = [there.raw(UPGRADE.format(path="/events")) for _ in range(30)]
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            there.client(additional_headers=bearer) as one,
            there.client(additional_headers=bearer) as two,
            there.client(additional_headers=bearer) as three,
        ):
            for connection in (one, two, three):
                assert events(await message(connection)) == ["hello"]
            # Neither those that were refused nor those that ask for nothing add up.
            assert len(there.server._clients) <= 3 + 10 + 1
        for each in (*slow, *refused):
            each.close()


async def test_a_crowd_from_one_place_takes_no_place_of_another(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/feed.sock"
    async with serving("127.0.0.1:0", address, limits=Limits(handshakes=10)) as there:
        there.poll(ONE)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as patient:
            patient.setblocking(False)
            await loop.sock_connect(patient, f"{tmp_path}/feed.sock")
            request = UPGRADE.format(path="/events").encode()
            await loop.sock_sendall(patient, request[:20])
            crowd = [there.raw("GET /events HTTP/1.1\r\n") for _ in range(50)]
            async with there.client() as connection:  # By now all of them were accepted.
                assert events(await message(connection)) == ["hello"]
            await loop.sock_sendall(patient, request[20:])
            async with asyncio.timeout(HANGS_SECONDS):
                assert (await loop.sock_recv(patient, 100)).startswith(b"HTTP/1.1 101 ")
            for each in crowd:
                each.close()


async def test_a_request_that_comes_byte_by_byte_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "HANDSHAKE_SECONDS", 0.3)
    async with serving() as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(HANGS_SECONDS):
                while True:
                    writer.write(b"G")
                    await writer.drain()
                    await asyncio.sleep(0.02)
        writer.close()
        assert there.server.tally.evictions == {"handshake": 1}
        del reader


# Who does not behave.


async def test_one_that_reads_nothing_delays_nobody_and_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(websocket, "STALL_SECONDS", 0.5)
    async with serving() as there:
        there.poll(*MANY)
        there.feed.history._most_bytes = 10**9
        stuck = there.raw(UPGRADE.format(path="/events"))
        name = "{}:{}".format(*stuck.getsockname())
        async with there.client() as connection:
            await told(connection, "snapshot_end")
            await there.subscribed(2)
            for turn in range(1, 20):
                there.poll(*MANY[turn * 50 :])
                got: list[int] = []
                while len(got) < 50:
                    got += seqs(await message(connection))
                assert got == list(range(turn * 50 - 49, turn * 50 + 1))
            await there.subscribed(1)
        assert there.server.tally.evictions == {"slow": 1}
        stuck.close()
    await asyncio.sleep(0.1)
    lines = [line for line in capfd.readouterr().err.splitlines() if name in line]
    assert lines == [
        f"sockagent: {name} is cut off: too slow: it took nothing of a message in time"
    ]


async def test_one_that_reads_slowly_is_not_cut_off_and_one_that_stops_is() -> None:
    async with serving(history_bytes=10**9) as there:
        there.poll(*MANY)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # Loopback's segments of 64 KiB would let the kernel acknowledge as much at a time.
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        slow.connect(("127.0.0.1", there.port))
        slow.sendall(UPGRADE.format(path="/events?snapshot=0").encode())
        slow.setblocking(False)
        await there.subscribed(1)
        there.poll()  # A message of 256 KiB, of which the kernel takes 128.
        (client,) = there.server._clients
        async with asyncio.timeout(HANGS_SECONDS):
            while client.stalled is None:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        left = 0
        for _ in range(20):
            client.stalled = loop.time() - 60  # The deadline is over.
            got = 0
            while got < 4096:
                got += len(await loop.sock_recv(slow, 4096 - got))
            await asyncio.sleep(0.01)
            await there.server._sweep()
            assert client.stalled is not None
            assert client.is_open
            left += got
        assert left < 128 * 1024  # It is still the same message.
        client.stalled = loop.time() - 60
        await there.server._sweep()
        assert not client.is_open
        assert there.server.tally.evictions == {"slow": 1}
        slow.close()


async def test_one_that_falls_behind_is_told_what_it_lost() -> None:
    async with serving(history_records=100) as there:
        there.poll(*MANY)
        slow = there.raw(UPGRADE.format(path="/events"))
        await there.subscribed(1)
        await asyncio.sleep(0.2)
        for turn in range(1, 40):
            there.poll(*MANY[turn * 20 :])
            await asyncio.sleep(0.01)
        got = b""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(HANGS_SECONDS):
            while got.count(b'"snapshot_end"') < 2:
                got += await loop.sock_recv(slow, 65536)
        slow.close()
        assert got.count(b'"event":"lost"') >= 1
        assert there.feed.lost >= 1
        assert not there.server.tally.evictions


async def test_one_that_says_too_much_at_once() -> None:
    async with serving() as there:
        there.poll(ONE)
        async with there.client() as connection:
            await connection.send(b"x" * 50_000)
            assert (await end_of(connection))[0] == 1009


async def test_one_that_floods() -> None:
    async with serving() as there:
        there.poll(ONE)
        async with there.client() as connection, there.client() as other:
            await told(other, "snapshot_end")
            with pytest.raises(ConnectionClosed) as raised:
                while True:
                    await connection.send("x" * 1000)
                    await asyncio.sleep(0)
            assert raised.value.rcvd
            assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (1008, "it sends too much")
            assert there.server.tally.evictions == {"flood": 1}
            there.poll()
            assert events(await message(other)) == ["close"]


async def test_one_that_floods_with_small_frames() -> None:
    ping = b"\x89\x80\0\0\0\0"
    async with serving() as there:
        there.poll(ONE)
        flooding = there.raw(UPGRADE.format(path="/events"))
        await there.subscribed(1)
        flooding.setblocking(True)
        flooding.sendall(ping * 5000)  # Fewer bytes than may come at once, but a lot of work.
        await there.subscribed(0)
        assert there.server.tally.evictions == {"flood": 1}
        flooding.close()


async def test_pings_before_a_reset_are_not_answered_into_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ping = b"\x89\x80\0\0\0\0"
    async with serving() as there:
        there.poll(ONE)
        for _ in range(10):
            gone = there.raw(UPGRADE.format(path="/events"))
            await there.subscribed(1)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.setblocking(True)
            gone.sendall(ping * 500)
            gone.close()
            await there.subscribed(0)
    assert [record.getMessage() for record in caplog.records] == []


async def test_what_a_client_says_is_discarded() -> None:
    async with serving() as there:
        there.poll(ONE)
        async with there.client() as connection:
            for _ in range(100):
                await connection.send("hello")
            await (await connection.ping())
            there.poll()
            assert "close" in events(await told(connection, "close"))


async def test_one_that_leaves_is_forgotten() -> None:
    async with serving() as there:
        there.poll(ONE)
        for abrupt in (False, True):
            connection = await there.client()
            await there.subscribed(1)
            if abrupt:
                connection.transport.abort()
            else:
                await connection.close()
            await there.subscribed(0)
        assert not there.server._clients
        assert not there.server._origins
        assert not there.server._strangers
        assert not there.server._handshakes


@pytest.mark.parametrize(
    "request_",
    [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        UPGRADE.format(path="/events"),
        "junk\r\n",
    ],
)
async def test_one_that_left_leaves_no_cycle_in_memory(request_: str) -> None:
    async with serving() as there:
        there.poll(ONE)
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
                writer.write(request_.encode())
                await asyncio.wait_for(reader.read(12), HANGS_SECONDS)
                writer.close()
            async with asyncio.timeout(HANGS_SECONDS):
                while there.server._clients:  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            # The one that was served last may still be named.
            assert alive(Client) <= 1
            assert alive(ServerProtocol) <= 1
        finally:
            gc.enable()


async def test_one_that_half_closes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as there:
        there.poll(ONE)
        half = there.raw(UPGRADE.format(path="/events"))
        await there.subscribed(1)
        half.shutdown(socket.SHUT_WR)
        await there.subscribed(0)
        half.close()


async def test_the_end_is_told_and_waits_for_nobody() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as there:
        there.poll(*(holding(tcp(inode), process(comm="x" * 900)) for inode in range(5000)))
        stuck = [there.raw(UPGRADE.format(path="/events")) for _ in range(5)]
        midway = there.raw("GET /events HTTP/1.1\r\n")
        async with there.client("?snapshot=0") as connection:
            await there.subscribed(6)
            there.feed.stop()
            stopping = asyncio.create_task(there.server.stop())
            assert await end_of(connection) == (1001, "the agent stops")
            begun = loop.time()
            await asyncio.wait_for(stopping, HANGS_SECONDS)
        assert not there.server._clients
        assert loop.time() - begun < HANGS_SECONDS
        with pytest.raises(OSError):
            there.raw()
        for one in (*stuck, midway):
            one.close()
