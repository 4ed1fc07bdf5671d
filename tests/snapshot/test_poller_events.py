"""Snapshots of what trace events show between two polls, with text tables."""

from __future__ import annotations

from collections.abc import Sequence
from socket import AF_INET
from typing import cast

import pytest

from agent.kernel.procfs.scanner import ProcessScanner
from agent.kernel.trace.connections import (
    CLIENT,
    CLOSE,
    ConnectionReport,
    Endpoints,
    Finished,
    Started,
)
from agent.kernel.trace.events import TraceCounts
from agent.kernel.trace.tasks import Task
from agent.model import Closed, Delta, Opened, Updated
from agent.snapshot.blocking import CallTimeout
from agent.snapshot.poller import Poller
from agent.snapshot.refresh import HolderRefresher
from agent.snapshot.table_sources import sources_of
from agent.snapshot.trace_events import TraceEvents
from agent.stream.diff import DeltaTracker

from ..fakeproc import ESTABLISHED, FakeProc, inet_row

PEER = "0100007F:9C40"
LOCALHOST = bytes(10) + b"\xff\xff\x7f\0\0\x01"
ENDS = Endpoints(AF_INET, LOCALHOST, 8080, LOCALHOST, 40_000)
CLOSE_WAIT = 8
MS = 10**6
BEGAN = 5 * 10**9  # After the start of the process.


class Events:
    """Trace events that a test makes."""

    def __init__(self, *, is_on: bool) -> None:
        self.is_reading = self.is_on = is_on
        self.has_senders = False
        self.off: str | None = None
        self.counts = TraceCounts()
        self.report = ConnectionReport((), (), 0)

    def take(self) -> ConnectionReport:
        report, self.report = self.report, ConnectionReport((), (), 0)
        return report

    def missing(self) -> list[str]:
        return []

    async def check(self) -> None:
        self.is_reading = self.is_on

    async def wait_for_facts(self) -> None:
        pass

    def facts_of(self, _pid: int) -> None:
        return None

    def ancestors_of(self, _task: Task) -> Sequence[Task]:
        return ()


class Follower:
    """Polls, and what events show between them."""

    def __init__(self, fake: FakeProc, *, is_on: bool = True) -> None:
        self.events = Events(is_on=is_on)
        scanner: ProcessScanner = fake.scanner()
        self.poller = Poller(
            scanner, *sources_of(scanner.procfs, None), trace=cast("TraceEvents", self.events)
        )
        self._tracker = DeltaTracker()

    async def poll(self) -> list[Delta]:
        return self._tracker.advance(await self.poller.poll())

    async def shown(
        self, *, started: Sequence[Started] = (), finished: Sequence[Finished] = ()
    ) -> list[Delta]:
        """Return what is reported of these events; nothing if there is no snapshot."""
        self.events.report = ConnectionReport(started, finished, 0)
        snapshot = await self.poller.poll_events()
        return [] if snapshot is None else self._tracker.advance(snapshot)


@pytest.fixture
async def follower(fake: FakeProc) -> Follower:
    """A follower after its first poll, which shows a connection of process 7."""
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11, remote=PEER, state=ESTABLISHED))
    follower = Follower(fake)
    await follower.poll()
    return follower


def finished(ends: Endpoints = ENDS) -> Finished:
    return Finished(5, ends, CLIENT, Task(7), CLOSE, BEGAN, BEGAN + 2 * MS, exited=False)


async def test_nothing_is_published_where_events_show_nothing(follower: Follower) -> None:
    assert await follower.poller.poll_events() is None


async def test_a_socket_that_ended_is_closed_before_the_next_poll(
    fake: FakeProc, follower: Follower
) -> None:
    fake.close(7, 3)
    (delta,) = await follower.shown(finished=[finished()])
    assert isinstance(delta, Closed)
    assert (delta.holding.socket.inode, delta.reason) == (11, "closed")
    assert delta.time is not None
    fake.table("tcp")
    assert await follower.poll() == []


async def test_events_that_come_on_later_show_what_the_tables_showed_before(
    fake: FakeProc,
) -> None:
    fake.process(7, {3: 11})
    fake.table("tcp", inet_row(11, remote=PEER, state=ESTABLISHED))
    follower = Follower(fake, is_on=False)
    await follower.poll()
    follower.events.is_on = True
    await follower.poll()
    fake.close(7, 3)
    (delta,) = await follower.shown(finished=[finished()])
    assert isinstance(delta, Closed)
    assert delta.holding.socket.inode == 11


async def test_a_socket_that_no_poll_saw_opens_and_closes(follower: Follower) -> None:
    opened, closed = await follower.shown(finished=[finished(ENDS._replace(local_port=8081))])
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    process = opened.holding.process
    assert process is not None
    assert (process.pid, opened.holding.attribution) == (7, CLOSE)
    assert closed.seconds == pytest.approx(0.002, abs=1e-4)
    assert await follower.poll() == []


async def test_a_connection_that_its_peer_shut_down_is_updated(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.snapshot.live.MIN_AGE_SECONDS", 0.0)
    started = Started(ENDS, CLOSE_WAIT, CLIENT, Task(7), None, BEGAN)
    (delta,) = await follower.shown(started=[started])
    assert isinstance(delta, Updated)
    states = (delta.before.socket.state, delta.holding.socket.state)
    assert states == ("ESTABLISHED", "CLOSE_WAIT")


async def test_what_procfs_does_not_show_in_time_is_left_to_the_next_poll(
    fake: FakeProc, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(_self: HolderRefresher, _inodes: object) -> None:
        raise CallTimeout

    fake.close(7, 3)
    fake.table("tcp")
    with monkeypatch.context() as patched:
        patched.setattr(HolderRefresher, "recheck_holders_of", late)
        assert await follower.shown(finished=[finished()]) == []
    (delta,) = await follower.poll()
    assert isinstance(delta, Closed)
    assert delta.holding.socket.inode == 11


async def test_coverage_says_once_that_events_were_lost_or_malformed(follower: Follower) -> None:
    follower.events.counts = TraceCounts(events=9, lost=4, malformed=2, losses=1)
    snapshot = await follower.poller.poll()
    missing = "; ".join(snapshot.coverage.missing)
    assert "kernel events were lost" in missing
    assert "2 malformed kernel events were skipped" in missing
    assert (await follower.poller.poll()).coverage.missing == ()


async def test_an_update_of_a_poll_does_not_have_the_time_of_the_opening(
    fake: FakeProc, follower: Follower
) -> None:
    started = Started(ENDS, CLOSE_WAIT, CLIENT, Task(7), BEGAN, BEGAN + MS)
    assert await follower.shown(started=[started]) == []
    fake.table("tcp", inet_row(11, remote=PEER, state="08"))
    (delta,) = await follower.poll()
    assert isinstance(delta, Updated)
    assert (delta.holding.socket.state, delta.time) == ("CLOSE_WAIT", None)
