"""True histories of processes and connections, the events that the kernel writes of them, and pages
with these events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from agent.kernel.trace.connections import CLIENT, LISTENER, SERVER
from agent.kernel.trace.events import (
    CREATE,
    DESTROY,
    EXECUTE,
    EXIT,
    RENAME,
    SET_STATE,
    Destroyed,
    Event,
    Executed,
    Exited,
    StateChange,
    TaskCreated,
    TaskRenamed,
)

from .captured import KERNELS, formats, layout, make_data, make_page, make_record

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN = (
    1, 2, 3, 4, 7, 8, 9, 10
)  # fmt: skip
SOFT_INTERRUPT = 0x10
IN_PROCESS = (0, 0x04, 0x20, 0x24, 0x80, 0xA4)  # common_flags of older and newer kernels.
CLONE_THREAD = 0x10000
AF_INET = 2
LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\1"
KWORKER = 7
FIRST_TIME = 10**12
KERNEL = KERNELS[-1]


def change(
    old: int,
    new: int,
    ports: tuple[int, int] = (4000, 80),
    *,
    time: int = FIRST_TIME,
    flags: int = 0,
    tid: int = 100,
    address: int = 1,
) -> StateChange:
    """Return a change of state of a connection on loopback; ``ports`` are local and remote."""
    return StateChange(
        time, flags, tid, address, old, new, *ports, AF_INET, LOOPBACK, LOOPBACK
    )  # fmt: skip


def destroyed(
    cookie: int = 1,
    ports: tuple[int, int] = (4000, 80),
    *,
    time: int = FIRST_TIME,
    flags: int = SOFT_INTERRUPT,
    tid: int = 999,
    address: int = 1,
) -> Destroyed:
    return Destroyed(time, flags, tid, address, *ports, AF_INET, LOOPBACK, LOOPBACK, cookie)


@dataclass(eq=False)
class TrueProcess:
    pid: int
    started: int | None  # None: before the events.
    parent: TrueProcess | None
    comm: str
    threads: list[int]
    exe: str | None = None
    exited: int | None = None
    held: list[TrueSocket] = field(default_factory=list)


@dataclass(eq=False)
class TrueSocket:
    address: int
    ports: tuple[int, int]
    role: str
    holder: TrueProcess | None  # None: not accepted yet.
    opened: int
    state: int
    peer: TrueSocket | None = None
    is_direct: bool = False  # A kernel thread closes it.
    bound: bool = True


class Truth(NamedTuple):
    """What is true of a socket that was destroyed."""

    role: str
    process: TrueProcess | None
    opened: int
    exited: bool
    comm: str | None


class History:
    """A random history. ``truths`` are the destroyed sockets by cookie; ``cpus`` the events of each
    CPU in their order."""

    def __init__(
        self, seed: int, steps: int, *, pids: int = 10**6, namespaces: int = 1, cpus: int = 3
    ) -> None:
        self.random = Random(seed)
        self.time = FIRST_TIME
        self.events: list[Event] = []
        self.cpus: list[list[Event]] = [[] for _ in range(cpus)]
        self.truths: dict[int, Truth] = {}
        self.ended: dict[int, int] = {}  # Thread → when it exited.
        self.owners: dict[int, int] = {KWORKER: 0}  # Thread → the newest process with it.
        self._pids = range(100, 100 + pids)
        self._next_pid = 0
        self._used: set[int] = set()
        self._free = list(range(1, 4))
        self._next_address = 4
        self._ports = [40_000] * namespaces
        self._cookie = 0
        self.processes = [self._process(None, None) for _ in range(3)]
        self.existing = {one.pid: one.pid for one in self.processes} | {KWORKER: 0}
        self.killer = self.processes[0]  # It runs ``ss --kill``.
        self.sockets: list[TrueSocket] = []
        actions = (
            self.fork, self.thread, self.exit, self.exit_thread, self.listen, self.reconnect,
            *[self.connect] * 4, *[self.proceed] * 6, *[self.close] * 4, self.reset, self.kill,
        )  # fmt: skip
        for _ in range(steps):
            self.random.choice(actions)()
        for process in list(self.processes[1:]):
            self.exit(process)

    # Events.

    def _write(self, event: Event) -> None:
        self.events.append(event)
        self.random.choice(self.cpus).append(event)

    def _now(self) -> int:
        self.time += self.random.randint(1, 20_000)
        return self.time

    def _tid(self) -> int:
        """Return a thread that runs by chance when a packet arrives."""
        return self.random.choice([0, KWORKER, *(one.pid for one in self.processes)])

    def _change(
        self, socket: TrueSocket, new: int, by: int | None, ports: tuple[int, int] | None = None
    ) -> None:
        """Write a change of state; ``by`` is the thread, None in an interrupt."""
        flags, tid = (SOFT_INTERRUPT, self._tid()) if by is None else (self._flags(), by)
        event = change(
            socket.state, new, ports or socket.ports, time=self._now(), flags=flags, tid=tid,
            address=socket.address,
        )  # fmt: skip
        is_passed = new in (ESTABLISHED, SYN_SENT, CLOSE_WAIT) or by is not None
        if is_passed and new != SYN_RECV:  # As the filter of the instance.
            self._write(event)
        socket.state = new

    def _destroy(self, socket: TrueSocket, by: int | None, *, cleared: bool = False) -> None:
        flags, tid = (SOFT_INTERRUPT, self._tid()) if by is None else (self._flags(), by)
        self._cookie += 1
        ports = (socket.ports[0], 0) if cleared else socket.ports
        self._write(
            destroyed(
                self._cookie, ports, time=self._now(), flags=flags, tid=tid, address=socket.address
            )
        )
        holder = None if socket.is_direct else socket.holder
        comm = None if holder is None else holder.comm
        exited = holder is not None and holder.exited is not None
        self.truths[self._cookie] = Truth(socket.role, holder, socket.opened, exited, comm)
        self._free.append(socket.address)  # The next socket gets it.
        self.sockets.remove(socket)
        if socket.holder is not None:
            socket.holder.held.remove(socket)
        if socket.peer is not None:
            socket.peer.peer = None

    def _flags(self) -> int:
        return self.random.choice(IN_PROCESS)

    def _address(self) -> int:
        if not self._free:
            self._free.append(self._next_address)
            self._next_address += 1
        return self._free.pop()

    # Processes.

    def _take_tid(self) -> int:
        while True:
            pid = self._pids[self._next_pid % len(self._pids)]
            self._next_pid += 1
            if pid not in self._used:
                self._used.add(pid)
                return pid

    def _process(self, started: int | None, parent: TrueProcess | None) -> TrueProcess:
        pid = self._take_tid()
        comm = f"old{pid}" if parent is None else parent.comm
        self.owners[pid] = pid
        return TrueProcess(pid, started, parent, comm, [pid], None if not parent else parent.exe)

    def fork(self) -> None:
        if len(self.processes) > 12:
            return
        parent = self.random.choice(self.processes)
        now = self._now()
        tid = self.random.choice(parent.threads)
        child = self._process(now, parent)
        child.comm = parent.comm if parent.started is not None else f"c{child.pid}"
        self._write(TaskCreated(now, 0, tid, child.pid, child.comm.encode(), 0x11))
        self.processes.append(child)
        if self.random.random() < 0.5:
            self.execute(child)

    def execute(self, process: TrueProcess) -> None:
        """Execute a program, in a process with one thread."""
        process.comm, process.exe = f"p{self.time}"[-15:], f"/bin/p{self.time}"
        pid = process.pid
        self._write(TaskRenamed(self._now(), 0, pid, pid, process.comm.encode()))
        self._write(Executed(self._now(), 0, pid, pid, pid, process.exe.encode()))

    def thread(self) -> None:
        process = self.random.choice(self.processes)
        tid = self._take_tid()
        self.owners[tid] = process.pid
        by = self.random.choice(process.threads)
        self._write(TaskCreated(self._now(), 0, by, tid, process.comm.encode(), CLONE_THREAD))
        process.threads.append(tid)
        self._write(TaskRenamed(self._now(), 0, tid, tid, b"worker"))

    def exit_thread(self) -> None:
        process = self.random.choice(self.processes)
        if len(process.threads) > 1:
            self._end_thread(process.threads.pop())

    def _end_thread(self, tid: int) -> None:
        now = self._now()
        self._write(Exited(now, 0, tid, tid))
        self.ended[tid] = now
        self._used.discard(tid)

    def exit(self, process: TrueProcess | None = None) -> None:
        """End a process. It closes its sockets after the event of its exit."""
        if process is None:
            process = self.random.choice(self.processes)
            if process is self.killer or len(self.processes) < 4:
                return
        self.processes.remove(process)
        tids = process.threads[::-1]
        for tid in tids:
            self._end_thread(tid)
        self._used.update(tids)
        process.exited = self.time
        for socket in list(process.held):
            if socket in self.sockets:
                self.close(socket, process.pid)
        self._used.difference_update(tids)

    # Sockets.

    def _open(self, socket: TrueSocket) -> TrueSocket:
        self.sockets.append(socket)
        if socket.holder is not None:
            socket.holder.held.append(socket)
        return socket

    def _live(self) -> TrueProcess:
        return self.random.choice(self.processes)

    def listen(self) -> None:
        process = self._live()
        port = 80 + self.random.randrange(3)
        socket = TrueSocket(self._address(), (port, 0), LISTENER, process, 0, CLOSE)
        self._open(socket)
        self._change(socket, LISTEN, self.random.choice(process.threads))
        socket.opened = self.time

    def connect(self) -> None:
        process = self._live()
        netns = self.random.randrange(len(self._ports))
        self._ports[netns] += 1
        ports = (self._ports[netns], 80 + self.random.randrange(3))
        socket = TrueSocket(self._address(), ports, CLIENT, process, 0, CLOSE)
        self._open(socket)
        self._change(socket, SYN_SENT, self.random.choice(process.threads), (0, ports[1]))
        socket.opened = self.time

    def proceed(self) -> None:
        """Complete or refuse a connection that began."""
        pending = [one for one in self.sockets if one.state == SYN_SENT]
        if not pending:
            return
        client = self.random.choice(pending)
        by = self._thread_of(client)
        kind = self.random.random()
        if kind < 0.1:  # Refused; the owner of the lock handles the packet, or an interrupt.
            self._change(client, CLOSE, self.random.choice([by, None]))
            self._destroy(client, by, cleared=self.random.random() < 0.5)
            return
        self._change(client, ESTABLISHED, self.random.choice([by, None]))
        server = TrueSocket(self._address(), client.ports[::-1], SERVER, None, 0, SYN_RECV, client)
        client.peer = self._open(server)
        self._change(server, ESTABLISHED, None)
        server.opened = self.time
        server.is_direct = self.random.random() < 0.05
        server.holder = self._live()
        server.holder.held.append(server)

    def _thread_of(self, socket: TrueSocket) -> int:
        assert socket.holder is not None
        if socket.is_direct:
            return KWORKER
        return self.random.choice(socket.holder.threads)

    def close(self, socket: TrueSocket | None = None, by: int | None = None) -> None:
        if socket is None:
            if not self.sockets:
                return
            socket = self.random.choice(self.sockets)
        by = by or self._thread_of(socket)
        by = KWORKER if socket.is_direct else by
        if socket.state in (SYN_SENT, LISTEN):
            self._change(socket, CLOSE, by)
            self._destroy(socket, by)
        elif socket.state == CLOSE:  # The peer or ``ss --kill`` reset it.
            self._destroy(socket, by)
        elif socket.state == ESTABLISHED:
            self._change(socket, FIN_WAIT1, by)
            peer = socket.peer
            if peer is not None and peer.state == ESTABLISHED:
                self._change(peer, CLOSE_WAIT, None)
            if self.random.random() < 0.5:  # Otherwise its TIME_WAIT or the peer ends it later.
                self._destroy(socket, None)
        elif socket.state == CLOSE_WAIT:
            self._change(socket, LAST_ACK, by)
            is_in_process = self.random.random() < 0.5
            self._change(socket, CLOSE, by if is_in_process else None)
            self._destroy(socket, by if is_in_process else None)
        elif socket.state == FIN_WAIT1:
            self._destroy(socket, None)

    def reset(self, socket: TrueSocket | None = None) -> None:
        """Close with SO_LINGER 0."""
        open_ones = [one for one in self.sockets if one.state in (ESTABLISHED, CLOSE_WAIT)]
        if not open_ones:
            return
        socket = self.random.choice(open_ones)
        by = self._thread_of(socket)
        peer = socket.peer
        self._change(socket, CLOSE, by)
        self._destroy(socket, by, cleared=True)
        if peer is not None and peer.state == ESTABLISHED:
            self._change(peer, CLOSE, None)

    def kill(self) -> None:
        """Run ``ss --kill``."""
        chosen = [one for one in self.sockets if one.state == ESTABLISHED and not one.is_direct]
        if chosen:
            self._change(self.random.choice(chosen), CLOSE, self.killer.pid)

    def reconnect(self) -> None:
        """Disconnect with AF_UNSPEC, and connect the same socket again."""
        chosen = [one for one in self.sockets if one.state == ESTABLISHED and one.role == CLIENT]
        if not chosen:
            return
        socket = self.random.choice(chosen)
        by = self._thread_of(socket)
        self._change(socket, CLOSE, by)
        if socket.peer is not None:
            if socket.peer.state == ESTABLISHED:
                self._change(socket.peer, CLOSE, None)
            socket.peer.peer = None
            socket.peer = None
        self._ports[0] += 1
        socket.ports = (self._ports[0], 80 + self.random.randrange(3))
        self._change(socket, SYN_SENT, by, (0, socket.ports[1]))
        socket.opened = self.time


def record(event: Event, delta: int) -> bytes:
    """Return a record of an event, so many nanoseconds after the record before."""
    known = formats(KERNEL)
    common = {"common_flags": event.flags, "common_pid": event.tid}
    match event:
        case StateChange():
            data = make_data(
                known[SET_STATE], **common, skaddr=event.address, oldstate=event.old,
                newstate=event.new, sport=event.local_port, dport=event.remote_port,
                family=event.family, protocol=6, saddr_v6=event.local, daddr_v6=event.remote,
            )  # fmt: skip
        case Destroyed():
            data = make_data(
                known[DESTROY], **common, skaddr=event.address, sport=event.local_port,
                dport=event.remote_port, family=event.family, saddr_v6=event.local,
                daddr_v6=event.remote, sock_cookie=event.cookie,
            )  # fmt: skip
        case TaskCreated():
            data = make_data(
                known[CREATE], **common, pid=event.new_tid, comm=event.comm,
                clone_flags=event.clone_flags,
            )  # fmt: skip
        case TaskRenamed():
            renamed = {"pid": event.renamed_tid} if "pid" in known[RENAME].fields else {}
            data = make_data(known[RENAME], **common, **renamed, newcomm=event.comm)
        case Executed():
            name = event.filename + b"\0"
            head = make_data(known[EXECUTE], **common, pid=event.pid, old_pid=event.old_tid)
            place = len(name) << 16 | len(head)
            data = make_data(
                known[EXECUTE], **common, pid=event.pid, old_pid=event.old_tid, filename=place
            )
            data += name
        case Exited():
            data = make_data(known[EXIT], **common, pid=event.exited_tid)
    return make_record(data, delta)


def page_of(events: Sequence[Event], lost: int = 0) -> bytes:
    """Return a page with these events; so many were lost before it."""
    begin = before = events[0].time
    records = []
    for event in events:
        records.append(record(event, event.time - before))
        before = event.time
    flags = 1 << 31 | 1 << 30 if lost else 0
    return make_page(layout(KERNEL), *records, time=begin, flags=flags, lost=lost or None)
