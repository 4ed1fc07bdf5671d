"""What is wrong: one sentence each. Pure.

How soon an alarm comes after what it reports: a full accept queue, lost records and incomplete
coverage at once; several sockets in CLOSE_WAIT after CLOSE_WAIT_SECONDS, or at once if they were so
before the watch; that their number only grows after GROWTH_SECONDS; ten times the usual churn
within two polls, once churn is known for MIN_SLOTS * SLOT_SECONDS; a silent host after
SILENT_SECONDS.
"""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from statistics import median
from typing import NamedTuple

from ...model import Coverage
from ..terminal.cells import age_text
from ..terminal.safe import safe
from ..terminal.summary import counted
from .groups import OLDEST, Since
from .model import Alarm, AlarmKind, GroupRow, Queue, Severity

# A server that closes its connections is in CLOSE_WAIT for milliseconds; so many sockets for so
# long are left open. It is less than two polls of a second, so that the third one reports it.
CLOSE_WAIT_SECONDS = 1.5
GROWTH_SECONDS = 60.0
# The usual churn is the median of slots of 10 s, of the last 10 minutes.
SLOT_SECONDS, MAX_SLOTS, MIN_SLOTS = 10, 60, 3
CHURN_FACTOR = 10
# Whole seconds over which the present churn is a mean: two polls.
CHURN_SECONDS = 2
# Opens per second that are usual everywhere: on an idle machine, ten times nothing is no alarm.
MIN_USUAL = 2.0
# Seconds for which lost records are reported.
LOST_SECONDS = 60.0
_KINDS = tuple(AlarmKind)


class Growth(NamedTuple):
    """A time in which the sockets in CLOSE_WAIT of a process only became more: since when, how many
    there were then and are now, and when they became more."""

    since: float
    first: int
    newest: int
    grew: float


def grown(known: Growth | None, count: int, now: float) -> Growth:
    """Return the growth with the number of sockets that are in CLOSE_WAIT now."""
    if known is None or count < known.newest:
        return Growth(now, count, count, now)
    if count > known.newest:
        return Growth(known.since, known.first, count, now)
    return known


def close_wait_alarm(
    row: GroupRow, oldest: Sequence[Since], growth: Growth, host_now: float, now: float
) -> Alarm | None:
    """Return the alarm of a process with sockets in CLOSE_WAIT; ``now`` is the time of the screen,
    which that of ``growth`` is of, ``host_now`` that of the host."""
    lasting = [
        one for one in oldest if one.before or host_now - one.time >= CLOSE_WAIT_SECONDS
    ]  # fmt: skip
    is_growing = (
        growth.newest > growth.first
        and now - growth.since >= GROWTH_SECONDS
        and now - growth.grew < GROWTH_SECONDS
    )
    if len(lasting) < OLDEST and not is_growing:
        return None
    parts = [f"{row.close_wait:,} CLOSE_WAIT in {_process(row)}"]
    if is_growing:
        parts.append(f"growing for {age_text(now - growth.since)}")
    if oldest:
        mark = "≥ " if oldest[0].before else ""
        parts.append(f"oldest {mark}{age_text(host_now - oldest[0].time)}")
    return Alarm(AlarmKind.CLOSE_WAIT, ", ".join(parts), Severity.ALARM, row.key)


def queue_alarms(full: Iterable[tuple[GroupRow, Queue]]) -> Iterator[Alarm]:
    """Yield the alarms of full accept queues; one that several processes hold has one."""
    known: set[tuple[str, Queue]] = set()
    for row, queue in full:
        if (row.key.host, queue) not in known:
            known.add((row.key.host, queue))
            text = f"accept queue full: {queue.endpoint} ({queue.recv_q}/{queue.backlog})"
            yield Alarm(AlarmKind.QUEUE, text, Severity.ALARM, row.key)


class Churn:
    """The opens of a host, in slots of the last ten minutes."""

    __slots__ = ("_first", "_slots")

    def __init__(self, time: float) -> None:
        """``time`` is that of the first record of the host."""
        self._first = int(time) // SLOT_SECONDS + 1
        self._slots: deque[tuple[int, int]] = deque(maxlen=MAX_SLOTS + 1)

    def open(self, time: float) -> None:
        """Count an open."""
        slot, slots = int(time) // SLOT_SECONDS, self._slots
        if slots and slots[-1][0] >= slot:
            at, count = slots.pop()
            slots.append((at, count + 1))
        else:
            slots.append((slot, 1))

    def usual(self, now: float) -> float | None:
        """Return the usual opens per second, None if they are not known yet."""
        current = int(now) // SLOT_SECONDS
        first = max(self._first, current - MAX_SLOTS)
        if current - first < MIN_SLOTS:
            return None
        counts = dict(self._slots)
        return median(counts.get(slot, 0) for slot in range(first, current)) / SLOT_SECONDS


def is_storm(opens_per_s: float, usual: float) -> bool:
    """Return whether far more connections open than usually."""
    return opens_per_s >= CHURN_FACTOR * max(usual, MIN_USUAL)


def churn_alarm(opens_per_s: float, usual: float, busiest: GroupRow | None) -> Alarm:
    """Return the alarm of a host on which far more connections open than usually."""
    text = f"{opens_per_s:,.0f} open/s, usually {usual:,.{0 if usual >= 10 else 1}f}"
    if busiest is not None:
        text += f": most in {_process(busiest)}"
    return Alarm(AlarmKind.CHURN, text, Severity.ALARM, None if busiest is None else busiest.key)


class LostChanges(NamedTuple):
    """Changes that are missing: see ``agent.stream.decoder.Dropped``. ``time`` is when the loss
    was reported, by the clock of the host."""

    host: str
    first: int
    last: int | None
    time: float


def lost_alarms(lost: Sequence[LostChanges]) -> Iterator[Alarm]:
    """Yield the alarm of the changes of a host that are missing."""
    if not lost:
        return
    newest = lost[-1]
    if newest.last is None:
        text = f"lost: changes from {newest.first} on; the agent was restarted"
    else:
        count = sum(one.last - one.first + 1 for one in lost if one.last is not None)
        text = f"lost {newest.first}–{newest.last}"  # noqa: RUF001 (as in the event log)
        if len(lost) > 1:
            text += f" and more, {count:,} changes"
        text += ": the reader was too slow"
    yield Alarm(AlarmKind.LOST, text, Severity.ALARM)


def silent_alarm(seconds: float) -> Alarm:
    """Return the alarm of a host without a record for so many seconds."""
    return Alarm(AlarmKind.SILENT, f"no record for {age_text(seconds)}", Severity.ALARM)


def coverage_alarms(coverage: Coverage) -> Iterator[Alarm]:
    """Yield the note of what could not be read."""
    gaps = list(coverage.missing)
    if coverage.unreadable:
        gaps[:1] = [f"{counted(coverage.unreadable, 'process')} not read"]
    if not gaps:
        return
    text = safe(gaps[0])
    if len(gaps) > 1:
        text += f"; {counted(len(gaps) - 1, 'more gap')}"
    yield Alarm(AlarmKind.COVERAGE, text, Severity.NOTE)


def ranked(found: Iterable[Alarm]) -> list[Alarm]:
    """Return alarms, the most important kind first, but one of each kind before the second of any:
    many of one kind do not hide the others. Those of a kind keep their order."""
    ranks: Counter[AlarmKind] = Counter()
    places: list[tuple[int, int, Alarm]] = []
    for one in found:
        places.append((ranks[one.kind], _KINDS.index(one.kind), one))
        ranks[one.kind] += 1
    return [one for _, _, one in sorted(places, key=itemgetter(0, 1))]


def of_host(alarm: Alarm, host: str) -> Alarm:
    """Return an alarm that names its host."""
    return alarm._replace(text=f"{safe(host)}: {alarm.text}")


def _process(row: GroupRow) -> str:
    return "?" if row.pid is None else f"{safe(row.title or '?')}[{row.pid}]"
