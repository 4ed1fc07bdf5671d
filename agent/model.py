"""The values that every other room speaks in: sockets, processes, holdings, snapshots, deltas.

Plain immutable data. This module knows neither where the values come from nor where they go.

They are named tuples: frozen, slotted, compared and hashed in C, and at a third of the cost of a
frozen dataclass to make, which counts where a table has 20,000 rows.
"""

# No deferred annotations here: named tuples would compile each of them when they are made.
from collections.abc import Mapping
from typing import NamedTuple

# include/net/tcp_states.h, in the kernel's order from 1; NEW_SYN_RECV is the kernel's own
# bookkeeping for what every tool calls SYN_RECV.
TCP_STATES = (
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RECV",
)
# States of datagram, raw, netlink and packet sockets; of unix sockets (include/uapi/linux/net.h).
DATAGRAM_STATES = ("ESTABLISHED", "UNCONNECTED")
UNIX_STATES = ("UNCONNECTED", "CONNECTING", "CONNECTED", "DISCONNECTING")

INET_FAMILIES = frozenset({"inet", "inet6"})
# Protocols that have a table in /proc/net, by family: what a poll reads.
INET_PROTOS = ("tcp", "udp", "udplite", "raw", "icmp")


class Socket(NamedTuple):
    """One socket as a table, or its descriptor alone, shows it. None means unknown.

    ``inode`` is 0 only for rows that no process can hold (TIME_WAIT, orphans, the kernel's own).
    ``uid`` is the owner that the table names, None where the table names none. ``netns`` is the
    inode of the network namespace. ``path`` and ``type`` are of unix sockets only, addresses and
    ports of all the others. Queues are in bytes, for a listener in connections; ``backlog`` is how
    many a listener lets wait. ``peer_inode`` is the other end of a unix socket, ``interface`` the
    one that the socket is bound to, ``cgroup_id`` the inode of its cgroup's directory. ``cookie``
    is the kernel's number of the socket, which no other socket of this boot gets; only netlink
    shows it.
    """

    inode: int
    proto: str | None
    family: str | None
    type: str | None
    state: str | None
    local_addr: str | None = None
    local_port: int | None = None
    remote_addr: str | None = None
    remote_port: int | None = None
    path: str | None = None
    direction: str | None = None
    recv_q: int | None = None
    send_q: int | None = None
    uid: int | None = None
    netns: int | None = None
    source: str = "procfs"
    peer_inode: int | None = None
    backlog: int | None = None
    interface: str | None = None
    cgroup_id: int | None = None
    cookie: int | None = None


class CgroupInfo(NamedTuple):
    """Where a process or a socket is accounted: its cgroup, and the unit and container in that."""

    cgroup: str | None
    unit: str | None
    container: str | None


class Process(NamedTuple):
    """One process. ``(pid, start_ticks)`` is its identity.

    ``start_ticks`` is in clock ticks since boot, ``start_time`` in seconds since the Unix epoch.
    ``uid`` is the effective user id. None means that it may not be read.
    """

    pid: int
    start_ticks: int
    comm: str
    ppid: int
    start_time: float
    uid: int | None = None
    exe: str | None = None
    cgroup: str | None = None
    unit: str | None = None
    container: str | None = None
    cmdline: tuple[str, ...] | None = None


class StatFingerprint(NamedTuple):
    """What one read of ``stat`` shows of a process. ``comm``, ``image`` and ``ppid`` differ when it
    exec'ed or got another parent."""

    comm: str
    image: bytes
    ppid: int
    threads: int


# Sockets of threads with descriptor tables of their own: (descriptor, inode).
ThreadFds = tuple[tuple[int, int], ...]


def held_by(fds: Mapping[int, int], more: ThreadFds = ()) -> dict[int, tuple[int, ...]]:
    """Return inode → descriptors, ascending, of descriptor → inode."""
    held: dict[int, tuple[int, ...]] = {}
    several: dict[int, set[int]] = {}  # Of sockets with more than one descriptor: few.
    for descriptor, inode in fds.items():
        if not inode:
            continue
        if inode not in held:
            held[inode] = (descriptor,)
        else:
            several.setdefault(inode, set(held[inode])).add(descriptor)
    for descriptor, inode in more:
        several.setdefault(inode, set(held.get(inode, ()))).add(descriptor)
    held.update((inode, tuple(sorted(fds))) for inode, fds in several.items())
    return held


class Owner(NamedTuple):
    """A user id and its name; the name is None where the system knows none."""

    uid: int
    user: str | None


# Descriptors of one process on one socket that a holding lists, the lowest ones: the history keeps
# thousands of holdings, and one process may have a million descriptors on one socket.
MAX_LISTED_FDS = 64


class Holding(NamedTuple):
    """One process on one socket, through ``fds`` (ascending, at most MAX_LISTED_FDS).

    ``process`` is None, and ``fds`` empty, when the holder cannot be seen; ``place`` is then where
    the socket is accounted, if that can. ``peer_pid`` is a holder of a unix socket's other end.
    ``omitted_fds`` counts the process's descriptors on the socket that ``fds`` does not list.
    """

    socket: Socket
    process: Process | None
    fds: tuple[int, ...]
    owner: Owner | None
    peer_pid: int | None = None
    place: CgroupInfo | None = None
    omitted_fds: int = 0


# (pid, inode); the pid is None for a socket whose holder cannot be seen.
HoldingKey = tuple[int | None, int]
Key = HoldingKey


class Coverage(NamedTuple):
    """What the agent could see in one poll.

    ``unreadable`` counts processes whose descriptors may not be read, ``netns`` the network
    namespaces read. ``missing`` holds one short sentence per thing that was not seen.
    """

    processes: int
    unreadable: int
    netns: int
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing was out of sight."""
        return not self.missing and not self.unreadable


class Snapshot(NamedTuple):
    """The state of one completed poll. ``time`` is in seconds since the Unix epoch.

    ``processes`` maps the pids there are to their start ticks. ``changed`` are the keys whose
    holdings are not those of the snapshot before; None when that is not known. ``brief`` are those
    that came and went since the snapshot before.
    """

    time: float
    holdings: Mapping[HoldingKey, Holding]
    processes: Mapping[int, int]
    coverage: Coverage
    changed: frozenset[HoldingKey] | None = None
    short_lived: tuple[Holding, ...] = ()


class Opened(NamedTuple):
    """A process came to hold a socket."""

    holding: Holding


class Updated(NamedTuple):
    """What is told of a holding changed; ``before`` is the holding as it was.

    ``seconds`` is how long the socket has been open, None when it was before the agent looked.
    """

    holding: Holding
    before: Holding
    seconds: float | None = None


class Closed(NamedTuple):
    """A process no longer holds a socket.

    ``reason`` is closed, exited or attributed; ``seconds`` is how long it was open, None when it
    was open before the agent looked.
    """

    holding: Holding
    reason: str
    seconds: float | None


Delta = Opened | Updated | Closed | Coverage
