"""Hears the ends of sockets as they happen, between two polls: destroy notices, gathered.

A thin shell around asyncio's readers: it knows sockets and namespaces, and not what notices mean.
An overrun (ENOBUFS) is doubt, and is told as such. Whatever another process sends is ignored and
counted.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Collection

from .destroy import PROTOCOLS, Ended, notices
from .messages import receive

# Notices kept from one poll to the next, at the most; beyond it is like an overrun. Each takes
# about 250 bytes.
MOST = 100_000
# Messages read in one turn of the event loop.
_TURN = 256
# A namespace in which something ended is listened to again so many seconds later, or at the next
# poll: each notice by itself would wake the event loop. The kernel keeps some 4,000 meanwhile;
# where so many come that it might not be enough there is no pause.
_PAUSE_SECONDS = 0.2
# After so many messages of other processes in a namespace, nothing is read there for a while but
# at polls: who floods a namespace of its own keeps nobody else waiting.
MAX_IGNORED = 1000
_FLOODED_SECONDS = 5.0


class DestroyMonitor:
    """The notices of all namespaces since they were last taken."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._heard: dict[int, list[Ended]] = {}
        self._pausing: dict[int, asyncio.TimerHandle] = {}
        self._overrun: set[int] = set()
        self._begun: set[int] = set()  # Heard since: what ended before was not heard.
        # Messages by namespace, since they were last taken.
        self._ignored: Counter[int] = Counter()
        self._malformed: Counter[int] = Counter()

    def listen(self, netns: int, hearing: socket.socket) -> None:
        """Hear a namespace, from now on through this socket."""
        known = self._sockets.get(netns)
        if known is hearing:
            return
        self.leave([netns])
        self._sockets[netns] = hearing
        self._begun.add(netns)
        self._wait(netns, hearing)

    def _wait(self, netns: int, hearing: socket.socket) -> None:
        """Wait for its next notice."""
        self._pausing.pop(netns, None)
        asyncio.get_running_loop().add_reader(hearing.fileno(), self._heard_of, netns, hearing)

    def _heard_of(self, netns: int, hearing: socket.socket) -> None:
        """There are notices; after some of them there is a pause."""
        before = len(self._heard.get(netns, ()))
        self._read(netns, hearing)
        many = len(self._heard.get(netns, ())) - before >= _TURN
        flooded = self._ignored[netns] >= MAX_IGNORED
        if self._sockets.get(netns) is hearing and (flooded or not many):
            loop = asyncio.get_running_loop()
            loop.remove_reader(hearing.fileno())
            pause = _FLOODED_SECONDS if flooded else _PAUSE_SECONDS
            self._pausing[netns] = loop.call_later(pause, self._wait, netns, hearing)

    def leave(self, namespaces: Collection[int]) -> None:
        """Hear these no more. To be called before their sockets are closed."""
        for netns in namespaces:
            self._stop(netns)
            self._heard.pop(netns, None)
            self._overrun.discard(netns)
            self._begun.discard(netns)
            self._ignored.pop(netns, None)
            self._malformed.pop(netns, None)

    def _stop(self, netns: int) -> None:
        known = self._sockets.pop(netns, None)
        pause = self._pausing.pop(netns, None)
        if pause is not None:
            pause.cancel()
        elif known is not None:
            asyncio.get_running_loop().remove_reader(known.fileno())

    @property
    def namespaces(self) -> Collection[int]:
        """Those that are heard."""
        return self._sockets.keys()

    def _read(self, netns: int, hearing: socket.socket) -> None:
        heard = self._heard.setdefault(netns, [])
        for _ in range(_TURN):
            try:
                datagram = receive(hearing)
            except BlockingIOError:
                return
            except OSError as error:
                self._overrun.add(netns)
                if error.errno != errno.ENOBUFS:
                    self._stop(netns)
                return
            if not datagram.from_kernel:
                self._ignored[netns] += 1
            elif datagram.truncated:
                self._malformed[netns] += 1
            elif len(heard) < MOST:
                ended, malformed = notices(datagram.data)
                heard += ended
                if malformed:
                    self._malformed[netns] += malformed
            else:
                self._overrun.add(netns)

    def _catch_up(self) -> None:
        """Read what came in a pause."""
        for netns in list(self._pausing):
            self._read(netns, self._sockets[netns])

    def doubted(self) -> dict[int, set[str]]:
        """Return the protocols of which a socket ended, or may have, by namespace."""
        self._catch_up()
        doubted = {
            netns: {one.proto for one in heard} for netns, heard in self._heard.items() if heard
        }
        for netns in self._overrun | self._begun:
            doubted.setdefault(netns, set()).update(PROTOCOLS)
        return doubted

    def take(self) -> tuple[dict[int, list[Ended]], set[int]]:
        """The notices by namespace, and the namespaces of which some were not heard."""
        self._catch_up()
        heard, self._heard = self._heard, {}
        overrun, self._overrun, self._begun = self._overrun, set(), set()
        return heard, overrun

    def take_rejected(self) -> tuple[Counter[int], Counter[int]]:
        """Return, by namespace, how many messages of other processes were ignored, and how many
        malformed ones were skipped, since this was last called."""
        ignored, self._ignored = self._ignored, Counter()
        malformed, self._malformed = self._malformed, Counter()
        return ignored, malformed
