"""What a publisher and a reader of a fleet say where the broker cannot be used: one sentence."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..broker import needs_broker
from .fleet_ends import SECONDS, Ends, make_certificate, started
from .helpers import need_tool
from .live import Agent
from .test_publish_nats import Server

pytestmark = needs_broker
RETRYING = "; retrying, while the agent keeps the newest changes"
NO_STREAM = (
    "there is no stream SOCKAGENT with the subjects sockagent.> and allow_direct; "
    "sockagent fleet init makes it"
)
ADMIN = {"user": "admin", "password": "secret"}
USERS = """
authorization { users: [
  { user: admin, password: secret }
  { user: mute, password: secret, permissions: { publish: ["x"], subscribe: ["_INBOX.>"] } }
  { user: deaf, password: secret, permissions: { publish: [">"], subscribe: ["x"] } }
] }
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    path = f"unix:{tmp_path_factory.mktemp('agent')}/agent.sock"
    with Agent("--proto", "udp", listen=path):
        yield Ends(path)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker that requires passwords."""
    with started(tmp_path_factory.mktemp("closed"), USERS) as server:
        asyncio.run(server.make_stream(ADMIN))
        yield server


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker without a stream."""
    with started(tmp_path_factory.mktemp("empty")) as server:
        asyncio.run(until_it_answers(server))
        yield server


async def until_it_answers(server: Server) -> None:
    """Wait for a broker."""
    await (await server.client()).close()


def both_say(ends: Ends, url: str, reason: str, *more: str, status: int | None = 1) -> None:
    """Check what both ends say. ``status`` is the reader's, None: it tries again."""
    with ends.publisher(url, *more) as publisher, ends.reader(url, *more) as reader:
        publisher.until_said(f"sockagent: {url}: {reason}{RETRYING}")
        retrying = "; retrying" if status is None else ""
        reader.until_said(f"sockagent: {url}: {reason}{retrying}")
        assert status is None or reader.process.wait() == status
        assert publisher.process.poll() is None
        assert reader.output() == ""


def test_no_broker(ends: Ends) -> None:
    both_say(ends, "nats://127.0.0.1:1", "Connection refused", status=None)


def test_no_stream(ends: Ends, empty: Server) -> None:
    with ends.publisher(empty.url) as publisher, ends.reader(empty.url) as reader:
        reader.until_said(f"sockagent: {empty.url}: {NO_STREAM}")
        publisher.until_said(f"sockagent: {empty.url}: {NO_STREAM}{RETRYING}")
        assert reader.process.wait() == 1


def test_no_jetstream(ends: Ends, tmp_path: Path) -> None:
    with started(tmp_path) as server:
        server.kill()
        (tmp_path / "nats.conf").write_text(f'listen: "127.0.0.1:{server.port}"\n')
        server.start()
        asyncio.run(until_it_answers(server))
        with ends.reader(server.url) as reader:
            reader.until_said(
                f"sockagent: {server.url}: the broker has no JetStream, or is starting; retrying"
            )


def test_no_credentials(ends: Ends, closed: Server) -> None:
    reason = "the broker requires credentials; give a file with --nats-creds"
    both_say(ends, closed.url, reason)


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("admin", "wrong", "the broker refuses the credentials: Authorization Violation"),
        ("mute", "secret",
         r'the broker does not permit it: permissions violation for publish to "\$js.api.*"'),
        ("deaf", "secret",
         'the broker does not permit it: permissions violation for subscription to "_inbox.*"'),
    ],
)  # fmt: skip
def test_wrong_credentials_and_no_permission(
    ends: Ends, closed: Server, tmp_path: Path, user: str, password: str, reason: str
) -> None:
    secret = tmp_path / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    url = closed.url.replace("//", f"//{user}@")
    both_say(ends, url, reason, "--nats-creds", str(secret))


def test_credentials_that_cannot_be_read(ends: Ends, closed: Server, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for start in (ends.publisher, ends.reader):
        with start(closed.url, "--nats-creds", str(missing)) as side:
            side.until_said(f"sockagent: credentials {missing}: No such file or directory")
            assert side.process.wait() == 78


def test_a_full_stream(ends: Ends, tmp_path: Path) -> None:
    with started(tmp_path) as server:
        asyncio.run(server.make_stream(discard="new", max_bytes=100))
        with ends.publisher(server.url) as publisher:
            publisher.until_said(
                f"sockagent: {server.url}: the stream refuses messages: maximum bytes exceeded"
                f"{RETRYING}"
            )


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        ("max_payload: 600", {}, "max_payload is too small: a record has more than 600 bytes"),
        ("", {"max_msg_size": 100},
         "the stream refuses messages: message size exceeds maximum allowed"),
    ],
)  # fmt: skip
def test_messages_that_are_too_large(
    ends: Ends, tmp_path: Path, config: str, changes: dict[str, Any], reason: str
) -> None:
    with started(tmp_path) as server:
        asyncio.run(server.make_stream(**changes))
        server.kill()
        path = tmp_path / "nats.conf"
        path.write_text(f"{path.read_text()}\n{config}\n")
        server.start()
        asyncio.run(until_it_answers(server))
        with ends.publisher(server.url) as publisher:
            publisher.until_said(f"sockagent: {server.url}: {reason}{RETRYING}")


@contextmanager
def changes() -> Iterator[None]:
    """Open and close a UDP socket again and again."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            with socket.socket(type=socket.SOCK_DGRAM) as one:
                one.bind(("127.0.0.1", 0))
                done.wait(0.3)
            done.wait(0.3)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_another_host_of_the_same_name(ends: Ends, tmp_path: Path) -> None:
    with started(tmp_path) as server:
        asyncio.run(server.make_stream())
        path = f"unix:{tmp_path}/agent.sock"
        name = os.uname().nodename
        expected = (
            f"sockagent: {server.url}: another agent publishes as {name}: host names must differ"
            f"{RETRYING}"
        )
        with (
            Agent("--proto", "udp", listen=path),
            changes(),
            ends.publisher(server.url) as one,
            Ends(path).publisher(server.url) as other,
        ):
            end = time.monotonic() + SECONDS
            while expected not in one.lines() + other.lines():
                assert time.monotonic() < end
                time.sleep(0.1)
            publishing = f"sockagent: {server.url}: publishing as {name}"
            assert {*one.lines(), *other.lines()} == {publishing, expected}


def test_the_library_is_not_installed(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "nats.py").write_text("raise ModuleNotFoundError(__name__, name=__name__)\n")
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths}
    for start in (ends.publisher, ends.reader):
        with start("nats://127.0.0.1:1", environment=environment) as side:
            side.until_said(
                r"sockagent: this needs the package nats-py: pip install 'sockagent\[nats\]'"
            )
            assert side.process.wait() == 1


def test_certificates(ends: Ends, tmp_path: Path) -> None:
    need_tool("openssl")
    ca, other = (make_certificate(tmp_path, name) for name in ("ca", "other"))
    certificate = make_certificate(tmp_path, "broker", ca)
    key = certificate.with_suffix(".key")
    with started(tmp_path, f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as server:
        url = server.url.replace("nats:", "tls:")
        reason = "unable to get local issuer certificate"
        with ends.publisher(url, "--tls-ca", str(ca)) as publisher:
            publisher.until_said(f"sockagent: {url}: {NO_STREAM}{RETRYING}")
        both_say(ends, url, reason, "--tls-ca", str(other))
        both_say(ends, url, reason)
        with ends.reader(url, "--tls-ca", str(ca)) as reader:
            reader.until_said(f"sockagent: {url}: {NO_STREAM}")
