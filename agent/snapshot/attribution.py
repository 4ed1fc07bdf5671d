"""The processes of connections that trace events reported, as procfs would have shown them.

The events show a process that lived too briefly for a poll: its pid, start, parent, comm and the
file that it executed. What they do not show is that of its nearest ancestor. Pure, but for the
links that ``real_exe`` resolves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from ..kernel.trace.connections import CLIENT
from ..kernel.trace.routes import Sender
from ..kernel.trace.tasks import Task
from ..model import UDP_ATTRIBUTION, Process, ShortLived, Socket, SocketEnd
from .holders import Holders
from .holding import HoldingBuilder
from .reading import EndedSocket

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_NS_PER_SECOND = 10**9
_INIT = 1
LISTENER_HOLDER = "listener"  # ``Holding.attribution`` of a guess.
# Directories of the system in which a link is resolved. In others, a user may have mounted a file
# system that never answers.
_SYSTEM_DIRECTORIES = ("/usr/", "/bin/", "/sbin/", "/opt/")


@lru_cache(maxsize=4096)
def real_exe(path: str) -> str | None:
    """Return the file that a name given to execve(2) leads to; None for a relative name."""
    if path.startswith(_SYSTEM_DIRECTORIES):
        return os.path.realpath(path)
    return path if path.startswith("/") else None


def ticks_of(nanoseconds: int) -> int:
    """Return a time since boot in clock ticks, as ``/proc/PID/stat`` has it."""
    return nanoseconds * _TICKS_PER_SECOND // _NS_PER_SECOND


class TaskSource(Protocol):
    """What trace events and procfs showed of processes that connected."""

    def facts_of(self, pid: int) -> Process | None:
        """Return a process as procfs showed it when it connected."""

    def ancestors_of(self, task: Task) -> Sequence[Task]:
        """Return the parent of a process, its parent, and so on, as far as they are known."""


class Attribution:
    """Finds the process of a task, and makes the holdings of short-lived connections.

    ``start_time`` converts start ticks to seconds since the Unix epoch; ``holders_of_listener``
    returns the processes that hold a listener with the local address and port of a socket.
    """

    def __init__(
        self,
        holders: Holders,
        builder: HoldingBuilder,
        tasks: TaskSource | None,
        start_time: Callable[[int], float],
        holders_of_listener: Callable[[Socket], Sequence[int]],
    ) -> None:
        self._holders = holders
        self._builder = builder
        self._tasks = tasks
        self._start_time = start_time
        self._holders_of_listener = holders_of_listener

    def netns_of(self, task: Task) -> int | None:
        """Return the network namespace of a process, or of its nearest ancestor that is known."""
        processes = self._holders.processes
        for one in (task, *self._ancestors(task)):
            state = processes.get(one.pid)
            if state is not None and _is_process(one, state.process):
                return state.netns
        return None

    def process_of(self, task: Task, time: int) -> Process | None:
        """Return a process as it was at the time of an event; None if nothing shows it."""
        known = self._known(task)
        if known is not None and known.start_ticks > ticks_of(time) + 1:
            known = None  # Its pid is used again.
        if known is not None:
            if task.comm in (None, known.comm) and known.exe is not None:
                return known
            # It executed another program after it was read, or was read while it exited.
            return known._replace(comm=task.comm or known.comm, exe=self._exe(task, known))
        if task.started is None or task.comm is None:
            return None
        parent = next((found for one in self._ancestors(task) if (found := self._known(one))), None)
        ticks = ticks_of(task.started)
        # Children of init move to the cgroup of a unit of their own.
        place = parent if parent is not None and parent.pid != _INIT else None
        return Process(
            pid=task.pid,
            start_ticks=ticks,
            comm=task.comm,
            ppid=task.ppid or 0,
            start_time=self._start_time(ticks),
            uid=None if parent is None else parent.uid,
            exe=self._exe(task, parent),
            cgroup=None if place is None else place.cgroup,
            unit=None if place is None else place.unit,
            container=None if place is None else place.container,
        )

    def _exe(self, task: Task, near: Process | None) -> str | None:
        """Return the program of a task. ``near`` is the task or its nearest ancestor, as procfs
        shows it."""
        # A process that has executed nothing runs the program of its parent, of which procfs shows
        # more than the name that was executed.
        for one in self._ancestors(task):
            if one.exe != task.exe:
                break
            known = self._known(one)
            if known is not None and known.exe is not None:
                return known.exe
        if task.exe is None:
            return None if near is None else near.exe
        if near is not None and near.container is not None:
            return task.exe  # The links are those of the container's file system.
        return real_exe(task.exe)

    def _ancestors(self, task: Task) -> Sequence[Task]:
        return () if self._tasks is None else self._tasks.ancestors_of(task)

    def _known(self, task: Task) -> Process | None:
        """Return a process that procfs showed, if it is the same one."""
        facts = None if self._tasks is None else self._tasks.facts_of(task.pid)
        if facts is not None and _is_process(task, facts) and task.started is not None:
            return facts
        state = self._holders.processes.get(task.pid)
        if state is not None and _is_process(task, state.process):
            return state.process
        return None

    def short_lived(self, ended: EndedSocket, to_unix: Callable[[int], float]) -> ShortLived:
        """Return the holding of a socket that no poll published. ``to_unix`` converts times of
        events to seconds since the Unix epoch."""
        socket, finished, figures, sender = ended
        if sender is not None:
            return self._sent(socket, sender)
        if finished is None:
            return ShortLived(self._builder.build(socket, None, ()), end=SocketEnd(None, figures))
        process = None if finished.task is None else self.process_of(finished.task, finished.closed)
        evidence = None if process is None else finished.evidence
        if process is None and finished.task is None and finished.role != CLIENT:
            process, evidence = self._guess(socket)
        holding = self._builder.build(socket, process, (), None, evidence)
        if finished.opened is None:  # Without its beginning the end has the time of the poll, too.
            opened = closed = None
        else:
            opened, closed = to_unix(finished.opened), to_unix(finished.closed)
        return ShortLived(
            holding,
            opened,
            SocketEnd(closed, figures),
            None if process is None else "exited" if finished.exited else "closed",
        )

    def _sent(self, socket: Socket, sender: Sender) -> ShortLived:
        """Return the holding of a UDP socket by a process that sent from its port."""
        process = self.process_of(sender.task, sender.time)
        if process is None:
            return ShortLived(self._builder.build(socket, None, ()))
        holding = self._builder.build(socket, process, (), None, UDP_ATTRIBUTION)
        return ShortLived(holding, reason="exited" if sender.exited else "closed")

    def _guess(self, socket: Socket) -> tuple[Process | None, str | None]:
        """Return the only holder of the listener that accepted a connection."""
        pids = self._holders_of_listener(socket)
        state = self._holders.processes.get(pids[0]) if len(pids) == 1 else None
        return (None, None) if state is None else (state.process, LISTENER_HOLDER)


def _is_process(task: Task, process: Process) -> bool:
    """Return whether a process is the one of the task: pids are used again. Start times may differ
    by a tick, in which one of them is rounded."""
    return task.started is None or abs(ticks_of(task.started) - process.start_ticks) <= 1
