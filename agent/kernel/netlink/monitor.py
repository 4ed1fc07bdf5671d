"""Destroy notices received between polls, read in the asyncio event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from .destroy import PROTOCOLS, DestroyNotice, parse_notices
from .messages import receive

# Notices kept of a namespace between two reports, about 250 bytes each; further ones are lost.
MAX_NOTICES = 100_000
# Datagrams read from a socket in one turn of the event loop.
_MAX_READS = 256
# After notices were read in a namespace, the next ones are read after a pause, or at the next poll:
# each by itself would wake the event loop. The kernel queues some 4,000 in the meantime; there is
# no pause while _MAX_READS or more arrive in a turn, as the queue might overflow.
_PAUSE_SECONDS = 0.2
# After this many messages of other processes in a namespace the pause there is longer, so that
# flooding one namespace does not delay the others.
MAX_IGNORED = 1000
_FLOODED_PAUSE_SECONDS = 5.0


class DestroyReport(NamedTuple):
    """The notices received since the report before, by network namespace. ``ignored`` counts
    messages of other processes, ``malformed`` those of the kernel that could not be parsed. In the
    ``lost`` namespaces some notices were lost."""

    notices: dict[int, list[DestroyNotice]]
    ignored: Counter[int]
    malformed: Counter[int]
    lost: frozenset[int]


class DestroyMonitor:
    """Reads the destroy notices of several network namespaces. Datagrams of other processes are
    ignored and counted. When the kernel's queue overflows (ENOBUFS), notices of the namespace are
    lost."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._notices: dict[int, list[DestroyNotice]] = {}
        self._paused: dict[int, asyncio.TimerHandle] = {}
        self._ignored: Counter[int] = Counter()
        self._malformed: Counter[int] = Counter()
        self._lost: set[int] = set()
        # Namespaces added since the last report: earlier notices were not received.
        self._added: set[int] = set()

    def add(self, netns: int, subscribed: socket.socket) -> None:
        """Read the notices of a namespace from this socket, in place of an earlier one."""
        if self._sockets.get(netns) is subscribed:
            return
        self.remove([netns])
        self._sockets[netns] = subscribed
        self._added.add(netns)
        self._watch(netns, subscribed)

    def remove(self, namespaces: Collection[int]) -> None:
        """Drop these namespaces and their notices. To be called before the sockets are closed."""
        for netns in namespaces:
            self._stop(netns)
            self._notices.pop(netns, None)
            self._ignored.pop(netns, None)
            self._malformed.pop(netns, None)
            self._lost.discard(netns)
            self._added.discard(netns)

    @property
    def namespaces(self) -> Collection[int]:
        """The namespaces whose notices are read."""
        return self._sockets.keys()

    def affected_protocols(self) -> dict[int, set[str]]:
        """Return, by namespace, the protocols of which sockets ended, or may have ended, since the
        last report."""
        self._read_paused()
        affected = {
            netns: {notice.proto for notice in notices}
            for netns, notices in self._notices.items()
            if notices
        }
        for netns in self._lost | self._added:
            affected.setdefault(netns, set()).update(PROTOCOLS)
        return affected

    def take(self) -> DestroyReport:
        """Return what was received since the last call."""
        self._read_paused()
        notices = {netns: received for netns, received in self._notices.items() if received}
        report = DestroyReport(notices, self._ignored, self._malformed, frozenset(self._lost))
        self._notices = {}
        self._ignored, self._malformed = Counter(), Counter()
        self._lost, self._added = set(), set()
        return report

    def _watch(self, netns: int, subscribed: socket.socket) -> None:
        """Wait for the next datagram."""
        self._paused.pop(netns, None)
        loop = asyncio.get_running_loop()
        loop.add_reader(subscribed.fileno(), self._on_readable, netns, subscribed)

    def _on_readable(self, netns: int, subscribed: socket.socket) -> None:
        before = len(self._notices.get(netns, ()))
        self._read(netns, subscribed)
        is_busy = len(self._notices.get(netns, ())) - before >= _MAX_READS
        is_flooded = self._ignored[netns] >= MAX_IGNORED
        if self._sockets.get(netns) is subscribed and (is_flooded or not is_busy):
            loop = asyncio.get_running_loop()
            loop.remove_reader(subscribed.fileno())
            pause = _FLOODED_PAUSE_SECONDS if is_flooded else _PAUSE_SECONDS
            self._paused[netns] = loop.call_later(pause, self._watch, netns, subscribed)

    def _stop(self, netns: int) -> None:
        """Stop reading in a namespace."""
        subscribed = self._sockets.pop(netns, None)
        pause = self._paused.pop(netns, None)
        if pause is not None:
            pause.cancel()
        elif subscribed is not None:
            asyncio.get_running_loop().remove_reader(subscribed.fileno())

    def _read_paused(self) -> None:
        """Read the notices that arrived in paused namespaces."""
        for netns in list(self._paused):
            self._read(netns, self._sockets[netns])

    def _read(self, netns: int, subscribed: socket.socket) -> None:
        """Read at most _MAX_READS datagrams."""
        kept = self._notices.setdefault(netns, [])
        # One time for all: there may have been notices for as long as they were not read.
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for _ in range(_MAX_READS):
            try:
                datagram = receive(subscribed)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost.add(netns)
                if error.errno != errno.ENOBUFS:
                    self._stop(netns)
                return
            if not datagram.from_kernel:
                self._ignored[netns] += 1
            elif datagram.truncated:
                self._malformed[netns] += 1
            elif len(kept) < MAX_NOTICES:
                notices, malformed = parse_notices(datagram.data, now)
                kept += notices
                if malformed:
                    self._malformed[netns] += malformed
            else:
                self._lost.add(netns)
