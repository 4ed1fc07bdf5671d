"""A broker of NATS JetStream that tests start, and what puts messages into it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest

from agent.stream.fleet import HEADER, Link, encode_body, format_link, subject

PREFIX = "sockagent"
STREAM = "SOCKAGENT"
_START_SECONDS = 10.0
_SHIPPED = Path(__file__).parents[1] / "systemd/nats/stream.json"

needs_broker = pytest.mark.skipif(
    not find_spec("nats") or not shutil.which("nats-server"),
    reason="requires nats-py and nats-server",
)


def free_port() -> int:
    """Return a port of loopback that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A broker with a store in ``directory``, run by ``program``."""

    def __init__(
        self, directory: Path, address: str = "127.0.0.1", program: str = "nats-server"
    ) -> None:
        self._program = program
        self.store = directory / "store"
        self.port = free_port()
        self._address = address
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The URL for --connect."""
        return f"nats://{self._address}:{self.port}/{PREFIX}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process."""
        assert self._process
        return self._process

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    def start(self) -> None:
        """Start the broker, and wait until it can be used."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program, "-js", "-sd", str(self.store), "-a", self._address,
                    "-p", str(self.port),
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text()
            try:
                with socket.create_connection((self._address, self.port), 1) as probe:
                    if probe.recv(4096).startswith(b"INFO"):
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the broker does not start")

    def kill(self) -> None:
        """End the broker at once."""
        assert self._process
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the broker, if it runs."""
        if self._process and self._process.poll() is None:
            self.kill()


@contextmanager
def broker(directory: Path) -> Iterator[Broker]:
    """Start a broker, and end it."""
    started = Broker(directory)
    try:
        yield started
    finally:
        started.stop()


class Connection:
    """A connection to a broker that makes streams and stores messages."""

    def __init__(self, url: str) -> None:
        from nats.aio.client import Client  # noqa: PLC0415 (of an extra)

        self._url = url.rpartition("/")[0]
        self._client = Client()

    async def __aenter__(self) -> Self:
        await self._client.connect(servers=[self._url])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def request(self, api: str, payload: object = None) -> dict[str, object]:
        """Return the response of JetStream."""
        reply = await self._client.request(
            f"$JS.API.{api}", b"" if payload is None else json.dumps(payload).encode(), timeout=5
        )
        response: dict[str, object] = json.loads(reply.data)
        assert "error" not in response, response
        return response

    async def make_shipped_stream(self) -> None:
        """Make the stream that documents recommend."""
        await self.request(f"STREAM.CREATE.{STREAM}", json.loads(_SHIPPED.read_text()))

    async def make_stream(self, subjects: Sequence[str] = (f"{PREFIX}.>",)) -> None:
        """Make the stream of a fleet."""
        config = {
            "name": STREAM,
            "subjects": list(subjects),
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "num_replicas": 1,
            "duplicate_window": 2_000_000_000,
            "allow_direct": True,  # A publisher reads its newest message.
        }
        await self.request(f"STREAM.CREATE.{STREAM}", config)

    async def consumers(self) -> int:
        """Return how many readers the broker knows."""
        info = await self.request(f"STREAM.INFO.{STREAM}")
        return int(info["state"]["consumer_count"])  # type: ignore[index]

    async def put(self, host: str, link: Link, records: bytes, encoding: str = "deflate") -> int:
        """Store a message; return its sequence."""
        reply = await self._client.request(
            subject(PREFIX, host),
            encode_body(records, encoding),
            timeout=5,
            headers={HEADER: format_link(link)},
        )
        response = json.loads(reply.data)
        assert "error" not in response, response
        return int(response["seq"])

    async def delete(self, sequence: int) -> None:
        """Remove a message."""
        await self.request(f"STREAM.MSG.DELETE.{STREAM}", {"seq": sequence, "no_erase": True})
