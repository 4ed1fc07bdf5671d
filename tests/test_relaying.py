"""The relay as a whole, without a process of its own: what it serves, prints and reports."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import unix_connect

from agent import relaying
from agent import running as running_module
from agent.address import parse_address
from agent.config import Config, Network, View
from agent.publish.http.pages import AgentStatus, relay_health
from agent.relaying import relay
from agent.remote import client as client_module
from agent.remote.relay import Link
from agent.stream.filters import Filter

from .feeding import AGENT, ONE, TWO, events
from .make import records
from .publish.websocket.serving import HANGS_SECONDS, Serving, serving
from .relaying import Folds


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reconnect soon; leave the signals and the garbage collector of the tests as they are."""
    monkeypatch.setattr(running_module, "handle_reload", lambda _loop, _reload: None)
    monkeypatch.setattr(client_module, "MIN_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(client_module, "MAX_BACKOFF_SECONDS", 0.1)
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


@asynccontextmanager
async def relayed(
    directory: Path, *there: Serving, **settings: Any
) -> AsyncIterator[tuple[str, asyncio.Task[bool]]]:
    """Run a relay of servers; yield the path of its socket, and its task."""
    path = str(directory / "relay.sock")
    urls = tuple(f"ws://127.0.0.1:{one.port}" for one in there)
    network = Network(connect=urls, listen=(parse_address(f"unix:{path}"),))
    output = settings.pop("output", "ndjson")
    stop = asyncio.Event()
    running = asyncio.create_task(relay(Config(network=network, **settings), output, stop))
    try:
        async with asyncio.timeout(HANGS_SECONDS):
            while not (Path(path).exists() or running.done()):  # noqa: ASYNC110, ASYNC240 (no event)
                await asyncio.sleep(0.01)
        yield path, running
    finally:
        stop.set()
        await running


async def page(path: str, name: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET {name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), HANGS_SECONDS)).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def read_until_whole(path: str, hosts: int, query: str = "") -> Folds:
    folds = Folds()
    async with asyncio.timeout(HANGS_SECONDS):
        uri = f"ws://localhost/events{query}"
        async with unix_connect(path, uri=uri, compression=None) as feed:
            while [event for _, event in folds.events].count("snapshot_end") < hosts:
                folds.take(await feed.recv(decode=False))
    return folds


async def test_a_relay_serves_the_streams_of_its_agents(tmp_path: Path) -> None:
    other = AGENT._replace(host="other", epoch="e2")
    async with serving() as one, serving(agent=other) as two:
        one.poll(ONE)
        two.poll(ONE, TWO)
        chosen = Filter({"port": ["2"]})
        async with relayed(tmp_path, one, two, filter=chosen) as (path, _):
            folds = await read_until_whole(path, 2)
            assert folds.state("host").keys() == set()
            assert folds.state("other").keys() == {(7, 2)}
            folds = await read_until_whole(path, 1, "?host=o*")
            assert folds.hosts.keys() == {"other"}
            assert await page(path, "/healthz") == (200, "ok\n")
            status, body = await page(path, "/metrics")
            assert status == 200
            assert 'sockagent_relay_connected{host="other"} 1.0' in body
            assert 'sockagent_relay_sockets{host="other"} 2.0' in body
            await two.server.stop()
            async with asyncio.timeout(HANGS_SECONDS):
                while "not connected" not in (await page(path, "/healthz"))[1]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            _, body = await page(path, "/metrics")
            assert 'sockagent_relay_connected{host="other"} 0.0' in body


@pytest.mark.parametrize("output", ["ndjson", "log"])
async def test_a_relay_prints_the_merged_stream(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], output: str
) -> None:
    async with serving() as there:
        there.poll(ONE)
        async with relayed(tmp_path, there, follow=True, output=output) as (path, _):
            await read_until_whole(path, 1)
            there.poll(ONE, TWO)
            await asyncio.sleep(0.5)
    printed = capfd.readouterr().out
    if output == "ndjson":
        assert events(records(printed.encode())) == ["hello", "snapshot", "snapshot_end", "open"]
    else:
        assert "2" in printed.splitlines()[-1]


async def test_a_quiet_relay_ends_at_a_match(tmp_path: Path) -> None:
    async with serving() as there:
        there.poll(ONE)
        view = View(quiet=True, answers=True)
        async with relayed(tmp_path, there, follow=True, view=view) as (_, running):
            assert await asyncio.wait_for(running, HANGS_SECONDS)


async def test_a_silent_host_of_a_fleet_is_a_problem() -> None:
    now = asyncio.get_running_loop().time()
    link = Link("tls://b", True, now, now, "", hosts=("a", "b"), silent=("b",))
    status = relaying._status(link, now)
    assert relay_health([status], 45.0).status == 503
    assert status.problem == "tls://b: no message for 45 s from b"


@pytest.mark.parametrize(
    ("agents", "status", "body"),
    [
        ([], 503, ""),
        ([AgentStatus(True, 1.0, None)], 200, "ok\n"),
        ([AgentStatus(True, 46.0, None)], 503, ""),
        ([AgentStatus(False, 1.0, "x: gone")], 503, "x: gone\n"),
        ([AgentStatus(True, 1.0, None), AgentStatus(False, 1.0, "x: gone")], 200, "ok\nx: gone\n"),
        ([AgentStatus(True, 1.0, None), AgentStatus(False, 46.0, "x: gone")], 503, "x: gone\n"),
    ],
)
def test_the_health_of_a_relay(agents: list[AgentStatus], status: int, body: str) -> None:
    reply = relay_health(agents, 45.0)
    assert (reply.status, reply.body.decode()) == (status, body)
