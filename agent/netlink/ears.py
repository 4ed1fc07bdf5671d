"""Hears the ends of sockets as they happen, between two polls: destroy notices, gathered.

A thin shell around asyncio's readers: it knows sockets and namespaces, and not what notices mean.
An overrun (ENOBUFS) is doubt, and is told as such.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Collection

from .destroyed import Ended, notices

# Notices kept from one poll to the next, at the most; beyond it is like an overrun. Each takes
# about 500 bytes.
MOST = 50_000
_BUFFER_BYTES = 64 * 1024
# Messages read in one turn of the event loop.
_TURN = 256


class Ears:
    """The notices of all namespaces since they were last taken."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._heard: dict[int, list[Ended]] = {}
        self._overrun: set[int] = set()
        self._begun: set[int] = set()  # Heard since: what ended before was not heard.

    def listen(self, netns: int, hearing: socket.socket) -> None:
        """Hear a namespace, from now on through this socket."""
        known = self._sockets.get(netns)
        if known is hearing:
            return
        self.leave([netns])
        self._sockets[netns] = hearing
        self._begun.add(netns)
        asyncio.get_running_loop().add_reader(hearing.fileno(), self._read, netns, hearing)

    def leave(self, namespaces: Collection[int]) -> None:
        """Hear these no more. To be called before their sockets are closed."""
        for netns in namespaces:
            self._stop(netns)
            self._heard.pop(netns, None)
            self._overrun.discard(netns)
            self._begun.discard(netns)

    def _stop(self, netns: int) -> None:
        known = self._sockets.pop(netns, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known.fileno())

    @property
    def namespaces(self) -> Collection[int]:
        """Those that are heard."""
        return self._sockets.keys()

    def _read(self, netns: int, hearing: socket.socket) -> None:
        heard = self._heard.setdefault(netns, [])
        for _ in range(_TURN):
            try:
                buffer = hearing.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._overrun.add(netns)
                if error.errno != errno.ENOBUFS:
                    self._stop(netns)
                return
            if len(heard) < MOST:
                heard += notices(buffer)
            else:
                self._overrun.add(netns)

    def doubted(self) -> set[int]:
        """The namespaces in which something ended, or may have."""
        ended = {netns for netns, heard in self._heard.items() if heard}
        return self._overrun | self._begun | ended

    def take(self) -> tuple[dict[int, list[Ended]], set[int]]:
        """The notices by namespace, and the namespaces of which some were not heard."""
        heard, self._heard = self._heard, {}
        overrun, self._overrun, self._begun = self._overrun, set(), set()
        return heard, overrun
