"""Processes that sent datagrams over UDP, from the kernel's look-ups of routes. Pure.

The events have the port from which a thread sends, and not the socket: whether a process is that of
a socket with this port has to be guessed. The look-ups are remembered until the end of the socket
is reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from .connections import NOT_IN_PROCESS
from .events import RouteLookup
from .tasks import Task, TaskTable

# Senders that are remembered, 400 bytes each; beyond that those of the ports that were not used for
# the longest time are forgotten. They suffice for 3,000 sockets a second between two polls that are
# a second apart, and KEEP_NS besides.
MAX_SENDERS = 20_000
# Of one port: a server sends from one port to many clients. It is open for long, so that polls
# show it.
MAX_OF_PORT = 64
# The kernel reports ends from a queue, under load some seconds late. What was sent earlier than so
# long before the notices were read last is of a socket that is still open, and that polls show:
# nanoseconds.
KEEP_NS = 5 * 10**9
# Look-ups in one second, beyond which they are not worth their cost, 2 % of a CPU: then a process
# sends from few sockets, which polls show.
MAX_PER_SECOND = 5000
_SECOND = 10**9
_DROPPED = MAX_SENDERS // 16  # Ports that are forgotten at a time: see ``drop_oldest``.


class Sender(NamedTuple):
    """A process that sent from a port, and when it first did so to this destination.

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

    @property
    def process(self) -> ProcessId:
        """Return the identity of the process."""
        return self.task.pid, self.task.started


ProcessId = tuple[int, int | None]  # Its pid, and when it was created, if that is known.


class RouteTable:
    """The processes that sent from each port, the newest one last."""

    def __init__(self, tasks: TaskTable) -> None:
        self._tasks = tasks
        self._ports: dict[int, list[Sender]] = {}  # In the order of their newest senders.
        self._size = 0
        self._taken_at = 0  # The time up to which ends were reported.
        self._oldest = 0  # The time before which senders are too old.
        self._second = 0  # When the second that is counted ends.
        self._count = 0
        self.is_flooded = False  # Look-ups are not remembered: there were too many.
        # A port was used of which nothing was remembered: ends should be read soon, before another
        # socket has the port.
        self.has_news = False

    def __len__(self) -> int:
        """Return the number of senders that are remembered."""
        return self._size

    def add(self, event: RouteLookup) -> None:
        """Take in a look-up. Events come in the order of their times."""
        time, flags, tid, family, _protocol, port, remote_port, local, remote = event
        if time >= self._second:
            self._second, self._count = time + _SECOND, 0
        self._count += 1
        if self._count > MAX_PER_SECOND and not self.is_flooded:
            self.clear()
            self.is_flooded = True
        if self.is_flooded or flags & NOT_IN_PROCESS or not port:
            return
        task = self._tasks.find(tid)
        if task is None:  # A thread of the kernel.
            return
        # Sender() takes twice the time.
        new = tuple.__new__(Sender, (task, time, family, local, remote, remote_port, False))
        senders = self._ports.get(port)
        if senders is None:
            senders = []
            self.has_news = True
        elif _is_repeated(senders[-1], new) and senders[-1].time >= self._oldest:
            return
        else:
            del self._ports[port]
        self._ports[port] = senders
        senders.append(new)
        self._size += 1
        if len(senders) > MAX_OF_PORT:
            del senders[: MAX_OF_PORT // 2]
            self._size -= MAX_OF_PORT // 2
        if self._size > MAX_SENDERS:
            self._drop(list(islice(self._ports, _DROPPED)))

    def senders_of(self, port: int) -> Sequence[Sender]:
        """Return the processes that sent from a port and are remembered."""
        has_exited, now = self._tasks.has_exited, self._taken_at
        return [
            one._replace(exited=True) if has_exited(one.task, now) else one
            for one in self._ports.get(port, ())
            if one.time >= self._oldest
        ]

    def forget(self, port: int, processes: Collection[ProcessId]) -> None:
        """Forget what processes sent from a port: the socket from which they sent has ended."""
        senders = self._ports.get(port)
        if senders is None:
            return
        remaining = [one for one in senders if one.process not in processes]
        self._size -= len(senders) - len(remaining)
        if remaining:
            self._ports[port] = remaining
        else:
            del self._ports[port]

    def expire(self, now: int) -> None:
        """Forget what is too old for the ends that are reported now."""
        self._oldest, self._taken_at = self._taken_at - KEEP_NS, now
        self.has_news = False
        old: list[int] = []
        for port, senders in self._ports.items():
            if senders[-1].time >= self._oldest:
                break
            old.append(port)
        self._drop(old)

    def resume(self) -> None:
        """Remember look-ups again after there were too many."""
        self.is_flooded = False
        self._second = 0

    def clear(self) -> None:
        """Forget everything."""
        self._ports, self._size = {}, 0

    def _drop(self, ports: Iterable[int]) -> None:
        for port in ports:
            self._size -= len(self._ports.pop(port))


def _is_repeated(last: Sender, new: Sender) -> bool:
    """Return whether a process sent to the same destination again."""
    return (
        last.task == new.task
        and last.remote_port == new.remote_port
        and last.remote == new.remote
        and last.local == new.local
    )
