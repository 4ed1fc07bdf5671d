"""A process that does to its sockets at random what programs do, for a while, and then rests.

Usage: python -m bench.torturer DIRECTORY SEED SECONDS. It forks, and its children do the same. More
than tests.machine.churner, it executes programs, passes descriptors, aborts connections, and has
connections that last less than a millisecond.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.machine.churner import Churn
from tests.machine.holder import PR_SET_PDEATHSIG, libc

# Longest pause between two steps, in seconds.
_PAUSE = 0.005
_RIGHTS = array.array("i").itemsize


class Torture(Churn):
    """The sockets and children of one process, and the pair of unix sockets through which it and
    its descendants pass descriptors."""

    def __init__(self, directory: Path, seed: int) -> None:
        super().__init__(directory, seed)
        self.mail = socket.socketpair(type=socket.SOCK_DGRAM)
        for one in self.mail:
            one.setblocking(False)

    def step(self) -> None:
        """Do one random step."""
        own = (
            self.send, self.send, self.receive, self.receive, self.abort, self.abort, self.brief,
            self.brief, self.brief_child, self.execute, self.kill, self.thread_like_child,
        )  # fmt: skip
        if self.random.random() < 0.5:
            super().step()
            return
        with suppress(OSError):
            self.random.choice(own)()

    def send(self) -> None:
        """Pass a socket to whoever receives it; half of the time without keeping it."""
        passed = self.one()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", passed.fileno()))
        self.mail[0].sendmsg([b"."], [rights])
        if self.random.random() < 0.5:
            self.sockets.remove(passed)
            passed.close()

    def receive(self) -> None:
        """Take a socket that was passed."""
        _data, messages, _flags, _address = self.mail[1].recvmsg(1, socket.CMSG_SPACE(_RIGHTS))
        for _level, _type, data in messages:
            self.sockets.append(socket.socket(fileno=struct.unpack("i", data)[0]))

    def abort(self) -> None:
        """Close a connection with a reset."""
        aborted = self.one()
        if aborted.type == socket.SOCK_STREAM and aborted.family != socket.AF_UNIX:
            aborted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sockets.remove(aborted)
            aborted.close()

    def _listening(self) -> tuple[str, int]:
        for one in self.random.sample(self.sockets, len(self.sockets)):
            is_tcp = one.family == socket.AF_INET and one.type == socket.SOCK_STREAM
            if is_tcp and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                host, port = one.getsockname()
                return host, port
        raise OSError("nothing listens")

    def brief(self) -> None:
        """Connect and close at once."""
        with socket.socket() as one:
            one.setblocking(False)
            one.connect_ex(self._listening())

    def brief_child(self) -> None:
        """Fork a child that connects and exits at once."""
        to = self._listening()
        child = os.fork()
        if child == 0:
            with suppress(OSError):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(to)
            os._exit(0)
        os.waitpid(child, 0)

    def thread_like_child(self) -> None:
        """Fork a child that closes all that it has, and exits."""
        child = os.fork()
        if child == 0:
            os.closerange(3, 4096)
            os._exit(0)
        os.waitpid(child, 0)

    def execute(self) -> None:
        """Start a program that inherits a socket and holds it until it is killed."""
        if len(self.children) >= 8:
            return
        inherited = self.one()
        child = os.fork()
        if child == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            with suppress(OSError):
                os.set_inheritable(inherited.fileno(), True)
                os.execv("/bin/sleep", ["sleep", "1000"])
            os._exit(1)
        self.children.append(child)


def main() -> None:
    """Torture, then rest."""
    directory, seed, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    end = time.monotonic() + seconds
    torture = Torture(directory, seed)
    while time.monotonic() < end:
        torture.step()
        time.sleep(torture.random.random() * _PAUSE)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
