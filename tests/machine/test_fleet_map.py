"""The service map of docs/fleet.md, of three hosts whose agents publish at a broker."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.recipes import VIEW, recipes

from ..broker import Broker, broker, needs_broker
from .helpers import COMMAND, DEADLINE
from .hosts import CALLED, Site
from .roles import WORKERS

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
pytestmark = needs_broker
CLIENTS = 5
SECONDS = 4.0  # Connections that are kept last longer than two seconds.


@contextmanager
def running(*words: str) -> Iterator[None]:
    """Run the command, and end it with SIGTERM."""
    process = subprocess.Popen([*COMMAND, *words])
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(DEADLINE) == 0


def record(site: Site, found: Broker, directory: Path) -> None:
    """Record the hosts for a while, in which they are called."""
    subprocess.run([*COMMAND, "fleet", "init", "--connect", found.url], check=True)
    with ExitStack() as stack:
        for host in site.hosts.values():
            host.agent()
            stack.enter_context(
                running("--connect", f"unix:{host.path}", "--publish", found.url, "-t")
            )
        stack.enter_context(
            running("--connect", found.url, "--since", "start", "--record", str(directory))
        )
        time.sleep(1.0)
        clients = site.clients(CLIENTS)
        with site.churn():
            time.sleep(SECONDS)
        site.bridge.end(clients)
        time.sleep(2.0)


def test_the_map_of_three_hosts(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        site = Site(stack, sockets)
        found = stack.enter_context(broker(tmp_path))
        directory = tmp_path / "record"
        record(site, found, directory)
    sql = recipes(directory)
    with duckdb.connect() as database:
        database.execute(sql[VIEW])
        edges = database.execute(sql["map"]).fetchall()
    counts = {(caller, host, port): 0 for caller, *_, host, _, _, port, _ in edges}
    for caller, _, _, host, _, _, port, count in edges:
        counts[caller, host, port] += count
    remote = {edge: count for edge, count in counts.items() if edge[0] != edge[1]}
    # The proxy keeps a connection or more to the backend, each worker of that one to the database;
    # the others are short, so that polls see some of them.
    web, app = ("web", "app", CALLED["app"]), ("app", "db", CALLED["db"])
    assert remote.keys() == {web, app}
    assert remote[web] >= 1
    assert remote[app] >= WORKERS
    shown = subprocess.run(
        [*COMMAND, "--read", str(directory), "-o", "csv", "--columns", "host", "--no-header"],
        capture_output=True, text=True, check=True, timeout=DEADLINE,
    )  # fmt: skip
    assert set(shown.stdout.split()) == {"web", "app", "db"}
