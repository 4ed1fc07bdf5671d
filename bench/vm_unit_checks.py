"""The checks of vm_unit.py, in its machine: prints a row for each, exits with 1 if one fails.

It runs in the machine's own Python, without other packages.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_INSTANCES = Path("/sys/kernel/tracing/instances")
_UNITS = ("sockagent.socket", "sockagent.service")
_SERVICE = _UNITS[1]
_MAX_EXPOSURE = 1.0
_URL = "ws://127.0.0.1:8765"
_RECORDS = Path("/run/records")
_CURLS = 10
_WAIT_SECONDS = 60.0  # The machine is slow.
_PAUSE = 0.5

Record = dict[str, Any]


class End(NamedTuple):
    """One end of a connection, and its process."""

    local_port: int
    remote_port: int
    pid: int
    comm: str
    exe: str


class Table:
    """The rows that were printed."""

    def __init__(self) -> None:
        self.failed = 0
        print("| check | found | |\n|---|---|---|", flush=True)

    def row(self, check: str, passed: bool, found: object) -> None:
        """Print whether a check passed, and what was found."""
        self.failed += not passed
        print(f"| {check} | {found} | {'ok' if passed else 'FAILED'} |", flush=True)


def run(*command: str) -> str:
    """Return the standard output of a command, or of a failed one its errors too."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + (done.stderr if done.returncode else "")).strip()


def show(name: str) -> str:
    """Return a property of the service."""
    return run("systemctl", "show", "--value", "-p", name, _SERVICE)


def until(holds: Callable[[], bool]) -> bool:
    """Wait until a condition holds; return False if it does not."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def instances() -> str:
    """Return the names of all trace instances."""
    return " ".join(sorted(os.listdir(_INSTANCES))) or "none"


def events() -> str:
    """Return the state of the instance of the service."""
    lines = [line.split(maxsplit=1) for line in run("sockagent", "events", "status").splitlines()]
    state = dict(line for line in lines if len(line) == 2)
    return state.get("state", "") or str(state)


def records() -> list[Record]:
    """Return the records that the subscriber received."""
    lines = _RECORDS.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def lost() -> list[Record]:
    """Return the records of what the subscriber missed."""
    return [one for one in records() if one["event"] == "lost"]


@contextmanager
def subscribed() -> Iterator[None]:
    """Run a subscriber that has received the snapshot."""
    command = ("sockagent", "--connect", _URL, "--proto", "tcp")
    with _RECORDS.open("wb") as file, subprocess.Popen(command, stdout=file) as subscriber:
        try:
            until(lambda: any(one["event"] == "snapshot_end" for one in records()))
            yield
        finally:
            subscriber.terminate()


@contextmanager
def serving() -> Iterator[tuple[int, int]]:
    """Run a web server on loopback; yield its pid and its port."""
    command = ("python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        try:
            yield server.pid, int(server.stdout.readline().split(" port ")[1].split()[0])
        finally:
            server.terminate()


def curl(port: int) -> tuple[int, int]:
    """Run curl; return its pid and its local port."""
    command = ("curl", "-s", "-o", "/dev/null", "-w", "%{local_port}", f"http://127.0.0.1:{port}/")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        return process.pid, int(process.communicate()[0])


def listed(counts: Counter[str]) -> str:
    """Return counts as text."""
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def of_end(end: End) -> list[Record]:
    """Return the records of an end of a connection that carry its process."""
    return [
        one
        for one in records()
        if one["event"] in {"open", "close"}
        and (one["local_port"], one["remote_port"]) == end[:2]
        and (one["pid"], one.get("comm"), one.get("exe")) == end[2:]
    ]


def check_connections(table: Table, when: str, count: int) -> None:
    """Run curl some times, and check the records of both ends of its connections."""
    with serving() as (server, port):
        clients = []
        for _ in range(count):
            pid, local_port = curl(port)
            clients.append(End(local_port, port, pid, "curl", "/usr/bin/curl"))
            time.sleep(_PAUSE)
        python = os.path.realpath("/usr/bin/python3")
        servers = [End(port, one.local_port, server, "python3", python) for one in clients]
        check_ends(table, f"{when}: curl", clients, "connect")
        # The kernel accepts a connection in an interrupt, without the process.
        check_ends(table, f"{when}: the server of curl", servers, "close")


def check_ends(table: Table, name: str, ends: list[End], attribution: str) -> None:
    """Check that each end has one open and one close record with its process, and this attribution
    unless a poll saw it."""

    def are_complete() -> bool:
        return all([one["event"] for one in of_end(end)] == ["open", "close"] for end in ends)

    passed = until(are_complete)
    found = [one for end in ends for one in of_end(end)]
    events = Counter(one["event"] for one in found)
    kinds = Counter(one.get("attribution", "seen by a poll") for one in found)
    table.row(
        f"{name}: {len(ends)} connections with pid, comm and exe",
        passed and attribution in kinds and kinds.keys() <= {attribution, "seen by a poll"},
        f"{listed(events)}; attribution: {listed(kinds)}",
    )


def check_boot(table: Table) -> None:
    """Check what was started at boot."""
    state = run("systemctl", "is-system-running", "--wait")
    table.row("boot: the system", state == "running", state)
    until(lambda: show("ActiveState") == "active")
    active = run("systemctl", "is-active", *_UNITS).split()
    table.row("boot: socket and service", active == ["active"] * 2, " ".join(active))
    table.row("boot: trace instances", instances() == "sockagent", instances())
    table.row("boot: events", events() == "on", events())


def check_restarts(table: Table) -> None:
    """Check the instance after a restart and after a crash."""

    def again(what: str, *command: str) -> None:
        main = show("MainPID")
        run("systemctl", *command)
        until(lambda: show("MainPID") not in {main, "0"} and show("ActiveState") == "active")
        found = f"{instances()}, events {events()}, restarts {show('NRestarts')}"
        table.row(f"{what}: trace instances", found.startswith("sockagent, events on"), found)

    again("restart", "restart", _SERVICE)
    check_connections(table, "after restart", 1)
    table.row("restart: lost records", not lost(), len(lost()))
    again("kill -9", "kill", "--signal=KILL", _SERVICE)
    check_connections(table, "after kill -9", 1)
    # A process that is killed hands over no state: the subscriber reports the gap, without an end.
    ends = [one["to"] for one in lost()]
    table.row("kill -9: lost records", ends == [None], len(ends))


def check_stops(table: Table) -> None:
    """Check that no instance is left by a service that stops or is killed."""
    began = time.monotonic()
    run("systemctl", "stop", *_UNITS)
    seconds = time.monotonic() - began
    result = show("Result")
    table.row("stop: result", result == "success", f"{result}, {seconds:.1f} s")
    table.row("stop: trace instances", instances() == "none", instances())
    run("systemctl", "start", *_UNITS)
    table.row("start: trace instances", instances() == "sockagent", instances())
    run("systemctl", "kill", "--signal=KILL", _SERVICE)
    run("systemctl", "stop", *_UNITS)
    table.row("kill -9, then stop: trace instances", instances() == "none", instances())


def check_security(table: Table) -> None:
    """Check the exposure of the service."""
    said = run("systemd-analyze", "security", "--no-pager", _SERVICE)
    exposure = float(said.rsplit(f"{_SERVICE}: ", 1)[-1].split()[0])
    table.row("systemd-analyze security", exposure <= _MAX_EXPOSURE, exposure)


def check_removal(table: Table) -> None:
    """Check that no instance is left by the package that is removed while the service runs."""
    run("systemctl", "start", *_UNITS)
    before = instances()
    run("dpkg", "--purge", "sockagent")
    found = f"{before}, then {instances()}"
    table.row("dpkg --purge: trace instances", found == "sockagent, then none", found)


def main() -> int:
    """Run all checks; return 1 if one fails."""
    systemd = run("systemctl", "--version").split()[1]
    print(f"Linux {platform.release()}, systemd {systemd}, Python {platform.python_version()}\n")
    table = Table()
    check_boot(table)
    with subscribed():
        check_connections(table, "boot", _CURLS)
        check_restarts(table)
    check_stops(table)
    check_security(table)
    said = run("journalctl", "--no-pager", "--output=cat", "--identifier=sockagent")
    problems = [line for line in said.splitlines() if "Traceback" in line or "no kernel" in line]
    table.row("the journal: failures", not problems, len(problems))
    check_removal(table)
    if table.failed:
        print(said, file=sys.stderr)
        print(run("journalctl", "--no-pager", "--lines=60"), file=sys.stderr)
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
