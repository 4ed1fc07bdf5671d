"""What the agent's own polls cost, as heartbeats and ``--stats`` report it. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

# The newest polls that count: ten minutes at the default interval.
WINDOW = 600


class WorkCounters(NamedTuple):
    """Counts since the start: processes scanned, descriptors read, rows decoded."""

    processes: int = 0
    descriptors: int = 0
    rows: int = 0


class PollCost(NamedTuple):
    """One poll: its duration, the CPU time since the poll before, both in seconds, and its work."""

    seconds: float
    cpu: float
    work: WorkCounters


class PollSummary(NamedTuple):
    """The newest polls: median, 99th percentile and CPU time in milliseconds; the average work of a
    poll. All others count since the start.

    ``tcp_ends`` counts the TCP sockets whose end netlink reported, ``tcp_ends_with_events`` those
    of them that trace events reported too.
    """

    polls: int
    poll_ms: float
    poll_p99_ms: float
    poll_cpu_ms: float
    processes_walked: float
    descriptors_read: float
    rows_decoded: float
    late_polls: int
    tcp_ends: int
    tcp_ends_with_events: int
    events_lost: int


class PollStats:
    """Collects the costs of the newest polls."""

    def __init__(self) -> None:
        self._polls: deque[PollCost] = deque(maxlen=WINDOW)
        self._count = 0
        self._late = 0
        self._tcp_ends = 0
        self._tcp_ends_with_events = 0
        self._events_lost = 0

    def add(self, poll: PollCost, *, late: bool = False) -> None:
        """Add a poll; ``late``: it ended after the next poll was due."""
        self._polls.append(poll)
        self._count += 1
        self._late += late

    def set_events(self, ends: int, with_events: int, lost: int) -> None:
        """Set the counts since the start of TCP sockets whose end netlink reported, of those of
        them that trace events reported too, and of trace events that were lost."""
        self._tcp_ends, self._tcp_ends_with_events, self._events_lost = ends, with_events, lost

    def figures(self) -> PollSummary:
        """Return what the newest polls cost."""
        polls = self._polls
        events = self._tcp_ends, self._tcp_ends_with_events, self._events_lost
        if not polls:
            return PollSummary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, *events)
        seconds = sorted(poll.seconds for poll in polls)
        processes, descriptors, rows = (
            round(sum(column) / len(polls), 1)
            for column in zip(*(poll.work for poll in polls), strict=True)
        )
        return PollSummary(
            polls=self._count,
            poll_ms=_ms(seconds[len(seconds) // 2]),
            poll_p99_ms=_ms(seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]),
            poll_cpu_ms=_ms(sum(poll.cpu for poll in polls) / len(polls)),
            processes_walked=processes,
            descriptors_read=descriptors,
            rows_decoded=rows,
            late_polls=self._late,
            tcp_ends=self._tcp_ends,
            tcp_ends_with_events=self._tcp_ends_with_events,
            events_lost=self._events_lost,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def sentence(figures: PollSummary) -> str:
    """Return the figures as a sentence; those of trace events if there are any."""
    events = ""
    if figures.tcp_ends or figures.events_lost:
        events = (
            f"; trace events reported {figures.tcp_ends_with_events} of {figures.tcp_ends} ends of "
            f"TCP sockets, {figures.events_lost} events were lost"
        )
    return (
        f"{figures.polls} polls, {figures.late_polls} late; a poll takes {figures.poll_ms} ms "
        f"(p99 {figures.poll_p99_ms}), {figures.poll_cpu_ms} ms of CPU, scans "
        f"{figures.processes_walked} processes, reads {figures.descriptors_read} descriptors, "
        f"decodes {figures.rows_decoded} rows{events}"
    )
