"""The processes of connections that trace events reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.kernel.trace.connections import CLIENT, CLOSE, CONNECT, SERVER, Endpoints, Finished
from agent.kernel.trace.routes import Sender
from agent.kernel.trace.tasks import Task
from agent.model import Owner, Process, ShortLived, SocketEnd
from agent.snapshot import attribution
from agent.snapshot.attribution import Attribution, real_exe, ticks_of
from agent.snapshot.ended import socket_of
from agent.snapshot.holders import Holders
from agent.snapshot.holding import HoldingBuilder
from agent.snapshot.reading import EndedSocket

from ..make import process

SECOND = 10**9
STARTED = 500 * SECOND
TICKS = ticks_of(STARTED)
NETNS = 5
TASK = Task(7, STARTED, 6, "curl", "/nowhere/curl")
ENDS = Endpoints(2, bytes(10) + b"\xff\xff\x7f\0\0\1", 4000, bytes(10) + b"\xff\xff\x7f\0\0\1", 80)


class Tasks:
    def __init__(self, facts: Sequence[Process] = (), ancestors: Sequence[Task] = ()) -> None:
        self._facts, self._ancestors = {one.pid: one for one in facts}, ancestors

    def facts_of(self, pid: int) -> Process | None:
        return self._facts.get(pid)

    def ancestors_of(self, _task: Task) -> Sequence[Task]:
        return self._ancestors


def made(
    *polled: Process, tasks: Tasks | None = None, listening: Sequence[int] = ()
) -> Attribution:
    """Return what knows these processes from a poll; ``listening`` are holders of the listener."""
    holders = Holders()
    for one in polled:
        holders.set_scan(one, NETNS, 1, {})
    builder = HoldingBuilder(lambda uid: Owner(uid, None))
    return Attribution(holders, builder, tasks, lambda ticks: ticks / 100, lambda _row: listening)


def finished(task: Task | None = TASK, role: str | None = CLIENT, **more: bool) -> Finished:
    evidence = None if task is None else CONNECT if role == CLIENT else CLOSE
    exited = more.get("exited", False)
    return Finished(3, ENDS, role, task, evidence, STARTED, STARTED + SECOND, exited)


def short_lived(source: Attribution, event: Finished | None) -> ShortLived:
    row = socket_of(event or finished(), NETNS, "events")
    return source.short_lived(EndedSocket(row, event), lambda time: time / SECOND)


def process_of(source: Attribution, task: Task = TASK) -> Process | None:
    return source.process_of(task, STARTED + SECOND)


def test_a_process_that_only_events_showed() -> None:
    assert process_of(made()) == Process(7, TICKS, "curl", 6, TICKS / 100, exe="/nowhere/curl")


def test_what_events_do_not_show_is_that_of_the_nearest_known_ancestor() -> None:
    shell = process(
        5, 100, uid=1000, exe="/bin/sh", cgroup="/a", unit="a.service", container="c"
    )  # fmt: skip
    source = made(shell, tasks=Tasks(ancestors=[Task(6), Task(5)]))
    found = process_of(source, TASK._replace(exe=None))
    assert found is not None
    assert (found.ppid, found.uid, found.exe) == (6, 1000, "/bin/sh")
    assert (found.cgroup, found.unit, found.container) == ("/a", "a.service", "c")
    assert source.netns_of(TASK) == NETNS


def test_children_of_init_are_in_units_of_their_own() -> None:
    init = process(1, 0, uid=0, cgroup="/init.scope", unit="init.scope")
    found = process_of(made(init, tasks=Tasks(ancestors=[Task(1)])))
    assert found is not None
    assert (found.uid, found.cgroup, found.unit) == (0, None, None)


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_a_process_that_a_poll_showed_is_that_one(difference: int) -> None:
    polled = process(7, TICKS + difference, comm="curl", uid=5, exe="/bin/curl")
    source = made(polled)
    assert process_of(source) == polled
    assert source.netns_of(TASK) == NETNS


@pytest.mark.parametrize("difference", [-2, 2, 5000])
def test_another_process_with_the_pid_is_not_taken_for_it(difference: int) -> None:
    """The pid was used again between the event and the look at procfs."""
    other = process(7, TICKS + difference, comm="curl", uid=5)
    for source in (made(other), made(tasks=Tasks([other]))):
        found = process_of(source)
        assert found is not None
        assert (found.start_ticks, found.uid) == (TICKS, None)
        assert source.netns_of(TASK) is None


def test_a_process_that_began_after_the_connection_ended_did_not_hold_it() -> None:
    """The holder is older than the events, so its start is not known."""
    task = Task(7)
    older, later = process(7, 10), process(7, TICKS + 5000)
    assert process_of(made(older), task) == older
    assert process_of(made(later), task) is None


def test_what_procfs_showed_at_once_comes_before_what_a_poll_showed() -> None:
    at_once, polled = (process(7, TICKS, comm="curl", uid=uid, exe="/bin/curl") for uid in (5, 6))
    assert process_of(made(polled, tasks=Tasks([at_once]))) == at_once


def test_without_a_start_what_procfs_showed_at_once_is_not_used() -> None:
    assert process_of(made(tasks=Tasks([process(7, 10)])), Task(7)) is None


def test_a_process_that_was_read_while_it_exited_has_the_program_that_events_showed() -> None:
    found = process_of(made(process(7, TICKS, comm="curl", uid=5)))
    assert found is not None
    assert (found.exe, found.uid) == ("/nowhere/curl", 5)


def test_a_process_that_executed_nothing_has_the_program_of_its_parent() -> None:
    parent = process(50, 10, comm="python", exe="/usr/bin/python3.11")
    child = TASK._replace(exe=".venv/bin/python")
    source = made(parent, tasks=Tasks(ancestors=[Task(50, None, None, None, ".venv/bin/python")]))
    found = process_of(source, child)
    assert found is not None
    assert found.exe == "/usr/bin/python3.11"


def test_a_process_that_executed_another_program_later_had_this_one() -> None:
    source = made(process(7, TICKS, comm="later", exe="/bin/later", uid=5))
    found = process_of(source)
    assert found is not None
    assert (found.comm, found.exe, found.uid) == ("curl", "/nowhere/curl", 5)


def test_a_program_is_that_to_which_links_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    path = str(tmp_path / "link")
    real_exe.cache_clear()
    assert real_exe(path) == path  # A file system of a user is not touched.
    real_exe.cache_clear()
    monkeypatch.setattr(attribution, "_SYSTEM_DIRECTORIES", (str(tmp_path),))
    assert real_exe(path) == str(tmp_path / "file")
    real_exe.cache_clear()
    assert real_exe("./curl") is None


def test_links_of_a_container_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "real_exe", pytest.fail)
    source = made(process(6, 10, container="c"), tasks=Tasks(ancestors=[Task(6)]))
    found = process_of(source)
    assert found is not None
    assert found.exe == TASK.exe


def test_a_connection_is_reported_with_its_times_and_process() -> None:
    found = short_lived(made(), finished())
    assert found.holding.process is not None
    assert (found.holding.process.pid, found.holding.attribution) == (7, CONNECT)
    assert (found.opened, found.end.time, found.reason) == (500.0, 501.0, "closed")
    assert short_lived(made(), finished(exited=True)).reason == "exited"
    assert short_lived(made(), finished(role=SERVER)).holding.attribution == CLOSE


def test_without_an_event_there_is_no_process() -> None:
    found = short_lived(made(process(8), listening=[8]), None)
    assert (found.holding.process, found.opened, found.end.time, found.reason) == (None,) * 4


@pytest.mark.parametrize("exited", [False, True])
def test_the_process_that_sent_from_a_port_is_a_guess(exited: bool) -> None:
    row = socket_of(finished(), NETNS, "netlink")._replace(proto="udp")
    sender = Sender(TASK, STARTED, 2, ENDS.local, ENDS.remote, 80, exited)
    one = made().short_lived(EndedSocket(row, sender=sender), lambda time: time / SECOND)
    assert one.holding.process is not None
    assert (one.holding.process.pid, one.holding.attribution) == (7, "route")
    assert one.reason == ("exited" if exited else "closed")
    assert (one.opened, one.end) == (None, SocketEnd())  # No event shows these times.


def test_without_a_name_the_process_that_sent_is_not_reported() -> None:
    row = socket_of(finished(), NETNS, "netlink")._replace(proto="udp")
    sender = Sender(Task(7), STARTED, 2, ENDS.local, ENDS.remote, 80)
    one = made().short_lived(EndedSocket(row, sender=sender), lambda time: time / SECOND)
    assert (one.holding.process, one.holding.attribution) == (None, None)


def test_a_process_that_nothing_shows_is_not_evidence() -> None:
    found = short_lived(made(process(8), listening=[8]), finished(Task(7), SERVER))
    assert (found.holding.process, found.holding.attribution, found.reason) == (None, None, None)


@pytest.mark.parametrize(
    ("role", "listening", "pid"),
    [(SERVER, [8], 8), (None, [8], 8), (CLIENT, [8], None), (SERVER, [8, 9], None),
     (SERVER, [], None), (SERVER, [99], None)],
)  # fmt: skip
def test_the_only_holder_of_the_listener_is_a_guess(
    role: str | None, listening: list[int], pid: int | None
) -> None:
    found = short_lived(made(process(8), process(9), listening=listening), finished(None, role))
    assert (found.holding.process and found.holding.process.pid) == pid
    assert found.holding.attribution == (None if pid is None else "listener")
