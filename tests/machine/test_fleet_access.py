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


def permissions(role: str) -> tuple[list[str], list[str]]:
    """Return the subjects that host.sh lets a role publish and subscribe."""
    text = (SYSTEMD / "host.sh").read_text().replace("$api", "$JS.API.CONSUMER")
    (part,) = (one for one in text.split("nsc edit") if f"--role {role} " in one)
    publish, subscribe = (
        ",".join(re.findall(rf"--allow-{kind} ['\"](.*?)['\"]", part)) for kind in ("pub", "sub")
    )
    return publish.split(","), subscribe.split(",")


async def make_stream(server: Server, credentials: str) -> None:
    """Make the stream, as a user who may do everything."""
    await server.make_stream({"user_credentials": credentials})


def test_credentials_of_an_operator(ends: Ends, tmp_path: Path) -> None:
    pytest.importorskip("nkeys", reason="nkeys is not installed")
    from .nats_login import Account, store  # noqa: PLC0415 (of an extra)

    # Here the reader is a user of its own permissions, whose name no template replaces.
    readers = (
        [one.replace("{{name()}}", "user") for one in subjects]
        for subjects in permissions("sockagent-reader")
    )
    account = Account(*permissions("sockagent"))
    admin, host, other, reader, expired, unknown = (
        store(tmp_path / name, credentials)
        for name, credentials in {
            "admin": account.user(ALL, ALL),
            "host": account.host(TOKEN),
            "other": account.host(f"{TOKEN}-2"),
            "reader": account.user(*readers),
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
            publishing.until_said(f"sockagent: {url}: publishing as {HOST}")
            assert not reading.lines()
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
    whole = broker_config(dict.fromkeys(("admin", "reader", TOKEN), "secret"), None)
    users = whole[whole.index("authorization") :]
    key = certificate.with_suffix(".key")
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    with started(tmp_path, users) as server:
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
