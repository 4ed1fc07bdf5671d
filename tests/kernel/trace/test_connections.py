"""Connections and the processes that opened and closed them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace import connections
from agent.kernel.trace.connections import (
    CLIENT,
    CLOSE,
    CONNECT,
    LISTENER,
    SERVER,
    ConnectionReport,
    ConnectionTable,
    Finished,
    Started,
)
from agent.kernel.trace.events import (
    Destroyed,
    Event,
    Exited,
    RouteLookup,
    StateChange,
    TaskCreated,
)
from agent.kernel.trace.tasks import Task, TaskTable

from . import history
from .captured import having
from .history import (
    CLOSE_WAIT,
    ESTABLISHED,
    FIN_WAIT1,
    FIRST_TIME,
    KWORKER,
    LAST_ACK,
    LISTEN,
    SOFT_INTERRUPT,
    SYN_RECV,
    SYN_SENT,
    History,
    change,
    destroyed,
)
from .test_recorded import recorded

CLOSED = history.CLOSE
CLIENT_PORTS, SERVER_PORTS = (4000, 80), (80, 4000)
CLIENT_PID, SERVER_PID, OTHER_PID = 100, 200, 300


class Tables:
    """Both tables, with processes that procfs showed."""

    def __init__(self, *events: Event) -> None:
        self.tasks = TaskTable(lambda _tid: None)
        pids = {pid: pid for pid in (CLIENT_PID, SERVER_PID, OTHER_PID)}
        self.tasks.reset(pids | {KWORKER: 0, CLIENT_PID + 1: CLIENT_PID})
        self.connections = ConnectionTable(self.tasks)
        self.use(*events)

    def use(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, StateChange):
                self.connections.change(event)
            elif isinstance(event, Destroyed):
                self.connections.destroy(event)
            elif not isinstance(event, RouteLookup):
                self.tasks.handle(event)


def finished(*events: Event) -> Finished:
    """Return the only socket that these events end."""
    (one,) = Tables(*events).connections.take().finished
    return one


def pid_of(*events: Event) -> int | None:
    task = finished(*events).task
    return None if task is None else task.pid


def connected(ports: tuple[int, int] = CLIENT_PORTS, **fields: int) -> list[Event]:
    """Return the events of a client of CLIENT_PID that is established."""
    return [
        change(CLOSED, SYN_SENT, (0, ports[1]), **fields),
        change(SYN_SENT, ESTABLISHED, ports, **{**fields, "flags": SOFT_INTERRUPT, "tid": 999}),
    ]


def accepted(ports: tuple[int, int] = SERVER_PORTS, **fields: int) -> StateChange:
    return change(SYN_RECV, ESTABLISHED, ports, flags=SOFT_INTERRUPT, tid=CLIENT_PID, **fields)


# What events show of one connection.


def test_a_client_is_reported_with_the_process_that_connected() -> None:
    events: list[Event] = [
        *connected(tid=CLIENT_PID + 1),
        change(ESTABLISHED, FIN_WAIT1, time=FIRST_TIME + 5, tid=CLIENT_PID + 1),
        destroyed(7, time=FIRST_TIME + 9),
    ]
    one = finished(*events)
    assert one == Finished(
        7, one.ends, CLIENT, Task(CLIENT_PID), CONNECT, FIRST_TIME, FIRST_TIME + 5, False
    )
    assert (one.ends.local_port, one.ends.remote_port) == CLIENT_PORTS


def test_a_server_is_reported_with_the_process_that_closed_it() -> None:
    events: list[Event] = [
        accepted(),
        change(CLOSE_WAIT, LAST_ACK, SERVER_PORTS, time=FIRST_TIME + 5, tid=SERVER_PID),
        destroyed(7, SERVER_PORTS, time=FIRST_TIME + 9),
    ]
    one = finished(*events)
    assert one == Finished(
        7, one.ends, SERVER, Task(SERVER_PID), CLOSE, FIRST_TIME, FIRST_TIME + 5, False
    )


def test_an_interrupt_shows_the_process_of_the_peer_and_not_the_holder() -> None:
    soft = {"flags": SOFT_INTERRUPT, "tid": CLIENT_PID}
    assert pid_of(
        accepted(),
        change(ESTABLISHED, CLOSE_WAIT, SERVER_PORTS, **soft),
        change(CLOSE_WAIT, CLOSED, SERVER_PORTS, **soft),
        destroyed(7, SERVER_PORTS, **soft),
    ) is None  # fmt: skip


@pytest.mark.parametrize("flags", [0x08, 0x10, 0x18, 0x40, 0x90, 0xB4])
def test_every_kind_of_interrupt_is_no_process(flags: int) -> None:
    events: list[Event] = [accepted(), destroyed(7, SERVER_PORTS, flags=flags, tid=CLIENT_PID)]
    assert pid_of(*events) is None


@pytest.mark.parametrize("flags", [0, 0x04, 0x20, 0x24, 0x80, 0xA4])
def test_other_flags_are_of_a_process(flags: int) -> None:
    events: list[Event] = [accepted(), destroyed(7, SERVER_PORTS, flags=flags, tid=SERVER_PID)]
    assert pid_of(*events) == SERVER_PID


def test_the_local_port_of_a_client_comes_after_syn_sent() -> None:
    (started,) = Tables(*connected()).connections.take().started
    assert (started.ends.local_port, started.ends.remote_port) == CLIENT_PORTS
    assert started.task == Task(CLIENT_PID)


def test_a_connection_attempt_that_fails_has_its_process() -> None:
    """The port is chosen, and the socket is never established."""
    one = finished(
        change(CLOSED, SYN_SENT, (0, 80), tid=CLIENT_PID),
        change(SYN_SENT, CLOSED, time=FIRST_TIME + 5, tid=CLIENT_PID),
        destroyed(7, flags=0, tid=CLIENT_PID, time=FIRST_TIME + 6),
    )
    assert (one.role, one.task, one.evidence) == (CLIENT, Task(CLIENT_PID), CONNECT)
    assert one.opened == FIRST_TIME
    assert (one.ends.local_port, one.ends.remote_port) == CLIENT_PORTS


def test_a_connection_attempt_that_fails_in_an_interrupt_has_its_process() -> None:
    one = finished(change(CLOSED, SYN_SENT, (0, 80), tid=CLIENT_PID), destroyed(7))
    assert (one.role, one.task) == (CLIENT, Task(CLIENT_PID))
    assert (one.ends.local_port, one.ends.remote_port) == CLIENT_PORTS


def test_a_second_connect_on_a_socket_begins_a_new_connection() -> None:
    table = Tables(
        *connected(),
        change(ESTABLISHED, CLOSED, tid=CLIENT_PID),
        *connected((4001, 81), time=FIRST_TIME + 50, tid=OTHER_PID),
        destroyed(7, (4001, 81), time=FIRST_TIME + 99),
    )
    (one,) = table.connections.take().finished
    assert (one.task, one.opened) == (Task(OTHER_PID), FIRST_TIME + 50)
    assert (one.ends.local_port, one.ends.remote_port) == (4001, 81)


def test_a_reset_clears_the_remote_port_before_the_end() -> None:
    one = finished(
        accepted(),
        change(ESTABLISHED, CLOSED, SERVER_PORTS, tid=SERVER_PID),
        destroyed(7, (80, 0), flags=0, tid=SERVER_PID),
    )
    assert (one.task, one.role) == (Task(SERVER_PID), SERVER)
    assert (one.ends.local_port, one.ends.remote_port) == SERVER_PORTS


@pytest.mark.parametrize("end", [CLOSED, LAST_ACK])
def test_a_thread_of_the_kernel_is_not_the_holder(end: int) -> None:
    """It closes sockets in direct descriptors of io_uring, and those of MPTCP."""
    assert pid_of(
        accepted(),
        change(CLOSE_WAIT, end, SERVER_PORTS, tid=KWORKER),
        destroyed(7, SERVER_PORTS, flags=0, tid=KWORKER),
    ) is None  # fmt: skip


def test_a_program_that_kills_a_connection_is_not_its_holder() -> None:
    """ss --kill changes the state; the holder destroys the socket later."""
    assert pid_of(
        accepted(),
        change(ESTABLISHED, CLOSED, SERVER_PORTS, flags=0x80, tid=OTHER_PID),
        destroyed(7, SERVER_PORTS, flags=0, tid=SERVER_PID),
    ) == SERVER_PID  # fmt: skip


@pytest.mark.parametrize("tid", [KWORKER, 5555])
def test_a_program_that_kills_is_not_the_holder_where_that_is_unknown(tid: int) -> None:
    assert pid_of(
        accepted(),
        change(ESTABLISHED, CLOSED, SERVER_PORTS, flags=0x80, tid=OTHER_PID),
        destroyed(7, SERVER_PORTS, flags=0, tid=tid),
    ) is None  # fmt: skip


def test_an_abort_is_evidence_where_nothing_else_is() -> None:
    assert pid_of(
        accepted(),
        change(ESTABLISHED, CLOSED, SERVER_PORTS, tid=SERVER_PID),
        destroyed(7, SERVER_PORTS),
    ) == SERVER_PID  # fmt: skip


def test_a_process_exits_before_it_closes() -> None:
    for exit_time, is_exited in ((FIRST_TIME + 4, True), (FIRST_TIME + 6, False)):
        tables = Tables(accepted())
        exited = Exited(exit_time, 0, SERVER_PID, SERVER_PID)
        closing = change(
            CLOSE_WAIT, LAST_ACK, SERVER_PORTS, time=FIRST_TIME + 5, tid=SERVER_PID
        )  # fmt: skip
        both: list[Event] = [exited, closing]
        tables.use(*sorted(both, key=lambda event: event.time))
        tables.use(destroyed(7, SERVER_PORTS, time=FIRST_TIME + 9))
        (one,) = tables.connections.take().finished
        assert (one.task, one.exited) == (Task(SERVER_PID), is_exited)


def test_a_thread_without_an_entry_has_no_process() -> None:
    assert pid_of(change(CLOSED, SYN_SENT, (0, 80), tid=5555), destroyed(7)) is None


def test_the_end_of_a_connection_is_of_the_process_that_held_its_pid_then() -> None:
    one = finished(
        *connected(),
        Exited(FIRST_TIME + 1, 0, CLIENT_PID, CLIENT_PID),
        change(ESTABLISHED, FIN_WAIT1, time=FIRST_TIME + 2, tid=CLIENT_PID),
        TaskCreated(FIRST_TIME + 3, 0, OTHER_PID, CLIENT_PID, b"new", 0x11),
        destroyed(7, time=FIRST_TIME + 4),
    )
    assert one.task == Task(CLIENT_PID)  # Without the name of the new one.


def test_a_child_that_nobody_accepted_ends_with_its_listener() -> None:
    table = Tables(
        change(CLOSED, LISTEN, (80, 0), address=2, tid=OTHER_PID),
        accepted(),
        change(LISTEN, CLOSED, (80, 0), address=2, tid=SERVER_PID),
        destroyed(8, SERVER_PORTS, flags=0, tid=SERVER_PID),
        destroyed(9, (80, 0), address=2, flags=0x80, tid=SERVER_PID),
    )
    child, listener = table.connections.take().finished
    assert (child.role, child.task, child.evidence) == (SERVER, Task(SERVER_PID), CLOSE)
    assert (listener.role, listener.task, listener.evidence) == (LISTENER, Task(OTHER_PID), CONNECT)


def test_the_last_holder_is_reported_where_a_parent_closes_late() -> None:
    """Parent and child hold the connection; the child exits first."""
    assert pid_of(
        accepted(),
        TaskCreated(FIRST_TIME, 0, SERVER_PID, 201, b"child", 0x11),
        Exited(FIRST_TIME + 1, 0, 201, 201),
        change(ESTABLISHED, FIN_WAIT1, SERVER_PORTS, time=FIRST_TIME + 20, tid=SERVER_PID),
        destroyed(7, SERVER_PORTS, time=FIRST_TIME + 30),
    ) == SERVER_PID  # fmt: skip


def test_a_second_close_does_not_replace_the_first() -> None:
    one = finished(
        accepted(),
        change(ESTABLISHED, FIN_WAIT1, SERVER_PORTS, time=FIRST_TIME + 1, tid=SERVER_PID),
        change(FIN_WAIT1, FIN_WAIT1, SERVER_PORTS, time=FIRST_TIME + 2, tid=OTHER_PID),
        destroyed(7, SERVER_PORTS, time=FIRST_TIME + 3),
    )
    assert one.task == Task(SERVER_PID)


def test_transitions_of_mptcp_to_the_same_state_change_nothing() -> None:
    tables = Tables(change(CLOSED, LISTEN, (80, 0), tid=SERVER_PID))
    assert len(tables.connections.take().started) == 1
    tables.use(
        change(LISTEN, LISTEN, (80, 0), time=FIRST_TIME + 1, tid=OTHER_PID),
        change(CLOSED, CLOSED, (0, 0), address=9, tid=OTHER_PID),
    )
    assert tables.connections.take().started == []
    tables.use(destroyed(7, (80, 0)), destroyed(8, (0, 0), address=9))
    (one,) = tables.connections.take().finished
    assert (one.role, one.task, one.opened) == (LISTENER, Task(SERVER_PID), FIRST_TIME)


def test_the_same_ends_in_two_namespaces_are_two_connections() -> None:
    tables = Tables(
        *connected(address=1),
        *connected(address=2, tid=OTHER_PID),
        destroyed(7, address=1),
        destroyed(8, address=2),
    )
    found = {one.cookie: one.task for one in tables.connections.take().finished}
    assert found == {7: Task(CLIENT_PID), 8: Task(OTHER_PID)}


def test_a_socket_that_was_never_bound_is_not_reported() -> None:
    assert Tables(destroyed(7, (0, 0), flags=0)).connections.take().finished == []


def test_a_connection_that_is_older_than_the_events_is_reported_with_its_closer() -> None:
    one = finished(change(ESTABLISHED, FIN_WAIT1, tid=CLIENT_PID), destroyed(7))
    assert (one.role, one.task, one.evidence, one.opened) == (None, Task(CLIENT_PID), CLOSE, None)


# Addresses that are used again after events were lost.


def lost(tables: Tables, time: int = FIRST_TIME) -> None:
    tables.connections.note_loss(time)


def test_other_ports_than_those_of_the_address_drop_its_evidence() -> None:
    assert pid_of(*connected(), destroyed(7, (4001, 80))) is None
    assert pid_of(*connected(), destroyed(7, (4000, 81))) is None


def test_a_listener_whose_predecessors_end_was_lost_has_its_own_process() -> None:
    assert pid_of(
        change(CLOSED, LISTEN, (80, 0), tid=OTHER_PID),
        change(CLOSED, LISTEN, (80, 0), tid=SERVER_PID),
        destroyed(7, (80, 0)),
    ) == SERVER_PID  # fmt: skip


def test_an_accepted_connection_has_nothing_of_one_with_the_same_ends() -> None:
    tables = Tables(
        accepted(),
        change(ESTABLISHED, FIN_WAIT1, SERVER_PORTS, tid=OTHER_PID),
        accepted(time=FIRST_TIME + 5),
        destroyed(7, SERVER_PORTS, time=FIRST_TIME + 9),
    )
    (one,) = tables.connections.take().finished
    assert (one.task, one.opened) == (None, FIRST_TIME + 5)


def test_a_client_has_nothing_of_one_with_the_same_ends() -> None:
    first = [*connected(), change(ESTABLISHED, FIN_WAIT1, tid=CLIENT_PID)]
    assert pid_of(*first, connected()[1], destroyed(7)) is None


def test_the_closer_of_another_connection_at_the_address_is_not_used() -> None:
    """Of a server all connections have the same local port."""
    assert pid_of(
        accepted(),
        change(CLOSE_WAIT, LAST_ACK, SERVER_PORTS, tid=OTHER_PID),
        change(ESTABLISHED, CLOSED, (80, 4001), tid=SERVER_PID),
        destroyed(7, (80, 0)),
    ) == SERVER_PID  # fmt: skip


def test_events_that_were_lost_while_a_client_connected_leave_it_without_evidence() -> None:
    """The port is not known before: another connection to the same port may be at the address."""
    began, established = connected()
    for when, pid in ((FIRST_TIME - 1, CLIENT_PID), (FIRST_TIME, None)):
        tables = Tables(began)
        lost(tables, when)
        tables.use(established, destroyed(7))
        (one,) = tables.connections.take().finished
        assert (one.task and one.task.pid) == pid
        assert one.role == CLIENT


def test_events_that_were_lost_before_a_connection_failed_leave_it_without_evidence() -> None:
    tables = Tables(connected()[0])
    lost(tables)
    tables.use(destroyed(7))
    (one,) = tables.connections.take().finished
    assert (one.role, one.task, one.ends.local_port) == (None, None, 4000)


def test_a_loss_does_not_touch_connections_with_known_ports() -> None:
    tables = Tables(*connected())
    lost(tables)
    tables.use(destroyed(7))
    (one,) = tables.connections.take().finished
    assert one.task == Task(CLIENT_PID)


def test_after_a_loss_a_listener_is_of_the_process_that_closes_it() -> None:
    """Another listener with this port may have been at the address meanwhile."""
    tables = Tables(change(CLOSED, LISTEN, (80, 0), tid=OTHER_PID))
    lost(tables)
    ending = change(LISTEN, CLOSED, (80, 0), time=FIRST_TIME + 5, tid=SERVER_PID)
    tables.use(ending, destroyed(7, (80, 0)))
    (one,) = tables.connections.take().finished
    assert (one.role, one.task, one.opened) == (LISTENER, Task(SERVER_PID), None)


def test_after_a_loss_a_cleared_port_does_not_show_which_connection_it_was() -> None:
    tables = Tables(accepted(), change(CLOSE_WAIT, LAST_ACK, SERVER_PORTS, tid=OTHER_PID))
    lost(tables)
    tables.use(destroyed(7, (80, 0)))
    (one,) = tables.connections.take().finished
    assert (one.task, one.ends.remote_port) == (None, 0)


# What is reported of connections that have not ended.


def started(*events: Event) -> list[Started]:
    return list(Tables(*events).connections.take().started)


def test_a_connection_is_reported_when_it_is_established() -> None:
    assert started(connected()[0]) == []
    (client,) = started(*connected())
    assert (client.role, client.state, client.opened) == (CLIENT, ESTABLISHED, FIRST_TIME)
    (server,) = started(accepted())
    assert (server.role, server.task, server.opened) == (SERVER, None, FIRST_TIME)


def test_a_connection_that_the_peer_shut_down_is_reported_again() -> None:
    tables = Tables(accepted())
    tables.connections.take()
    shut = change(
        ESTABLISHED, CLOSE_WAIT, SERVER_PORTS, flags=SOFT_INTERRUPT, time=FIRST_TIME + 5
    )  # fmt: skip
    tables.use(shut)
    assert tables.connections.has_news
    (one,) = tables.connections.take().started
    assert (one.state, one.time) == (CLOSE_WAIT, FIRST_TIME + 5)
    tables.use(shut._replace(old=CLOSE_WAIT))
    assert not tables.connections.has_news


def test_a_connection_that_has_ended_is_not_reported_to_have_begun() -> None:
    report = Tables(*connected(), destroyed(7)).connections.take()
    assert report.started == []
    assert len(report.finished) == 1


def test_nothing_is_reported_twice() -> None:
    tables = Tables(*connected(), *connected((4001, 80), address=2), destroyed(7, address=1))
    first = tables.connections.take()
    assert (len(first.started), len(first.finished)) == (1, 1)
    assert not tables.connections.has_news
    assert tables.connections.take() == ConnectionReport([], [], 0)


# Bounds.


@pytest.mark.parametrize("kind", ["connected", "accepted", "closed"])
def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    tables = Tables()
    for number in range(100):
        ports = (4000 + number, 80)
        if kind == "connected":
            tables.use(*connected(ports, address=number))
        elif kind == "accepted":
            tables.use(accepted(ports, address=number))
        else:
            tables.use(change(ESTABLISHED, FIN_WAIT1, ports, address=number))
        assert len(tables.connections) <= 20
    tables.use(destroyed(7, (4099, 80), address=99))
    (one,) = tables.connections.take().finished
    assert one.role == {"connected": CLIENT, "accepted": SERVER, "closed": None}[kind]


def test_reports_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_UNTAKEN", 3)
    tables = Tables(*[destroyed(cookie) for cookie in range(5)])
    report = tables.connections.take()
    assert ([one.cookie for one in report.finished], report.lost) == ([0, 1, 2], 2)
    tables.use(destroyed(9))
    report = tables.connections.take()
    assert ([one.cookie for one in report.finished], report.lost) == ([9], 0)


# Recorded and generated traffic.


@pytest.mark.parametrize("kernel", having("traffic.bin"))
def test_recorded_connections_are_of_the_process_that_made_them(kernel: str) -> None:
    events = recorded(kernel, "traffic")
    pid = events[0].tid
    tables = Tables()
    tables.tasks.reset({pid: pid})
    tables.use(*events)
    report = tables.connections.take()
    assert len(report.finished) == len({one.cookie for one in report.finished}) == 9
    assert report.started == []
    assert [one.role for one in report.finished] == [CLIENT, SERVER, LISTENER] * 3
    assert {one.task and one.task.pid for one in report.finished} == {pid}
    assert all(one.opened and one.opened < one.closed for one in report.finished)
    assert len(tables.connections) == 0


seeds = st.integers(0, 2**32)


@given(seed=seeds, steps=st.integers(10, 150))
def test_every_socket_of_a_history_is_reported_once_with_its_process(seed: int, steps: int) -> None:
    """Pids and addresses are used again, and ends are the same ones in two namespaces."""
    true = History(seed, steps, pids=20, namespaces=2)
    tasks = TaskTable(lambda _tid: None)
    tasks.reset(true.existing)
    table = ConnectionTable(tasks)
    for event in true.events:
        if isinstance(event, StateChange):
            table.change(event)
        elif isinstance(event, Destroyed):
            table.destroy(event)
        elif not isinstance(event, RouteLookup):
            tasks.handle(event)
    found = table.take().finished
    assert [one.cookie for one in found] == list(true.truths)
    for one in found:
        truth = true.truths[one.cookie]
        assert one.role == truth.role
        assert one.opened == truth.opened
        if truth.process is None:
            assert one.task is None
            continue
        assert one.task is not None
        assert (one.task.pid, one.task.started) == (truth.process.pid, truth.process.started)
    assert len(table) == len(true.sockets)
