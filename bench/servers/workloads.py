"""Workloads of connections whose truth is known from servers' logs or from their clients.

Each is a context that starts its servers on loopback, in a temporary directory, and returns an
object whose ``run`` makes the connections and whose ``truth`` then reads the logs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from ..agents import ROOT
from .clients import Used
from .daemons import LOOPBACK, Nginx, nginx, stopped
from .truth import End, Program, Truth, key_of

MAX_SECONDS = 120.0

# Time from connection to request in the paced workload of nginx.
_DELAY_SECONDS = 0.05
# Connections to one port. The kernel steps through the clients' ports ten at a time on average:
# after 5,500 connections to one port (with --alone; 2,800 elsewhere) it returns to the first
# ones. Reports of two connections with the same ports within a second could be confused.
PORT_CONNECTIONS = 5000


class Workload(Protocol):
    """A workload with running servers."""

    def run(self) -> None:
        """Make the connections."""

    def truth(self) -> Truth:
        """Return the connections; once, after ``run``."""


class Kind(NamedTuple):
    """How a workload is started. ``start`` gets a directory and the share of connections to make.

    ``programs`` must be installed.
    """

    start: Callable[[Path, float], AbstractContextManager[Workload]]
    programs: tuple[str, ...] = ()
    intervals: tuple[float, ...] = (1.0, 0.1)


def pair(
    client: tuple[int, frozenset[int]],
    server: tuple[int, frozenset[int]],
    begin: float,
    end: float,
) -> list[End]:
    """Return both ends of a TCP connection on loopback: port and processes of each."""
    near, far = (LOOPBACK, client[0]), (LOOPBACK, server[0])
    out = End("client", key_of("tcp", client[0], server[0]), begin, end, client[1], near, far)
    into = End("server", key_of("tcp", server[0], client[0]), begin, end, server[1], far, near)
    return [out, into]


def running(pids: Iterable[int]) -> dict[int, Program]:
    """Return the programs of processes that run."""
    found = {}
    for pid in pids:
        name, _end, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        exe = os.readlink(f"/proc/{pid}/exe")
        found[pid] = Program(name.partition("(")[2], int(fields.split()[1]), exe)
    return found


def started(name: str, pids: Iterable[int]) -> dict[int, Program]:
    """Return the programs of processes that this one has started by the name of a program."""
    path = shutil.which(name)
    exe = None if path is None else os.path.realpath(path)
    return dict.fromkeys(pids, Program(Path(name).name[:15], os.getpid(), exe))


class NginxAndWrk:
    """wrk without keep-alive against nginx with several workers."""

    def __init__(self, server: Nginx, connections: int, script: Path | None = None) -> None:
        """``script`` makes the clients send their request _DELAY_SECONDS after they connected."""
        self._server = server
        self._connections = connections
        self._script = () if script is None else ("-s", str(script))
        self._delay = 0.0 if script is None else _DELAY_SECONDS
        self._clients: dict[int, int] = {}

    def run(self) -> None:
        """Run one wrk with 25 clients for each port, until enough connections are logged."""
        self._server.skip_log()
        command = ("wrk", "-t1", "-c25", "-d60s", "-H", "Connection: close", *self._script)
        quiet = subprocess.DEVNULL
        runs = {
            port: subprocess.Popen([*command, f"http://{LOOPBACK}:{port}/"], stdout=quiet)
            for port in self._server.ports
        }
        self._clients = {port: one.pid for port, one in runs.items()}
        stop = time.monotonic() + MAX_SECONDS
        try:
            while self._server.logged() < self._connections and time.monotonic() < stop:
                time.sleep(0.02)
        finally:
            for one in runs.values():
                one.terminate()
            for one in runs.values():
                stopped(one)

    def truth(self) -> Truth:
        """Return the connections that nginx logged."""
        ends = []
        lines = self._server.lines()
        for line in lines:
            client = (line.remote_port, frozenset({self._clients.get(line.server_port, 0)}))
            server = (line.server_port, frozenset({line.pid}))
            # nginx counts from the first byte of the request.
            ends += pair(client, server, line.begin - self._delay, line.end)
        ports = frozenset(("tcp", port) for port in self._server.ports)
        programs = started("wrk", self._clients.values()) | running({line.pid for line in lines})
        return Truth(len(lines), ends, ports, programs)


@contextmanager
def nginx_and_wrk(directory: Path, share: float) -> Iterator[Workload]:
    """Run nginx for 100 clients and 20,000 connections."""
    with nginx(directory, workers=4, ports=20_000 // PORT_CONNECTIONS) as server:
        yield NginxAndWrk(server, round(20_000 * share))


@contextmanager
def nginx_paced(directory: Path, share: float) -> Iterator[Workload]:
    """Run nginx for 100 clients, 2,000 connections per second of 50 ms each, 10,000 in all."""
    script = directory / "delay.lua"
    script.write_text(f"function delay() return {_DELAY_SECONDS * 1000:.0f} end\n")
    with nginx(directory, workers=4, ports=20_000 // PORT_CONNECTIONS) as server:
        yield NginxAndWrk(server, round(10_000 * share), script)


class Curls:
    """Processes of curl, each with one connection."""

    def __init__(self, server: Nginx, count: int, at_a_time: int) -> None:
        self._server = server
        self._count = count
        self._at_a_time = at_a_time
        self._done: list[tuple[int, int, float, float]] = []

    def run(self) -> None:
        """Run them, ``at_a_time`` in parallel."""
        self._server.skip_log()
        with ThreadPoolExecutor(self._at_a_time) as threads:
            self._done = list(threads.map(self._one, range(self._count)))

    def _one(self, _number: int) -> tuple[int, int, float, float]:
        """Run one; return its pid, its local port, and the times of its begin and end."""
        url = f"http://{LOOPBACK}:{self._server.ports[0]}/"
        command = ("curl", "-s", "-o", "/dev/null", "-w", "%{local_port}", url)
        begin = time.time()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            output, _none = process.communicate(timeout=MAX_SECONDS)
        return (process.pid, int(output), begin, time.time())

    def truth(self) -> Truth:
        """Return the port that each curl printed, with the worker that nginx logged for it."""
        lines = self._server.lines()
        port = self._server.ports[0]
        ends = []
        for pid, local, begin, end in self._done:
            workers = frozenset(
                line.pid
                for line in lines
                if line.remote_port == local and begin - 1 < line.end < end + 1
            )
            ends += pair((local, frozenset({pid})), (port, workers), begin, end)
        programs = started("curl", [one[0] for one in self._done])
        programs |= running({line.pid for line in lines})
        return Truth(len(self._done), ends, frozenset({("tcp", port)}), programs)


@contextmanager
def curl(directory: Path, share: float) -> Iterator[Workload]:
    """Run nginx for 1,000 processes of curl, one after the other."""
    with nginx(directory, workers=2, ports=1) as server:
        yield Curls(server, round(1000 * share), 1)


@contextmanager
def curl_2000(directory: Path, share: float) -> Iterator[Workload]:
    """Run nginx for 2,000 processes of curl, 4 in parallel."""
    with nginx(directory, workers=2, ports=1) as server:
        yield Curls(server, round(2000 * share), 4)


@contextmanager
def curl_8(directory: Path, share: float) -> Iterator[Workload]:
    """Run nginx for 1,000 processes of curl, 8 in parallel."""
    with nginx(directory, workers=2, ports=1) as server:
        yield Curls(server, round(1000 * share), 8)


class Clients:
    """Processes of ``clients`` that print their sockets, and optionally their server."""

    def __init__(
        self, commands: Sequence[tuple[str, ...]], server: tuple[int, int] | None = None
    ) -> None:
        """``server``: port and pid."""
        self._commands = commands
        self._server = server
        self._used: list[Used] = []

    def run(self) -> None:
        """Run them in parallel."""
        self._used = []
        runs = [_python(*command) for command in self._commands]
        try:
            for one in runs:
                output, _none = one.communicate(timeout=MAX_SECONDS)
                self._used += map(Used.parse, output.splitlines())
        finally:
            for one in runs:
                stopped(one)

    def truth(self) -> Truth:
        """Return the sockets that they printed."""
        ends = []
        for one in self._used:
            pids = frozenset({one.pid})
            if one.proto == "tcp" and self._server is not None:
                client, server = (one.local_port, pids), (one.remote_port, self._server_pids())
                ends += pair(client, server, one.begin, one.end)
                continue
            key = key_of(one.proto, one.local_port, None)
            if one.proto == "unix":
                key = ("unix", one.inode, 0)
            remote = (LOOPBACK, one.remote_port) if one.remote_port else None
            ends.append(End("socket", key, one.begin, one.end, pids, remote=remote))
        ports = frozenset() if self._server is None else frozenset({("tcp", self._server[0])})
        exe = os.path.realpath(sys.executable)
        programs = {one.pid: Program(one.comm, one.ppid, exe) for one in self._used}
        programs |= running(self._server_pids())
        return Truth(len(self._used), ends, ports, programs, is_exact=True)

    def _server_pids(self) -> frozenset[int]:
        return frozenset() if self._server is None else frozenset({self._server[1]})


def _python(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.servers.clients", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


@contextmanager
def _serving(what: str) -> Iterator[tuple[int, int]]:
    """Run a server of ``clients``; return its port and its pid."""
    process = _python(what)
    try:
        assert process.stdout is not None
        yield (int(process.stdout.readline()), process.pid)
    finally:
        stopped(process)


@contextmanager
def sequential(_directory: Path, share: float) -> Iterator[Workload]:
    """Run a process that connects 400 times for 50 ms, one after the other."""
    with _serving("serve-tcp") as server:
        yield Clients([("connect", str(server[0]), str(round(400 * share)), "0.05")], server)


@contextmanager
def forks(_directory: Path, share: float) -> Iterator[Workload]:
    """Run 2 processes that fork 1,000 times each; each child connects once, and exits."""
    with _serving("serve-tcp") as server:
        count = str(round(1000 * share))
        yield Clients([("fork", str(server[0]), count)] * 2, server)


@contextmanager
def aborts(_directory: Path, share: float) -> Iterator[Workload]:
    """Run 2 processes of 4 threads that abort 2,000 connections each process."""
    with _serving("serve-tcp") as server:
        count = str(round(500 * share))
        yield Clients([("abort", str(server[0]), count, "4")] * 2, server)


@contextmanager
def dns(_directory: Path, share: float) -> Iterator[Workload]:
    """Run 4 processes that send 500 queries each."""
    with _serving("serve-udp") as server:
        count = str(round(500 * share))
        yield Clients([("ask", str(server[0]), count, str(seed)) for seed in range(4)])


def _longer(share: float) -> float:
    """Return the seconds for which sockets are swapped: longer than one of them lives."""
    return max(4.0, 17 * share)


def swaps(kind: str) -> Callable[[Path, float], AbstractContextManager[Workload]]:
    """Return a workload that replaces 27 sockets per second, each held for 3 s, for 17 s."""

    @contextmanager
    def start(_directory: Path, share: float) -> Iterator[Workload]:
        yield Clients([("swap", kind, "27", "3", str(_longer(share)))])

    return start


@contextmanager
def one_descriptor(_directory: Path, share: float) -> Iterator[Workload]:
    """Run 10 processes that hold one UDP socket after the other on one descriptor, for 2.3 s."""
    yield Clients([("replace", "udp", "2.3", str(_longer(share)))] * 10)
