"""The agent of a host in namespaces, started and restarted as systemd does it."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from agent.service.handover import FD_NAME
from tests.machine.hosts import Namespaces, children

from .process import Process

_CHILD_SECONDS = 5.0
_READER_SECONDS = 15.0  # Longer than the pauses between its attempts.
_LOOK_SECONDS = 0.2
_MESSAGE_BYTES = 4096
# Passes standard input and output, which are sockets, and the state. LISTEN_PID is the process.
_PASS = 'exec 3<&0 4<&1 5<"$STATE" < /dev/null > /dev/null; unset STATE; LISTEN_PID=$$ exec "$@"'
# The names of descriptors as systemd passes them.
READER, FEED = "reader", "socket"


class Inside(Process):
    """A process in namespaces, which is a child of nsenter."""

    def __init__(self, there: Namespaces, argv: Sequence[str], log: Path) -> None:
        # It is killed if nsenter is.
        super().__init__(there.command("setpriv", "--pdeathsig", "KILL", *argv), log)

    def send(self, number: int) -> None:
        """Send a signal to it; nsenter ends as it does."""
        if self._process is None:
            return
        end = time.monotonic() + _CHILD_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            for pid in children(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                if number == signal.SIGKILL:  # nsenter stops when its child is stopped.
                    self._process.send_signal(signal.SIGCONT)
                return
            time.sleep(0.01)


class Service(Inside):
    """An agent whose sockets, one of them for a reader, and state are kept for its next run.

    As with systemd, connections to the sockets wait while the agent does not run, and the state is
    a descriptor that the agent sends when it ends. The agent starts when the reader waits, which so
    gets its records from the first one on. Its files are in ``directory``.
    """

    def __init__(
        self, there: Namespaces, argv: Sequence[str], log: Path, directory: Path, stack: ExitStack
    ) -> None:
        notify = directory / "notify"
        environment = (
            f"NOTIFY_SOCKET={notify}",
            "LISTEN_FDS=3",
            f"LISTEN_FDNAMES={READER}:{FEED}:{FD_NAME}",
        )
        super().__init__(there, ("env", *environment, "sh", "-c", _PASS, "sh", *argv), log)
        self._sockets = [_listening(directory / name, stack) for name in (READER, FEED)]
        self._notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._notified.bind(str(notify))
        self._notified.setblocking(False)
        self._stored: int | None = None
        self._lock = threading.Lock()
        self._is_ended = threading.Event()
        self.handovers = 0  # How often a run got the state of the one before.
        # The socket has room for ten messages, and a full one delays the agent.
        thread = threading.Thread(target=self._read)
        thread.start()
        stack.callback(self._close, thread)

    def start(self) -> None:
        """Start it, with the state that the run before left. Raises TimeoutError."""
        reader, feed = self._sockets
        if not select.select([reader], [], [], _READER_SECONDS)[0]:
            raise TimeoutError("the reader does not connect")
        with self._lock:
            self._take()
            self.handovers += self._stored is not None
            with open(os.devnull, "rb") as none:
                state = none.fileno() if self._stored is None else self._stored
                self._start(reader.fileno(), feed.fileno(), state)

    def _read(self) -> None:
        while not self._is_ended.wait(_LOOK_SECONDS):
            with self._lock:
                self._take()

    def _take(self) -> None:
        """Take the messages that have arrived."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._notified, _MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            if b"FDSTORE" in message:  # Or FDSTOREREMOVE.
                self._drop()
                self._stored = descriptors[0] if descriptors else None

    def _drop(self) -> None:
        if self._stored is not None:
            os.close(self._stored)
            self._stored = None

    def _close(self, thread: threading.Thread) -> None:
        self._is_ended.set()
        thread.join()
        self._drop()


def _listening(path: Path, stack: ExitStack) -> socket.socket:
    found = stack.enter_context(socket.socket(socket.AF_UNIX))
    found.bind(str(path))
    found.listen()
    return found
