"""Small clients and servers that print their sockets.

``python -m bench.servers.clients NAME NUMBER...`` runs one of them. A client prints at its end a
line for each of its sockets: protocol, local port, remote port (0: none), inode, the times of its
begin and of its end in seconds since 1970, and pid, parent and name of its process. A server prints
its port, and ends when its standard input closes.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

_LOOPBACK = "127.0.0.1"
# Longest time to wait for an answer.
_ANSWER_SECONDS = 5.0


class Used(NamedTuple):
    """A socket that was opened and closed."""

    proto: str
    local_port: int
    remote_port: int
    inode: int
    begin: float
    end: float
    pid: int = 0
    ppid: int = 0
    comm: str = ""

    def __str__(self) -> str:
        return " ".join(map(str, self))

    @classmethod
    def parse(cls, line: str) -> Used:
        """Parse a line that ``str`` returned."""
        proto, local, remote, inode, begin, end, pid, ppid, comm = line.split()
        numbers = int(local), int(remote), int(inode)
        return cls(proto, *numbers, float(begin), float(end), int(pid), int(ppid), comm)

    def of_this_process(self) -> Used:
        """Return it with the pid, the parent and the name of this process."""
        comm = Path("/proc/self/comm").read_text().rstrip("\n")
        return self._replace(pid=os.getpid(), ppid=os.getppid(), comm=comm)


def _inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


def connect(port: int, count: int, seconds: float) -> list[Used]:
    """Connect ``count`` times, one after the other, for ``seconds`` each."""
    used = []
    for _ in range(count):
        begin = time.time()
        with socket.create_connection((_LOOPBACK, port), _ANSWER_SECONDS) as one:
            local, inode = one.getsockname()[1], _inode(one)
            time.sleep(seconds)
        used.append(Used("tcp", local, port, inode, begin, time.time()))
    return used


def fork(port: int, count: int) -> None:
    """Fork ``count`` times. Each child connects once, prints its socket and exits; half of them
    change their name."""
    for number in range(count):
        child = os.fork()
        if child == 0:
            if number % 2:
                Path("/proc/self/comm").write_text(f"child-{number}")
            begin = time.time()
            one = socket.create_connection((_LOOPBACK, port), _ANSWER_SECONDS)
            local, inode = one.getsockname()[1], _inode(one)
            one.close()
            used = Used("tcp", local, port, inode, begin, time.time()).of_this_process()
            os.write(1, f"{used}\n".encode())
            os._exit(0)
        os.waitpid(child, 0)


def abort(port: int, count: int, threads: int) -> list[Used]:
    """Connect ``count`` times in each of some threads with names of their own, and abort each
    connection: with or without data."""

    def run(_number: int) -> list[Used]:
        return [_abort(port, number) for number in range(count)]

    with ThreadPoolExecutor(threads, initializer=_name_thread) as pool:
        return [one for several in pool.map(run, range(threads)) for one in several]


def _name_thread() -> None:
    Path("/proc/thread-self/comm").write_text("aborting-thread")


def _abort(port: int, number: int) -> Used:
    begin = time.time()
    with socket.create_connection((_LOOPBACK, port), _ANSWER_SECONDS) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        local, inode = one.getsockname()[1], _inode(one)
        if number % 2:
            one.send(b"?")
    return Used("tcp", local, port, inode, begin, time.time())


def ask(port: int, count: int, seed: int) -> list[Used]:
    """Query a UDP server as resolvers do, each time from a new socket, of which every other one is
    connected. Answers take up to 20 ms."""
    used = []
    chance = random.Random(seed)
    for number in range(count):
        begin = time.time()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(_ANSWER_SECONDS)
            if number % 2:
                one.connect((_LOOPBACK, port))
                one.send(b"?")
            else:
                one.sendto(b"?", (_LOOPBACK, port))
            one.recv(512)
            time.sleep(chance.uniform(0, 0.02))
            local, inode = one.getsockname()[1], _inode(one)
        used.append(Used("udp", local, port if number % 2 else 0, inode, begin, time.time()))
        time.sleep(chance.uniform(0, 0.01))
    return used


def _new(kind: str) -> tuple[socket.socket, float]:
    """Open a bound datagram socket; return it and the time before."""
    begin = time.time()
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.bind("" if kind == "unix" else (_LOOPBACK, 0))  # A unix socket gets an abstract name.
    return one, begin


def _used(kind: str, one: socket.socket, begin: float) -> Used:
    """Close a socket and return it as a Used."""
    port = 0 if kind == "unix" else one.getsockname()[1]
    inode = _inode(one)
    one.close()
    return Used(kind, port, 0, inode, begin, time.time())


def swap(kind: str, rate: float, hold: float, seconds: float) -> list[Used]:
    """Replace a socket by another of its kind ``rate`` times per second, each held for ``hold``
    seconds: the number of descriptors stays constant."""
    held = [_new(kind) for _ in range(round(rate * hold))]
    used = []
    start = time.monotonic()
    for number in range(round(rate * seconds)):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        used.append(_used(kind, *held.pop(0)))
        held.append(_new(kind))
    used += [_used(kind, *one) for one in held]
    return used


def replace(kind: str, hold: float, seconds: float) -> list[Used]:
    """Hold one socket after the other on one descriptor, each for ``hold`` seconds."""
    used = []
    stop = time.monotonic() + seconds
    one, begin = _new(kind)
    descriptor = one.fileno()
    while time.monotonic() < stop:
        time.sleep(hold)
        used.append(_used(kind, one, begin))
        one, begin = _new(kind)
        assert one.fileno() == descriptor
    used.append(_used(kind, one, begin))
    return used


def serve_tcp() -> None:
    """Accept connections, and close each after its client did."""
    with socket.create_server((_LOOPBACK, 0)) as listener, selectors.DefaultSelector() as selector:
        print(listener.getsockname()[1], flush=True)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _mask in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                    continue
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if not _receive(one):
                    selector.unregister(one)
                    one.close()


def _receive(one: socket.socket) -> bytes:
    try:
        return one.recv(4096)
    except ConnectionResetError:
        return b""


def serve_udp() -> None:
    """Send each datagram back."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        selectors.DefaultSelector() as selector,
    ):
        one.bind((_LOOPBACK, 0))
        print(one.getsockname()[1], flush=True)
        selector.register(one, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _mask in selector.select():
                if key.fileobj is sys.stdin:
                    return
                data, asker = one.recvfrom(512)
                one.sendto(data, asker)


def main() -> None:
    """Run the client or server that the arguments name."""
    what, *rest = sys.argv[1:]
    if what == "serve-tcp":
        serve_tcp()
        return
    if what == "serve-udp":
        serve_udp()
        return
    if what == "fork":
        fork(int(rest[0]), int(rest[1]))
        return
    if what == "abort":
        used = abort(int(rest[0]), int(rest[1]), int(rest[2]))
    elif what in {"connect", "ask"}:
        port, count, third = int(rest[0]), int(rest[1]), float(rest[2])
        used = ask(port, count, int(third)) if what == "ask" else connect(port, count, third)
    else:
        numbers = [float(one) for one in rest[1:]]
        used = swap(rest[0], *numbers) if what == "swap" else replace(rest[0], *numbers)
    print("\n".join(str(one.of_this_process()) for one in used))


if __name__ == "__main__":
    main()
