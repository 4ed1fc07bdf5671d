"""What the agent's own polls cost: the figures that heartbeats and ``--stats`` tell. Pure.

It is told of each poll, and knows nothing of how they are made.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

# Polls that the figures are of: the newest ten minutes at the default interval.
WINDOW = 600


class WorkCounters(NamedTuple):
    """What has been done since the start: processes looked at, descriptors read, rows decoded."""

    processes: int = 0
    descriptors: int = 0
    rows: int = 0


class PollCost(NamedTuple):
    """One poll: seconds it took, seconds of CPU since the poll before, and the work in it."""

    seconds: float
    cpu: float
    work: WorkCounters


class PollSummary(NamedTuple):
    """Of the newest polls; milliseconds. The work is per poll, on average."""

    polls: int
    poll_ms: float
    poll_p99_ms: float
    poll_cpu_ms: float
    processes_walked: float
    descriptors_read: float
    rows_decoded: float
    late_polls: int


class PollStats:
    """The newest polls."""

    def __init__(self) -> None:
        self._polls: deque[PollCost] = deque(maxlen=WINDOW)
        self._count = 0
        self._late = 0

    def add(self, poll: PollCost, *, late: bool = False) -> None:
        """Another poll; ``late`` when it ended behind the time of the next."""
        self._polls.append(poll)
        self._count += 1
        self._late += late

    def figures(self) -> PollSummary:
        """What the newest polls cost; ``polls`` and ``late_polls`` count since the start."""
        polls = self._polls
        if not polls:
            return PollSummary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
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
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def sentence(figures: PollSummary) -> str:
    """The figures for a reader."""
    return (
        f"{figures.polls} polls, {figures.late_polls} late; a poll takes {figures.poll_ms} ms "
        f"(p99 {figures.poll_p99_ms}), {figures.poll_cpu_ms} ms of CPU, looks at "
        f"{figures.processes_walked} processes, reads {figures.descriptors_read} descriptors, "
        f"decodes {figures.rows_decoded} rows"
    )
