"""Servers on loopback, each with a directory of its own, and their logs."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
# Time for a server to start or stop.
_MAX_SECONDS = 20.0
# Time between two writes of the log of nginx.
_FLUSH_SECONDS = 0.05

_NGINX = """
daemon off;
master_process on;
worker_processes {workers};
user nobody nogroup;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format truth '$msec $request_time $pid $remote_port $server_port';
    access_log {directory}/access.log truth buffer=4k flush=50ms;
    keepalive_timeout 0;
    server {{
        {listens}
        location / {{ return 200 "ok"; }}
    }}
}}
"""


def free_ports(count: int) -> list[int]:
    """Return free ports below those that the kernel gives to clients."""
    found: list[int] = []
    for port in range(8000, 10_000):
        with socket.socket() as one, suppress(OSError):
            one.bind((LOOPBACK, port))
            found.append(port)
        if len(found) == count:
            return found
    raise SystemExit(f"only {len(found)} free ports from 8000 to 9999, of {count}")


def wait_for(port: int) -> None:
    """Wait until a server listens on a port."""
    stop = time.monotonic() + _MAX_SECONDS
    while time.monotonic() < stop:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), _MAX_SECONDS):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def stopped(
    process: subprocess.Popen[str] | subprocess.Popen[bytes], *, interrupt: bool = False
) -> None:
    """Stop a process, if it still runs."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT if interrupt else signal.SIGTERM)
        try:
            process.wait(_MAX_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


class Log:
    """A log that grows; its lines before a run are skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def skip(self) -> None:
        """Skip the lines so far."""
        self._at = self._path.stat().st_size

    def lines(self) -> list[str]:
        """Return the lines since then."""
        return self._read().decode(errors="replace").splitlines()

    def count(self) -> int:
        """Return the number of lines since then."""
        return self._read().count(b"\n")

    def _read(self) -> bytes:
        with open(self._path, "rb") as file:
            file.seek(self._at)
            return file.read()


class Line(NamedTuple):
    """A connection as nginx logged it."""

    begin: float
    end: float
    pid: int
    remote_port: int
    server_port: int


class Nginx:
    """A running nginx; each connection has one request."""

    def __init__(self, ports: list[int], log: Path) -> None:
        self.ports = ports
        self._log = Log(log)

    def skip_log(self) -> None:
        """Skip the connections logged so far."""
        time.sleep(4 * _FLUSH_SECONDS)
        self._log.skip()

    def logged(self) -> int:
        """Return the number of logged connections, without parsing them."""
        return self._log.count()

    def lines(self) -> list[Line]:
        """Return the logged connections."""
        time.sleep(4 * _FLUSH_SECONDS)
        return [_line(line) for line in self._log.lines()]


def _line(text: str) -> Line:
    end, took, pid, remote_port, server_port = text.split()
    return Line(float(end) - float(took), float(end), int(pid), int(remote_port), int(server_port))


@contextmanager
def nginx(directory: Path, workers: int, ports: int) -> Iterator[Nginx]:
    """Run nginx without keep-alive on this many ports."""
    chosen = free_ports(ports)
    listens = "\n".join(f"listen {LOOPBACK}:{port} backlog=1024;" for port in chosen)
    config = directory / "nginx.conf"
    config.write_text(_NGINX.format(workers=workers, directory=directory, listens=listens))
    log = directory / "access.log"
    log.touch()
    quiet = subprocess.DEVNULL
    command = ["nginx", "-p", str(directory), "-c", str(config)]
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        for port in chosen:
            wait_for(port)
        yield Nginx(chosen, log)
    finally:
        stopped(process)
