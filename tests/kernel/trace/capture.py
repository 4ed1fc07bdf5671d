"""Record pages of the running kernel as fixtures: python -m tests.kernel.trace.capture DIRECTORY.

Run as root with tracefs at /sys/kernel/tracing. The directory gets ``header_page``,
``GROUP/NAME/format``, and in ``pages/``, whole pages as read(2) returned them:

    traffic.bin   connections on loopback, a process that executes /bin/true, a thread
    idle.bin      pauses longer than the 27 bits of a record's time (134 ms)
    lost.bin      a buffer that overflowed; lost.stats is the kernel's ``stats`` file afterwards

and in ``udp/`` datagrams of UDP sockets: ``sent.bin``, and ``sent.json``, what was sent. With
--udp, only the descriptions and pages of UDP are written.

Events are restricted to this process and its children (set_event_pid), which run on one CPU, so
that nothing of other processes is recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.kernel.trace.events import EVENTS, SET_STATE, UDP_EVENTS
from agent.kernel.trace.formats import parse_header_page
from agent.kernel.trace.udp_events import enable_udp

TRACEFS = Path("/sys/kernel/tracing")
FILTER = (
    "protocol==6 && (newstate==1 || newstate==2 || !(common_flags & 0x18) &&"
    " (newstate==4 || newstate==7 || newstate==8 || newstate==9 || newstate==10))"
)
USUAL_KIB, SMALL_KIB = 1024, 4
# CLOCK_BOOTTIME of a pause that needs more than 27 bits.
PAUSE = 0.2


@contextlib.contextmanager
def recording(kib: int, cpu: int) -> Iterator[Path]:
    """Yield an instance that records the events of this process, in a buffer of this size."""
    instance = TRACEFS / "instances" / f"dev-decoder-{os.getpid()}"
    instance.mkdir()
    try:
        for file, value in (
            ("trace_clock", "boot"),
            ("buffer_size_kb", str(kib)),
            ("set_event_pid", str(os.getpid())),
            ("options/event-fork", "1"),
            (f"events/{SET_STATE}/filter", FILTER),
            *((f"events/{event}/enable", "1") for event in EVENTS),
        ):
            (instance / file).write_text(value)
        os.sched_setaffinity(0, {cpu})
        yield instance
    finally:
        instance.rmdir()


def read_pages(instance: Path, cpu: int, size: int) -> bytes:
    """Return all pages of one CPU, each of this size."""
    (instance / "tracing_on").write_text("0")
    pages = b""
    descriptor = os.open(instance / f"per_cpu/cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while page := os.read(descriptor, size):
                pages += page.ljust(size, b"\0")
    finally:
        os.close(descriptor)
    return pages


def connect(host: str = "127.0.0.1", family: int = socket.AF_INET) -> None:
    """Open a connection, send a byte each way, and close both ends."""
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted = server.accept()[0]
        client.sendall(b"x")
        accepted.recv(1)
        accepted.sendall(b"x")
        client.recv(1)
        client.close()
        accepted.close()


def traffic() -> None:
    """Make connections, and run a program and a thread."""
    connect()
    connect("::1", socket.AF_INET6)
    subprocess.run(["/bin/true"], check=True, env={})
    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()


def idle() -> None:
    """Make connections with pauses between them."""
    for _ in range(3):
        connect()
        time.sleep(PAUSE)


def overflow() -> None:
    """Make more connections than fit into a small buffer."""
    for _ in range(100):
        connect()


def send(connects: bool, bound: str, to: str, thread: bool = False) -> dict[str, object]:
    """Send a datagram from a socket of its own; return the ports, addresses and the thread."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((bound, 0))
        port = one.getsockname()[1]
        if connects:
            one.connect((to, 9))
            one.send(b"x")
        else:
            one.sendto(b"x", (to, 9))
    tid = threading.get_native_id()
    return {"tid": tid, "port": port, "bound": bound, "to": to, "thread": thread}


def datagrams() -> list[dict[str, object]]:
    """Send datagrams, also from a thread."""
    sent = [
        send(connects, bound, to)
        for connects in (False, True)
        for bound, to in (
            ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "::1"),
            ("::1", "::1"), ("::", "::ffff:127.0.0.1"),
        )
    ]  # fmt: skip
    thread = threading.Thread(
        target=lambda: sent.append(send(False, "0.0.0.0", "127.0.0.1", thread=True))
    )
    thread.start()
    thread.join()
    return sent


def capture_udp(directory: Path, cpu: int, size: int) -> None:
    """Write the descriptions of the events of UDP, and their pages."""
    for event in UDP_EVENTS:
        (directory / event).mkdir(parents=True, exist_ok=True)
        text = (TRACEFS / "events" / event / "format").read_text()
        (directory / event / "format").write_text(text)
    pages = directory / "udp"
    pages.mkdir(exist_ok=True)
    with recording(USUAL_KIB, cpu) as instance:
        if reason := enable_udp(str(instance)):
            raise SystemExit(reason)
        sent = datagrams()
        (pages / "sent.bin").write_bytes(read_pages(instance, cpu, size))
    (pages / "sent.json").write_text(json.dumps(sent, indent=1) + "\n")


def main(directory: Path, *, only_udp: bool = False) -> None:
    """Write all files."""
    header = (TRACEFS / "events/header_page").read_text()
    size = parse_header_page(header).page_size
    if only_udp:
        capture_udp(directory, min(os.sched_getaffinity(0)), size)
        return
    shutil.rmtree(directory, ignore_errors=True)
    pages = directory / "pages"
    pages.mkdir(parents=True)
    (directory / "header_page").write_text(header)
    for event in EVENTS:
        (directory / event).mkdir(parents=True)
        text = (TRACEFS / "events" / event / "format").read_text()
        (directory / event / "format").write_text(text)
    cpu = min(os.sched_getaffinity(0))
    steps: tuple[tuple[str, int, Callable[[], None]], ...] = (
        ("traffic", USUAL_KIB, traffic),
        ("idle", USUAL_KIB, idle),
        ("lost", SMALL_KIB, overflow),
    )
    for name, kib, run in steps:
        with recording(kib, cpu) as instance:
            run()
            (pages / f"{name}.bin").write_bytes(read_pages(instance, cpu, size))
            if name == "lost":
                stats = (instance / f"per_cpu/cpu{cpu}/stats").read_text()
                (pages / "lost.stats").write_text(stats)
    capture_udp(directory, cpu, size)


if __name__ == "__main__":
    main(Path(sys.argv[-1]), only_udp="--udp" in sys.argv)
