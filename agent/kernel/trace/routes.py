"""Processes that sent datagrams over UDP, from the kernel's look-ups of routes. Pure.

The events have the port from which a thread sends, and not the socket: whether a process is that of
a socket with this port has to be guessed. The look-ups are remembered until the end of the socket
is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from .connections import NOT_IN_PROCESS
from .events import RouteLookup
from .tasks import Task, TaskTable

# Senders that are remembered, 700 bytes each; beyond that the oldest are forgotten. They suffice
# for 3,000 sockets a second between two polls that are a second apart, and KEEP_NS besides.
MAX_SENDERS = 20_000
# The kernel reports ends from a queue, under load some seconds late. What was sent earlier than so
# long before the notices were read last is of a socket that is still open, and that polls show:
# nanoseconds.
KEEP_NS = 5 * 10**9
# Look-ups in one second, beyond which they are not worth their cost, 3 % of a CPU: then a process
# sends from few sockets, which polls show.
MAX_PER_SECOND = 5000
_SECOND = 10**9
_DROPPED = MAX_SENDERS // 16  # At a time: see ``drop_oldest``.


class Sender(NamedTuple):
    """A process that sent from a port, and when it last did so to this destination.

    ``local`` is zero if the kernel had not chosen an address yet. ``exited``: the process has
    begun to exit since then.
    """

    task: Task
    time: int
    family: int
    local: bytes
    remote: bytes
    remote_port: int
    exited: bool = False


# Port, process with its start, family, addresses and remote port.
_Key = tuple[int, int, int | None, int, bytes, bytes, int]


class RouteTable:
    """The processes that sent from each port, the newest look-up of each destination."""

    def __init__(self, tasks: TaskTable) -> None:
        self._tasks = tasks
        self._senders: dict[_Key, Sender] = {}  # In the order of their times.
        self._by_port: dict[int, set[_Key]] = {}
        self._taken_at = 0  # The time up to which ends were reported.
        self._second = 0  # When the second that is counted ends.
        self._count = 0
        self.is_flooded = False  # Look-ups are not remembered: there were too many.

    def __len__(self) -> int:
        """Return the number of senders that are remembered."""
        return len(self._senders)

    def add(self, event: RouteLookup) -> None:
        """Take in a look-up. Events come in the order of their times."""
        if event.time >= self._second:
            self._second, self._count = event.time + _SECOND, 0
        self._count += 1
        if self._count > MAX_PER_SECOND and not self.is_flooded:
            self.clear()
            self.is_flooded = True
        if self.is_flooded or event.flags & NOT_IN_PROCESS or not event.local_port:
            return
        task = self._tasks.find(event.tid)
        if task is None:  # A thread of the kernel.
            return
        time, _flags, _tid, family, _protocol, port, remote_port, local, remote = event
        key = (port, task.pid, task.started, family, local, remote, remote_port)
        self._senders.pop(key, None)
        self._senders[key] = Sender(task, time, family, local, remote, remote_port)
        self._by_port.setdefault(port, set()).add(key)
        if len(self._senders) > MAX_SENDERS:
            self._drop(list(islice(self._senders, _DROPPED)))

    def senders_of(self, port: int) -> Sequence[Sender]:
        """Return the processes that sent from a port and are remembered."""
        senders = [self._senders[key] for key in self._by_port.get(port, ())]
        has_exited = self._tasks.has_exited
        return [
            one._replace(exited=True) if has_exited(one.task, self._taken_at) else one
            for one in senders
        ]

    def forget(self, port: int, senders: Iterable[Sender]) -> None:
        """Forget senders of a port: the socket from which they sent has ended."""
        self._drop([
            (port, task.pid, task.started, family, local, remote, remote_port)
            for task, _time, family, local, remote, remote_port, _exited in senders
        ])  # fmt: skip

    def expire(self, now: int) -> None:
        """Forget what is too old for the ends that are reported now."""
        oldest, self._taken_at = self._taken_at - KEEP_NS, now
        old: list[_Key] = []
        for key, one in self._senders.items():
            if one.time >= oldest:
                break
            old.append(key)
        self._drop(old)

    def resume(self) -> None:
        """Remember look-ups again after there were too many."""
        self.is_flooded = False
        self._second = 0

    def clear(self) -> None:
        """Forget everything."""
        self._senders, self._by_port = {}, {}

    def _drop(self, keys: Iterable[_Key]) -> None:
        for key in keys:
            if self._senders.pop(key, None) is None:
                continue
            port, *_rest = key
            of_port = self._by_port[port]
            of_port.discard(key)
            if not of_port:
                del self._by_port[port]
