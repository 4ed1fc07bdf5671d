"""The parts of a small site, for hosts that tests make: usage: roles.py ROLE ARGUMENTS.

``clients`` request pages of ``proxy``, which asks ``backend``, which asks ``database``. Proxy and
database stand in for nginx and PostgreSQL where these are not installed.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

WORKERS = 3
PORTS = {"proxy": 80, "backend": 8000, "database": 5432}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
# How long churning clients rest between two connections.
PAUSE = 0.1


def name_process(name: str) -> None:
    """Set the name that the kernel reports of this process."""
    Path("/proc/self/comm").write_text(name)


def serve(server: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    """Accept connections forever; each has a thread."""

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            handle(connection)

    while True:
        connection, _address = server.accept()
        threading.Thread(target=run, args=(connection,), daemon=True).start()


def connect(address: str, port: int) -> socket.socket:
    """Connect to a server, which may not have started yet."""
    while True:
        try:
            return socket.create_connection((address, port))
        except OSError:
            time.sleep(0.1)


def request(connection: socket.socket, path: str) -> None:
    """Send a request, and read its answer."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"ok\n"):
        if not (part := connection.recv(4096)):
            raise ConnectionResetError
        answer += part
        if not answer.startswith(b"HTTP/1.1 200"[: len(answer)]):  # The backend is not there.
            raise ConnectionResetError


def until_ready(database: socket.socket) -> None:
    """Read messages of PostgreSQL until it is ready for a query."""
    with database.makefile("rb", buffering=0) as messages:
        while True:
            kind, size = struct.unpack(">cI", read(messages.read, 5))
            body = read(messages.read, size - 4)
            if kind == b"E":
                raise ConnectionResetError(body)
            if kind == b"Z":
                return


def read(some: Callable[[int], bytes | None], size: int) -> bytes:
    """Read so many bytes."""
    found = b""
    while len(found) < size:
        if not (part := some(size - len(found))):
            raise ConnectionResetError
        found += part
    return found


def log_in(address: str) -> socket.socket:
    """Return a session of the database."""
    while True:
        database = connect(address, PORTS["database"])
        words = b"user\0postgres\0database\0postgres\0\0"
        try:
            database.sendall(struct.pack(">II", 8 + len(words), 3 << 16) + words)
            until_ready(database)
        except OSError:  # It is still starting.
            database.close()
            time.sleep(0.1)
        else:
            return database


def query(database: socket.socket) -> None:
    """Ask the database something."""
    text = b"SELECT 1\0"
    database.sendall(b"Q" + struct.pack(">I", 4 + len(text)) + text)
    until_ready(database)


def backend(address: str) -> None:
    """Serve pages with several processes, of which each has a session of the database."""
    name_process("gunicorn")
    server = socket.create_server(("", PORTS["backend"]), backlog=128)
    for _ in range(WORKERS):
        if os.fork() == 0:
            work(server, address)
    while True:
        os.wait()


def work(server: socket.socket, address: str) -> None:
    """Answer requests; those for /churn over a new session of the database."""
    database, lock = log_in(address), threading.Lock()

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while first := lines.readline():
                while lines.readline() not in (b"\r\n", b""):
                    pass
                if b"/churn" in first:
                    with log_in(address) as session:
                        query(session)
                with lock:
                    query(database)
                connection.sendall(ANSWER)
                if b"HTTP/1.0" in first:
                    return

    serve(server, handle)


def database() -> None:
    """Answer as PostgreSQL does."""
    name_process("postgres")
    ready = b"Z" + struct.pack(">I", 5) + b"I"

    def handle(connection: socket.socket) -> None:
        (size,) = struct.unpack(">I", read(connection.recv, 4))
        read(connection.recv, size - 4)
        connection.sendall(b"R" + struct.pack(">II", 8, 0) + ready)
        while True:
            _kind, size = struct.unpack(">cI", read(connection.recv, 5))
            read(connection.recv, size - 4)
            connection.sendall(ready)

    serve(socket.create_server(("", PORTS["database"])), handle)


def proxy(address: str) -> None:
    """Pass each connection on to the backend over one of its own."""
    name_process("nginx")

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def handle(connection: socket.socket) -> None:
        with connect(address, PORTS["backend"]) as there:
            back = threading.Thread(target=pump, args=(there, connection))
            back.start()
            pump(connection, there)
            back.join()

    serve(socket.create_server(("", PORTS["proxy"])), handle)


def clients(address: str, count: str) -> None:
    """Hold so many connections, over each of which a page is requested now and then."""
    held = [connect_to_page(address) for _ in range(int(count))]
    while True:
        for one in held:
            request(one, "/")
        time.sleep(PAUSE)


def connect_to_page(address: str) -> socket.socket:
    """Return a connection over which a page came."""
    while True:
        connection = connect(address, PORTS["proxy"])
        try:
            request(connection, "/")
        except OSError:
            connection.close()
            time.sleep(PAUSE)
        else:
            return connection


def churn(address: str) -> None:
    """Request pages over a new connection each."""
    while True:
        with suppress(OSError), connect(address, PORTS["proxy"]) as one:
            request(one, "/churn")
        time.sleep(PAUSE)


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {
        "backend": backend, "database": database, "proxy": proxy, "clients": clients,
        "churn": churn,
    }  # fmt: skip
    roles[sys.argv[1]](*sys.argv[2:])
