"""A TCP proxy before an agent, which cuts and holds connections."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_CHUNK_BYTES = 1 << 16


class Proxy:
    """Forwards connections from a free port on loopback to an agent.

    What an agent sends to a held proxy stays in the agent and in the buffers between them.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._passes = threading.Event()
        self._passes.set()
        self._accepts = True
        self.accepted = 0  # Connections that were forwarded.

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return "{}:{}".format(*self._listener.getsockname())

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._passes.set()
        # A thread that waits in accept(2) does not end when the socket is closed.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close all connections."""
        with self._lock:
            closing, self._open = self._open, set()
        for one in closing:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Close all connections, and new ones at once, until ``accept``."""
        self._accepts = False
        self.cut()

    def accept(self) -> None:
        """Forward new connections again."""
        self._accepts = True

    def hold(self) -> None:
        """Read nothing from the agent until ``release``."""
        self._passes.clear()

    def release(self) -> None:
        """Forward again what the agent sends."""
        self._passes.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _peer = self._listener.accept()
            except OSError:
                return
            if not self._accepts:
                client.close()
                continue
            try:
                agent = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            self.accepted += 1
            with self._lock:
                self._open |= {client, agent}
            for source, target, can_hold in ((client, agent, False), (agent, client, True)):
                threading.Thread(
                    target=self._forward, args=(source, target, can_hold), daemon=True
                ).start()

    def _forward(self, source: socket.socket, target: socket.socket, can_hold: bool) -> None:
        with suppress(OSError):
            while True:
                if can_hold:
                    self._passes.wait()
                data = source.recv(_CHUNK_BYTES)
                if not data:
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        with self._lock:
            self._open -= {source, target}
