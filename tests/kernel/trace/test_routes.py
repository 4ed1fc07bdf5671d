"""Processes that sent datagrams."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace import routes
from agent.kernel.trace.events import Exited, RouteLookup
from agent.kernel.trace.routes import KEEP_NS, MAX_OF_PORT, MAX_PER_SECOND, RouteTable, Sender
from agent.kernel.trace.tasks import Task, TaskTable

ANY, LOOPBACK = bytes(10) + b"\xff\xff\0\0\0\0", bytes(10) + b"\xff\xff\x7f\0\0\1"
BEGIN = 10**12
SECOND = 10**9
SOFT_INTERRUPT = 0x10
PIDS = {100: 100, 101: 100, 200: 200, 300: 0}  # Thread → process; 300 is the kernel's.


def lookup(
    port: int = 4000, tid: int = 100, time: int = BEGIN, to: int = 53, flags: int = 0
) -> RouteLookup:
    return RouteLookup(time, flags, tid, socket.AF_INET, 17, port, to, ANY, LOOPBACK)


def table() -> RouteTable:
    return tables()[0]


def tables() -> tuple[RouteTable, TaskTable]:
    tasks = TaskTable(lambda _tid: None)
    tasks.reset(PIDS)
    return RouteTable(tasks), tasks


def added(*events: RouteLookup) -> RouteTable:
    made = table()
    for event in events:
        made.add(event)
    return made


def sender(pid: int = 100, time: int = BEGIN, to: int = 53) -> Sender:
    return Sender(Task(pid), time, socket.AF_INET, ANY, LOOPBACK, to)


def test_a_process_is_known_by_the_port_from_which_its_threads_send() -> None:
    made = added(lookup(), lookup(tid=101, time=BEGIN + 1), lookup(5000, tid=200))
    assert made.senders_of(4000) == [sender()]
    assert made.senders_of(5000) == [sender(200)]
    assert made.senders_of(6000) == []


@pytest.mark.parametrize(
    "event", [lookup(tid=300), lookup(tid=999), lookup(flags=SOFT_INTERRUPT), lookup(0)]
)
def test_who_does_not_act_is_no_sender(event: RouteLookup) -> None:
    made = added(event)
    assert len(made) == 0
    assert made.senders_of(event.local_port) == []


def test_each_destination_and_each_process_counts() -> None:
    made = added(lookup(), lookup(to=54), lookup(tid=200))
    assert sorted(made.senders_of(4000)) == [sender(), sender(to=54), sender(200)]
    made.forget(4000, {sender().process, (300, None)})
    assert made.senders_of(4000) == [sender(200)]
    made.forget(4000, {sender(200).process})
    made.forget(4000, {sender(200).process})
    assert (len(made), made.senders_of(4000)) == (0, [])


def test_of_the_same_destination_the_first_look_up_is_remembered() -> None:
    made = added(*(lookup(time=BEGIN + number) for number in range(5)))
    assert made.senders_of(4000) == [sender()]
    assert len(made) == 1
    made.expire(BEGIN + 5 + KEEP_NS)
    made.expire(BEGIN + 6 + KEEP_NS)
    made.add(lookup(time=BEGIN + 7))  # The first one is too old.
    assert made.senders_of(4000) == [sender(time=BEGIN + 7)]


def test_a_port_of_which_nothing_was_remembered_is_news() -> None:
    made = added(lookup())
    news = [made.has_news]
    for event in (None, lookup(tid=200, time=BEGIN + 2), lookup(5000, time=BEGIN + 2)):
        if event is None:
            made.expire(BEGIN + 1)
        else:
            made.add(event)
        news.append(made.has_news)
    assert news == [True, False, False, True]


def test_of_one_port_the_newest_destinations_are_remembered() -> None:
    made = added(*(lookup(to=number + 1) for number in range(MAX_OF_PORT + 1)))
    kept = [one.remote_port for one in made.senders_of(4000)]
    assert kept == list(range(MAX_OF_PORT // 2 + 1, MAX_OF_PORT + 2))
    assert len(made) == len(kept)


def test_a_process_that_exited_is_marked() -> None:
    made, tasks = tables()
    made.add(lookup())
    tasks.handle(Exited(BEGIN + 1, 0, 100, 100))
    made.expire(BEGIN)
    assert made.senders_of(4000) == [sender()]
    made.expire(BEGIN + 2)
    assert made.senders_of(4000) == [sender()._replace(exited=True)]


def test_senders_are_kept_for_the_next_report_of_ends_however_late_it_is() -> None:
    made = added(lookup(), lookup(5000, time=BEGIN + 1))
    made.expire(BEGIN + 2)
    made.expire(BEGIN + 100 * KEEP_NS)
    assert len(made) == 2
    made.expire(BEGIN + 100 * KEEP_NS)
    assert len(made) == 0


def test_a_sender_is_kept_for_notices_that_are_late() -> None:
    made = added(lookup(), lookup(5000, time=BEGIN + 1))
    made.expire(BEGIN + 1 + KEEP_NS)
    made.expire(BEGIN + 2 + KEEP_NS)
    assert made.senders_of(4000) == []
    assert made.senders_of(5000) == [sender(time=BEGIN + 1)]


def test_an_old_sender_of_a_port_that_is_used_again_is_not_returned() -> None:
    made = added(lookup(), lookup(tid=200, time=BEGIN + 1))
    made.expire(BEGIN + 1 + KEEP_NS)
    made.expire(BEGIN + 2 + KEEP_NS)
    assert made.senders_of(4000) == [sender(200, time=BEGIN + 1)]


def test_the_oldest_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_SENDERS", 10)
    monkeypatch.setattr(routes, "_DROPPED", 2)
    made = added(*(lookup(port) for port in range(1, 12)))
    assert len(made) == 9
    assert [port for port in range(1, 12) if not made.senders_of(port)] == [1, 2]


def test_too_many_in_a_second_are_not_remembered() -> None:
    assert not added(*[lookup()] * MAX_PER_SECOND).is_flooded
    made = added(*[lookup()] * MAX_PER_SECOND, lookup(time=BEGIN + SECOND - 1))
    assert made.is_flooded
    made.add(lookup(time=BEGIN + 5 * SECOND))
    assert (len(made), made.senders_of(4000)) == (0, [])
    made.resume()
    made.add(lookup(time=BEGIN + 5 * SECOND))
    assert len(made) == 1


def test_seconds_are_counted_one_by_one() -> None:
    half = MAX_PER_SECOND // 2 + 1
    made = added(
        *(lookup(time=BEGIN + second * SECOND) for second in range(3) for _ in range(half))
    )
    assert not made.is_flooded


events = st.builds(
    lookup,
    st.integers(0, 3),
    st.sampled_from([*PIDS, 999]),
    st.just(BEGIN),
    st.integers(1, 2),
    st.sampled_from([0, SOFT_INTERRUPT]),
)


@given(st.lists(st.tuples(events, st.none() | st.integers(0, 3)), max_size=40))
def test_the_index_of_ports_agrees_with_the_senders(
    steps: list[tuple[RouteLookup, int | None]],
) -> None:
    made = table()
    expected: dict[int, set[tuple[int, int]]] = {}
    for number, (event, forgotten) in enumerate(steps):
        made.add(event._replace(time=BEGIN + number))
        pid = PIDS.get(event.tid)
        if pid and event.local_port and not event.flags:
            expected.setdefault(event.local_port, set()).add((pid, event.remote_port))
        if forgotten is not None:
            made.forget(forgotten, {(100, None)})
            left = {(pid, to) for pid, to in expected.get(forgotten, ()) if pid != 100}
            expected[forgotten] = left
    for port in range(4):
        found = {(one.task.pid, one.remote_port) for one in made.senders_of(port)}
        assert found == expected.get(port, set())
    assert len(made) == sum(len(made.senders_of(port)) for port in range(4))
