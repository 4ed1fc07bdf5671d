"""Read trace events from the ring buffers of all CPUs, in the event loop.

Each CPU has a buffer of its own. The events of one socket or process may be in several of them, so
they are sorted by their times before use. An event that is written while the buffers are read may
be older than one that was read already: events of the last moment before a reading wait for the
next one.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter

from .connections import NOT_IN_PROCESS, ConnectionReport, ConnectionTable
from .events import Destroyed, Event, RouteLookup, StateChange, TraceCounts
from .pages import PageDecoder
from .routes import RouteTable
from .tasks import TaskTable

# Events of so long before a reading wait for the next one: nanoseconds.
HELD_NS = 1_000_000
# Pauses between two readings, in seconds. The first one is short: it is for the events that the
# wake-up found. Each wake-up costs more than the reading of some events.
FIRST_PAUSE, PAUSE = 0.003, 0.015
# Pages that are read of one CPU at a time, 8 ms of decoding; then the others get their turn.
MAX_PAGES = 256
# Processes that are named to ``on_actors`` in one reading; with more events in it procfs is too
# slow to show short-lived ones.
MAX_ACTORS = 50
# Changes of state that show a process at the beginning or end of a connection: to SYN_SENT,
# FIN_WAIT1 and LAST_ACK.
_SHOWING = frozenset({2, 4, 9})
_time_of = itemgetter(0)  # All events are tuples that begin with the time.


class TraceReader:
    """Reads the buffers and keeps the tables of connections, routes and processes up to date.

    ``on_actors`` is called with threads that begin or end a connection, or send a datagram, before
    their events are used; ``on_report`` after a reading that has news for ``take``; ``on_flood``
    when there are too many look-ups of routes. Call ``start`` in an event loop,
    and ``stop`` before the descriptors are closed.
    """

    def __init__(
        self,
        descriptors: Sequence[int],
        page_size: int,
        decoder: PageDecoder,
        tasks: TaskTable,
        *,
        on_actors: Callable[[Sequence[int]], None],
        on_report: Callable[[], None],
        on_flood: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        """``descriptors`` are of the files ``trace_pipe_raw``, not blocking."""
        self._descriptors = descriptors
        self._page_size = page_size
        self._decoder = decoder
        self._tasks = tasks
        self.connections = ConnectionTable(tasks)
        self.routes = RouteTable(tasks)
        self._on_actors = on_actors
        self._on_report = on_report
        self._on_flood = on_flood
        self._clock = clock
        self._held: list[Event] = []
        self._is_complete = True  # The newest reading left no event in a buffer.
        self._timer: asyncio.TimerHandle | None = None
        self._is_armed = False
        self.counts = TraceCounts()
        self.failure: OSError | None = None  # Of the newest reading.

    def decode_with(self, decoder: PageDecoder) -> None:
        """Decode pages with another decoder from now on."""
        self._decoder = decoder

    def start(self) -> None:
        """Read when events arrive, from now on."""
        self._arm()

    def stop(self) -> None:
        """Stop reading."""
        self._disarm()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> ConnectionReport:
        """Read the buffers, and return what happened since the last call."""
        self.read()
        self.routes.expire(self._clock())
        report = self.connections.take()
        if report.lost:
            counts = self.counts
            self.counts = counts._replace(lost=counts.lost + report.lost, losses=counts.losses + 1)
        return report._replace(complete=self._is_complete)

    def read(self) -> int:
        """Read all buffers once, use the events that are old enough, and return how many events
        were read."""
        mark = self._clock() - HELD_NS
        events = self._held
        before = len(events)
        self._is_complete = True
        for descriptor in self._descriptors:
            newest = self._read_buffer(descriptor, events)
            if newest is not None:  # Older events than those of other CPUs follow.
                mark = min(mark, newest)
                self._is_complete = False
        count = len(events) - before
        if count:
            self._name_actors(events, before)
        events.sort(key=_time_of)
        usable = bisect_left(events, mark, key=_time_of)
        self._held = events[usable:]
        self._use(events[:usable])
        self._tasks.expire(mark)
        return count

    def _read_buffer(self, descriptor: int, events: list[Event]) -> int | None:
        """Append the events of one CPU; return the time of the newest one if there are more."""
        read, size, decode = os.read, self._page_size, self._decoder.decode
        found = lost = malformed = losses = 0
        newest: int | None = None
        for _ in range(MAX_PAGES):
            try:
                page = read(descriptor, size)
            except BlockingIOError:
                break
            except OSError as error:  # The instance was removed.
                self.failure = error
                break
            if not page:  # The buffer is empty, too; more may come.
                break
            decoded = decode(page)
            events += decoded.events
            found += len(decoded.events)
            malformed += decoded.malformed
            if decoded.lost != 0:
                lost += decoded.lost or 0
                losses += 1
                if decoded.events:
                    self.connections.note_loss(decoded.events[0].time)
        else:
            newest = events[-1].time if found else None
        counts = self.counts
        self.counts = TraceCounts(
            counts.events + found,
            counts.lost + lost,
            counts.malformed + malformed,
            counts.losses + losses,
        )
        return newest

    def _name_actors(self, events: Sequence[Event], start: int) -> None:
        if len(events) - start > 8 * MAX_ACTORS:
            return
        tids = [
            event.tid
            for event in events[start:]
            if type(event) is StateChange
            and event.new in _SHOWING
            and not event.flags & NOT_IN_PROCESS
        ]
        # One thread may send many datagrams.
        tids += {event.tid for event in events[start:] if type(event) is RouteLookup}
        if tids and len(tids) <= MAX_ACTORS:
            self._on_actors(tids)

    def _use(self, events: Sequence[Event]) -> None:
        change, destroy, handle, add_route = (
            self.connections.change,
            self.connections.destroy,
            self._tasks.handle,
            self.routes.add,
        )
        was_flooded = self.routes.is_flooded
        for event in events:
            if isinstance(event, StateChange):
                change(event)
            elif isinstance(event, Destroyed):
                destroy(event)
            elif isinstance(event, RouteLookup):
                add_route(event)
            else:
                handle(event)
        if self.routes.is_flooded and not was_flooded:
            self._on_flood()

    # When to read.

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            loop.add_reader(descriptor, self._on_readable)
        self._is_armed = True

    def _disarm(self) -> None:
        if self._is_armed:
            loop = asyncio.get_running_loop()
            for descriptor in self._descriptors:
                loop.remove_reader(descriptor)
            self._is_armed = False

    def _on_readable(self) -> None:
        self._disarm()
        self._read_and_wait(FIRST_PAUSE)

    def _on_timer(self) -> None:
        self._timer = None
        self._read_and_wait(PAUSE)

    def _read_and_wait(self, pause: float) -> None:
        """Read; wait for the next events, or read again after a pause while there are some."""
        count = self.read()
        if self.connections.has_news or self.routes.has_news:
            self._on_report()
        if self.failure is not None:
            return
        if count or self._held:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(pause, self._on_timer)
        else:
            self._arm()
