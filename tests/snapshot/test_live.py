"""Connections that wait to be looked up before the next poll."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace.connections import Endpoints, Started
from agent.snapshot import live
from agent.snapshot.live import (
    LOOKUPS_PER_SECOND,
    MAX_ATTEMPTS,
    MAX_WAITING,
    MIN_AGE_SECONDS,
    LiveConnections,
)

NOW = 1000.0


def connection(port: int = 4000, state: int = 1) -> Started:
    ends = Endpoints(2, bytes(16), port, bytes(16), 80)
    return Started(ends, state, "client", None, 5, 5)


def ports(due: list[Started]) -> list[int]:
    return [one.ends.local_port for one in due]


def test_a_connection_is_looked_up_when_it_has_lasted_for_a_while() -> None:
    waiting = LiveConnections()
    waiting.add([connection()], NOW)
    assert waiting.is_waiting
    assert waiting.due(NOW + MIN_AGE_SECONDS / 2) == []
    assert waiting.due(NOW + 2 * MIN_AGE_SECONDS) == [connection()]


def test_a_connection_that_ended_is_not_looked_up() -> None:
    waiting = LiveConnections()
    waiting.add([connection(), connection(4001)], NOW)
    waiting.drop([connection().ends, connection(9).ends])
    assert ports(waiting.due(NOW + 1)) == [4001]


def test_a_poll_looks_up_all_that_wait() -> None:
    waiting = LiveConnections()
    waiting.add([connection()], NOW)
    waiting.clear()
    assert not waiting.is_waiting
    assert waiting.due(NOW + 1) == []


def test_a_connection_is_looked_up_a_few_times_with_longer_pauses() -> None:
    waiting = LiveConnections()
    waiting.add([connection()], NOW)
    times = [
        number for number in range(1, 100)
        if waiting.due(NOW + number * MIN_AGE_SECONDS * 0.3)
    ]  # fmt: skip
    assert len(times) == MAX_ATTEMPTS == 3
    assert times == [4, 7, 11]  # In units of 0.3 of the age: after 1, 2 and 3 of it.
    assert not waiting.is_waiting


def test_a_later_change_is_looked_up_anew() -> None:
    waiting = LiveConnections()
    waiting.add([connection()], NOW)
    waiting.due(NOW + 1)
    shut = connection(state=8)
    waiting.add([shut], NOW + 1)
    assert waiting.due(NOW + 1) == []
    assert waiting.due(NOW + 2) == [shut]


def test_lookups_per_second_are_bounded() -> None:
    waiting = LiveConnections()
    waiting.add(map(connection, range(900)), NOW)
    first = waiting.due(NOW + 1)
    assert len(first) == LOOKUPS_PER_SECOND
    assert not waiting.is_waiting
    assert waiting.due(NOW + 1) == []
    assert len(waiting.due(NOW + 1.5)) == LOOKUPS_PER_SECOND / 2


def test_unused_lookups_are_not_saved() -> None:
    waiting = LiveConnections()
    waiting.due(NOW)
    waiting.add(map(connection, range(900)), NOW)
    assert len(waiting.due(NOW + 3600)) == LOOKUPS_PER_SECOND


def test_what_waits_is_bounded() -> None:
    waiting = LiveConnections()
    waiting.add(map(connection, range(2 * MAX_WAITING)), NOW)
    assert len(waiting._waiting) == MAX_WAITING


times = st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 8), st.integers(0, 8)), max_size=60)


@given(times)
def test_no_more_is_due_than_allowed(steps: list[tuple[float, int, int]]) -> None:
    waiting, now, count = LiveConnections(), NOW, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "LOOKUPS_PER_SECOND", 10)
        waiting = LiveConnections()
        for after, added, ended in steps:
            now += after
            waiting.add(map(connection, range(added)), now)
            waiting.drop(connection(port).ends for port in range(ended))
            due = waiting.due(now)
            count += len(due)
            assert len(set(ports(due))) == len(due)
            assert not set(ports(due)) & set(range(ended))
            assert count <= 10 + 10 * (now - NOW) + 1e-6
