"""Limits to the number of connections."""

import asyncio
import socket
from pathlib import Path
from typing import cast

from agent.publish.websocket.access import Access, Peer
from agent.publish.websocket.connection import Connection
from agent.publish.websocket.registry import Registry

from ...feeding import ONE, events
from .serving import HANGS_SECONDS, LIMITS, TOKEN, UPGRADE, end_of, message, serving


class FakeConnection:
    """A connection of which only the peer matters."""

    def __init__(self, group: str) -> None:
        self.peer = Peer("name", group)


def connection_of(group: str) -> Connection:
    return cast("Connection", FakeConnection(group))


def test_the_oldest_pending_connection_of_the_largest_group_is_displaced() -> None:
    registry = Registry(LIMITS._replace(handshakes=3))
    one, two, other, last = (connection_of(group) for group in ("a", "a", "b", "c"))
    assert [registry.add(each) for each in (one, two, other)] == [None, None, None]
    assert registry.add(last) is one
    registry.remove(one)
    assert len(registry) == 3


def test_removed_connections_do_not_count() -> None:
    registry = Registry(LIMITS._replace(handshakes=1))
    first, second = connection_of("a"), connection_of("a")
    assert registry.add(first) is None
    registry.remove(first)
    registry.remove(first)
    assert registry.add(second) is None
    assert registry.connections() == [second]


async def test_subscribers_are_limited() -> None:
    async with serving(limits=LIMITS._replace(clients=2)) as running:
        running.poll(ONE)
        async with running.client() as one, running.client():
            async with running.client() as third:
                assert await end_of(third) == (1013, "too many clients; --max-clients is 2")
                assert running.registry.rejections.refusals == {"1013": 1}
            await message(one)
        await running.subscribed(0)
        async with running.client() as again:
            assert events(await message(again)) == ["hello"]


async def test_subscribers_of_one_address_are_limited() -> None:
    async with serving(limits=LIMITS._replace(clients_per_address=1)) as running:
        running.poll(ONE)
        async with running.client(), running.client() as second:
            code, reason = await end_of(second)
            assert (code, reason) == (
                1013,
                "too many clients of one address; --max-clients-per-address is 1",
            )


async def test_the_oldest_handshake_makes_room_for_a_new_one() -> None:
    async with serving(limits=LIMITS._replace(handshakes=10)) as running:
        running.poll(ONE)
        waiting = [running.raw("GET /events HTTP/1.1\r\n") for _ in range(50)]
        async with running.client() as connection:
            assert events(await message(connection)) == ["hello"]
        assert running.registry.rejections.evictions["handshake"] >= 40
        for one in waiting:
            one.close()


async def test_clients_without_a_token_do_not_displace_subscribers() -> None:
    limits = LIMITS._replace(clients=3, clients_per_address=3, handshakes=10)
    async with serving(access=Access(tokens=(TOKEN,)), limits=limits) as running:
        running.poll(ONE)
        slow = [running.raw("GET /events HTTP/1.1\r\n") for _ in range(9)]
        refused = [running.raw(UPGRADE.format(path="/events")) for _ in range(30)]
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            running.client(additional_headers=bearer) as one,
            running.client(additional_headers=bearer) as two,
            running.client(additional_headers=bearer) as three,
        ):
            for connection in (one, two, three):
                assert events(await message(connection)) == ["hello"]
            # Neither refused nor incomplete requests accumulate.
            assert len(running.registry.connections()) <= 3 + 10 + 1
        for each in (*slow, *refused):
            each.close()


async def test_handshakes_of_one_group_do_not_displace_another_group(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/feed.sock"
    async with serving("127.0.0.1:0", address, limits=LIMITS._replace(handshakes=10)) as running:
        running.poll(ONE)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as patient:
            patient.setblocking(False)
            await loop.sock_connect(patient, f"{tmp_path}/feed.sock")
            request = UPGRADE.format(path="/events").encode()
            await loop.sock_sendall(patient, request[:20])
            crowd = [running.raw("GET /events HTTP/1.1\r\n") for _ in range(50)]
            async with running.client() as connection:  # All others are accepted by now.
                assert events(await message(connection)) == ["hello"]
            await loop.sock_sendall(patient, request[20:])
            async with asyncio.timeout(HANGS_SECONDS):
                assert (await loop.sock_recv(patient, 100)).startswith(b"HTTP/1.1 101 ")
            for each in crowd:
                each.close()


async def test_closed_connections_are_removed() -> None:
    async with serving() as running:
        running.poll(ONE)
        for abrupt in (False, True):
            connection = await running.client()
            await running.subscribed(1)
            if abrupt:
                connection.transport.abort()
            else:
                await connection.close()
            await running.subscribed(0)
        assert not running.registry.connections()
        assert not running.registry._pending
        assert not running.registry._group_subscribers
        assert not running.registry._subscribers
        assert not running.registry._views
