"""Connections of known life, for hosts that tests make: usage: python -m tests.machine.lives ROLE
ARGUMENTS.

``serve`` answers with several processes, each of which sends its pid first. ``call`` keeps
connections to servers open for times of each of LIVES; it prints one line of JSON for each
connection that has ended.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import threading
import time
from contextlib import suppress

from .roles import PORTS, WORKERS, log_in, name_process, serve

PORT = 7000
SERVER = "prefork"
# Seconds: from, to, and how many threads of each caller hold such connections.
LIVES = ((0.01, 0.25, 1), (0.25, 1.0, 1), (1.0, 2.0, 2), (2.0, 3.0, 4))
# How long a caller rests between two connections.
PAUSE = 0.05
MAX_PID_BYTES = 16


def own_pid() -> int:
    """Return the pid of this process as the mounted procfs shows it."""
    return int(os.readlink("/proc/self"))


def serve_pids() -> None:
    """Accept connections with several processes; send the pid, and wait for the end."""
    name_process(SERVER)
    server = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    for _ in range(WORKERS - 1):
        if os.fork() == 0:
            break
    pid = b"%d\n" % own_pid()

    def handle(connection: socket.socket) -> None:
        connection.sendall(pid)
        connection.recv(1)

    serve(server, handle)


def open_connection(address: str, port: int) -> tuple[socket.socket, int | None]:
    """Connect; return the connection and the pid of the server, None: it does not tell."""
    if port == PORTS["database"]:
        return log_in(address), None
    connection = socket.create_connection((address, port))
    pid = int(connection.recv(MAX_PID_BYTES)) if port == PORT else None
    return connection, pid


def call(name: str, seconds: float, targets: list[tuple[str, int]]) -> None:
    """Hold connections for so many seconds."""
    name_process(name)
    pid, end, printing = own_pid(), time.monotonic() + seconds, threading.Lock()

    def hold(least: float, most: float) -> None:
        while time.monotonic() < end:
            address, port = random.choice(targets)
            with suppress(OSError, ValueError):
                connection, server = open_connection(address, port)
                opened, life = time.time(), random.uniform(least, most)
                local = connection.getsockname()[:2]
                time.sleep(life)
                connection.close()
                line = json.dumps({
                    "pid": pid, "comm": name, "local": local, "remote": (address, port),
                    "server": server, "opened": opened, "closed": time.time(),
                })  # fmt: skip
                with printing:
                    print(line, flush=True)
            time.sleep(PAUSE)

    threads = [
        threading.Thread(target=hold, args=(least, most))
        for least, most, count in LIVES
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "serve":
        serve_pids()
    else:
        caller, duration, *ends = arguments
        pairs = [end.rpartition(":") for end in ends]
        call(caller, float(duration), [(address, int(port)) for address, _, port in pairs])
