"""What subscribers receive, over real connections."""

import asyncio
from pathlib import Path

import pytest

from agent.address import parse_address
from agent.publish.websocket import server
from agent.publish.websocket.connection import Connection
from agent.publish.websocket.listen import open_listeners
from agent.publish.websocket.registry import Registry
from agent.publish.websocket.server import PAGE_BYTES, Rules, Server
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.view import MAX_CHUNK_BYTES

from ...feeding import AGENT, ONE, THREE, TWO, events, seqs
from ...make import holding, process, records, tcp
from .serving import HANGS_SECONDS, LIMITS, MANY, UPGRADE, end_of, message, read_until, serving


async def test_a_subscriber_receives_the_snapshot_and_then_changes() -> None:
    async with serving() as running:
        running.poll(ONE)
        async with running.client() as connection:
            assert events(await read_until(connection, "snapshot_end")) == [
                "hello", "snapshot", "snapshot_end"
            ]  # fmt: skip
            running.poll(TWO, THREE)
            assert events(await message(connection)) == ["close", "open", "open"]
            running.poll(TWO)
            assert seqs(await message(connection)) == [4]


async def test_no_publication_is_lost_when_it_coincides_with_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With no time to wait, each turn of the event loop ends a wait or begins one.
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.0)
    async with serving() as running:
        running.poll()
        async with running.client() as connection:
            await read_until(connection, "snapshot_end")
            for turn in range(3000):
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                running.poll(*([] if turn % 2 else [ONE]))
                assert seqs(await message(connection)) == [turn + 1]


async def test_a_subscriber_before_the_first_poll_waits_for_it() -> None:
    async with serving() as running, running.client() as connection:
        await asyncio.sleep(0.05)
        running.poll(ONE)
        assert events(await read_until(connection, "snapshot_end"))[0] == "hello"


async def test_messages_are_limited_in_size_and_contain_whole_records() -> None:
    async with serving() as running:
        running.poll(*MANY)
        async with running.client() as connection:

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
            running.poll()
            # The changes of a poll are sent in the fewest messages possible.
            closes = await sizes(("close", len(MANY)))
            assert max(closes) <= MAX_CHUNK_BYTES
            assert len(closes) <= sum(closes) // MAX_CHUNK_BYTES + 2


async def test_the_limit_filter_applies_besides_the_requested_one() -> None:
    async with serving(limit_filter=Filter({"port": ["1,2"]})) as running:
        running.poll(ONE, TWO, THREE)
        async with running.client("?port=2,3") as connection:
            got = await read_until(connection, "snapshot_end")
            assert [one["inode"] for one in got if one["event"] == "snapshot"] == [2]


async def test_a_changed_limit_filter_restarts_subscriptions() -> None:
    async with serving() as running:
        running.poll(ONE, TWO, THREE)
        async with running.client("?port=1,2") as connection:
            got = await read_until(connection, "snapshot_end")
            assert [one["inode"] for one in got if one["event"] == "snapshot"] == [1, 2]
            rules = Rules(limit_filter=Filter({"port": ["2-3"]}))
            running.server.set_rules(rules)
            got = await read_until(connection, "snapshot_end")
            assert (events(got)[0], got[0]["resumed"]) == ("hello", False)
            assert [one["inode"] for one in got if one["event"] == "snapshot"] == [2]
            running.server.set_rules(rules)  # No restart: the rules are the same.
            running.poll()
            assert [one.get("inode") for one in await message(connection)] == [2]
        await running.subscribed(0)
        assert running.registry.subscriber_count == 0


async def test_a_stream_resumes_after_a_known_seq() -> None:
    async with serving() as running:
        running.poll(ONE)
        running.poll(ONE, TWO)
        running.poll(TWO)
        async with running.client("?epoch=epoch&since=1") as connection:
            hello, close = await message(connection) + await message(connection)
            assert (hello["resumed"], hello["seq"]) == (True, 1)
            assert (close["event"], close["seq"]) == ("close", 2)
        async with running.client("?epoch=other&since=9&epoch=epoch&since=2") as connection:
            (hello,) = await message(connection)
            assert (hello["resumed"], hello["seq"]) == (True, 2)
        async with running.client("?epoch=other&since=1") as connection:
            got = await read_until(connection, "snapshot_end")
            assert (got[0]["resumed"], got[0]["seq"]) == (False, 2)


async def test_a_subscription_without_snapshot() -> None:
    async with serving() as running:
        running.poll(ONE)
        async with running.client("?snapshot=0") as connection:
            assert events(await message(connection)) == ["hello"]
            running.poll()
            assert events(await message(connection)) == ["close"]


async def test_heartbeats_are_sent_while_idle() -> None:
    async with serving(heartbeat_seconds=0.1) as running:
        running.poll(ONE)
        async with running.client() as connection:
            got = await read_until(connection, "heartbeat")
            assert (events(got)[-2:], got[-1]["seq"]) == (["snapshot_end", "heartbeat"], 0)
            assert events(await message(connection)) == ["heartbeat"]


async def test_no_heartbeat_precedes_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(heartbeat_seconds=0.01) as running:
        running.poll(ONE)
        waiting: list[Connection] = []
        monkeypatch.setattr(running.server, "schedule", waiting.append)
        async with running.client() as connection:
            while not waiting:  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)
            await running.server._sweep()
            waiting.pop().pump()
            assert events(await message(connection)) == ["hello"]


async def test_ipv4_ipv6_and_unix_sockets_are_served(tmp_path: Path) -> None:
    addresses = ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/feed.sock")
    async with serving(*addresses) as running:
        running.poll(ONE)
        for listener in running.listeners:
            if listener.listen.path is not None:
                async with running.unix() as connection:
                    assert events(await message(connection)) == ["hello"]
                continue
            port = listener.socket.getsockname()[1]
            async with running.client(host=listener.listen.host, port=port) as connection:
                assert events(await message(connection)) == ["hello"]
    assert not (tmp_path / "feed.sock").exists()


@pytest.mark.parametrize("turns", range(6))
async def test_stop_while_the_server_starts(turns: int) -> None:
    feed = Feed(AGENT)
    listeners = [open_listeners(parse_address("127.0.0.1:0"), 0o600)[0] for _ in range(3)]
    publisher = Server(feed, listeners, Rules(), Registry(LIMITS), {})
    running = asyncio.create_task(publisher.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    feed.stop()
    await publisher.stop()
    await asyncio.wait_for(running, HANGS_SECONDS)


async def test_stop_sends_close_frames_and_waits_a_limited_time() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as running:
        running.poll(*(holding(tcp(inode), process(comm="x" * 900)) for inode in range(5000)))
        stuck = [running.raw(UPGRADE.format(path="/events")) for _ in range(5)]
        midway = running.raw("GET /events HTTP/1.1\r\n")
        async with running.client("?snapshot=0") as connection:
            await running.subscribed(6)
            running.feed.stop()
            stopping = asyncio.create_task(running.server.stop())
            assert await end_of(connection) == (1001, "the agent is stopping")
            begun = loop.time()
            await asyncio.wait_for(stopping, HANGS_SECONDS)
        assert not running.registry.connections()
        assert loop.time() - begun < HANGS_SECONDS
        with pytest.raises(OSError):
            running.raw()
        for one in (*stuck, midway):
            one.close()


async def test_a_quiet_subscriber_gets_the_repeated_snapshot_after_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.01)
    now = 0.0
    async with serving(heartbeat_seconds=0.05, monotonic=lambda: now) as running:
        running.poll(ONE)
        async with running.client("?checkpoint=10") as connection:
            await read_until(connection, "snapshot_end")
            running.poll(ONE, TWO)
            assert events(await message(connection)) == ["open"]
            now = 10.0
            got = await read_until(connection, "snapshot_end")
            assert [one for one in events(got) if one != "heartbeat"] == [
                "hello", "snapshot", "snapshot", "snapshot_end"
            ]  # fmt: skip
