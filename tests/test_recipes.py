"""The SQL recipes of docs/fleet.md, over a recording whose answers are known."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.model import Closed, Holding, Opened, Socket, Updated
from agent.record import RecordingDirectory, file_name
from agent.stream.encoder import AgentInfo, Encoder
from bench.recipes import VIEW, recipes

from .make import FULL_COVERAGE, holding, process, tcp, without_holder

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()  # As in the recipes.
HALF = NOON + 1800
ADDRESSES = {"web1": "10.0.0.1", "app1": "10.0.0.2", "db1": "10.0.0.3"}
SHARED = "172.17.0.2"  # Of a container on each host.
STRANGER = "10.0.0.9"  # Without an agent.


class Host:
    """A host whose records are written into the files of a recording."""

    def __init__(self, name: str, files: dict[str, list[bytes]]) -> None:
        self.address = ADDRESSES[name]
        self._files = files
        self._encoder = Encoder(AgentInfo(name, None, "e", 1.0))
        self._seq = self._inode = 0

    def write(self, at: float, line: bytes) -> None:
        self._files.setdefault(file_name(at), []).append(line)

    def snapshot(self, at: float, *held: Holding) -> None:
        encoder, seq = self._encoder, self._seq
        self.write(at, encoder.hello(seq, at, FULL_COVERAGE, resumed=False))
        for one in held:
            self.write(at, encoder.holding(encoder.head("snapshot", seq, at), one))
        self.write(at, encoder.snapshot_end(seq, at, len(held)))

    def delta(self, at: float, delta: Opened | Updated | Closed) -> None:
        self._seq += 1
        self.write(at, self._encoder.delta(delta, self._seq, at))

    def open(self, at: float, held: Holding, until: float | None = None) -> None:
        self.delta(at, Opened(held))
        if until is not None:
            self.delta(until, Closed(held, "closed", until - at))

    def socket(self, local: tuple[str, int], remote: tuple[str, int] | None, **more: Any) -> Socket:
        self._inode += 1
        address, port = remote or (None, None)
        state = "ESTABLISHED" if remote else "LISTEN"
        return tcp(
            self._inode, state, local_addr=local[0], local_port=local[1], remote_addr=address,
            remote_port=port, **more,
        )  # fmt: skip

    def holding(self, comm: str, socket: Socket, pid: int) -> Holding:
        return holding(socket, process(pid, comm=comm, unit=f"{comm}.service"))


def connect(
    at: float, until: float | None, caller: Host, server: Host, port: int, local: int,
    comms: tuple[str, str], addresses: tuple[str, str] | None = None, mapped: bool = False,
) -> None:  # fmt: skip
    """Record a connection at both ends; with ``mapped`` the server is a dual-stack socket."""
    here, there = addresses or (caller.address, server.address)
    prefix = "::ffff:" if mapped else ""
    out = caller.socket((here, local), (there, port), direction="outbound")
    into = server.socket((prefix + there, port), (prefix + here, local), direction="inbound")
    caller.open(at, caller.holding(comms[0], out, 100), until)
    server.open(at + 1, server.holding(comms[1], into, 200), None if until is None else until + 1)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Record an hour and more of three hosts: web1 calls app1, which calls db1."""
    files: dict[str, list[bytes]] = {}
    web, app, db = (Host(name, files) for name in ADDRESSES)
    postgres = db.holding("postgres", db.socket(("0.0.0.0", 5432), None, direction="listen"), 200)
    for host in (web, app):
        host.snapshot(NOON - 600)
    db.snapshot(NOON - 600, postgres)
    # The map: three connections to app1, two to db1, one of them dual-stack.
    for number in range(3):
        connect(NOON + number, NOON + 60, web, app, 8000, 40000 + number, ("nginx", "gunicorn"))
    connect(NOON + 5, None, app, db, 5432, 41000, ("gunicorn", "postgres"), mapped=True)
    connect(NOON + 6, NOON + 900, app, db, 5432, 41001, ("gunicorn", "postgres"))
    # Its ends are not those of one connection: the first was closed an hour before.
    old = web.socket((web.address, 42000), (db.address, 5432), direction="outbound")
    web.open(NOON - 500, web.holding("curl", old, 101), NOON - 400)
    late = db.socket((db.address, 5432), (web.address, 42000), direction="inbound")
    db.open(HALF + 60, db.holding("postgres", late, 200), HALF + 70)
    # Loopback and containers have the same addresses on each host.
    for host in (web, db):
        loop = ("127.0.0.1", "127.0.0.1")
        connect(NOON, HALF, host, host, 6379, 43000, ("worker", "redis"), loop)
        connect(NOON, HALF, host, host, 9000, 44000, ("box", "pool"), (SHARED, SHARED))
    # One that was attributed, one whose other end has no agent.
    found = app.socket((app.address, 45000), (db.address, 5432))
    app.delta(NOON + 7, Opened(without_holder(found)))
    app.delta(NOON + 8, Closed(without_holder(found), "attributed", 1.0))
    app.open(NOON + 8, app.holding("gunicorn", found, 100))
    stranger = db.socket((db.address, 5432), (STRANGER, 50000), direction="inbound")
    db.open(NOON + 9, db.holding("postgres", stranger, 200), HALF + 9)
    # Listeners: a new one, one that was there, one of loopback.
    app.open(NOON + 10, app.holding("nc", app.socket(("::", 9999), None, direction="listen"), 7))
    app.open(NOON + 11, app.holding("x", app.socket(("127.0.0.1", 1), None, direction="listen"), 8))
    # At 12:20 the agent of db1 is killed, and so is postgres; it was another one at 12:30.
    other = db.holding("mysqld", db.socket(("0.0.0.0", 5432), None, direction="listen"), 300)
    db.snapshot(NOON + 1300, other)
    db.delta(NOON + 1400, Updated(other._replace(fds=(3, 4)), other))
    db.delta(HALF + 1, Closed(other._replace(fds=(3, 4)), "closed", None))
    directory = RecordingDirectory(str(tmp_path))
    for name in sorted(files):
        directory.write([(name, b"".join(files[name]))])
    directory.close()
    with max(tmp_path.glob("*.ndjson")).open("ab") as newest:
        newest.write(b'{"event":"open","seq"')  # The recorder is writing.
    return tmp_path


def run(name: str, directory: Path) -> list[tuple[Any, ...]]:
    sql = recipes(directory)
    with duckdb.connect() as database:
        database.execute(sql[VIEW])
        return list(database.execute(sql[name]).fetchall())


def test_there_are_five_recipes_and_their_view(tmp_path: Path) -> None:
    assert list(recipes(tmp_path)) == [VIEW, "events", "callers", "listeners", "holders", "map"]


def test_records_are_counted_by_event(recording: Path) -> None:
    files = [path.read_bytes().splitlines() for path in recording.glob("*.ndjson")]
    lines = [line for file in files for line in file if line.endswith(b"}")]
    events = [json.loads(line)["event"] for line in lines]
    assert len(files) > 1
    counted = dict(run("events", recording))
    assert counted == {event: events.count(event) for event in events}
    assert len(counted) == 6


def test_who_talks_to_a_port(recording: Path) -> None:
    assert run("callers", recording) == [
        ("app1", "gunicorn.service", "gunicorn", 3),
        (STRANGER, None, None, 1),
        ("web1", "curl.service", "curl", 1),
    ]


def test_which_listeners_are_new(recording: Path) -> None:
    found = [
        (*row[:5], row[5].replace(tzinfo=UTC).timestamp()) for row in run("listeners", recording)
    ]
    assert found == [
        ("app1", "nc.service", "nc", "tcp", 9999, NOON + 10),
        ("db1", "mysqld.service", "mysqld", "tcp", 5432, NOON + 1300),
    ]


def test_who_held_a_port(recording: Path) -> None:
    assert run("holders", recording) == [(300, "mysqld", "mysqld.service", "listen", 1)]


def test_the_map_joins_both_ends(recording: Path) -> None:
    def edge(
        caller: str, comm: str, host: str, server: str, port: int, count: int
    ) -> tuple[Any, ...]:
        return (caller, f"{comm}.service", comm, host, f"{server}.service", server, port, count)

    assert run("map", recording) == [
        edge("web1", "nginx", "app1", "gunicorn", 8000, 3),
        edge("app1", "gunicorn", "db1", "postgres", 5432, 2),
        edge("db1", "box", "db1", "pool", 9000, 1),
        edge("db1", "worker", "db1", "redis", 6379, 1),
        edge("web1", "box", "web1", "pool", 9000, 1),
        edge("web1", "worker", "web1", "redis", 6379, 1),
    ]
