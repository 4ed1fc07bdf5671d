"""Reading the kernel: rows of tables, descriptors, threads."""

from __future__ import annotations

import asyncio
import marshal
import os
import pickle
import struct
import threading
from collections.abc import Iterator
from random import Random
from socket import ntohs

from agent.kernel.netlink.inet_diag import inet_dump
from agent.kernel.netlink.messages import split_rows
from agent.kernel.netlink.unix_diag import unix_dump
from agent.kernel.rows import EMPTY
from agent.kernel.trace.connections import ConnectionTable
from agent.kernel.trace.events import EVENTS, ROUTE, SET_STATE, Destroyed, StateChange
from agent.kernel.trace.formats import COMMON
from agent.kernel.trace.reader import TraceReader
from agent.kernel.trace.tasks import TaskTable
from tests.captures import capture
from tests.kernel.trace import captured
from tests.kernel.trace.history import change, destroyed, page_of

from ..fuzz_tables import SCOPE
from .timing import Pair
from .values import COUNT, holdings

DESCRIPTORS = 200
# Of trace events: 160 pages, which are read at a time.
CONNECTIONS = 800
_PID = 100
# Below the usual RLIMIT_NOFILE of 1,024.
MANY = 500
# Numbers that are tried for a new descriptor.
MISSES = 8
# Offsets in inet_diag_msg, linux/inet_diag.h.
_PORTS, _INODE = 4, 68


def tcp_rows(count: int = COUNT) -> list[bytes]:
    """Return rows of an answer of inet_diag with ports and inodes of their own."""
    row = bytearray(split_rows([capture("netlink/tcp")])[0])
    rows = []
    for number in range(count):
        struct.pack_into("!HH", row, _PORTS, 1024 + number, 80)
        struct.pack_into("=I", row, _INODE, 100_000 + number)
        rows.append(bytes(row))
    return rows


def row_reuse() -> Pair:
    """Reuse the sockets of unchanged rows; decode all rows."""
    dump, rows = inet_dump("tcp"), tcp_rows()
    before = dump.read(rows, SCOPE, EMPTY)
    return Pair(
        lambda: dump.read(rows, SCOPE, before), lambda: dump.read(rows, SCOPE, EMPTY), COUNT
    )


def unnamed_rows() -> Pair:
    """Decode rows of unnamed unix sockets by one format; attribute by attribute.

    The other rows have one more attribute. The first row's format is that of unix_diag.py.
    """
    dump = unix_dump()
    plain = [
        struct.pack(
            "=BBBxIQ HHI HHII HHBxxx HHI", 1, 1, 1, number, number, 8, 2, number ^ 1,
            12, 4, 0, 0, 5, 6, 0, 8, 7, 0,
        )
        for number in range(COUNT)
    ]  # fmt: skip
    longer = [row + struct.pack("=HHI", 8, 99, 0) for row in plain]
    return Pair(
        lambda: dump.read(plain, SCOPE, EMPTY), lambda: dump.read(longer, SCOPE, EMPTY), COUNT
    )


def byte_order() -> Pair:
    """Ports to host order by socket.ntohs; by shifts."""
    ports = [Random(1).randrange(65_536) for _ in range(COUNT)]
    return Pair(
        lambda: [ntohs(port) for port in ports],
        lambda: [(port & 0xFF) << 8 | port >> 8 for port in ports],
        COUNT,
    )


def two_comparisons() -> Pair:
    """Compare a state with two literals; look it up in a tuple of them."""
    states = ["ESTABLISHED", "LISTEN", "TIME_WAIT", "CLOSE"] * (COUNT // 4)
    return Pair(
        lambda: [state != "SYN_SENT" and state != "CLOSE" for state in states],
        lambda: [state not in ("SYN_SENT", "CLOSE") for state in states],
        COUNT,
    )


def trace_pages() -> Pair:
    """Decode state changes with one format for all fields; field by field. Per event."""
    kernel = captured.KERNELS[-1]
    decoder, layout = captured.decoder(kernel), captured.layout(kernel)
    format = captured.formats(kernel)[SET_STATE]
    data = captured.make_data(
        format, protocol=6, skaddr=1 << 63, common_pid=1 << 20, sport=40_000, dport=443
    )
    record = captured.make_record(data, 5_000)
    count = layout.data_size // len(record)
    page = captured.make_page(layout, *[record] * count, time=1 << 50)
    codes = {1: "B", 2: "H", 4: "i", 8: "Q", 16: "16s"}
    fields = [
        struct.Struct(f"={field.offset + 4}x{codes[field.size]}")
        for field in map(format.fields.__getitem__, (*COMMON, *EVENTS[SET_STATE]))
        if field.name != "protocol"
    ]
    begins = range(layout.data_offset, layout.data_offset + count * len(record), len(record))

    def by_field() -> list[StateChange]:
        return [
            StateChange(0, *[field.unpack_from(page, begin)[0] for field in fields])
            for begin in begins
        ]

    return Pair(lambda: decoder.decode(page).events, by_field, count)


def trace_events() -> Pair:
    """Read, decode, sort and use the events of connections; use them only. Per event."""
    kernel = captured.KERNELS[-1]
    decoder, size = captured.decoder(kernel), captured.layout(kernel).page_size
    events = list(_connections(CONNECTIONS))
    tasks = TaskTable(lambda _tid: None)
    tasks.reset({_PID: _PID})
    per_page = 40
    file = os.memfd_create("trace_pipe_raw")  # It is open until the process ends.
    for at in range(0, len(events), per_page):
        os.write(file, page_of(events[at : at + per_page]))
    os.lseek(file, 0, os.SEEK_SET)
    reader = TraceReader(
        [file], size, decoder, tasks,
        on_actors=lambda _tids: None, on_report=lambda: None,
    )  # fmt: skip
    table = ConnectionTable(tasks)

    def read() -> object:
        os.lseek(file, 0, os.SEEK_SET)
        return reader.take()

    def use() -> object:
        change, destroy = table.change, table.destroy
        for event in events:
            if isinstance(event, StateChange):
                change(event)
            else:
                destroy(event)
        return table.take()

    if len(found := reader.take().finished) != 2 * CONNECTIONS:
        raise AssertionError(len(found))
    return Pair(read, use, len(events))


def _connections(count: int) -> Iterator[StateChange | Destroyed]:
    """Yield the events of connections on loopback, as the filter of the instance passes them."""
    time = 10**12
    for number in range(count):
        ports, back = (20_000 + number, 80), (80, 20_000 + number)
        client, server = number % 50 * 2 + 1, number % 50 * 2 + 2
        steps = (
            change(7, 2, (0, 80), address=client, tid=_PID),
            change(2, 1, ports, address=client, tid=_PID),
            change(3, 1, back, address=server, tid=_PID, flags=0x10),
            change(1, 4, ports, address=client, tid=_PID),
            change(1, 8, back, address=server, tid=_PID, flags=0x10),
            change(8, 9, back, address=server, tid=_PID),
            destroyed(2 * number, ports, address=client),
            destroyed(2 * number + 1, back, address=server),
        )
        for step in steps:
            time += 10_000
            yield step._replace(time=time)


def trace_routes() -> Pair:
    """Read, decode and use look-ups of routes, each of another socket; skip them. Per event."""
    kernel = captured.UDP_KERNELS[-1]
    layout, format = captured.layout(kernel), captured.udp_formats(kernel)[ROUTE]
    records = [
        captured.make_record(
            captured.make_data(
                format, common_pid=_PID, iif=1, proto=17, sport=20_000 + number, dport=53
            ),
            10_000,
        )
        for number in range(CONNECTIONS)
    ]
    tasks = TaskTable(lambda _tid: None)
    tasks.reset({_PID: _PID})
    per_page = layout.data_size // len(records[0])
    file = os.memfd_create("trace_pipe_raw")  # It is open until the process ends.
    for at in range(0, len(records), per_page):
        os.write(file, captured.make_page(layout, *records[at : at + per_page], time=1 << 40))
    readers = [
        TraceReader(
            [file], layout.page_size, decoder, tasks,
            on_actors=lambda _tids: None, on_report=lambda: None,
        )
        for decoder in (captured.udp_decoder(kernel), captured.decoder(kernel))
    ]  # fmt: skip

    def read(reader: TraceReader) -> object:
        os.lseek(file, 0, os.SEEK_SET)
        reader.routes.resume()  # All look-ups are of the same second.
        return reader.read()

    if read(readers[0]) != CONNECTIONS or len(readers[0].routes) != CONNECTIONS:
        raise AssertionError(len(readers[0].routes))
    return Pair(lambda: read(readers[0]), lambda: read(readers[1]), CONNECTIONS)


class _Descriptors:
    """Descriptors of this process, and their directory."""

    def __init__(self, count: int = DESCRIPTORS) -> None:
        self.all = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
        self.names = list(map(str, self.all))
        self.directory = os.open("/proc/self/fd", os.O_RDONLY)

    def __del__(self) -> None:
        for descriptor in (*self.all, self.directory):
            os.close(descriptor)

    def read(self) -> list[str]:
        """Return where they lead."""
        return [os.readlink(name, dir_fd=self.directory) for name in self.names]


def descriptor_links() -> Pair:
    """Read the link of a descriptor relative to its directory; by its path."""
    descriptors = _Descriptors()
    paths = [f"/proc/{os.getpid()}/fd/{name}" for name in descriptors.names]
    return Pair(descriptors.read, lambda: [os.readlink(path) for path in paths], DESCRIPTORS)


def free_descriptors() -> Pair:
    """Find a new descriptor among the lowest free numbers; by listing all. Of 500."""
    descriptors = _Descriptors(MANY)
    new = max(descriptors.all)

    def lowest() -> list[str | None]:
        return [_link(str(number), descriptors.directory) for number in range(new, new + MISSES)]

    known = set(map(int, os.listdir(descriptors.directory))) - {new}

    def listed() -> set[int]:
        return set(map(int, os.listdir(descriptors.directory))) - known

    return Pair(lowest, listed)


def _link(name: str, directory: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def executor_batches() -> Pair:
    """One executor call for many descriptors; one for each."""
    descriptors = _Descriptors()

    async def batch() -> None:
        await asyncio.to_thread(descriptors.read)

    async def each() -> None:
        for name in descriptors.names:
            await asyncio.to_thread(_link, name, descriptors.directory)

    return Pair(lambda: asyncio.run(batch()), lambda: asyncio.run(each()), DESCRIPTORS)


def thread_namespaces() -> Pair:
    """Read the network namespace of a thread; of its process."""
    thread = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    return Pair(lambda: os.readlink(thread), lambda: os.readlink("/proc/self/ns/net"))


class _Kept:
    """A file that is open for as long as the pair exists."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.file)


def open_schedstat() -> Pair:
    """Read schedstat of a thread through an open descriptor; open it each time."""
    path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
    kept = _Kept(path)

    def opened() -> bytes:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 64)
        finally:
            os.close(file)

    return Pair(lambda: os.pread(kept.file, 64, 0), opened)


def marshalled_scans() -> Pair:
    """Pass plain tuples through marshal; named tuples through pickle."""
    processes = [holding.process for holding in holdings() if holding.process is not None]

    def chosen() -> object:
        return marshal.loads(marshal.dumps([tuple(process) for process in processes]))

    def instead() -> object:
        return pickle.loads(pickle.dumps([process._replace() for process in processes]))

    return Pair(chosen, instead, COUNT)


BENCHMARKS = (
    row_reuse,
    unnamed_rows,
    byte_order,
    two_comparisons,
    trace_pages,
    trace_events,
    trace_routes,
    descriptor_links,
    free_descriptors,
    executor_batches,
    thread_namespaces,
    open_schedstat,
    marshalled_scans,
)
