"""TCP connections and the processes that opened and closed them, from trace events. Pure.

The kernel reports each change of state of a TCP socket, and its destruction, with the address of
the socket in the kernel and the thread that ran at that moment. That thread acts on the socket only
if the event did not run in an interrupt: a packet that arrives is handled in whatever thread is
running then. Evidence of the process, the strongest first:

- it connected the socket, or made it a listener;
- it closed or shut down the connection while it was established: it held the socket last;
- it destroyed the socket, whose connection the peer had reset: it held the socket last;
- it aborted the connection, which an interrupt destroyed. Another program can do that, too
  (``ss --kill``).

Events may be lost, and an address is used again at once. Evidence is used only if the ports of the
destroyed socket are those of the connection that it belongs to; and where one of them is not known,
only if no event was lost in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...bounded import drop_oldest
from .events import Destroyed, StateChange
from .tasks import Task, TaskTable

# include/linux/trace_events.h: hard and soft interrupt, NMI.
NOT_IN_PROCESS = 0x58
# include/net/tcp_states.h
_ESTABLISHED, _SYN_SENT, _SYN_RECV, _FIN_WAIT1, _CLOSE, _CLOSE_WAIT, _LAST_ACK, _LISTEN = (
    1, 2, 3, 4, 7, 8, 9, 10
)  # fmt: skip
# Connections under way, 600 bytes each. Beyond that the oldest are forgotten: their ends are
# reported without the process that opened them, unless a poll has seen it.
MAX_CONNECTIONS = 250_000
# Changes and ends between two calls of ``take``; beyond that they are lost.
MAX_UNTAKEN = 200_000

CLIENT, SERVER, LISTENER = "client", "server", "listener"
CONNECT, CLOSE = "connect", "close"  # Kinds of evidence.


class Endpoints(NamedTuple):
    """The ends of a connection. Addresses are 16 bytes, IPv4 as ``::ffff:a.b.c.d``; ``family`` is
    AF_INET or AF_INET6. The remote end of a listener is all zeros."""

    family: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int


class Started(NamedTuple):
    """A connection that was established, a listener that was opened, or a connection whose peer has
    shut it down (``state`` CLOSE_WAIT), and that has not ended.

    ``task`` is the process that opened it, None if unknown. Times are in nanoseconds of the trace
    clock; ``opened`` is None if the connection is older than the events.
    """

    ends: Endpoints
    state: int
    role: str | None
    task: Task | None
    opened: int | None
    time: int


class Finished(NamedTuple):
    """A socket that was destroyed.

    ``task`` is the process, by ``evidence`` (CONNECT or CLOSE), None if unknown. ``closed`` is when
    that process let go of it, as far as is known; ``exited``: because it exited.
    """

    cookie: int
    ends: Endpoints
    role: str | None
    task: Task | None
    evidence: str | None
    opened: int | None
    closed: int
    exited: bool


class ConnectionReport(NamedTuple):
    """What happened since the report before, in the order of the events. ``lost`` counts reports
    that were dropped because too many waited. ``complete``: no events of earlier times wait to be
    read."""

    started: Sequence[Started]
    finished: Sequence[Finished]
    lost: int
    complete: bool = True


class _Connection:
    """What is known of the socket at one address, from the opening of its connection on."""

    __slots__ = (
        "aborter", "closed", "closer", "family", "local", "local_port", "opened", "opener",
        "remote", "remote_port", "role", "state", "time",
    )  # fmt: skip

    def __init__(self, event: StateChange, role: str | None) -> None:
        self.role = role
        self.opener: Task | None = None
        self.closer: Task | None = None
        self.aborter: Task | None = None
        self.opened: int | None = None
        self.closed: int | None = None
        self.set_ends(event)

    def begin(self, time: int, actor: Task | None) -> None:
        """Record when the connection or listener was opened, and by which process."""
        self.opened, self.opener = time, actor

    def end(self, event: StateChange, actor: Task | None) -> None:
        """Record a change of state that a process made towards the end."""
        if event.new in (_FIN_WAIT1, _LAST_ACK):
            self.closed = event.time
            self.closer = self.closer or actor
        elif event.new == _CLOSE:
            self.closed = self.closed or event.time
            self.aborter = self.aborter or actor

    def set_state(self, event: StateChange) -> None:
        """Record the state, and the ends if the local port was not known."""
        self.state, self.time = event.new, event.time
        if self.local_port == 0:
            self.set_ends(event)

    def set_ends(self, event: StateChange) -> None:
        """Record the state and the ends."""
        self.state, self.time = event.new, event.time
        self.family = event.family
        self.local_port, self.remote_port = event.local_port, event.remote_port
        self.local, self.remote = event.local, event.remote

    def ends(self) -> Endpoints:
        """Return the ends."""
        return Endpoints(self.family, self.local, self.local_port, self.remote, self.remote_port)


class ConnectionTable:
    """All TCP connections that events have shown and that have not ended."""

    def __init__(self, tasks: TaskTable) -> None:
        self._tasks = tasks
        self._connections: dict[int, _Connection] = {}  # By address.
        self._started: dict[int, int] = {}  # Address → the time of the newest change to report.
        self._finished: list[Finished] = []
        self._lost = 0
        self._loss = 0  # When events were lost last.

    def __len__(self) -> int:
        """Return the number of connections under way."""
        return len(self._connections)

    def change(self, event: StateChange) -> None:
        """Take in a change of state. Events come in the order of their times."""
        new, address = event.new, event.address
        connection = self._connections.get(address)
        if new == _SYN_SENT:
            self._open(event, CLIENT)
        elif new == _ESTABLISHED:
            self._establish(event, connection)
        elif new == _LISTEN:
            if event.old != _LISTEN:
                self._open(event, LISTENER)
                self._started[address] = event.time
        else:
            if connection is None or not self._is_same(connection, event):
                connection = self._put(event, LISTENER if event.old == _LISTEN else None)
            self._close(connection, event)

    def note_loss(self, time: int) -> None:
        """Record that events were lost before this time, which may be of any connection."""
        self._loss = max(self._loss, time)

    def _put(self, event: StateChange, role: str | None) -> _Connection:
        connection = self._connections[event.address] = _Connection(event, role)
        if len(self._connections) > MAX_CONNECTIONS:
            drop_oldest(self._connections, MAX_CONNECTIONS)
        return connection

    def _open(self, event: StateChange, role: str) -> None:
        """Begin a connection or listener; the socket may have had another connection before."""
        connection = self._put(event, role)
        connection.begin(event.time, self._actor(event))
        self._started.pop(event.address, None)

    def _establish(self, event: StateChange, connection: _Connection | None) -> None:
        is_client = event.old == _SYN_SENT
        if (
            connection is None
            or not is_client
            or connection.state != _SYN_SENT
            or not self._is_same(connection, event)
        ):
            connection = self._put(event, CLIENT if is_client else SERVER)
            if event.old == _SYN_RECV:
                connection.begin(event.time, None)
        else:
            connection.set_ends(event)
        self._started[event.address] = event.time

    def _close(self, connection: _Connection, event: StateChange) -> None:
        """Take in a change of state towards the end."""
        was = connection.state
        connection.set_state(event)
        if event.new == _CLOSE_WAIT:
            if was != event.new:
                self._started[event.address] = event.time
        elif not event.flags & NOT_IN_PROCESS:
            connection.end(event, self._actor(event))

    def destroy(self, event: Destroyed) -> None:
        """Take in the end of a socket. Sockets that were never bound are of no interest."""
        self._started.pop(event.address, None)
        connection = self._connections.pop(event.address, None)
        if not event.local_port:
            return
        ends = Endpoints(
            event.family, event.local, event.local_port, event.remote, event.remote_port
        )
        opener = closer = aborter = opened = closed = role = None
        if connection is not None and self._is_same(connection, event):
            if connection.local_port:
                ends = connection.ends()
            else:  # The connection attempt failed.
                ends = ends._replace(remote=connection.remote, remote_port=connection.remote_port)
            role, opened, closed = connection.role, connection.opened, connection.closed
            opener, closer, aborter = connection.opener, connection.closer, connection.aborter
        task = opener or closer
        if not event.flags & NOT_IN_PROCESS:
            closed = event.time
            task = task or self._actor(event)
        else:
            task = task or aborter
        evidence = None if task is None else CONNECT if task is opener else CLOSE
        if closed is None:
            closed = event.time
        if len(self._finished) >= MAX_UNTAKEN:
            self._lost += 1
            return
        exited = task is not None and self._tasks.has_exited(task, closed)
        self._finished.append(
            Finished(event.cookie, ends, role, task, evidence, opened, closed, exited)
        )

    @property
    def has_news(self) -> bool:
        """Return whether there is something to take."""
        return bool(self._started or self._finished)

    def take(self) -> ConnectionReport:
        """Return what happened since the last call."""
        started = []
        for address, time in self._started.items():
            one = self._connections.get(address)
            if one is not None:
                started.append(
                    Started(one.ends(), one.state, one.role, one.opener, one.opened, time)
                )
        report = ConnectionReport(started, self._finished, self._lost)
        self._started, self._finished, self._lost = {}, [], 0
        return report

    def _actor(self, event: StateChange | Destroyed) -> Task | None:
        """Return the process that acts; None in an interrupt, and for a thread of the kernel."""
        return None if event.flags & NOT_IN_PROCESS else self._tasks.find(event.tid)

    def _is_same(self, connection: _Connection, event: StateChange | Destroyed) -> bool:
        """Return whether an event is of this connection, and not of a later one at its address.

        The local port is 0 in SYN_SENT. A reset, or connect(2) with AF_UNSPEC, clears the remote
        port before the end; a listener has none. A later socket may have the same single port.
        """
        local_port, remote_port = connection.local_port, event.remote_port
        if local_port == event.local_port and remote_port == connection.remote_port != 0:
            return True
        return (
            local_port in (0, event.local_port)
            and remote_port in (0, connection.remote_port)
            and connection.time > self._loss
        )
