"""Workloads of Redis and PostgreSQL: clients with a new connection for each request."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from .daemons import LOOPBACK, Log, free_ports, stopped, wait_for
from .truth import End, Program, Truth
from .workloads import MAX_SECONDS, PORT_CONNECTIONS, Workload, pair, running, started

# Time for a backend to log its end after its client has seen it.
_LOG_SECONDS = 0.5
_UTC = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
# 16623:M 24 Nov 2026 10:24:14.112 - Accepted 127.0.0.1:47738
_REDIS = re.compile(r"\d+:M (.{24}) - (Accepted |Client closed connection .*? addr=)[\d.]+:(\d+)")
_POSTGRES = """
listen_addresses = '{loopback}'
port = {port}
unix_socket_directories = '{directory}'
max_connections = 100
fsync = off
autovacuum = off
log_connections = on
log_disconnections = on
log_line_prefix = '%n|%p|%r|'
"""
# 1795515554.462|10854|127.0.0.1(45266)|connection received: host=127.0.0.1 port=45266
_BACKEND = re.compile(r"([\d.]+)\|(\d+)\|([^|]*)\|LOG:  (connection received|disconnection):")


class Redis(NamedTuple):
    """A running redis-server."""

    port: int
    pid: int
    log: Log


class RedisBenchmarks:
    """One redis-benchmark without keep-alive for each server."""

    def __init__(self, servers: list[Redis], count: int) -> None:
        self._servers = servers
        self._count = count
        self._clients: list[int] = []

    def run(self) -> None:
        """Run them in parallel, each with 12 clients."""
        for one in self._servers:
            one.log.skip()
        count = str(self._count)
        command = ("redis-benchmark", "-t", "ping_mbulk", "-k", "0", "-c", "12", "-q", "-n", count)
        quiet = subprocess.DEVNULL
        runs = [
            subprocess.Popen([*command, "-p", str(one.port)], stdout=quiet, stderr=quiet)
            for one in self._servers
        ]
        self._clients = [one.pid for one in runs]
        try:
            for run in runs:
                run.wait(MAX_SECONDS)
        finally:
            for run in runs:
                stopped(run)

    def truth(self) -> Truth:
        """Return the connections that the servers logged."""
        time.sleep(_LOG_SECONDS)
        ends: list[End] = []
        for server, client in zip(self._servers, self._clients, strict=True):
            accepted: dict[int, float] = {}
            for line in server.log.lines():
                found = _REDIS.match(line)
                if found is None:
                    continue
                moment, port = _seconds(found[1]), int(found[3])
                if found[2] == "Accepted ":
                    accepted[port] = moment
                else:
                    near = (port, frozenset({client}))
                    far = (server.port, frozenset({server.pid}))
                    ends += pair(near, far, accepted.pop(port, moment), moment)
        ports = frozenset(("tcp", one.port) for one in self._servers)
        programs = started("redis-benchmark", self._clients)
        programs |= running(one.pid for one in self._servers)
        return Truth(len(ends) // 2, ends, ports, programs)


def _seconds(text: str) -> float:
    return datetime.strptime(text + " +0000", "%d %b %Y %H:%M:%S.%f %z").timestamp()


@contextmanager
def redis(directory: Path, share: float) -> Iterator[Workload]:
    """Run four servers for 5,000 connections each."""
    with ExitStack() as stack:
        servers = []
        for port in free_ports(4):
            log = directory / f"{port}.log"
            log.touch()
            command = ["redis-server", "--port", str(port), "--bind", LOOPBACK, "--save", ""]
            command += ["--dir", str(directory), "--loglevel", "verbose", "--logfile", str(log)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_UTC)
            stack.callback(stopped, process)
            wait_for(port)
            servers.append(Redis(port, process.pid, Log(log)))
        yield RedisBenchmarks(servers, round(PORT_CONNECTIONS * share))


class Postgres(NamedTuple):
    """A running PostgreSQL."""

    directory: Path
    programs: Path
    port: int
    pid: int
    log: Log


class Pgbench:
    """pgbench with a new connection for each transaction."""

    def __init__(self, server: Postgres, count: int, *, tcp: bool) -> None:
        self._server = server
        self._count = count
        self._tcp = tcp
        self._client = 0

    def run(self) -> None:
        """Run it, with 8 clients."""
        server = self._server
        server.log.skip()
        host = LOOPBACK if self._tcp else str(server.directory)
        script = server.directory / "script"
        script.write_text("SELECT 1;\n")
        command = [str(server.programs / "pgbench"), "-n", "-C", "-c", "8", "-j", "2", "-h", host]
        command += ["-p", str(server.port), "-U", "postgres", "-f", str(script)]
        command += ["-t", str(self._count // 8), "postgres"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        self._client = process.pid
        try:
            if process.wait(MAX_SECONDS) != 0:
                raise SystemExit("pgbench failed")
        finally:
            stopped(process)

    def truth(self) -> Truth:
        """Return the connections in the log: the postmaster accepts them, a backend serves them."""
        time.sleep(_LOG_SECONDS)
        server = self._server
        client = frozenset({self._client})
        received: dict[int, float] = {}
        exe = str(server.programs / "pgbench")
        programs = {self._client: Program("pgbench", os.getpid(), exe)}
        programs |= running({server.pid})
        ends: list[End] = []
        for line in server.log.lines():
            found = _BACKEND.match(line)
            if found is None:
                continue
            moment, pid, remote = float(found[1]), int(found[2]), found[3]
            if found[4] == "connection received":
                received[pid] = moment
                continue
            backend = frozenset({pid, server.pid})
            programs[pid] = Program("postgres", server.pid, programs[server.pid].exe)
            begin = received.pop(pid, moment)
            if remote.startswith(LOOPBACK):
                port = int(remote.rpartition("(")[2].rstrip(")"))
                ends += pair((port, client), (server.port, backend), begin, moment)
            else:
                near = End("client", ("unix peer", pid, 0), begin, moment, client)
                far = End("server", ("unix pid", pid, 0), begin, moment, backend, peer=near)
                ends += [near, far]
        return Truth(len(ends) // 2, ends, frozenset({("tcp", server.port)}), programs)


@contextmanager
def _postgres(directory: Path) -> Iterator[Postgres]:
    """Run PostgreSQL in this directory as the user postgres, as it refuses to run as root."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        raise SystemExit("PostgreSQL is missing: install the package postgresql")
    user = pwd.getpwnam("postgres")
    data = directory / "data"
    shutil.rmtree(data, ignore_errors=True)
    os.chown(directory, user.pw_uid, user.pw_gid)
    (port,) = free_ports(1)
    log = directory / "log"
    with open(log, "wb") as output:
        initdb = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-N", "-U", "postgres"]
        subprocess.run(initdb, check=True, user="postgres", stdout=output, stderr=output, env=_UTC)
        config = _POSTGRES.format(loopback=LOOPBACK, port=port, directory=directory)
        (data / "postgresql.conf").write_text(config)
        process = subprocess.Popen(
            [programs / "postgres", "-D", data], user="postgres", stderr=output, env=_UTC
        )
    try:
        wait_for(port)
        time.sleep(_LOG_SECONDS)
        yield Postgres(directory, programs, port, process.pid, Log(log))
    finally:
        stopped(process, interrupt=True)


@contextmanager
def pgbench_tcp(directory: Path, share: float) -> Iterator[Workload]:
    """Run PostgreSQL for 2,000 connections over TCP."""
    with _postgres(directory) as server:
        yield Pgbench(server, round(2000 * share), tcp=True)


@contextmanager
def pgbench_unix(directory: Path, share: float) -> Iterator[Workload]:
    """Run PostgreSQL for 2,000 connections over a unix socket."""
    with _postgres(directory) as server:
        yield Pgbench(server, round(2000 * share), tcp=False)
