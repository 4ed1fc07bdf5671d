"""The publisher at a real nats-server: what it stores, through faults, and what it says."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.publish.nats import publisher as module
from agent.publish.nats.broker import Access, BrokerTrouble, connect
from agent.publish.nats.publisher import FeedPublisher, HostPublisher
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.fleet import HEADER, decode_body, parse_broker, parse_link, subject

from ..feeding import AGENT, Source, tracked
from ..make import holding, records, tcp
from ..publish.nats.brokers import Reader, Stored

nats = pytest.importorskip("nats", reason="nats-py is not installed")
pytestmark = pytest.mark.skipif(
    shutil.which("nats-server") is None, reason="nats-server is not installed"
)
STREAM = Path(__file__).parents[2] / "systemd/nats/stream.json"
HANGS_SECONDS = 30.0
HOST = "we*b.1 %>é"


async def _ignore(_error: Exception) -> None:
    """Take what the library would log."""


class Server:
    """A nats-server with its store in a directory."""

    def __init__(self, directory: Path, more: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.directory = directory
        self._config = directory / "nats.conf"
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{directory}/store" }}\n{more}'
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ("nats-server", "-c", str(self._config)), stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    async def client(self, **login: str) -> Any:
        async with asyncio.timeout(HANGS_SECONDS):
            while True:
                with suppress(OSError, nats.errors.Error):
                    return await nats.connect(
                        self.url, allow_reconnect=False, error_cb=_ignore, **login
                    )
                await asyncio.sleep(0.05)

    async def make_stream(self, login: dict[str, str] | None = None, **changes: Any) -> None:
        client = await self.client(**(login or {}))
        request = json.dumps(json.loads(STREAM.read_text()) | changes).encode()
        answer = await client.request("$JS.API.STREAM.CREATE.SOCKAGENT", request, timeout=10)
        assert "error" not in json.loads(answer.data), answer.data
        await client.close()

    async def log(self) -> list[Stored]:
        client = await self.client()
        reading = await client.jetstream().subscribe("sockagent.>", ordered_consumer=True)
        found = []
        with suppress(nats.errors.TimeoutError):
            while True:
                message = await reading.next_msg(timeout=0.5)
                link = parse_link(message.headers[HEADER])
                found.append(Stored(message.metadata.sequence.stream, link, message.data))
        await client.close()
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "log", lines.append)
    return lines


@asynccontextmanager
async def publishing(feed: Feed, url: str, credentials: str | None = None) -> AsyncIterator[None]:
    access = Access(url, parse_broker(url), None, credentials)
    publisher = FeedPublisher(feed, Filter(), HostPublisher(access), 300.0)
    running = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        feed.stop()
        await publisher.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def quiet(**options: Any) -> Source:
    source = Source(**options)
    source.feed.heartbeat_seconds = 60.0
    return source


def read(log: list[Stored]) -> Reader:
    reader = Reader()
    for stored in log:
        reader.read(stored)
    return reader


async def churn(source: Source, polls: int, first: int = 1, seconds: float = 0.02) -> None:
    for poll in range(first, first + polls):
        source.poll(*(holding(tcp(poll * 100 + inode)) for inode in range(5)))
        await asyncio.sleep(seconds)


async def caught_up(server: Server, source: Source, deadline: float = HANGS_SECONDS) -> Reader:
    """Return the reader of the log once it has the newest change."""
    async with asyncio.timeout(deadline):
        while True:
            reader = read(await server.log())
            if reader.previous is not None and reader.previous.through == source.feed.seq:
                return reader


async def test_the_log_folds_to_the_state_over_kills_of_the_broker(
    server: Server, said: list[str]
) -> None:
    await server.make_stream()
    source = quiet()
    source.poll()
    async with publishing(source.feed, server.url):
        for kill in range(3):
            await churn(source, 20, 1 + 100 * kill)
            server.kill()
            await churn(source, 20, 50 + 100 * kill)
            server.start()
        reader = await caught_up(server, source)
    assert not reader.lost
    assert len(reader.snapshots) == 1
    assert tracked(reader.state) == tracked(source.state())
    assert sum("publishing again" in line for line in said) == sum(
        "retrying" in line for line in said
    )


async def test_an_outage_beyond_the_history_is_told_once(server: Server, said: list[str]) -> None:
    await server.make_stream()
    source = quiet(history_records=50)
    source.poll()
    async with publishing(source.feed, server.url):
        await churn(source, 10)
        server.kill()
        await churn(source, 50, 100)
        server.start()
        reader = await caught_up(server, source)
    assert reader.lost == 1
    assert len(reader.snapshots) == 2
    assert tracked(reader.state) == tracked(source.state())


class Proxy:
    """Passes data between clients and the broker; while ``swallows``, no answers pass."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.swallows = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above, broker = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, broker]
        for source, target, is_answer in ((reader, broker, False), (above, writer, True)):
            task = asyncio.create_task(self._pass(source, target, is_answer=is_answer))
            self._tasks.add(task)

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not (is_answer and self.swallows):
                    target.write(data)
        target.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()


async def test_swallowed_acknowledgements_double_nothing(server: Server, said: list[str]) -> None:
    await server.make_stream()
    proxy = Proxy(server.port)
    listening = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    source = quiet()
    source.poll()
    unacknowledged = 0
    async with publishing(source.feed, f"nats://127.0.0.1:{port}"):
        await churn(source, 3)
        for turn in range(12):
            before = len(await server.log())
            proxy.swallows = True
            await churn(source, 5, 100 * (turn + 1), 0.05)
            unacknowledged += len(await server.log()) > before
            proxy.cut()
            proxy.swallows = False
            await churn(source, 3, 100 * (turn + 1) + 50, 0.2)
        reader = await caught_up(server, source)
    listening.close()
    proxy.cut()
    assert unacknowledged >= 10
    assert not reader.lost  # The reader fails if a change is told twice.
    assert tracked(reader.state) == tracked(source.state())


async def test_a_store_that_lost_its_end_is_told_again(server: Server, said: list[str]) -> None:
    await server.make_stream()
    source = quiet()
    source.poll()
    async with publishing(source.feed, server.url):
        for turn in range(4):
            await churn(source, 10, 1 + 100 * turn)
            await caught_up(server, source)
            server.kill()
            shutil.copytree(server.directory / "store", server.directory / "older")
            server.start()
            await churn(source, 20, 50 + 100 * turn)
            await caught_up(server, source)
            server.kill()
            shutil.rmtree(server.directory / "store")
            (server.directory / "older").rename(server.directory / "store")
            server.start()
            await churn(source, 5, 90 + 100 * turn)
        reader = await caught_up(server, source)
    assert not reader.lost
    assert tracked(reader.state) == tracked(source.state())


async def test_two_agents_of_one_name_are_reported(
    server: Server, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOREIGN_PAUSE_SECONDS", 1.0)
    await server.make_stream()
    one, other = quiet(), quiet(agent=AGENT._replace(epoch="other"))
    one.poll()
    other.poll()
    async with publishing(one.feed, server.url), publishing(other.feed, server.url):
        await asyncio.gather(churn(one, 100), churn(other, 100, 1000))
    assert any("another agent publishes as host" in line for line in said)
    read(await server.log())  # The reader fails where they are mixed.


SUBJECT = subject("sockagent", HOST)
TOKEN = SUBJECT.partition(".")[2]
PERMISSIONS = f"""
authorization {{ users: [
  {{ user: admin, password: secret }}
  {{ user: host, password: secret, permissions: {{
    publish: ["{SUBJECT}", "$JS.API.DIRECT.GET.SOCKAGENT.{SUBJECT}"]
    subscribe: ["_INBOX.{TOKEN}.>"]
  }} }}
] }}
"""


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path, PERMISSIONS)
    yield running
    running.kill()


async def test_a_host_may_publish_as_itself_alone(
    closed: Server, said: list[str], tmp_path: Path
) -> None:
    admin = {"user": "admin", "password": "secret"}
    await closed.make_stream(admin)
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    url = closed.url.replace("//", "//host@")
    source = quiet(agent=AGENT._replace(host=HOST))
    source.poll(holding(tcp(1)))
    async with publishing(source.feed, url, str(secret)):
        client = await closed.client(**admin)
        async with asyncio.timeout(HANGS_SECONDS):
            while True:
                if (await client.jetstream().stream_info("SOCKAGENT")).state.messages >= 2:
                    break
                await asyncio.sleep(0.05)
        await client.close()
    assert said == [f"{url}: publishing as {HOST}"]
    # The same user as another host, and what else the publisher has no need of.
    connection = await connect(
        Access(url, parse_broker(url), None, str(secret)), f"_INBOX.{TOKEN}", "test"
    )
    for name in ("sockagent.other", "sockagent.x"):
        with pytest.raises(BrokerTrouble, match="does not permit"):
            await connection.last(name)
    await connection.close()
    client = await closed.client(user="host", password="secret", inbox_prefix=f"_INBOX.{TOKEN}")
    for denied in ("STREAM.INFO.SOCKAGENT", "STREAM.MSG.GET.SOCKAGENT", "STREAM.PURGE.SOCKAGENT",
                   "STREAM.DELETE.SOCKAGENT", "CONSUMER.CREATE.SOCKAGENT"):  # fmt: skip
        with pytest.raises(nats.errors.TimeoutError):
            await client.request(f"$JS.API.{denied}", b"{}", timeout=0.2)
    for readable in ("sockagent.>", "_INBOX.other.>", "_INBOX.>"):
        reading = await client.subscribe(readable)
        with pytest.raises(nats.errors.TimeoutError):
            await reading.next_msg(timeout=0.1)
    await client.close()


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("", "", "requires credentials; give a file with --nats-creds"),
        ("host@", "wrong", "refuses the credentials"),
        ("host@", "secret", "does not permit"),  # Of another host.
    ],
)
async def test_what_is_said_of_an_entry_that_is_refused(
    closed: Server, said: list[str], tmp_path: Path, user: str, password: str, reason: str
) -> None:
    await (await closed.client(user="admin", password="secret")).close()
    secret = tmp_path / "password"
    secret.write_text(password)
    source = quiet()
    source.poll()
    url = closed.url.replace("//", f"//{user}")
    async with publishing(source.feed, url, str(secret) if user else None):
        await until(said, reason)


async def until(said: list[str], reason: str) -> None:
    async with asyncio.timeout(HANGS_SECONDS):
        while not any(reason in line for line in said):  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.05)


async def test_a_missing_stream_and_a_full_one(server: Server, said: list[str]) -> None:
    await (await server.client()).close()
    source = quiet()
    source.poll()
    async with publishing(source.feed, server.url):
        await until(said, "there is no stream SOCKAGENT")
        await server.make_stream(discard="new", max_bytes=2000)
        await until(said, "publishing again")
        await churn(source, 20)
        await until(said, "the stream refuses messages: maximum bytes exceeded")


async def test_a_broker_without_tls_gets_nothing(server: Server, said: list[str]) -> None:
    await (await server.client()).close()
    source = quiet()
    source.poll()
    async with publishing(source.feed, server.url.replace("nats:", "tls:")):
        await until(said, "the broker does not use TLS")


async def test_bytes_of_a_record(server: Server, said: list[str]) -> None:
    await server.make_stream()
    source = quiet()
    source.poll()
    async with publishing(source.feed, server.url):
        await caught_up(server, source)
        source.poll(*(holding(tcp(inode, local_port=inode)) for inode in range(1000, 1100)))
        reader = await caught_up(server, source)
    assert not reader.lost
    body = (await server.log())[-1].body
    assert len(records(decode_body(body))) == 100
    assert len(body) + 200 < 60 * 100
