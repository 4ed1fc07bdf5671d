"""Compare what ``sockagent --follow`` reports of very short connections with the truth.

Many processes, each of them short-lived, connect to one server on loopback. Clients and server
write the process and the ports of each socket to a file. ``python -m bench vm -- python -m bench
short_lived`` runs it on the kernel of a Debian package.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson

from .agents import agent_at, installed

_START_SECONDS = 120.0
_SETTLE_POLLS = 3
_HEARTBEAT = b'"event":"heartbeat"'
_HEARTBEAT_SECONDS = 60.0  # One comes after 15 seconds without another record.
# Processes that start the others, so that connections overlap.
_SPAWNERS = 4


class Used(NamedTuple):
    """A socket that was used, or the report of one. ``comm`` and ``pid`` are those of its process,
    or None where no process was reported."""

    local_port: int
    remote_port: int
    pid: int | None
    comm: str | None


class Score(NamedTuple):
    """How the sockets of one side were reported."""

    side: str
    sockets: int
    reported: int  # Opened and closed at least once.
    pid: int  # Of those, with the right process,
    comm: int  # the right name,
    without: int  # no process at all,
    wrong: int  # or another process.

    def row(self) -> str:
        """Return a row of a Markdown table."""
        recall = f"{self.reported / self.sockets:.2%}" if self.sockets else ""
        return f"| {' | '.join(map(str, self))} | {recall} |"


HEADER = (
    "| side | sockets | open and close | right pid | right comm | no process | wrong pid | recall |"
    "\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)


def score(side: str, truth: list[Used], reports: list[Used]) -> Score:
    """Compare the reports with the truth. The ports of a connection may be used again by another
    one: each report counts for one socket, for that of its process if there is one."""
    by_ports: dict[tuple[int, int], list[Used]] = {}
    for one in reports:
        by_ports.setdefault(one[:2], []).append(one)
    counts: Counter[str] = Counter()
    others = []  # Sockets that no report with their process matches.
    for used in truth:
        mine = by_ports.get(used[:2], [])
        same = next((one for one in mine if one.pid == used.pid), None)
        if same is None:
            others.append(used)
            continue
        mine.remove(same)
        counts["reported"] += 1
        counts["pid"] += 1
        counts["comm"] += same.comm == used.comm
    for used in others:
        mine = by_ports.get(used[:2], [])
        if mine:
            counts["reported"] += 1
            counts["without" if mine.pop().pid is None else "wrong"] += 1
    return Score(side, len(truth), *(counts[name] for name in Score._fields[2:]))


def losses(lines: bytes) -> tuple[int, int | None]:
    """Return the number of ``lost`` records, and the number of trace events that were lost until
    the newest heartbeat; None without one."""
    events = None
    lost = 0
    for line in lines.splitlines():
        record = orjson.loads(line)
        lost += record["event"] == "lost"
        if record["event"] == "heartbeat":
            events = record["events_lost"]
    return lost, events


def closed(lines: bytes) -> Iterator[Used]:
    """Yield the TCP sockets that were opened and then closed, from the records of ``--follow``."""
    open_ports: set[tuple[int | None, int | None]] = set()
    for line in lines.splitlines():
        record = orjson.loads(line)
        if record["event"] not in {"open", "close"} or record["proto"] != "tcp":
            continue
        local, remote = record["local_port"], record["remote_port"]
        if record["event"] == "open":
            open_ports.add((local, remote))
        elif local and remote and (local, remote) in open_ports:
            yield Used(local, remote, record["pid"], record.get("comm"))


@contextmanager
def recorded(agent: tuple[str, ...], interval: float, records: Path) -> Iterator[None]:
    """Write the records of ``--follow`` to a file; its first snapshot is complete."""
    command = [*agent, "--follow", "--proto", "tcp", "--interval", str(interval)]
    with records.open("wb") as file, subprocess.Popen(command, stdout=file) as process:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while b'"event":"snapshot_end"' not in records.read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("--follow ended or printed no snapshot")
                time.sleep(0.2)
            yield
            time.sleep(_SETTLE_POLLS * interval)
            # The next heartbeat counts the events that were lost.
            seen, deadline = records.stat().st_size, time.monotonic() + _HEARTBEAT_SECONDS
            while _HEARTBEAT not in records.read_bytes()[seen:] and time.monotonic() < deadline:
                time.sleep(0.5)
        finally:
            process.send_signal(signal.SIGTERM)


def load(directory: Path, processes: int, connections: int, rate: float) -> float:
    """Run the server and the clients, which write ``clients`` and ``server`` in the directory;
    return the seconds that it took. ``rate``: the most connections a second; 0: no limit.
    Raises SystemExit."""
    script = (sys.executable, "-I", "-S", str(Path(__file__).with_name("short_lived_load.py")))
    each = processes // _SPAWNERS
    pause = _SPAWNERS * connections / rate if rate else 0.0
    began = time.monotonic()
    serving = (*script, "serve", str(each * _SPAWNERS * connections))
    with (
        subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server,
        (directory / "clients").open("ab") as file,
    ):
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        spawning = [
            (*script, "spawn", f"short-{number}", port, *map(str, (each, connections, pause)))
            for number in range(_SPAWNERS)
        ]
        spawners = [subprocess.Popen(command, stdout=file) for command in spawning]
        statuses = [spawner.wait() for spawner in spawners]
        if any(statuses):
            server.kill()
            raise SystemExit("a client failed")
        (directory / "server").write_text(server.stdout.read(), encoding="ascii")
    return time.monotonic() - began


def used(path: Path) -> list[Used]:
    """Read the sockets that the clients or the server wrote."""
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return [Used(int(local), int(remote), int(pid), comm) for local, remote, pid, comm in rows]


def main() -> int:
    """Run the load beside the agent and print the comparison; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench short_lived", description=__doc__)
    add = parser.add_argument
    add("--agent", type=Path, metavar="PATH", help="another checkout or executable of sockagent")
    add("--processes", type=int, default=2500, help="client processes (%(default)s)")
    add("--connections", type=int, default=4, help="connections of each (%(default)s)")
    add("--rate", type=float, default=0.0, metavar="N", help="connections a second (no limit)")
    add("--interval", type=float, default=1.0, metavar="SECONDS", help="between polls (1)")
    add("--keep", type=Path, metavar="DIRECTORY", help="keep the records and the truth there")
    options = parser.parse_args()
    agent = (agent_at(options.agent, "sockagent") if options.agent else installed()).argv
    with tempfile.TemporaryDirectory(prefix="bench-short-") as scratch:
        directory = options.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        records = directory / "records"
        (directory / "clients").unlink(missing_ok=True)
        with recorded(agent, options.interval, records):
            seconds = load(directory, options.processes, options.connections, options.rate)
        written = records.read_bytes()
        reports = list(closed(written))
        clients = used(directory / "clients")
        print(f"{len(clients)} connections in {seconds:.1f} s, Linux {os.uname().release}\n")
        lost, events = losses(written)
        print(
            f"lost records: {lost}; lost trace events: {'unknown' if events is None else events}\n"
        )
        print(HEADER)
        for side in ("clients", "server"):
            print(score(side, used(directory / side), reports).row())
    return 0


if __name__ == "__main__":
    sys.exit(main())
