"""Reading the buffers of several CPUs, which sockets stand for here: a datagram is a page."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace import connections, reader, routes
from agent.kernel.trace.connections import ConnectionReport, Finished
from agent.kernel.trace.events import ROUTE, Event, TaskCreated, TraceCounts
from agent.kernel.trace.reader import HELD_NS, TraceReader
from agent.kernel.trace.tasks import Task, TaskTable

from .captured import (
    decoder,
    having,
    layout,
    make_data,
    make_page,
    make_record,
    pages,
    udp_decoder,
    udp_formats,
)
from .history import (
    CLOSE,
    ESTABLISHED,
    FIN_WAIT1,
    FIRST_TIME,
    KERNEL,
    LISTEN,
    SYN_SENT,
    History,
    change,
    destroyed,
    page_of,
)

PID = 100
LATER = FIRST_TIME + 10**9


class Cpus:
    """A reader of so many CPUs, whose clock is ``now``."""

    def __init__(self, count: int = 2, tasks: TaskTable | None = None) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)]
        self.ends, self.writers = [one for one, _ in pairs], [other for _, other in pairs]
        for one in (*self.ends, *self.writers):
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.now = LATER
        self.actors: list[list[int]] = []
        self.reports: list[ConnectionReport] = []
        self.floods = 0
        if tasks is None:
            tasks = TaskTable(lambda _tid: None)
            tasks.reset({PID: PID})
        self.reader = TraceReader(
            [one.fileno() for one in self.ends],
            layout(KERNEL).page_size,
            udp_decoder(KERNEL),
            tasks,
            on_actors=lambda tids: self.actors.append(list(tids)),
            on_report=lambda: self.reports.append(self.reader.connections.take()),
            on_flood=self.flood,
            clock=lambda: self.now,
        )

    def write(self, cpu: int, *events: Event, lost: int = 0) -> None:
        self.writers[cpu].send(page_of(list(events), lost))

    def send(self, cpu: int, *ports: int, tid: int = PID) -> None:
        """Write a page of look-ups of routes from these ports."""
        format = udp_formats(KERNEL)[ROUTE]
        records = [
            make_record(
                make_data(format, common_pid=tid, iif=1, proto=17, sport=port, dport=53)
            )
            for port in ports
        ]  # fmt: skip
        self.writers[cpu].send(make_page(layout(KERNEL), *records, time=FIRST_TIME))

    def flood(self) -> None:
        self.floods += 1
        self.reader.decode_with(decoder(KERNEL))

    def close(self) -> None:
        for one in (*self.ends, *self.writers):
            one.close()


@pytest.fixture
def cpus() -> Iterator[Cpus]:
    with contextlib.closing(Cpus()) as made:
        yield made


def life(time: int = FIRST_TIME, tid: int = PID) -> list[Event]:
    return [
        change(CLOSE, SYN_SENT, (0, 80), time=time, tid=tid),
        change(SYN_SENT, ESTABLISHED, time=time + 1, tid=tid),
        change(ESTABLISHED, FIN_WAIT1, time=time + 2, tid=tid),
        destroyed(7, time=time + 3),
    ]


def processes(report: ConnectionReport) -> list[Task | None]:
    return [one.task for one in report.finished]


def test_events_of_all_cpus_are_used_in_the_order_of_their_times(cpus: Cpus) -> None:
    first, second, third, last = life()
    cpus.write(0, second, last)
    cpus.write(1, first, third)
    report = cpus.reader.take()
    assert processes(report) == [Task(PID)]
    assert report.finished[0].opened == FIRST_TIME
    assert cpus.reader.counts == TraceCounts(events=4)


def test_events_of_the_last_moment_wait_for_the_next_reading(cpus: Cpus) -> None:
    cpus.now = FIRST_TIME + 3 + HELD_NS
    cpus.write(0, *life()[1:])
    assert cpus.reader.read() == 3
    report = cpus.reader.connections.take()
    assert (len(report.started), len(report.finished)) == (1, 0)  # The end is not used yet.
    cpus.now += 1
    assert cpus.reader.read() == 0
    assert len(cpus.reader.connections.take().finished) == 1


def test_an_older_event_of_another_cpu_comes_before_those_that_wait(cpus: Cpus) -> None:
    cpus.now = FIRST_TIME + HELD_NS
    first, *others = life()
    cpus.write(0, *others)
    assert cpus.reader.take() == ConnectionReport([], [], 0)
    cpus.write(1, first)
    cpus.now = LATER
    assert processes(cpus.reader.take()) == [Task(PID)]


def test_a_cpu_with_many_pages_does_not_let_others_pass(
    cpus: Cpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first CPU one page is read at a time; the end is on the second one."""
    monkeypatch.setattr(reader, "MAX_PAGES", 1)
    *others, last = life()
    for event in others:
        cpus.write(0, event)
    cpus.write(1, last)
    found = [one for _ in range(5) for one in cpus.reader.take().finished]
    assert [(one.task, one.closed) for one in found] == [(Task(PID), FIRST_TIME + 2)]
    assert len(cpus.reader.connections) == 0


def test_a_read_of_zero_bytes_is_no_end_of_file(cpus: Cpus) -> None:
    cpus.writers[0].send(b"")
    cpus.write(0, *life())
    assert cpus.reader.read() == 0
    assert cpus.reader.failure is None
    assert processes(cpus.reader.take()) == [Task(PID)]


def test_a_buffer_that_cannot_be_read_is_a_failure(cpus: Cpus) -> None:
    cpus.write(1, *life())
    broken = os.open("/", os.O_RDONLY)  # Reading fails with EISDIR.
    try:
        cpus.reader._descriptors = [broken, cpus.ends[1].fileno()]
        assert processes(cpus.reader.take()) == [Task(PID)]
    finally:
        os.close(broken)
    assert isinstance(cpus.reader.failure, IsADirectoryError)


def test_lost_events_are_counted(cpus: Cpus) -> None:
    cpus.write(0, *life(), lost=5)
    cpus.write(1, change(CLOSE, LISTEN, (80, 0), address=3), lost=2)
    cpus.reader.read()
    assert cpus.reader.counts == TraceCounts(events=5, lost=7, losses=2)


@pytest.mark.parametrize(("when", "pid"), [(-1, PID), (5, None)])
def test_a_connection_that_began_before_a_loss_has_no_process(
    cpus: Cpus, when: int, pid: int | None
) -> None:
    """Its end, and the beginning of another one at its address, may be among the lost events."""
    first, second, _third, last = (
        event._replace(time=event.time + 9 * (number > 0)) for number, event in enumerate(life())
    )
    cpus.write(0, first, second, last)
    cpus.write(1, change(CLOSE, LISTEN, (80, 0), time=FIRST_TIME + when, address=3), lost=2)
    (task,) = processes(cpus.reader.take())
    assert (task and task.pid) == pid


def test_reports_that_were_dropped_count_as_lost(
    cpus: Cpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_UNTAKEN", 0)
    cpus.write(0, *life())
    assert cpus.reader.take().lost == 1
    assert (cpus.reader.counts.lost, cpus.reader.counts.losses) == (1, 1)


def test_malformed_records_are_counted(cpus: Cpus) -> None:
    cpus.writers[0].send(b"\0")
    cpus.reader.read()
    assert cpus.reader.counts == TraceCounts(malformed=1)


def test_threads_that_connect_are_named_before_their_events_are_used(cpus: Cpus) -> None:
    cpus.now = FIRST_TIME
    cpus.write(0, *life(), change(CLOSE, SYN_SENT, (0, 80), time=FIRST_TIME + 9, tid=5, flags=0x10))
    cpus.reader.read()
    assert cpus.actors == [[PID, PID]]  # It begins and ends connections.
    cpus.reader.read()
    assert cpus.actors == [[PID, PID]]  # It begins and ends connections.


def test_a_thread_that_sends_is_named_once(cpus: Cpus) -> None:
    cpus.send(0, 4000, 4001, 4002)
    cpus.send(1, 4003, tid=PID + 1)
    cpus.reader.read()
    assert sorted(cpus.actors[0]) == [PID, PID + 1]


def test_who_sends_is_remembered(cpus: Cpus) -> None:
    cpus.send(0, 4000)
    cpus.reader.take()
    (sender,) = cpus.reader.routes.senders_of(4000)
    assert (sender.task, sender.time, sender.remote_port) == (Task(PID), FIRST_TIME, 53)


def test_after_a_flood_look_ups_are_not_decoded(
    cpus: Cpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_PER_SECOND", 2)
    cpus.send(0, 4000, 4001, 4002, 4003)
    assert cpus.reader.read() == 4
    assert cpus.floods == 1
    cpus.send(0, 4000)
    assert cpus.reader.read() == 0
    assert cpus.floods == 1
    assert len(cpus.reader.routes) == 0


async def test_a_new_port_is_reported(cpus: Cpus) -> None:
    cpus.reader.start()
    try:
        cpus.send(0, 4000)
        async with asyncio.timeout(5):
            while not cpus.reports:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    finally:
        cpus.reader.stop()


def test_no_threads_are_named_when_there_are_many(
    cpus: Cpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_ACTORS", 2)
    began = [change(CLOSE, SYN_SENT, (0, 80), address=number) for number in range(3)]
    cpus.write(0, *began[:2])
    cpus.reader.read()
    cpus.write(0, *began)
    cpus.reader.read()
    assert cpus.actors == [[PID, PID]]
    others = [change(CLOSE, LISTEN, (80, 0), address=number) for number in range(16)]
    cpus.write(0, *began[:1], *others)
    cpus.reader.read()
    assert cpus.actors == [[PID, PID]]


async def until_reported(cpus: Cpus, count: int) -> None:
    async with asyncio.timeout(5):
        while sum(len(one.finished) for one in cpus.reports) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_arrives_is_reported_also_after_a_quiet_time(cpus: Cpus) -> None:
    cpus.reader.start()
    cpus.write(0, *life())
    await until_reported(cpus, 1)
    await asyncio.sleep(0.05)
    cpus.writers[1].send(b"")  # Readable, but empty.
    await asyncio.sleep(0.05)
    cpus.write(1, *life())
    await until_reported(cpus, 2)
    cpus.reader.stop()
    cpus.write(0, *life())
    await asyncio.sleep(0.05)
    assert sum(len(one.finished) for one in cpus.reports) == 2


async def test_events_that_wait_are_used_although_no_others_arrive(cpus: Cpus) -> None:
    cpus.reader.start()
    cpus.now = FIRST_TIME
    cpus.write(0, *life())
    await asyncio.sleep(0.01)
    assert cpus.reports == []
    cpus.now = LATER
    await until_reported(cpus, 1)
    cpus.reader.stop()


async def test_after_a_failure_nothing_is_read(cpus: Cpus) -> None:
    cpus.reader.start()
    cpus.write(0, *life())
    cpus.reader.failure = OSError()
    cpus.reader._on_readable()
    assert len(cpus.reports) == 1  # What was read before the failure.
    assert cpus.reader._timer is None
    assert not cpus.reader._is_armed


@pytest.mark.parametrize("kernel", having("traffic.bin"))
@pytest.mark.parametrize("name", ["traffic", "idle", "lost"])
def test_recorded_pages_name_the_process(kernel: str, name: str) -> None:
    with contextlib.closing(Cpus()) as cpus:
        recorded = pages(kernel, name)
        events = [event for page in recorded for event in decoder(kernel).decode(page).events]
        cpus.now = events[-1].time + 2 * HELD_NS
        pid = events[0].tid
        cpus.reader._tasks.reset({pid: pid})
        for page in recorded:
            cpus.writers[0].send(page)
        report = cpus.reader.take()
    assert cpus.reader.counts.events == len(events)
    assert report.finished
    assert {one.task.pid for one in report.finished if one.task} == {pid}
    if name != "lost":
        assert all(one.task for one in report.finished)


def pages_of(events: Sequence[Event], random: Random) -> list[list[Event]]:
    """Return the events of a CPU as pages of different sizes."""
    found: list[list[Event]] = []
    at = 0
    while at < len(events):
        size = random.randint(1, 8)
        found.append(list(events[at : at + size]))
        at += size
    return found


@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(20, 300),
    percent=st.sampled_from([0, 1, 10, 30, 60]),
    readings=st.integers(1, 12),
)
def test_no_process_is_wrong_although_pages_are_lost(
    seed: int, steps: int, percent: int, readings: int
) -> None:
    """Pages of three CPUs, some of which are lost, are read at several times."""
    true = History(seed, steps)
    random = Random(seed)
    now = FIRST_TIME

    def find_pid(tid: int) -> int | None:  # As procfs would at that moment.
        is_alive = now <= true.ended.get(tid, now)
        return true.owners.get(tid) if is_alive else None

    tasks = TaskTable(find_pid)
    tasks.reset(true.existing)
    queues = [pages_of(events, random) for events in true.cpus]
    found: list[Finished] = []
    with contextlib.closing(Cpus(3, tasks)) as cpus:
        for number in range(readings):
            now = true.time if number == readings - 1 else random.randint(now, true.time)
            cpus.now = now + HELD_NS
            for cpu, queue in enumerate(queues):
                lost = 0
                # Events that overwrote others are read with the mark of the loss.
                while queue and (lost or queue[0][0].time <= now):
                    page = queue.pop(0)
                    if random.random() * 100 < percent:
                        lost += len(page)
                        continue
                    with contextlib.suppress(BlockingIOError):
                        cpus.write(cpu, *page, lost=lost)
                        lost = 0
                        continue
                    queue.insert(0, page)
                    break
            cpus.reader.read()
            found += cpus.reader.connections.take().finished
        cpus.now = LATER + true.time
        found += cpus.reader.take().finished
    assert cpus.reader.counts.malformed == 0
    cookies = [one.cookie for one in found]
    assert len(cookies) == len(set(cookies))
    if not percent:
        assert set(cookies) == true.truths.keys()
    for one in found:
        truth = true.truths[one.cookie]
        assert one.role in (None, truth.role)
        if one.task is not None:
            assert truth.process is not None
            assert one.task.pid == truth.process.pid
            assert one.task.started in (None, truth.process.started)
        elif not percent:
            assert truth.process is None


def test_a_process_that_is_created_on_another_cpu_is_known(cpus: Cpus) -> None:
    created = TaskCreated(FIRST_TIME - 1, 0, PID, 101, b"sh", 0x11)
    cpus.write(0, *life(tid=101))
    cpus.write(1, created)
    assert processes(cpus.reader.take()) == [Task(101, FIRST_TIME - 1, PID, "sh")]
