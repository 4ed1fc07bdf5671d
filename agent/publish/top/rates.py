"""What happened in the last minute, second by second; and the clocks of hosts. Pure."""

from __future__ import annotations

from ...model import TcpFigures
from .model import Traffic

# Seconds that are counted, and seconds over which rates are means.
WINDOW, RATE_SECONDS = 60, 10
# A host without a record for so long is silent: an agent sends a heartbeat every 15 s, and one may
# be late. The page has the same limit.
SILENT_SECONDS = 35.0
# Seconds by which a record may be older than one before it: the times of events are those of
# polls or earlier.
_DISORDER_SECONDS = 2.0


class _Second:
    """The counts of one second."""

    __slots__ = ("at", "closes", "figures", "opens", "received", "retransmits", "sent", "short")

    def __init__(self, at: int) -> None:
        self.at = at
        self.opens = self.closes = self.short = self.figures = 0
        self.sent = self.received = self.retransmits = 0

    def open(self) -> None:
        self.opens += 1

    def close(self, figures: TcpFigures | None, *, short: bool) -> None:
        self.closes += 1
        self.short += short
        if figures is not None:
            self.figures += 1
            self.sent += figures.bytes_sent
            self.received += figures.bytes_received
            self.retransmits += figures.retransmits


class Rates:
    """Counts of opens and closes of the last minute, by second; WINDOW + 1 seconds at most."""

    __slots__ = ("_rtt_ms", "_seconds")

    def __init__(self) -> None:
        self._seconds: list[_Second] = []  # A deque takes 600 bytes more in each group.
        self._rtt_ms: float | None = None

    def open(self, time: float) -> None:
        """Count an open."""
        self._second(time).open()

    def close(self, time: float, figures: TcpFigures | None, *, short: bool) -> None:
        """Count a close; ``short``: the connection lived less than a second."""
        self._second(time).close(figures, short=short)
        if figures is not None and figures.rtt_ms is not None:
            self._rtt_ms = figures.rtt_ms

    def _second(self, time: float) -> _Second:
        """Return the second of a time. A little earlier than the newest one counts as that one;
        much earlier means that the clock was set."""
        at, seconds = int(time), self._seconds
        if seconds:
            newest = seconds[-1]
            if newest.at - WINDOW < at <= newest.at:
                return newest
            if at < newest.at:
                seconds.clear()
        second = _Second(at)
        seconds.append(second)
        if len(seconds) > WINDOW + 1:
            del seconds[0]
        return second

    def expire(self, now: float) -> bool:
        """Drop what is older than the window; return whether anything remains."""
        seconds, oldest = self._seconds, int(now) - WINDOW
        while seconds and seconds[0].at < oldest:
            del seconds[0]
        return bool(seconds)

    def per_second(self, now: float, since: float) -> tuple[float, float]:
        """Return the opens and closes per second of the whole seconds before ``now``; ``since`` is
        when counting began."""
        opens = closes = 0
        end = int(now)
        begin = end - RATE_SECONDS
        for second in reversed(self._seconds):
            if second.at < begin:
                break
            if second.at < end:
                opens += second.opens
                closes += second.closes
        length = min(RATE_SECONDS, max(1, end - int(since)))
        return opens / length, closes / length

    def opens_within(self, end: int, seconds: int) -> int:
        """Return the opens of so many seconds before the second ``end``."""
        return sum(one.opens for one in self._seconds if end - seconds <= one.at < end)

    def short_share(self, now: float) -> float | None:
        """Return the share of short connections among those closed in the window."""
        oldest = int(now) - WINDOW
        closes = sum(one.closes for one in self._seconds if one.at >= oldest)
        short = sum(one.short for one in self._seconds if one.at >= oldest)
        return short / closes if closes else None

    def traffic(self) -> Traffic | None:
        """Return what the closed connections transferred."""
        known = [one for one in self._seconds if one.figures]
        if not known:
            return None
        return Traffic(
            sum(one.sent for one in known),
            sum(one.received for one in known),
            sum(one.retransmits for one in known),
            self._rtt_ms,
        )

    def sparks(self, now: float) -> tuple[list[int], list[int]]:
        """Return the opens and closes of each whole second of the window, the oldest first."""
        opens, closes = [0] * WINDOW, [0] * WINDOW
        first = int(now) - WINDOW
        for one in self._seconds:
            if 0 <= one.at - first < WINDOW:
                opens[one.at - first] += one.opens
                closes[one.at - first] += one.closes
        return opens, closes


class Clocks:
    """The time of each host, whose clock may differ from the one of the screen.

    The time of a host is that of its newest record, and goes on from when that was noticed.
    ``one_clock``: hosts have the clock of the screen.
    """

    def __init__(self, *, one_clock: bool) -> None:
        self._one_clock = one_clock
        self._fresh: dict[str, float] = {}  # The newest record since the last look.
        self._known: dict[str, tuple[float, float]] = {}  # Its time, and when it was noticed.
        self._now = 0.0

    def record(self, host: str, time: float) -> None:
        """Note the time of a record of a host."""
        fresh = self._fresh.get(host)
        if fresh is None or time > fresh:
            self._fresh[host] = time

    def advance(self, now: float) -> None:
        """Set the time of the screen."""
        self._now = now
        for host, time in self._fresh.items():
            before = self.of(host) if host in self._known else time
            is_late = 0 < before - time < _DISORDER_SECONDS
            self._known[host] = (before if is_late else time, now)
        self._fresh.clear()

    def of(self, host: str) -> float:
        """Return the time of a host."""
        known = self._known.get(host)
        if self._one_clock or known is None:
            return self._now
        time, noticed = known
        return time + max(0.0, self._now - noticed)

    def newest(self) -> float | None:
        """Return the time of the newest record; None without one."""
        return max((time for time, _noticed in self._known.values()), default=None)

    def silence(self, host: str) -> float:
        """Return the seconds since the newest record of a host."""
        known = self._known.get(host)
        if known is None:
            return 0.0
        time, noticed = known
        return max(0.0, self._now - (time if self._one_clock else noticed))
