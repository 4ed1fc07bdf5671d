"""A fleet at a cluster of three brokers, each of which has the stream: each is killed in turn."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.publish.nats.broker import Access
from agent.publish.nats.publisher import FeedPublisher, HostPublisher
from agent.remote.nats.consumer import Fleet, FleetConsumer, HostRecords, Start
from agent.stream.filters import Filter
from agent.stream.fleet import host_of, parse_broker

from ..broker import STREAM, free_port, needs_broker
from ..feeding import tracked
from ..fleet import Truth, check
from ..make import holding, tcp
from ..relaying import Agent

nats = pytest.importorskip("nats", reason="nats-py is not installed")
pytestmark = needs_broker

SETTINGS = Path(__file__).parents[2] / "systemd/nats/stream.json"
BROKERS = 3
HOSTS = ("a", "b", "c")
POLL_SECONDS, HELD = 0.1, 40
DOWN_SECONDS, UP_SECONDS = 1.5, 0.5
# Electing leaders takes a cluster some seconds, and a reader that hears nothing waits for 15.
DEADLINE = 60.0


class Cluster:
    """Three brokers."""

    def __init__(self, directory: Path) -> None:
        self._ports = [free_port() for _ in range(BROKERS)]
        inner = [free_port() for _ in range(BROKERS)]
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in inner)
        self._configs = []
        for number, (port, own) in enumerate(zip(self._ports, inner, strict=True)):
            config = directory / f"{number}.conf"
            config.write_text(
                f'server_name: n{number}\nlisten: "127.0.0.1:{port}"\n'
                f'jetstream {{ store_dir: "{directory}/{number}" }}\n'
                f'log_file: "{directory}/{number}.log"\n'
                f'cluster {{ name: fleet, listen: "127.0.0.1:{own}", routes: [{routes}] }}\n'
            )
            self._configs.append(config)
        self._processes = [self._started(number) for number in range(BROKERS)]

    @property
    def url(self) -> str:
        """The URL of all brokers."""
        return "nats://" + ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def _started(self, number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(("nats-server", "-c", str(self._configs[number])))

    def kill(self, number: int) -> None:
        """End a broker at once."""
        self._processes[number].kill()
        self._processes[number].wait()

    def start(self, number: int) -> None:
        """Start a broker again."""
        self._processes[number] = self._started(number)

    async def request(self, api: str, payload: object = None) -> dict[str, Any]:
        """Return the response of JetStream, as soon as there is one without an error."""
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(OSError, nats.errors.Error):
                    client = await nats.connect(
                        [f"nats://127.0.0.1:{port}" for port in self._ports],
                        allow_reconnect=False, error_cb=_ignore, connect_timeout=1,
                    )  # fmt: skip
                    try:
                        data = b"" if payload is None else json.dumps(payload).encode()
                        answer = await client.request(f"$JS.API.{api}", data, timeout=5)
                        response: dict[str, Any] = json.loads(answer.data)
                        if "error" not in response:
                            return response
                    finally:
                        await client.close()
                await asyncio.sleep(0.2)

    async def until_whole(self) -> None:
        """Wait until each broker has the whole stream."""
        async with asyncio.timeout(DEADLINE):
            while True:
                cluster = (await self.request(f"STREAM.INFO.{STREAM}"))["cluster"]
                others = cluster.get("replicas") or []
                current = [one["current"] and not one.get("offline") for one in others]
                if cluster.get("leader") and current == [True] * (BROKERS - 1):
                    return
                await asyncio.sleep(0.2)


async def _ignore(_error: Exception) -> None:
    """Take what the library would log."""


class Receiver:
    """Keeps what a consumer passes on."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.connections = 0

    def connect(self) -> None:
        self.connections += 1

    def disconnect(self, reason: str) -> None:
        pass

    async def receive(self, found: HostRecords) -> None:
        self.output += found.records

    def set_silent(self, host: str, *, silent: bool) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path)
    yield running
    for number in range(BROKERS):
        running.kill(number)


@asynccontextmanager
async def background(*work: Any) -> AsyncIterator[None]:
    """Run work, until the end."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def churn(agents: list[Agent], truth: Truth) -> None:
    """Publish polls of all hosts, until cancelled."""
    held: dict[Agent, list[int]] = {agent: [] for agent in agents}
    inode = 0
    while True:
        for agent in agents:
            sockets = held[agent]
            random.shuffle(sockets)
            del sockets[HELD // 2 :]
            while len(sockets) < HELD:
                inode += 1
                sockets.append(inode)
            agent.poll(*(holding(tcp(one)) for one in sockets))
            truth.note(agent)
        await asyncio.sleep(POLL_SECONDS)


async def test_each_of_three_brokers_is_killed_in_turn(cluster: Cluster) -> None:
    settings = json.loads(SETTINGS.read_text()) | {"num_replicas": BROKERS}
    await cluster.request(f"STREAM.CREATE.{STREAM}", settings)
    await cluster.until_whole()
    truth = Truth()
    agents = [Agent(host, f"e{host}") for host in HOSTS]
    broker = parse_broker(cluster.url)
    publishers = []
    for agent in agents:
        agent.feed.heartbeat_seconds = 60.0
        agent.poll()
        truth.note(agent)
        host = HostPublisher(Access(cluster.url, broker))
        publishers.append(FeedPublisher(agent.feed, Filter(), host, 5.0))
    receiver = Receiver()
    consumer = FleetConsumer(
        Fleet(cluster.url, broker, Filter(), start=Start(oldest=True)), receiver
    )

    def reached() -> dict[str, int]:
        """Return the newest change of each host that the consumer has passed on."""
        position = consumer.position
        hosts = position.hosts if position else {}
        return {host_of(name): one.through for name, one in hosts.items()}

    async def until_read() -> None:
        """Wait until the consumer has passed on what there is."""
        ends = {agent.info.host: agent.feed.seq for agent in agents}
        async with asyncio.timeout(DEADLINE):
            while any(reached().get(host, -1) < seq for host, seq in ends.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    publishing = [publisher.run() for publisher in publishers]
    async with background(*publishing, consumer.run()):
        async with background(churn(agents, truth)):
            for number in range(BROKERS):
                await asyncio.sleep(UP_SECONDS)
                cluster.kill(number)
                await asyncio.sleep(DOWN_SECONDS)
                cluster.start(number)
                await cluster.until_whole()
                await until_read()
            await asyncio.sleep(UP_SECONDS)
        await until_read()
    for publisher in publishers:
        await publisher.stop()
    assert receiver.connections > 1
    hosts = check(bytes(receiver.output), truth)
    for agent in agents:
        # The check fails where a change is told twice, or is missing without ``lost``.
        assert hosts[agent.info.host].lost == []
        assert tracked(hosts[agent.info.host].state) == agent.state()
