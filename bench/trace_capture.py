"""Record pages of kernel trace events, and what really happened, as fixtures of the decoder.

It runs on this kernel as root: ``python -m bench vm --files DIRECTORY -- python -m bench
trace_capture DIRECTORY`` runs it on another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_TRACEFS = Path("/sys/kernel/tracing")
_INSTANCE = _TRACEFS / "instances" / "sockagent-capture"
_EVENTS = (
    "sock/inet_sock_set_state",
    "tcp/tcp_destroy_sock",
    "task/task_newtask",
    "task/task_rename",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
)
_FILTER = (
    "protocol==6 && (newstate==1 || newstate==2 || newstate==8 || !(common_flags & 0x18) && "
    "(newstate==4 || newstate==7 || newstate==9 || newstate==10))"
)
_PAGE_BYTES = 4096
_SO_COOKIE = 57  # asm-generic/socket.h
# More than 134 ms, which 27 bits of nanoseconds hold: the next record needs a time of its own.
_IDLE_SECONDS = 0.3
# The kernel rounds it up to two pages; a buffer that connections overflow.
_SMALL_KIB = 8
_ALONE, _IPV6, _THREADS, _FORKS, _OVERFLOW = 45, 5, 3, 5, 60
_PER_TASK = 5
_REFUSED_PORT = 1  # Nothing listens there.


class Connection(NamedTuple):
    """One socket of a connection; ``local_port`` is None where the kernel no longer has it."""

    kind: str
    pid: int
    tid: int
    comm: str
    local_port: int | None
    remote_port: int
    cookie: int


def cookie(one: socket.socket) -> int:
    """Return the kernel's unique number of the socket."""
    (number,) = struct.unpack("=Q", one.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))
    return int(number)


def used(kind: str, one: socket.socket, remote_port: int) -> Connection:
    """Describe a socket of the calling thread's process."""
    comm = Path("/proc/self/comm").read_text().strip()
    local = one.getsockname()[1] or None
    tid = threading.get_native_id()
    return Connection(kind, os.getpid(), tid, comm, local, remote_port, cookie(one))


def connect(
    port: int, count: int, kind: str = "client", address: str = "127.0.0.1"
) -> list[Connection]:
    """Connect ``count`` times; the server closes every third connection first."""
    done = []
    for number in range(count):
        with socket.create_connection((address, port)) as one:
            one.sendall(b"s" if number % 3 == 2 else b"c")
            if number % 3 == 2:
                one.recv(1)
            done.append(used(kind, one, port))
    return done


def special(port: int) -> list[Connection]:
    """Make a refused connection, an aborted one and one without blocking."""
    done = []
    with socket.socket() as one:
        if one.connect_ex(("127.0.0.1", _REFUSED_PORT)) == 0:
            raise SystemExit(f"something listens on port {_REFUSED_PORT}")
        done.append(used("refused", one, _REFUSED_PORT))
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        done.append(used("reset", one, port))
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        one.setblocking(True)
        one.sendall(b"c")
        done.append(used("nonblocking", one, port))
    return done


def serve(listener: socket.socket, count: int) -> list[Connection]:
    """Accept ``count`` connections, one after the other."""
    done = []
    for _ in range(count):
        one, peer = listener.accept()
        with one:
            done.append(used("server", one, peer[1]))
            try:
                if one.recv(1) != b"s":
                    one.recv(1)
            except ConnectionResetError:
                continue
    return done


def child(
    work: Callable[[], list[Connection]], comm: str | None = None
) -> Callable[[], list[Connection]]:
    """Run ``work`` in a forked process; the result waits for it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if comm is not None:
                Path("/proc/self/comm").write_text(comm)
            with open(writing, "w", encoding="utf-8") as pipe:
                json.dump(work(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)

    def result() -> list[Connection]:
        with open(reading, encoding="utf-8") as pipe:
            text = pipe.read()
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a process of the workload failed")
        return [Connection(*each) for each in json.loads(text)]

    return result


def in_threads(port: int) -> list[Connection]:
    """Connect from threads at the same time."""
    done: list[Connection] = []
    threads = [
        threading.Thread(target=lambda: done.extend(connect(port, _PER_TASK, "thread")))
        for _ in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def workload(
    v4: socket.socket, v6: socket.socket
) -> tuple[list[Connection], list[dict[str, object]]]:
    """Run all of it; return the sockets and the programs that were executed."""
    port, port6 = v4.getsockname()[1], v6.getsockname()[1]
    per_tasks = (_THREADS + _FORKS) * _PER_TASK
    server = child(lambda: serve(v4, _ALONE + per_tasks + 2), "server")
    server6 = child(lambda: serve(v6, _IPV6), "server6")
    done = child(lambda: connect(port, _ALONE), "client")()
    done += child(lambda: in_threads(port), "threads")()
    time.sleep(_IDLE_SECONDS)
    for number in range(_FORKS):
        done += child(lambda: connect(port, _PER_TASK, "fork"), f"fork{number}")()
    programs: list[dict[str, object]] = []
    for name in ("/bin/true", "/bin/false", "/usr/bin/env"):
        pid = os.posix_spawn(name, [name], {})
        programs.append({"pid": pid, "ppid": os.getpid(), "file": name, "comm": Path(name).name})
        os.waitpid(pid, 0)
    time.sleep(_IDLE_SECONDS)
    done += child(lambda: connect(port6, _IPV6, "ipv6", "::1"), "client6")()
    done += child(lambda: special(port), "special")()
    return done + server() + server6(), programs


def write(path: Path, text: str) -> None:
    """Write a control file of the instance."""
    try:
        (_INSTANCE / path).write_text(text, encoding="ascii")
    except OSError as error:
        detail = (_INSTANCE / path).read_text(encoding="utf-8") if path.name == "filter" else ""
        raise SystemExit(f"{path}: {error}\n{detail}") from error


def enable(on: bool) -> None:
    """Switch the events on or off."""
    for event in _EVENTS:
        write(Path("events", event, "enable"), "1" if on else "0")


def drain(directory: Path, prefix: str) -> dict[str, dict[str, int]]:
    """Write the pages of every CPU to a file of its own; return the kernel's counts of each CPU."""
    counts = {}
    for cpu in sorted(_INSTANCE.glob("per_cpu/cpu*")):
        stats = (cpu / "stats").read_text(encoding="ascii").splitlines()
        counts[cpu.name] = {
            name: int(value)
            for name, value in (line.split(": ") for line in stats)
            if name in {"entries", "overrun"}
        }
        pages = bytearray()
        descriptor = os.open(cpu / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
        try:
            while page := os.read(descriptor, _PAGE_BYTES):
                pages += page
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
        (directory / f"{prefix}{cpu.name}.bin").write_bytes(pages)
    return counts


def capture(directory: Path) -> dict[str, object]:
    """Record everything into the directory; return what happened."""
    for event in _EVENTS:
        (directory / event).mkdir(parents=True, exist_ok=True)
        text = (_INSTANCE / "events" / event / "format").read_bytes()
        (directory / event / "format").write_bytes(text)
    (directory / "header_page").write_bytes((_TRACEFS / "events" / "header_page").read_bytes())
    pages = directory / "pages"
    pages.mkdir(exist_ok=True)
    write(Path("trace_clock"), "boot")
    write(Path("buffer_percent"), "0")
    write(Path("trace_options"), "norecord-cmd")
    write(Path("events", _EVENTS[0], "filter"), _FILTER)
    enable(True)
    began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with (
        socket.create_server(("127.0.0.1", 0)) as v4,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as v6,
    ):
        connections, programs = workload(v4, v6)
        listeners = {"127.0.0.1": v4.getsockname()[1], "::1": v6.getsockname()[1]}
    ended = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    enable(False)
    counts = drain(pages, "")
    write(Path("buffer_size_kb"), str(_SMALL_KIB))
    enable(True)
    with socket.create_server(("127.0.0.1", 0)) as v4:
        server = child(lambda: serve(v4, _OVERFLOW), "server")
        port = v4.getsockname()[1]
        overflow = child(lambda: connect(port, _OVERFLOW), "client")() + server()
    enable(False)
    return {
        "kernel": platform.release(),
        "machine": platform.version(),
        "filter": _FILTER,
        "began_ns": began,
        "ended_ns": ended,
        "listeners": {"pid": os.getpid(), **listeners},
        "connections": [one._asdict() for one in connections],
        "programs": programs,
        "counts": counts,
        "lost": {
            "connections": [one._asdict() for one in overflow],
            "counts": drain(pages, "lost-"),
        },
    }


def main() -> None:
    """Make the instance, record, and remove it."""
    parser = argparse.ArgumentParser(prog="python -m bench trace_capture", description=__doc__)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    if _INSTANCE.exists():
        _INSTANCE.rmdir()
    _INSTANCE.mkdir()
    shutil.rmtree(options.directory / "pages", ignore_errors=True)
    try:
        truth = capture(options.directory)
    finally:
        _INSTANCE.rmdir()
    text = json.dumps(truth, indent=1)
    (options.directory / "truth.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
