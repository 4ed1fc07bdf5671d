"""Values of the trace events that are read, and the fields that they need.

Times are nanoseconds of the trace clock. ``flags`` is common_flags: the context in which the
event ran. ``tid`` is common_pid: the thread that ran at that moment. ``local`` and ``remote`` are
the 16 bytes of saddr_v6 and daddr_v6, in which IPv4 is ``::ffff:a.b.c.d``. Ports are in host order.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple


class FieldKind(Enum):
    """What a field of an event holds."""

    INTEGER = "an integer"
    ADDRESS = "an IPv6 address"
    IPV4_ADDRESS = "an IPv4 address"
    TEXT = "an array of characters"
    DYNAMIC_TEXT = "the offset and length of a text"


class StateChange(NamedTuple):
    """sock:inet_sock_set_state: a TCP socket changed from the state ``old`` to ``new``.

    ``local_port`` is 0 where the port is not chosen yet: in the change to SYN_SENT.
    """

    time: int
    flags: int
    tid: int
    address: int  # Of the socket in the kernel; used again after the socket is destroyed.
    old: int
    new: int
    local_port: int
    remote_port: int
    family: int
    local: bytes
    remote: bytes


class Destroyed(NamedTuple):
    """tcp:tcp_destroy_sock: a TCP socket is destroyed."""

    time: int
    flags: int
    tid: int
    address: int
    local_port: int
    remote_port: int
    family: int
    local: bytes
    remote: bytes
    cookie: int


class TaskCreated(NamedTuple):
    """task:task_newtask: ``tid`` created a thread or, without CLONE_THREAD, a process."""

    time: int
    flags: int
    tid: int
    new_tid: int
    comm: bytes
    clone_flags: int


class TaskRenamed(NamedTuple):
    """task:task_rename: a thread has a new comm."""

    time: int
    flags: int
    tid: int
    renamed_tid: int
    comm: bytes


class Executed(NamedTuple):
    """sched:sched_process_exec: the process ``pid`` runs another file.

    ``old_tid`` is the thread that called execve(2); its id becomes that of the process.
    """

    time: int
    flags: int
    tid: int
    pid: int
    old_tid: int
    filename: bytes


class Exited(NamedTuple):
    """sched:sched_process_exit: a thread exits."""

    time: int
    flags: int
    tid: int
    exited_tid: int


class RouteLookup(NamedTuple):
    """fib:fib_table_lookup, fib6:fib6_table_lookup: a process of this machine sends a datagram to
    ``remote``, or connects to it, and the kernel looks up the route.

    An unconnected socket does so for each datagram. ``family`` is that of the packets: an IPv6
    socket can send IPv4. ``local`` is zero where the kernel has not chosen an address yet.
    """

    time: int
    flags: int
    tid: int
    family: int
    protocol: int
    local_port: int
    remote_port: int
    local: bytes
    remote: bytes


Event = StateChange | Destroyed | TaskCreated | TaskRenamed | Executed | Exited | RouteLookup

SET_STATE = "sock/inet_sock_set_state"
DESTROY = "tcp/tcp_destroy_sock"
CREATE = "task/task_newtask"
RENAME = "task/task_rename"
EXECUTE = "sched/sched_process_exec"
EXIT = "sched/sched_process_exit"
ROUTE = "fib/fib_table_lookup"
ROUTE6 = "fib6/fib6_table_lookup"

# Of TCP and processes: the fields that each event needs, besides the common ones. In kernels so far
# their offsets are in this order, which the decoder reads without rearrangement.
EVENTS: Mapping[str, Mapping[str, FieldKind]] = MappingProxyType({
    SET_STATE: {
        "skaddr": FieldKind.INTEGER,
        "oldstate": FieldKind.INTEGER,
        "newstate": FieldKind.INTEGER,
        "sport": FieldKind.INTEGER,
        "dport": FieldKind.INTEGER,
        "family": FieldKind.INTEGER,
        "protocol": FieldKind.INTEGER,
        "saddr_v6": FieldKind.ADDRESS,
        "daddr_v6": FieldKind.ADDRESS,
    },
    DESTROY: {
        "skaddr": FieldKind.INTEGER,
        "sport": FieldKind.INTEGER,
        "dport": FieldKind.INTEGER,
        "family": FieldKind.INTEGER,
        "saddr_v6": FieldKind.ADDRESS,
        "daddr_v6": FieldKind.ADDRESS,
        "sock_cookie": FieldKind.INTEGER,
    },
    CREATE: {
        "pid": FieldKind.INTEGER,
        "comm": FieldKind.TEXT,
        "clone_flags": FieldKind.INTEGER,
    },
    RENAME: {"newcomm": FieldKind.TEXT},
    EXECUTE: {
        "filename": FieldKind.DYNAMIC_TEXT,
        "pid": FieldKind.INTEGER,
        "old_pid": FieldKind.INTEGER,
    },
    EXIT: {"pid": FieldKind.INTEGER},
})  # fmt: skip

# Of UDP, which are read on request only.
UDP_EVENTS: Mapping[str, Mapping[str, FieldKind]] = MappingProxyType({
    ROUTE: {
        "iif": FieldKind.INTEGER,
        "proto": FieldKind.INTEGER,
        "src": FieldKind.IPV4_ADDRESS,
        "dst": FieldKind.IPV4_ADDRESS,
        "sport": FieldKind.INTEGER,
        "dport": FieldKind.INTEGER,
    },
    ROUTE6: {
        "iif": FieldKind.INTEGER,
        "src": FieldKind.ADDRESS,
        "dst": FieldKind.ADDRESS,
        "sport": FieldKind.INTEGER,
        "dport": FieldKind.INTEGER,
        "proto": FieldKind.INTEGER,
    },
})  # fmt: skip
FIELDS: Mapping[str, Mapping[str, FieldKind]] = MappingProxyType({**EVENTS, **UDP_EVENTS})


class TraceCounts(NamedTuple):
    """Counts since the start: events read, events lost, and records that could not be decoded.

    ``losses`` is how often events were lost, also where their number is not known.
    """

    events: int = 0
    lost: int = 0
    malformed: int = 0
    losses: int = 0
