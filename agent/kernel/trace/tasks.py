"""The process of each thread, and what is known of short-lived processes, from task events. Pure.

The kernel's events name the thread that acts. A thread is known from the event of its creation, or
from procfs if it is older than the events. Ids are those of the initial pid namespace; times are
nanoseconds of the trace clock, which counts from boot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ...text import decode
from .events import Executed, Exited, TaskCreated, TaskRenamed

# clone(2), linux/sched.h: the new task is a thread of the process that creates it.
_CLONE_THREAD = 0x10000
# A process closes its sockets after the event of its exit. Its entry is kept for so long, unless
# its pid is used again: nanoseconds.
KEEP_EXITED = 30 * 10**9
# Threads that have exited and are still kept, 300 bytes each.
MAX_EXITED = 50_000
# Ancestors that are searched for a process that procfs has shown.
MAX_ANCESTORS = 16
_KTHREADD = 2
_KERNEL = 0  # In place of the pid of a kernel thread's process.


class Task(NamedTuple):
    """A process as its events showed it at one time. None: no event showed it.

    ``started`` is when it was created. ``ppid`` is its parent then. ``comm`` is the name of its
    main thread, ``exe`` the file name that was given to execve(2).
    """

    pid: int
    started: int | None = None
    ppid: int | None = None
    comm: str | None = None
    exe: str | None = None


class TaskTable:
    """All threads by id. ``find_pid`` returns the process of a thread that no event showed, 0 for a
    kernel thread, None if there is no such thread."""

    def __init__(self, find_pid: Callable[[int], int | None]) -> None:
        self._find_pid = find_pid
        self._pids: dict[int, int] = {}  # Thread → process.
        self._tasks: dict[int, Task] = {}
        self._exited: dict[int, int] = {}  # Thread → when it exited.

    def reset(self, pids: Mapping[int, int]) -> None:
        """Replace all that is known by the threads that procfs shows: thread → process, 0 for
        kernel threads.

        After a loss of events the table may have processes that are gone, and whose pid is used
        again.
        """
        self._pids, self._tasks, self._exited = dict(pids), {}, {}

    def handle(self, event: TaskCreated | TaskRenamed | Executed | Exited) -> None:
        """Take in one event. Events come in the order of their times."""
        match event:
            case TaskCreated():
                self._create(event)
            case TaskRenamed(renamed_tid=tid, comm=comm):
                if self._pids.get(tid) == tid:  # The name of another thread is of no interest.
                    self._tasks[tid] = self._task(tid)._replace(comm=decode(comm))
            case Executed(pid=pid, old_tid=old_tid, filename=filename):
                if old_tid != pid:  # A thread other than the main one: it takes over the pid.
                    self._pids.pop(old_tid, None)
                    self._exited.pop(pid, None)  # The main thread exited, not the process.
                self._pids[pid] = pid
                self._tasks[pid] = self._task(pid)._replace(exe=decode(filename))
            case Exited(time=time, exited_tid=tid):
                self._exited.pop(tid, None)
                self._exited[tid] = time

    def _create(self, event: TaskCreated) -> None:
        tid = event.new_tid
        self._exited.pop(tid, None)
        creator = self.find_process(event.tid)
        if event.clone_flags & _CLONE_THREAD:
            if creator is None:
                self._pids.pop(tid, None)  # Of an earlier thread with this id.
            else:
                self._pids[tid] = creator
            return
        if event.tid == _KTHREADD or creator == _KERNEL:
            self._pids[tid] = _KERNEL
            self._tasks.pop(tid, None)
            return
        self._pids[tid] = tid
        parent = None if creator is None else self._task(creator)
        # A child has the program of its parent until it executes another one.
        exe = None if parent is None else parent.exe
        self._tasks[tid] = Task(tid, event.time, creator, decode(event.comm), exe)

    def expire(self, now: int) -> None:
        """Forget threads that exited long ago."""
        excess = len(self._exited) - MAX_EXITED
        old: list[int] = []
        for tid, time in self._exited.items():
            if now - time < KEEP_EXITED and len(old) >= excess:
                break
            old.append(tid)
        for tid in old:
            del self._exited[tid]
            self._pids.pop(tid, None)
            self._tasks.pop(tid, None)

    def find_process(self, tid: int) -> int | None:
        """Return the process of a thread, 0 for a kernel thread, None if it is not known."""
        pid = self._pids.get(tid)
        if pid is None and tid:
            pid = self._find_pid(tid)
            if pid is not None:
                self._pids[tid] = pid
        return pid

    def find(self, tid: int) -> Task | None:
        """Return the process of a thread; None for a kernel thread, or if it is not known."""
        pid = self._pids.get(tid)
        if pid is None:
            pid = self.find_process(tid)
        return self._task(pid) if pid else None

    def has_exited(self, task: Task, time: int) -> bool:
        """Return whether the process had begun to exit at this time."""
        exited = self._exited.get(task.pid)
        return exited is not None and exited <= time

    def ancestors(self, task: Task) -> list[Task]:
        """Return the parent of a process, its parent, and so on, as far as they are known."""
        found: list[Task] = []
        while task.ppid and len(found) < MAX_ANCESTORS:
            parent = self._tasks.get(task.ppid) or Task(task.ppid)
            if parent.started is not None and parent.started > (task.started or 0):
                break  # The parent has exited and its pid is used again.
            found.append(parent)
            task = parent
        return found

    def _task(self, pid: int) -> Task:
        task = self._tasks.get(pid)
        if task is None:
            task = self._tasks[pid] = Task(pid)
        return task
