"""Threads and processes, from task events."""

from __future__ import annotations

import pytest

from agent.kernel.trace import tasks
from agent.kernel.trace.events import Executed, Exited, TaskCreated, TaskRenamed
from agent.kernel.trace.tasks import KEEP_EXITED, Task, TaskTable

from .history import CLONE_THREAD

SECOND = 10**9


def nothing(_tid: int) -> int | None:
    return None


def made(*events: TaskCreated | TaskRenamed | Executed | Exited) -> TaskTable:
    """Return a table with process 50, which procfs showed, after these events."""
    table = TaskTable(nothing)
    table.reset({2: 0, 50: 50, 51: 50})
    for event in events:
        table.handle(event)
    return table


def forked(pid: int = 100, by: int = 50, comm: bytes = b"sh", time: int = SECOND) -> TaskCreated:
    return TaskCreated(time, 0, by, pid, comm, 0x11)


def cloned(tid: int, by: int = 50) -> TaskCreated:
    return TaskCreated(SECOND, 0, by, tid, b"thread", CLONE_THREAD | 0x100)


def test_a_new_process_has_its_start_parent_and_comm() -> None:
    assert made(forked()).find(100) == Task(100, SECOND, 50, "sh", None)


def test_a_process_that_a_thread_forks_is_a_child_of_the_threads_process() -> None:
    assert made(forked(by=51)).find(100) == Task(100, SECOND, 50, "sh")


def test_a_thread_belongs_to_the_process_of_its_creator() -> None:
    table = made(cloned(60), cloned(61, by=60))
    assert table.find_process(61) == 50
    assert table.find(61) == Task(50)


def test_exec_sets_comm_and_file() -> None:
    table = made(
        forked(), TaskRenamed(2, 0, 100, 100, b"curl"), Executed(3, 0, 100, 100, 100, b"/bin/curl")
    )
    assert table.find(100) == Task(100, SECOND, 50, "curl", "/bin/curl")


def test_a_child_has_the_file_of_its_parent_until_it_executes_another() -> None:
    table = made(forked(), Executed(3, 0, 100, 100, 100, b"/bin/sh"), forked(101, by=100))
    assert table.find(101) == Task(101, SECOND, 100, "sh", "/bin/sh")


def test_the_name_of_a_thread_is_not_that_of_its_process() -> None:
    table = made(forked(), cloned(101, by=100), TaskRenamed(2, 0, 101, 101, b"worker"))
    assert table.find(101) == Task(100, SECOND, 50, "sh")
    assert table._tasks.keys() == {50, 100}


def test_what_was_found_before_an_exec_is_of_before() -> None:
    table = made(forked())
    before = table.find(100)
    table.handle(TaskRenamed(2, 0, 100, 100, b"curl"))
    assert before == Task(100, SECOND, 50, "sh")


def test_exec_in_a_thread_leaves_only_the_process() -> None:
    table = made(forked(), cloned(101, by=100), Exited(2, 0, 100, 100))
    table.handle(Executed(3, 0, 100, 100, 101, b"/bin/x"))
    assert table.find_process(101) is None
    assert table.find(100) == Task(100, SECOND, 50, "sh", "/bin/x")


def test_exec_in_a_thread_ends_the_main_thread_but_not_the_process() -> None:
    table = made(forked(), cloned(101, by=100), Exited(2, 0, 100, 100))
    table.handle(Executed(3, 0, 100, 100, 101, b"/bin/x"))
    task = table.find(100)
    assert task is not None
    assert not table.has_exited(task, 4)
    table.expire(2 * KEEP_EXITED)
    assert table.find(100) == task


def test_an_exited_process_is_known_until_it_has_closed_its_sockets() -> None:
    table = made(forked(), Exited(2 * SECOND, 0, 100, 100))
    table.expire(2 * SECOND + KEEP_EXITED - 1)
    task = table.find(100)
    assert task == Task(100, SECOND, 50, "sh")
    assert table.has_exited(task, 2 * SECOND)
    assert not table.has_exited(task, 2 * SECOND - 1)
    table.expire(2 * SECOND + KEEP_EXITED)
    assert table.find(100) is None


def test_a_pid_that_is_used_again_is_of_the_new_process() -> None:
    table = made(
        forked(), Executed(2, 0, 100, 100, 100, b"/bin/a"), Exited(3, 0, 100, 100),
        forked(comm=b"new", time=5 * SECOND),
    )  # fmt: skip
    table.expire(4 * KEEP_EXITED)
    task = table.find(100)
    assert task == Task(100, 5 * SECOND, 50, "new")
    assert not table.has_exited(task, 6 * SECOND)


def test_a_pid_that_is_used_again_by_a_thread_is_of_its_process() -> None:
    table = made(forked(), Exited(2, 0, 100, 100), cloned(100))
    assert table.find(100) == Task(50)


def test_a_thread_of_an_unknown_creator_is_not_of_the_process_that_had_its_id() -> None:
    table = made(forked(), Exited(2, 0, 100, 100), cloned(100, by=77))
    assert table.find(100) is None


def test_a_child_of_an_unknown_creator_has_no_parent() -> None:
    assert made(forked(by=77)).find(100) == Task(100, SECOND, None, "sh")


def test_threads_of_the_kernel_are_no_process() -> None:
    table = made(forked(60, by=2), forked(61, by=60))
    assert [table.find(tid) for tid in (2, 60, 61)] == [None] * 3
    assert table.find_process(61) == 0


def test_a_program_that_the_kernel_executes_is_a_process() -> None:
    table = made(forked(60, by=2), Executed(2, 0, 60, 60, 60, b"/sbin/modprobe"))
    assert table.find(60) == Task(60, exe="/sbin/modprobe")


def test_a_thread_without_an_entry_is_looked_up_once() -> None:
    asked: list[int] = []

    def find_pid(tid: int) -> int | None:
        asked.append(tid)
        return {60: 50}.get(tid)

    table = TaskTable(find_pid)
    assert [table.find(60), table.find(60), table.find(61)] == [Task(50), Task(50), None]
    assert asked == [60, 61]


def test_the_idle_thread_is_not_looked_up() -> None:
    table = TaskTable(lambda tid: pytest.fail(f"{tid}"))
    assert table.find(0) is None


def test_after_a_reset_only_procfs_counts() -> None:
    table = made(forked(100))
    table.reset({100: 100, 101: 100})
    assert table.find(100) == table.find(101) == Task(100)


def test_ancestors_end_where_a_parent_is_not_known() -> None:
    table = made(forked(100), forked(101, by=100))
    task = table.find(101)
    assert task is not None
    assert [one.pid for one in table.ancestors(task)] == [100, 50]


def test_a_process_that_began_later_is_no_ancestor() -> None:
    table = made(forked(100), forked(101, by=100, time=2 * SECOND))
    task = table.find(101)
    table.handle(Exited(2 * SECOND, 0, 100, 100))
    table.handle(forked(100, time=3 * SECOND))
    assert task is not None
    assert table.ancestors(task) == []


def test_ancestors_are_bounded() -> None:
    table = made(*[forked(101 + number, by=100 + number) for number in range(40)])
    task = table.find(140)
    assert task is not None
    assert len(table.ancestors(task)) == tasks.MAX_ANCESTORS


def test_exited_threads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_EXITED", 10)
    table = made()
    for number in range(100):
        table.handle(forked(1000 + number, time=SECOND + number))
        table.handle(Exited(SECOND + number, 0, 1000 + number, 1000 + number))
        table.expire(SECOND + number)
    assert [tid for tid in range(1000, 1100) if table.find(tid)] == list(range(1090, 1100))
    assert (len(table._pids), len(table._tasks)) == (13, 11)  # With those that are older.
