"""A process that opens, connects, shares and closes sockets at random for a while, then rests.

Usage: python -m tests.machine.churner DIRECTORY SEED SECONDS [PAUSE].
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from .holder import OWN, PR_SET_PDEATHSIG, libc

MOST_SOCKETS = 60
MOST_CHILDREN = 4


class Churn:
    """The sockets and children of one process of the churn."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.sockets: list[socket.socket] = []
        self.children: list[int] = []
        self.paths = 0

    def step(self) -> None:
        """Do one random step."""
        steps = (
            self.open_tcp, self.listen, self.listen, self.connect, self.connect, self.connect,
            self.accept, self.accept, self.udp, self.udp_connected, self.pair, self.unix_listen,
            self.unix_connect, self.duplicate, self.close, self.close, self.close, self.shut,
            self.fork, self.kill,
        )  # fmt: skip
        with suppress(OSError):
            self.random.choice(steps)()
        while len(self.sockets) > MOST_SOCKETS:
            self.close()

    def add(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> socket.socket:
        added = socket.socket(family, type)
        self.sockets.append(added)
        added.setblocking(False)
        return added

    def one(self) -> socket.socket:
        if not self.sockets:
            raise OSError("nothing is open")
        return self.random.choice(self.sockets)

    def open_tcp(self) -> None:
        self.add(self.random.choice((socket.AF_INET, socket.AF_INET6)))

    def listen(self) -> None:
        listener = self.add()
        listener.bind((OWN, 0))
        listener.listen(4)

    def connect(self) -> None:
        to = self.one()
        if to.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self.add(to.family).connect_ex(to.getsockname())

    def accept(self) -> None:
        accepted, _ = self.one().accept()
        self.sockets.append(accepted)

    def udp(self) -> None:
        self.add(socket.AF_INET6, socket.SOCK_DGRAM).bind(("::1", 0))

    def udp_connected(self) -> None:
        self.add(type=socket.SOCK_DGRAM).connect((OWN, 9))

    def pair(self) -> None:
        self.sockets += socket.socketpair(
            type=self.random.choice((socket.SOCK_STREAM, socket.SOCK_SEQPACKET))
        )

    def unix_listen(self) -> None:
        self.paths += 1
        listener = self.add(socket.AF_UNIX)
        listener.bind(str(self.directory / f"{os.getpid()} {self.paths}"))
        listener.listen(4)

    def unix_connect(self) -> None:
        paths = sorted(self.directory.iterdir())
        if paths:
            self.add(socket.AF_UNIX).connect(str(self.random.choice(paths)))

    def duplicate(self) -> None:
        self.sockets.append(self.one().dup())

    def close(self) -> None:
        closed = self.one()
        self.sockets.remove(closed)
        if closed.family == socket.AF_UNIX and self.random.random() < 0.5:
            with suppress(OSError, ValueError):
                Path(closed.getsockname()).unlink()
        closed.close()

    def shut(self) -> None:
        self.one().shutdown(socket.SHUT_WR)

    def fork(self) -> None:
        if len(self.children) >= MOST_CHILDREN:
            return
        seed, parent = self.random.randrange(2**32), os.getpid()
        child = os.fork()
        if child:
            self.children.append(child)
            return
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        self.random.seed(seed)
        self.children = []

    def kill(self) -> None:
        if self.children:
            child = self.children.pop(self.random.randrange(len(self.children)))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def main() -> None:
    """Churn, then rest."""
    directory, seed, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.01  # Maximum, in seconds.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    end = time.monotonic() + seconds
    churn = Churn(directory, seed)
    while time.monotonic() < end:
        churn.step()
        time.sleep(churn.random.random() * pause)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
