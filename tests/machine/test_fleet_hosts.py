"""A fleet of three hosts that publish at one broker: connections of known life, and who has them.

The hosts have a site of nginx, gunicorn and PostgreSQL, servers with several processes, and clients
that keep connections to all of these open for known times.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.kernel.trace import instance

from ..broker import needs_broker
from .helpers import COMMAND, DEADLINE, must_have, need_root, run
from .hosts import ADDRESSES, CALLED, CALLER, NAMES, Site
from .lives import PORT, SERVER
from .pages import Connected, comparable, wait_until

pytestmark = needs_broker

TCP = ("--proto", "tcp")
ROOT = Path(__file__).parents[2]
URL = f"nats://{CALLER}:4222"
SECONDS = 15.0
CALLERS = 2  # On each host.
# The longest of each class of lives, as in the document of the benchmarks.
CLASSES = {"under 0.25 s": 0.25, "0.25 to 1 s": 1.0, "1 to 2 s": 2.0, "2 s or more": 1e9}
LONG = "2 s or more"
# Moments of which the table is printed, in seconds since the first connection.
MOMENTS = (4.0, 8.0, 12.0)
# How late a poll may show a connection.
LATE_SECONDS = 1.9
NAMES_OF_SERVERS = {CALLED["web"]: "nginx", CALLED["app"]: "gunicorn", CALLED["db"]: "postgres"}
# Of the log: "12:45:42  db  open  postgres[17]  in  10.77.0.2:35546 → 10.77.0.4:5432".
_OPENED = re.compile(
    r"\S+ +(?P<host>\S+) +open +(?P<comm>\S+)\[(?P<pid>\d+)\] +(?P<direction>in|out) +"
    r"(?P<client>\S+:\d+) → (?P<server>\S+:\d+)"
)
COLUMNS = "host,pid,comm,local_addr,local_port,remote_addr,remote_port"
MAKE_STREAM = """
import asyncio, json, sys
from tests.broker import Connection
async def make(url, path):
    async with Connection(url) as connection:
        await connection.request("STREAM.CREATE.SOCKAGENT", json.load(open(path)))
asyncio.run(make(*sys.argv[1:]))
"""

Address = tuple[str, int]


class End(NamedTuple):
    """One end of a connection, as its host sees it."""

    host: str
    local: Address
    remote: Address


# The processes that have each end: pid and name.
Holders = dict[End, set[tuple[int, str]]]


class Truth(NamedTuple):
    """A connection as its client knows it: ``pids`` has the process at each end, None: unknown."""

    client: End
    server: End
    pids: tuple[int, int | None]
    comms: tuple[str, str]
    opened: float
    closed: float

    @property
    def kind(self) -> str:
        """The class of its life."""
        life = self.closed - self.opened
        return next(name for name, most in CLASSES.items() if life < most)

    def ends(self) -> tuple[tuple[End, int | None, str], ...]:
        """Return both ends with pid and name."""
        ends = (self.client, self.server)
        return tuple(zip(ends, self.pids, self.comms, strict=True))


class Fleet:
    """A site whose hosts publish. ``with_events``: the agents read trace events, and therefore
    run outside of the pid namespaces of their hosts."""

    def __init__(self, stack: ExitStack, directory: Path, *, with_events: bool) -> None:
        self._stack = stack
        self._directory = directory
        self.site = Site(stack, directory, None if with_events else "--interval 1 --events off")
        self._with_events = with_events
        self.bridge = self.site.bridge
        store = str(directory / "store")
        self.bridge.start(
            "nats-server", "-js", "-sd", store, "-a", CALLER, "-p", "4222",
            "-l", f"{directory}/broker.log",
        )  # fmt: skip
        self._make_stream()
        self.fleet = (*COMMAND, "--connect", URL, "--insecure")
        self.records = directory / "records"
        self.log = directory / "log"
        recording = (*self.fleet, "--since", "start", "--record", str(self.records))
        self._recorder = self._start(recording)
        with self.log.open("wb") as log:
            self._logging = self._start((*self.fleet, "-o", "log", "--since", "start"), stdout=log)
        for name, host in self.site.hosts.items():
            self._publish(name, host.pid, host.path)
        self.wait_for_hosts()
        path = f"unix:{directory}/relay.sock"
        self._start((*self.fleet, "--listen", path))
        self.relayed = stack.enter_context(Connected(path, *TCP))
        self.relayed.wait_for("snapshot_end", len(NAMES))

    def _start(
        self, command: tuple[str, ...], *, of: int | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command in the network namespace of a process."""
        errors = self._stack.enter_context((self._directory / "errors").open("ab"))
        process = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(of or self.bridge.pid), "-n",
             "-u", *command),
            stdin=subprocess.DEVNULL, stderr=errors, **options,
        )  # fmt: skip
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def _make_stream(self) -> None:
        end = time.monotonic() + DEADLINE
        while True:
            made = subprocess.run(
                self.bridge.command(
                    sys.executable, "-c", MAKE_STREAM, f"{URL}/sockagent",
                    str(ROOT / "systemd/nats/stream.json"),
                ),
                env=environment(), capture_output=True, check=False, timeout=DEADLINE,
            )  # fmt: skip
            if made.returncode == 0:
                return
            assert time.monotonic() < end, made.stderr.decode()
            time.sleep(0.1)

    def _publish(self, name: str, pid: int, path: str) -> None:
        words: tuple[str, ...] = ()
        if self._with_events:
            agent = (*COMMAND, "--listen", f"unix:{path}", "--interval", "1", "--events", "auto")
            self._start(agent, of=pid)
            words = of_namespace(pid)
        self._start(
            (*COMMAND, "--connect", f"unix:{path}", "--publish", URL, "--insecure", *words), of=pid
        )

    def wait_for_hosts(self) -> None:
        """Wait until the recording has the snapshot of each host."""
        end = time.monotonic() + 2 * DEADLINE
        while {one["host"] for one in self.recorded() if one["event"] == "snapshot_end"} != {
            *NAMES
        }:
            assert time.monotonic() < end, self.errors()
            time.sleep(0.2)

    def errors(self) -> str:
        """Return what was said on stderr."""
        return (self._directory / "errors").read_text()

    def recorded(self) -> list[dict[str, Any]]:
        """Return the records of the recording so far."""
        content = b"".join(file.read_bytes() for file in sorted(self.records.glob("*.ndjson")))
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]

    def call(self) -> list[Truth]:
        """Run the clients; return their connections once the fleet has seen their ends."""
        lives = (sys.executable, "-m", "tests.machine.lives")
        for host in self.site.hosts.values():
            self._inside(host.pid, *lives, "serve")
        callers = []
        for name in NAMES:
            others = [other for other in NAMES if other != name]
            targets = [f"{ADDRESSES[one]}:{port}" for one in others for port in (PORT, CALLED[one])]
            pid = self.site.hosts[name].pid
            callers += [
                (name, self._inside(pid, *lives, "call", f"{name}-{one}", str(SECONDS), *targets))
                for one in range(CALLERS)
            ]
        truths = []
        for name, process in callers:
            output, _ = process.communicate(timeout=SECONDS + 2 * DEADLINE)
            truths += [truth_of(name, json.loads(line)) for line in output.splitlines()]
        self._wait_for_closes(truths)
        for process in (self._recorder, self._logging):
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0, self.errors()
        return truths

    def _inside(self, pid: int, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in the namespaces of a host; it ends with them. With trace events, pids
        are those that the agent sees: the procfs stays that of the machine."""
        words = ["nsenter", "-t", str(pid), "-n", "-u", "-p"]
        if not self._with_events:
            words.append("-m")
        process = self._stack.enter_context(
            subprocess.Popen(
                (*words, *command), env=environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        self._stack.callback(process.kill)
        return process

    def _wait_for_closes(self, truths: list[Truth]) -> None:
        wanted = {end for truth in truths if truth.kind == LONG for end, *_ in truth.ends()}
        end = time.monotonic() + 2 * DEADLINE
        while True:
            there = {end_of(one) for one in self.recorded() if one["event"] == "close"}
            if wanted <= there or time.monotonic() > end:
                return
            time.sleep(0.5)


def of_namespace(pid: int) -> tuple[str, str]:
    """Return the filter for the sockets of a host."""
    return "--netns", str(os.stat(f"/proc/{pid}/ns/net").st_ino)


def need_tracefs() -> None:
    if instance.find_tracefs() is None:
        run("tracefs", "/sys/kernel/tracing", command=("mount", "-t", "tracefs"))
    must_have(instance.find_tracefs(), "tracefs cannot be mounted here")


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def truth_of(host: str, line: dict[str, Any]) -> Truth:
    """Return what a client knows."""
    local, remote = (ADDRESSES[host], line["local"][1]), (line["remote"][0], line["remote"][1])
    (other,) = (name for name, address in ADDRESSES.items() if address == remote[0])
    return Truth(
        End(host, local, remote),
        End(other, remote, local),
        (line["pid"], line["server"]),
        (line["comm"], NAMES_OF_SERVERS.get(remote[1], SERVER)),
        line["opened"],
        line["closed"],
    )


def end_of(record: dict[str, Any]) -> End | None:
    """Return the end of a connection that a record is about."""
    if record.get("proto") != "tcp" or record["remote_port"] is None:
        return None
    local, remote = (
        (str(record[f"{side}_addr"]).removeprefix("::ffff:"), record[f"{side}_port"])
        for side in ("local", "remote")
    )
    return End(record["host"], local, remote)


def holders(found: list[dict[str, Any]]) -> Holders:
    """Return the processes of each end in records."""
    ends = defaultdict(set)
    for record in found:
        end = end_of(record)
        if end is not None and record["pid"] is not None:
            ends[end].add((record["pid"], record["comm"]))
    return ends


def verdict(found: set[tuple[int, str]], pid: int | None, comm: str) -> str:
    """Return whether an end has the right process, a wrong one, or none."""
    if not found:
        return "none"
    is_right = all(name == comm and pid in (None, number) for number, name in found)
    return "right" if is_right else "wrong"


def judge(truth: Truth, found: Holders) -> str:
    """Return whether a connection has the right processes at both ends."""
    verdicts = {verdict(found.get(end, set()), pid, comm) for end, pid, comm in truth.ends()}
    if "wrong" in verdicts:
        return "wrong"
    return "none" if "none" in verdicts else "right"


def address_of(text: str) -> Address:
    """Return an address as it is printed, an IPv4 one in IPv6 as IPv4."""
    address, _, port = text.rpartition(":")
    return address.strip("[]").removeprefix("::ffff:"), int(port)


def logged(text: str) -> Holders:
    """Return the processes of each end that a log says has opened."""
    ends = defaultdict(set)
    for line in text.splitlines():
        found = _OPENED.match(line)
        if found is not None:
            client, server = address_of(found["client"]), address_of(found["server"])
            is_client = found["direction"] == "out"
            end = End(found["host"], *((client, server) if is_client else (server, client)))
            ends[end].add((int(found["pid"]), found["comm"]))
    return ends


def tabulated(text: str) -> Holders:
    """Return the processes of each end in a table with COLUMNS."""
    ends = defaultdict(set)
    for line in text.splitlines():
        host, pid, comm, *addresses = line.split()
        if pid != "-" and "-" not in addresses:
            local, local_port, remote, remote_port = addresses
            end = End(
                host, address_of(f"{local}:{local_port}"), address_of(f"{remote}:{remote_port}")
            )
            ends[end].add((int(pid), comm))
    return ends


def edges(found: list[dict[str, Any]]) -> Counter[tuple[str, str, str, str]]:
    """Return the service map: connections by the processes at both ends, joined by the swapped
    addresses and ports."""
    seen: dict[End, tuple[str, str]] = {}
    hosts = {address: name for name, address in ADDRESSES.items()}
    for record in found:
        end = end_of(record)
        if end is not None and record.get("comm") is not None:
            seen[end] = record["direction"], record["comm"]
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for end, (direction, comm) in seen.items():
        there = hosts.get(end.remote[0])
        if direction == "outbound" and there is not None:
            other = seen.get(End(there, end.remote, end.local))
            if other is not None and other[0] == "inbound":
                counted[end.host, comm, there, other[1]] += 1
    return counted


@pytest.fixture(scope="module", params=["polls", "events"])
def called(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, list[Truth]]]:
    need_root()
    with_events = request.param == "events"
    if with_events:
        need_tracefs()
    with ExitStack() as stack:
        fleet = Fleet(stack, tmp_path_factory.mktemp(request.param), with_events=with_events)
        yield fleet, fleet.call()


def shares(truths: list[Truth], found: Holders) -> dict[str, Counter[str]]:
    """Return the verdicts on the connections of each class."""
    counted = {name: Counter[str]() for name in CLASSES}
    for truth in truths:
        counted[truth.kind][judge(truth, found)] += 1
    return counted


def test_the_map_joins_both_ends_of_each_connection(called: tuple[Fleet, list[Truth]]) -> None:
    fleet, truths = called
    found = fleet.recorded()
    counted = shares(truths, holders(found))
    for name, verdicts in counted.items():
        print(f"{name}: {verdicts.total()} true, {verdicts['right']} right, {verdicts}")
    assert sum(verdicts["wrong"] for verdicts in counted.values()) == 0
    assert counted[LONG]["right"] == counted[LONG].total() > 50
    true_edges = {(one.client.host, one.comms[0], one.server.host, one.comms[1]) for one in truths}
    site = {("web", "nginx", "app", "gunicorn"), ("app", "gunicorn", "db", "postgres")}
    assert true_edges <= edges(found).keys() <= true_edges | site
    assert not [one for one in found if one["event"] == "lost"]
    assert "Traceback" not in fleet.errors()


def test_the_log_of_the_fleet_names_both_ends(called: tuple[Fleet, list[Truth]]) -> None:
    fleet, truths = called
    counted = shares(truths, logged(fleet.log.read_text()))
    assert sum(verdicts["wrong"] for verdicts in counted.values()) == 0
    assert counted[LONG]["right"] == counted[LONG].total()


def test_the_table_of_a_moment_names_both_ends(
    called: tuple[Fleet, list[Truth]], tmp_path: Path
) -> None:
    fleet, truths = called
    recording = tmp_path / "records.ndjson"
    files = sorted(fleet.records.glob("*.ndjson"))
    recording.write_bytes(b"".join(file.read_bytes() for file in files))
    start, checked = min(truth.opened for truth in truths), 0
    for moment in MOMENTS:
        at = int(start + moment)
        done = run(
            "--read", str(recording), "--at", datetime.fromtimestamp(at).isoformat(),
            "-o", "table", "--no-header", "--columns", COLUMNS, *TCP,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        table = tabulated(done.stdout)
        for truth in truths:
            judged = judge(truth, table)
            assert judged != "wrong", truth
            if truth.opened + LATE_SECONDS < at < truth.closed:
                assert judged == "right", truth
                checked += 1
    assert checked > len(MOMENTS)


def test_a_relay_of_the_broker_leads_to_the_state_of_the_agents(
    called: tuple[Fleet, list[Truth]],
) -> None:
    fleet, _ = called
    hosts = fleet.site.hosts.values()
    with ExitStack() as stack:
        agents = [
            stack.enter_context(Connected(f"unix:{host.path}", *TCP, *of_namespace(host.pid)))
            for host in hosts
        ]
        for agent in agents:
            agent.wait_for("snapshot_end")
        states: list[dict[object, object]] = []

        def are_equal() -> bool:
            direct = {key: one for agent in agents for key, one in agent.state().items()}
            states[:] = [
                {key: comparable(one) for key, one in state.items()}
                for state in (direct, fleet.relayed.state())
            ]
            return bool(direct) and states[0] == states[1]

        wait_until(are_equal, lambda: states)
    assert {key[0] for key in fleet.relayed.state()} == set(NAMES)
    assert fleet.relayed.events.count("snapshot_end") == len(NAMES)
    assert {"open", "close"} <= set(fleet.relayed.events)
