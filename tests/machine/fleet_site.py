"""Three hosts that publish at one broker, and clients that hold connections for a known time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from agent.kernel.trace import instance

from .helpers import COMMAND, DEADLINE, must_have, run
from .hosts import ADDRESSES, CALLED, CALLER, NAMES, Site
from .lives import PORT, SERVER
from .pages import Connected

TCP = ("--proto", "tcp")
ROOT = Path(__file__).parents[2]
URL = f"nats://{CALLER}:4222"
SECONDS = 15.0
CALLERS = 2  # On each host.
# The longest of each class of lives, as in the document of the benchmarks.
CLASSES = {"under 0.25 s": 0.25, "0.25 to 1 s": 1.0, "1 to 2 s": 2.0, "2 s or more": 1e9}
LONG = "2 s or more"
NAMES_OF_SERVERS = {CALLED["web"]: "nginx", CALLED["app"]: "gunicorn", CALLED["db"]: "postgres"}
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
