"""Match the two reports of the end of a socket: the destroy notice of netlink, and the trace event.

The notice names the network namespace and has the figures of the connection, the event names the
process and the time. Both have the socket's cookie. The event is written first; the notice follows
from a work queue of the kernel, after 0.2 ms or, under load, after seconds. Pure: no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..bounded import drop_oldest
from ..kernel.netlink.destroy import DestroyNotice
from ..kernel.trace.connections import Finished

# How long an event waits for its notice, and a notice for its event: seconds.
NOTICE_SECONDS = 2.0
EVENT_SECONDS = 0.05
# Events and notices that wait, 500 bytes each. Beyond that the oldest are reported as they are.
MAX_WAITING = 50_000
# Cookies of sockets of which a notice or an event was reported alone, and the other may still come;
# 100 bytes each.
MAX_REPORTED = 50_000


class End(NamedTuple):
    """The end of a socket, from its notice, its event, or both. ``netns`` is the name of the
    namespace whose notice it is."""

    netns: int | None
    notice: DestroyNotice | None
    finished: Finished | None


class EndCounts(NamedTuple):
    """Counts since the start: TCP sockets whose end a notice reported while events were read, and
    those of them that an event reported too."""

    notices: int = 0
    with_events: int = 0


class EndMatcher:
    """Matches notices and events by cookie, in the order in which either came first."""

    def __init__(self) -> None:
        self._finished: dict[int, tuple[Finished, float]] = {}  # With the time of its arrival.
        self._notices: dict[int, tuple[int, DestroyNotice, float]] = {}
        self._reported: dict[int, None] = {}
        self.counts = EndCounts()

    @property
    def is_waiting(self) -> bool:
        """Return whether a notice waits for its event."""
        return bool(self._notices)

    def match(
        self,
        notices: Mapping[int, Sequence[DestroyNotice]],
        finished: Iterable[Finished],
        now: float,
        *,
        has_events: bool,
        has_notices: bool,
        are_late: bool = False,
    ) -> list[End]:
        """Return the ends that are complete, or have waited long enough.

        ``now`` is in seconds of any clock. ``has_events`` and ``has_notices`` say which of the two
        are received. ``are_late``: earlier events than those in ``finished`` are still to come.
        """
        ends: list[End] = []
        for event in finished:
            known = self._notices.pop(event.cookie, None)
            if known is not None:
                self._count(with_events=True)
                ends.append(End(known[0], known[1], event))
            elif event.cookie in self._reported:
                del self._reported[event.cookie]
                self.counts = self.counts._replace(with_events=self.counts.with_events + 1)
            elif has_notices:
                self._finished[event.cookie] = (event, now)
            else:
                ends.append(End(None, None, event))
        for netns, received in notices.items():
            for notice in received:
                self._add_notice(ends, netns, notice, now, has_events=has_events)
        self._expire(ends, now, are_late=are_late)
        return ends

    def _add_notice(
        self, ends: list[End], netns: int, notice: DestroyNotice, now: float, *, has_events: bool
    ) -> None:
        cookie = notice.cookie
        if notice.proto != "tcp":
            ends.append(End(netns, notice, None))
        elif (found := self._finished.pop(cookie, None)) is not None:
            self._count(with_events=True)
            ends.append(End(netns, notice, found[0]))
        elif cookie in self._reported:
            del self._reported[cookie]
            self._count(with_events=True)
        elif not has_events:
            ends.append(End(netns, notice, None))
        else:
            self._notices[cookie] = (netns, notice, now)

    def _expire(self, ends: list[End], now: float, *, are_late: bool) -> None:
        """Report what has waited long enough, the oldest first."""
        old = deque[int]()
        for cookie, (_event, since) in self._finished.items():
            if now - since < NOTICE_SECONDS and len(self._finished) - len(old) <= MAX_WAITING:
                break
            old.append(cookie)
        for cookie in old:
            ends.append(End(None, None, self._finished.pop(cookie)[0]))
            self._reported[cookie] = None
        old.clear()
        for cookie, (_netns, _notice, since) in self._notices.items():
            waits = are_late or now - since < EVENT_SECONDS
            if waits and len(self._notices) - len(old) <= MAX_WAITING:
                break
            old.append(cookie)
        for cookie in old:
            netns, notice, _since = self._notices.pop(cookie)
            self._count(with_events=False)
            ends.append(End(netns, notice, None))
            self._reported[cookie] = None
        drop_oldest(self._reported, MAX_REPORTED)

    def _count(self, *, with_events: bool) -> None:
        notices, matched = self.counts
        self.counts = EndCounts(notices + 1, matched + with_events)
