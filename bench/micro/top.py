"""The live screen with 20,500 holdings, 200 changes and four frames a second."""

from __future__ import annotations

from itertools import count

from agent.model import Closed, Holding, Opened
from agent.publish.top.keys import KEYS
from agent.publish.top.model import Grouping
from agent.publish.top.watch import Watch
from agent.stream.decoder import Decoded
from agent.stream.history import FullSnapshot
from agent.stream.state import State

from .terminal import web_server
from .timing import Pair

_HOST, _START = "web1", 1.7e9
_CHANGES = 50  # Of a quarter of a second.


def _snapshot() -> FullSnapshot:
    return FullSnapshot(1, 0, _START, tuple(one.holding for one in web_server()))


class _Changes:
    """Opens and closes of connections of a machine, a quarter of a second at each call."""

    def __init__(self) -> None:
        self._holdings = [one.holding for one in web_server()][-10_000:]
        self._numbers = count()

    def next(self) -> tuple[float, list[Decoded]]:
        """Return the time, and its changes."""
        number = next(self._numbers)
        time = _START + number / 4
        records: list[Decoded] = []
        for at in range(number * _CHANGES // 2, (number + 1) * _CHANGES // 2):
            held = self._opened(at)
            for value in (Opened(held), Closed(held, "closed", 0.1)):
                records.append(Decoded(_HOST, len(records), time, value))
        return time, records

    def _opened(self, number: int) -> Holding:
        held = self._holdings[number % len(self._holdings)]
        return held._replace(socket=held.socket._replace(inode=10**6 + number))


def _watch() -> Watch:
    watch = Watch(one_clock=True)
    watch.apply_message(_HOST, _snapshot())
    watch.header(_START)
    return watch


def top_apply() -> Pair:
    """Apply changes to the groups of a screen; fold them only. Per change."""
    watch, changes = _watch(), _Changes()
    state, others = State(), _Changes()
    state.apply_message(_HOST, _snapshot())

    def apply() -> None:
        for record in changes.next()[1]:
            watch.apply(record)

    def fold() -> None:
        for record in others.next()[1]:
            state.apply(record)

    return Pair(apply, fold, _CHANGES)


def _walk(state: State, grouping: Grouping) -> dict[object, list[int]]:
    """Count the sockets of each group plainly."""
    found: dict[object, list[int]] = {}
    for one in state.holdings():
        counts = found.setdefault(KEYS[grouping](one.host, one.holding), [0, 0])
        counts[0] += one.holding.socket.direction == "inbound"
        counts[1] += one.holding.socket.direction == "outbound"
    return found


def top_groups() -> Pair:
    """Apply a quarter of a second to the groups and return their rows; walk all holdings."""
    watch, changes = _watch(), _Changes()
    state, others = State(), _Changes()
    state.apply_message(_HOST, _snapshot())

    def rows() -> None:
        time, records = changes.next()
        for record in records:
            watch.apply(record)
        watch.groups(Grouping.PROCESS, time)

    def walk() -> None:
        for record in others.next()[1]:
            state.apply(record)
        _walk(state, Grouping.PROCESS)

    return Pair(rows, walk)


def top_frame() -> Pair:
    """Make all that a frame shows after a quarter of a second; the rows only."""
    watch, changes = _watch(), _Changes()
    other, others = _watch(), _Changes()

    def frame() -> None:
        time, records = changes.next()
        for record in records:
            watch.apply(record)
        watch.groups(Grouping.PROCESS, time)
        watch.header(time)
        watch.alarms(time)

    def rows() -> None:
        time, records = others.next()
        for record in records:
            other.apply(record)
        other.groups(Grouping.PROCESS, time)

    return Pair(frame, rows)


def top_first_frame() -> Pair:
    """Take a snapshot of 20,500 holdings and count it; fold it only."""
    snapshot = _snapshot()

    def first() -> None:
        watch = Watch(one_clock=True)
        watch.apply_message(_HOST, snapshot)
        watch.groups(Grouping.PROCESS, _START)

    return Pair(first, lambda: State().apply_message(_HOST, snapshot))


BENCHMARKS = (top_apply, top_groups, top_frame, top_first_frame)
