"""Finds the alarms of all hosts. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ...model import Coverage
from . import alarms
from .alarms import Churn, Growth, LostChanges
from .groups import Queues
from .model import Alarm, Grouping, GroupKey, GroupRow
from .rates import SILENT_SECONDS, Clocks
from .table import Table

# Newest losses that are kept.
_MAX_LOST = 100


class AlarmMonitor:
    """Keeps what alarms need besides groups: growth, the usual churn, and what was lost."""

    def __init__(self) -> None:
        self._growth: dict[GroupKey, Growth] = {}
        self._churn: dict[str, Churn] = {}
        self._lost: deque[LostChanges] = deque(maxlen=_MAX_LOST)

    def begin(self, host: str, time: float) -> None:
        """Note the time of the first record of a host."""
        self._churn[host] = Churn(time)

    def open(self, host: str, time: float) -> None:
        """Count an open."""
        self._churn[host].open(time)

    def drop(self, lost: LostChanges) -> None:
        """Note that changes are missing."""
        self._lost.append(lost)

    def process_alarms(
        self, processes: Table, clocks: Clocks, queues: Queues, now: float
    ) -> list[Alarm]:
        """Return the alarms of processes, whose rows were made for this time."""
        found = [
            *self._close_wait_alarms(processes, clocks, now),
            *alarms.queue_alarms(processes.full_queues(queues)),
        ]
        if not self._is_several():
            return found
        return [alarms.of_host(one, one.group.host) if one.group else one for one in found]

    def host_alarms(
        self,
        host: str,
        coverage: Coverage | None,
        hosts: Table,
        processes: Table,
        clocks: Clocks,
    ) -> list[Alarm]:
        """Return the alarms of a host."""
        now = clocks.of(host)
        found = [*self._churn_alarms(host, hosts, processes, now)]
        found += alarms.lost_alarms([
            one for one in self._lost
            if one.host == host and abs(now - one.time) < alarms.LOST_SECONDS
        ])  # fmt: skip
        silence = clocks.silence(host)
        if silence > SILENT_SECONDS:
            found.append(alarms.silent_alarm(silence))
        if coverage is not None:
            found += alarms.coverage_alarms(coverage)
        return [alarms.of_host(one, host) for one in found] if self._is_several() else found

    def _is_several(self) -> bool:
        return len(self._churn) > 1

    def _close_wait_alarms(self, processes: Table, clocks: Clocks, now: float) -> Iterator[Alarm]:
        waiting = sorted(processes.close_waiting(), key=lambda one: -one[0].close_wait)
        self._growth = {
            row.key: alarms.grown(self._growth.get(row.key), row.close_wait, now)
            for row, _oldest in waiting
        }
        for row, oldest in waiting:
            host_now = clocks.of(row.key.host)
            growth = self._growth[row.key]
            alarm = alarms.close_wait_alarm(row, oldest, growth, host_now, now)
            if alarm is not None:
                yield alarm

    def _churn_alarms(
        self, host: str, hosts: Table, processes: Table, now: float
    ) -> Iterator[Alarm]:
        rates = hosts.rates(GroupKey(Grouping.HOST, host))
        usual = self._churn[host].usual(now)
        if rates is None or usual is None:
            return
        opens = rates.opens_within(int(now), alarms.CHURN_SECONDS) / alarms.CHURN_SECONDS
        if alarms.is_storm(opens, usual):
            yield alarms.churn_alarm(opens, usual, _busiest(host, processes))


def _busiest(host: str, processes: Table) -> GroupRow | None:
    rows = [row for row in processes.known_rows() if row.key.host == host]
    return max(rows, key=lambda row: row.opens_per_s, default=None)
