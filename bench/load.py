"""A load: many idle processes with many sockets, all on loopback.

``python -m bench.load`` builds it, prints ``ready`` and its counts, and holds it until its standard
input closes.

Each process holds one TCP listener, connected TCP pairs to it, unix socket pairs and some plain
descriptors. With the defaults: 500 processes, 20,500 TCP and 10,000 unix sockets, 44,000
descriptors.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

# The kernel resets connections at close instead of leaving them in TIME_WAIT, so that a run leaves
# no rows for the next one.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Shape(NamedTuple):
    """The number of processes, and what each of them holds."""

    processes: int = 500
    tcp_pairs: int = 20
    unix_pairs: int = 10
    plain: int = 24

    @property
    def tcp(self) -> int:
        return self.processes * (1 + 2 * self.tcp_pairs)

    @property
    def unix(self) -> int:
        return self.processes * 2 * self.unix_pairs

    @property
    def descriptors(self) -> int:
        return self.processes * (3 + 1 + 2 * self.tcp_pairs + 2 * self.unix_pairs + self.plain)


def fill(shape: Shape, index: int) -> list[socket.socket]:
    """Open the sockets of one process; the result must be kept alive."""
    held: list[socket.socket] = []
    # One address has too few ports for all processes.
    address = f"127.{1 + index // 250}.{1 + index % 250}.1"
    with_reset = (socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    listener = socket.create_server((address, 0), backlog=shape.tcp_pairs + 1)
    held.append(listener)
    for _ in range(shape.tcp_pairs):
        client = socket.create_connection(listener.getsockname())
        server, _peer = listener.accept()
        client.setsockopt(*with_reset)
        server.setsockopt(*with_reset)
        held += (client, server)
    for _ in range(shape.unix_pairs):
        held += socket.socketpair()
    for _ in range(shape.plain):
        os.open("/dev/null", os.O_RDONLY)
    return held


def child(shape: Shape, index: int, ready: int, hold: int) -> None:
    """Be one process of the load: open its sockets, and hold them until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    held = fill(shape, index)
    os.write(ready, b".")
    os.close(ready)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.read(hold, 1)
    del held


def build(shape: Shape) -> list[int]:
    """Fork the processes of the load; return their pids when all hold their sockets."""
    needed = 2048 + 2 * shape.tcp_pairs + 2 * shape.unix_pairs + shape.plain
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(needed, 4096), hard), hard))
    ready_read, ready_write = os.pipe()
    hold_read, hold_write = os.pipe()
    pids: list[int] = []
    for index in range(shape.processes):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(ready_read)
                os.close(hold_write)
                child(shape, index, ready_write, hold_read)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(ready_write)
    os.close(hold_read)
    count = 0
    while chunk := os.read(ready_read, 4096):
        count += len(chunk)
    os.close(ready_read)
    if count != shape.processes:
        raise SystemExit(f"only {count} of {shape.processes} processes opened their sockets")
    return pids


@contextmanager
def running(shape: Shape) -> Iterator[None]:
    """Hold the load for as long as the context lasts."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in shape._asdict().items()]
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout is None or not process.stdout.readline().startswith("ready"):
            raise SystemExit("could not build the load")
        yield


_HELP = {
    "processes": "processes of the load",
    "tcp_pairs": "TCP connections in each, besides a listener",
    "unix_pairs": "pairs of unix sockets in each",
    "plain": "other descriptors in each",
}


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a load."""
    for name, value in Shape()._asdict().items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=int,
            default=value,
            metavar="N",
            help=f"{_HELP[name]} (default: {value})",
        )


def shape_of(options: argparse.Namespace) -> Shape:
    """Return the load that the options describe."""
    return Shape(**{name: getattr(options, name) for name in Shape._fields})


def main() -> None:
    """Build the load that the arguments describe, and hold it until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shape(parser)
    shape = Shape(**vars(parser.parse_args()))
    pids = build(shape)
    print(f"ready {shape.processes} processes, {shape.tcp} tcp, {shape.unix} unix", flush=True)
    sys.stdin.read()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
