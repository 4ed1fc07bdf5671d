"""A broker with the configuration and the stream of ``sockagent fleet``: three hosts publish, a
reader reads them, and each may do nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.remote.nats.reports import SessionError
from agent.remote.nats.session import open_session
from agent.stream.fleet import HEADER, parse_broker

from ..broker import free_port, needs_broker
from .helpers import COMMAND, DEADLINE

pytestmark = needs_broker
HOSTS = ("web1", "app1", "db1.example")
TOKENS = ("web1", "app1", "db1%2Eexample")


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=directory, capture_output=True, text=True, check=False,
        timeout=DEADLINE,
    )  # fmt: skip


class Fleet:
    """A broker on loopback, and the files of its users."""

    def __init__(self, directory: Path, *more: str) -> None:
        self.directory = directory
        self._port = free_port()
        self._config = run(directory, "fleet", "config", *more, *HOSTS)
        assert self._config.returncode == 0, self._config.stderr
        path = directory / "nats.conf"
        path.write_text(self.config)
        self._process = subprocess.Popen(
            ("nats-server", "-c", str(path)), stderr=subprocess.DEVNULL
        )

    @property
    def config(self) -> str:
        """The configuration that was printed, with the address and the store of this test."""
        text = re.sub(r'"[\d.]+:4222"', f'"127.0.0.1:{self._port}"', self._config.stdout)
        return text.replace("/var/lib/nats", str(self.directory / "store"))

    def words(self, user: str, option: str = "--connect", scheme: str = "nats") -> list[str]:
        """Return the words that log a user in."""
        url = f"{scheme}://{user}@127.0.0.1:{self._port}"
        return [option, url, "--nats-creds", f"{user}.creds"]

    def init(self, *more: str, scheme: str = "nats") -> subprocess.CompletedProcess[str]:
        """Make the stream, once the broker answers."""
        return run(self.directory, "fleet", "init", *self.words("admin", scheme=scheme), *more)

    async def client(self, user: str) -> Any:
        """Return a client of a user, with the inbox that it may have."""
        import nats  # noqa: PLC0415 (of an extra)

        async def ignore(_error: Exception) -> None:
            """Take what the library would log."""

        return await nats.connect(
            f"nats://127.0.0.1:{self._port}", user=user, inbox_prefix=f"_INBOX.{user}",
            password=(self.directory / f"{user}.creds").read_text().strip(),
            allow_reconnect=False, error_cb=ignore,
        )  # fmt: skip

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(tmp_path)
    yield started
    started.stop()


def publish(fleet: Fleet, host: str, token: str) -> subprocess.Popen[bytes]:
    """Start an agent with a host name of its own, which publishes."""
    command = [*COMMAND, "--interval", "0.2", *fleet.words(token, "--publish"), "-t"]
    script = 'hostname "$1"; shift; exec "$@"'
    return subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", script, "sh", host, *command], cwd=fleet.directory,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="host names of their own require root")
def test_three_hosts_are_read_by_the_reader(fleet: Fleet) -> None:
    made = fleet.init()
    assert (made.returncode, made.stderr.strip().endswith("made the stream SOCKAGENT")) == (0, True)
    publishers = [publish(fleet, *pair) for pair in zip(HOSTS, TOKENS, strict=True)]
    reading = subprocess.Popen(
        [*COMMAND, *fleet.words("reader"), "--since", "start"], cwd=fleet.directory,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    seen: set[str] = set()
    try:
        assert reading.stdout
        end = time.monotonic() + DEADLINE
        while seen != set(HOSTS):
            assert time.monotonic() < end, seen
            record = json.loads(reading.stdout.readline())
            if record["event"] == "snapshot_end":
                seen.add(record["host"])
    finally:
        for process in (*publishers, reading):
            process.terminate()
        for process in (*publishers, reading):
            process.wait()
            if process.stdout:
                process.stdout.close()


def test_the_stream_is_changed_where_there_is_one(fleet: Fleet) -> None:
    assert fleet.init("--keep", "24h").returncode == 0
    changed = fleet.init("--keep", "12h", "--keep", "1G")
    assert changed.returncode == 0
    assert changed.stderr.strip().endswith("changed the stream SOCKAGENT")


def test_a_stream_that_is_larger_than_the_storage(fleet: Fleet) -> None:
    done = fleet.init("--keep", "100000T")
    assert done.returncode == 1
    assert "insufficient storage resources available; keep less, for example" in done.stderr


def test_a_host_may_not_make_the_stream(fleet: Fleet) -> None:
    assert fleet.init().returncode == 0
    done = run(fleet.directory, "fleet", "init", *fleet.words("web1"))
    assert done.returncode == 1
    assert "sockagent: nats://web1@127.0.0.1" in done.stderr
    assert "the broker does not permit it: permissions violation for publish" in done.stderr


async def test_the_reader_reads_with_an_inbox_of_its_own_alone(fleet: Fleet) -> None:
    import nats.errors  # noqa: PLC0415 (of an extra)

    assert fleet.init().returncode == 0
    url = fleet.words("reader")[1]
    async with open_session(parse_broker(url), f"{fleet.directory}/reader.creds", None) as session:
        assert (await session.info()).last == 0
        async for message in session.messages({"deliver_policy": "all"}):
            assert message is None
            break
        with pytest.raises(SessionError):
            await session.make_stream({"name": "SOCKAGENT"})
    reader = await fleet.client("reader")
    for subject in ("_INBOX.>", "_INBOX.web1.>", "sockagent.>"):
        subscription = await reader.subscribe(subject)
        with pytest.raises(nats.errors.TimeoutError):
            await subscription.next_msg(timeout=0.1)
    for denied in ("STREAM.PURGE.SOCKAGENT", "STREAM.DELETE.SOCKAGENT", "STREAM.MSG.GET.SOCKAGENT"):
        with pytest.raises(nats.errors.TimeoutError):
            await reader.request(f"$JS.API.{denied}", b"{}", timeout=0.2)
    await reader.publish("sockagent.web1", b"{}")
    await reader.flush()
    async with open_session(parse_broker(url), f"{fleet.directory}/reader.creds", None) as session:
        assert (await session.info()).last == 0
    await reader.close()


async def test_a_host_may_neither_write_as_its_neighbour_nor_read_its_log(fleet: Fleet) -> None:
    import nats.errors  # noqa: PLC0415 (of an extra)

    assert fleet.init().returncode == 0
    web, app = await fleet.client("web1"), await fleet.client("app1")
    stored = await app.request("sockagent.app1", b"{}\n", timeout=5, headers={HEADER: "x"})
    assert json.loads(stored.data)["seq"] == 1
    own = await app.request("$JS.API.DIRECT.GET.SOCKAGENT.sockagent.app1", b"", timeout=5)
    assert own.data == b"{}\n"
    # The same as its neighbour, and what would show it the log.
    for subject, body in (
        ("sockagent.app1", b"{}\n"),
        ("sockagent.new", b"{}\n"),
        ("$JS.API.DIRECT.GET.SOCKAGENT.sockagent.app1", b""),
        ("$JS.API.DIRECT.GET.SOCKAGENT", b'{"seq":1}'),
        ("$JS.API.STREAM.MSG.GET.SOCKAGENT", b'{"seq":1}'),
        ("$JS.API.CONSUMER.CREATE.SOCKAGENT", b"{}"),
    ):
        with pytest.raises(nats.errors.TimeoutError):
            await web.request(subject, body, timeout=0.2)
    for subject in ("sockagent.app1", "sockagent.>", "_INBOX.app1.>", ">"):
        subscription = await web.subscribe(subject)
        await app.publish("_INBOX.app1.x", b"")
        with suppress(nats.errors.TimeoutError):
            raise AssertionError(await subscription.next_msg(timeout=0.1))
    admin = await fleet.client("admin")
    assert (await admin.jetstream().stream_info("SOCKAGENT")).state.messages == 1
    for client in (web, app, admin):
        await client.close()


def test_a_broker_with_a_certificate(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    fleet = Fleet(tmp_path, "--tls-cert", "tls.crt", "--tls-key", "tls.key")
    try:
        assert "certificate" in fleet.init(scheme="tls").stderr
        assert fleet.init("--tls-ca", "tls.crt", scheme="tls").returncode == 0
    finally:
        fleet.stop()
