"""Who may publish in a fleet and who may read it, at a real broker: users with credentials of an
operator, and users with passwords over TLS, with the permissions that are shipped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.fleet_command import broker_config
from agent.stream.fleet import subject

from ..broker import needs_broker
from .fleet_ends import Ends, make_certificate, started
from .helpers import need_tool
from .live import Agent
from .test_publish_nats import Server

pytestmark = needs_broker
SYSTEMD = Path(__file__).parents[2] / "systemd/nats"
HOST = os.uname().nodename
TOKEN = subject("sockagent", HOST).partition(".")[2]
RETRYING = "; retrying, while the agent keeps the newest changes"
PRINTED = '"event":"snapshot_end"'
ALL = [">"]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    path = f"unix:{tmp_path_factory.mktemp('agent')}/agent.sock"
    with Agent("--proto", "udp", listen=path):
        yield Ends(path)


def quoted(text: str) -> list[str]:
    """Return the subjects that are in quotes in a part of a configuration."""
    return re.findall(r'"([^"]*\.[^"]*)"', text)


def permissions_of_hosts() -> tuple[list[str], list[str]]:
    """Return the subjects of host.sh that a host may publish and subscribe."""
    text = (SYSTEMD / "host.sh").read_text()
    publish, subscribe = (
        re.findall(rf"--allow-{kind} '(.*?)'", text)[0] for kind in ("pub", "sub")
    )
    return publish.split(","), subscribe.split(",")


def users_of(*names: str) -> str:
    """Return the users of ``sockagent fleet config``, whose password is ``secret``."""
    config = broker_config(dict.fromkeys(names, "secret"), None)
    return "".join(config.partition("authorization")[1:])


def permissions_of_readers() -> tuple[list[str], list[str]]:
    """Return the subjects of ``sockagent fleet config`` that a reader may publish and subscribe."""
    publish, subscribe = users_of("reader").split("subscribe:")
    return quoted(publish), quoted(subscribe)


async def make_stream(server: Server, credentials: str) -> None:
    """Make the stream, as a user who may do everything."""
    await server.make_stream({"user_credentials": credentials})


def test_credentials_of_an_operator(ends: Ends, tmp_path: Path) -> None:
    pytest.importorskip("nkeys", reason="nkeys is not installed")
    from .nats_login import Account, store  # noqa: PLC0415 (of an extra)

    account = Account(*permissions_of_hosts())
    admin, host, other, reader, expired, unknown = (
        store(tmp_path / name, credentials)
        for name, credentials in {
            "admin": account.user(ALL, ALL),
            "host": account.host(TOKEN),
            "other": account.host(f"{TOKEN}-2"),
            "reader": account.user(*permissions_of_readers()),
            "expired": account.user(ALL, ALL, exp=int(time.time()) - 60),
            "unknown": Account([], []).host(TOKEN),
        }.items()
    )
    with started(tmp_path, account.config) as server:
        asyncio.run(make_stream(server, admin))
        url = server.url
        with (
            ends.publisher(url, "--nats-creds", host) as publishing,
            ends.reader(url, "--nats-creds", reader) as reading,
        ):
            reading.until_printed(PRINTED)
            assert not publishing.lines() + reading.lines()
        denied = f"sockagent: {url}: the broker does not permit it: permissions violation for .*"
        for credentials in (other, reader):
            with ends.publisher(url, "--nats-creds", credentials) as publishing:
                publishing.until_said(f"{denied}{RETRYING}")
        with ends.reader(url, "--nats-creds", host) as reading:
            reading.until_said(denied)
            assert reading.process.wait() == 1
        refused = f"sockagent: {url}: the broker refuses the credentials: Authorization Violation"
        for credentials in (expired, unknown):
            with (
                ends.publisher(url, "--nats-creds", credentials) as publishing,
                ends.reader(url, "--nats-creds", credentials) as reading,
            ):
                publishing.until_said(refused + RETRYING)
                reading.until_said(refused)
                assert reading.process.wait() == 1


def test_passwords_over_tls(ends: Ends, tmp_path: Path) -> None:
    need_tool("openssl")
    ca = make_certificate(tmp_path, "ca")
    certificate = make_certificate(tmp_path, "broker", ca)
    key = certificate.with_suffix(".key")
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    with started(tmp_path, users_of("admin", "reader", TOKEN)) as server:
        # The stream is made while the server has no TLS: only the ends are to be tested.
        asyncio.run(server.make_stream({"user": "admin", "password": "secret"}))
        server.kill()
        config = tmp_path / "nats.conf"
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
        config.write_text(f"{config.read_text()}\n{tls}\n")
        server.start()
        options = ("--tls-ca", str(ca), "--nats-creds", str(password))
        host, reader = (
            server.url.replace("nats://", f"tls://{user}@") for user in (TOKEN, "reader")
        )
        with ends.publisher(host, *options) as publishing, ends.reader(reader, *options) as reading:
            reading.until_printed(PRINTED)
            hello = json.loads(reading.output().splitlines()[0])
            assert (hello["event"], hello["host"]) == ("hello", HOST)
            server.kill()
            server.start()
            publishing.until_said_last(f"sockagent: {host}: publishing again")
            reading.until_said_last(f"sockagent: {reader}: connected again")
        denied = "the broker does not permit it: permissions violation for .*"
        with (
            ends.publisher(reader, *options) as publishing,
            ends.reader(host, *options) as reading,
        ):
            publishing.until_said(f"sockagent: {reader}: {denied}{RETRYING}")
            reading.until_said(f"sockagent: {host}: {denied}")
