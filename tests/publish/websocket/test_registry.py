"""Limits to the number of connections, over real connections."""

import asyncio
import socket
from pathlib import Path

from agent.publish.websocket.access import Access
from agent.publish.websocket.limits import Limits

from ...feeding import ONE, events
from .serving import HANGS_SECONDS, TOKEN, UPGRADE, end_of, message, serving


async def test_subscribers_are_limited() -> None:
    async with serving(limits=Limits(clients=2)) as there:
        there.poll(ONE)
        async with there.client() as one, there.client():
            async with there.client() as third:
                assert await end_of(third) == (1013, "too many clients; --max-clients is 2")
                assert there.registry.rejections.refusals == {"1013": 1}
            await message(one)
        await there.subscribed(0)
        async with there.client() as again:
            assert events(await message(again)) == ["hello"]


async def test_subscribers_of_one_address_are_limited() -> None:
    async with serving(limits=Limits(clients_per_address=1)) as there:
        there.poll(ONE)
        async with there.client(), there.client() as second:
            code, reason = await end_of(second)
            assert (code, reason) == (
                1013,
                "too many clients of one address; --max-clients-per-address is 1",
            )


async def test_the_oldest_handshake_makes_room_for_a_new_one() -> None:
    async with serving(limits=Limits(handshakes=10)) as there:
        there.poll(ONE)
        waiting = [there.raw("GET /events HTTP/1.1\r\n") for _ in range(50)]
        async with there.client() as connection:
            assert events(await message(connection)) == ["hello"]
        assert there.registry.rejections.evictions["handshake"] >= 40
        for one in waiting:
            one.close()


async def test_clients_without_a_token_do_not_displace_subscribers() -> None:
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
            assert len(there.registry.connections()) <= 3 + 10 + 1
        for each in (*slow, *refused):
            each.close()


async def test_handshakes_of_one_group_do_not_displace_another_group(tmp_path: Path) -> None:
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


async def test_closed_connections_are_removed() -> None:
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
        assert not there.registry.connections()
        assert not there.registry._pending
        assert not there.registry._group_subscribers
        assert not there.registry._subscribers
        assert not there.registry._views
