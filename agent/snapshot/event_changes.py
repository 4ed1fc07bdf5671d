"""What events showed since the last snapshot: sockets that lived between two of them, and times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..model import Holding, ShortLived, Socket, SocketEnd
from .attribution import Attribution
from .reading import Ended, EndedSocket

# Of several readings of two clocks, the one counts between which the least time passed.
CLOCK_READINGS = 3
CLOCK_NOISE_SECONDS = 0.001


def may_be_in_no_table(socket: Socket) -> bool:
    """Return whether a socket that ended may have been in no table while it was open."""
    return socket.proto == "tcp" and socket.remote_addr is None


def without_unlisted(ended: Iterable[EndedSocket], gone: Counter[str | None]) -> list[EndedSocket]:
    """Return sockets that no table showed and that ended, without those that are published.

    ``gone`` counts, by protocol, the published sockets in no table that are gone in the same poll.
    No table lists a TCP socket that is bound and does not listen, and the notice of its end has no
    peer address. Tables list all bound sockets of other protocols.
    """
    remaining = gone["tcp"]
    others = []
    for one in ended:
        if remaining > 0 and may_be_in_no_table(one.socket):
            remaining -= 1
        else:
            others.append(one)
    return others


class Taken(NamedTuple):
    """What a snapshot publishes; the fields are as in ``Snapshot``."""

    short_lived: tuple[ShortLived, ...]
    event_times: Mapping[int, float]
    ended: Mapping[int, SocketEnd]


class EventChanges:
    """Collects what events show, until a snapshot publishes it.

    ``clock`` returns seconds since the Unix epoch. Events have times of the trace clock, in
    nanoseconds since boot.
    """

    def __init__(self, attribution: Attribution, clock: Callable[[], float]) -> None:
        self._attribution = attribution
        self._clock = clock
        self._booted_at = 0.0  # When the trace clock was 0, in seconds since the Unix epoch.
        self._short_lived: list[ShortLived] = []
        self._times: dict[int, float] = {}
        self._ended: dict[int, SocketEnd] = {}

    def add_ended(
        self, ended: Ended, unpublished: Iterable[tuple[EndedSocket, Holding | None]]
    ) -> None:
        """Add sockets that ended and that a table showed; ``unpublished`` are those of them that no
        snapshot published, with their holding if their holder is known."""
        self._set_boot_time()
        for one, holding in unpublished:
            made = self._attribution.short_lived(one, self._to_unix)
            if holding is not None:
                # The holder may be another process than the one that opened the socket: whether it
                # has exited is found out from the processes.
                made = made._replace(holding=holding, reason=None)
            self._short_lived.append(made)
        for inode, (_socket, finished, figures, _sender) in ended.listed.items():
            at = None if finished is None else self._to_unix(finished.closed)
            self._ended[inode] = SocketEnd(at, figures)

    def add_short_lived(self, ended: Iterable[EndedSocket]) -> None:
        """Add sockets that ended and that no table showed."""
        to_unix = self._to_unix
        self._short_lived += (self._attribution.short_lived(one, to_unix) for one in ended)

    def add_holdings(self, holdings: Iterable[Holding]) -> None:
        """Add holdings that began and ended, without a report of it."""
        self._short_lived += map(ShortLived, holdings)

    def add_times(self, times: Mapping[int, int]) -> None:
        """Add the times at which sockets were opened or changed, by inode."""
        self._times |= {inode: self._to_unix(time) for inode, time in times.items()}

    @property
    def has_short_lived(self) -> bool:
        """Return whether sockets began and ended since the last snapshot."""
        return bool(self._short_lived)

    def take(self) -> Taken:
        """Return what was collected since the last call."""
        taken = Taken(tuple(self._short_lived), self._times, self._ended)
        self._short_lived, self._times, self._ended = [], {}, {}
        return taken

    def _to_unix(self, nanoseconds: int) -> float:
        return self._booted_at + nanoseconds / 1e9

    def _set_boot_time(self) -> None:
        """Compare the two clocks. Their difference changes when the time is set."""
        readings = []
        for _ in range(CLOCK_READINGS):
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            now = self._clock()
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            readings.append((after - before, now - (before + after) / 2e9))
        _width, booted_at = min(readings)
        # A small difference is noise. All times of a connection are to be converted alike.
        if abs(booted_at - self._booted_at) >= CLOCK_NOISE_SECONDS:
            self._booted_at = booted_at
