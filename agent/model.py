"""The values that all other modules exchange: sockets, processes, holdings, snapshots, deltas.

They are named tuples: immutable, compared and hashed in C, and made at a fraction of the cost of a
frozen dataclass (``python -m bench micro``), which counts where a table has 20,000 rows.
"""

# No deferred annotations: typing.NamedTuple would compile each of them at import.
from collections.abc import Mapping
from typing import NamedTuple

# include/net/tcp_states.h, in the kernel's order from 1. The last one is NEW_SYN_RECV, an internal
# state that every tool reports as SYN_RECV.
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
# States of datagram, raw, netlink and packet sockets, and of unix sockets
# (include/uapi/linux/net.h).
DATAGRAM_STATES = ("ESTABLISHED", "UNCONNECTED")
UNIX_STATES = ("UNCONNECTED", "CONNECTING", "CONNECTED", "DISCONNECTING")

INET_FAMILIES = frozenset({"inet", "inet6"})
# IP protocols that have a table in /proc/net.
INET_PROTOS = ("tcp", "udp", "udplite", "raw", "icmp")


class Socket(NamedTuple):
    """One socket, as a table or only its descriptor shows it. None means unknown.

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
    """The cgroup of a process or socket, and the systemd unit and container that its path names."""

    cgroup: str | None
    unit: str | None
    container: str | None


class Process(NamedTuple):
    """One process. ``(pid, start_ticks)`` is its identity.

    ``start_ticks`` is in clock ticks since boot, ``start_time`` in seconds since the Unix epoch.
    ``uid`` is the effective user id. None means that a field may not be read.
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
    """What one read of ``/proc/PID/stat`` shows. ``comm``, ``image`` or ``ppid`` changes when the
    process calls execve(2) or gets another parent."""

    comm: str
    image: bytes
    ppid: int
    threads: int


# (descriptor, inode) of threads with descriptor tables of their own.
ThreadFds = tuple[tuple[int, int], ...]


def held_by(fds: Mapping[int, int], thread_fds: ThreadFds = ()) -> dict[int, tuple[int, ...]]:
    """Return inode → ascending descriptors, from descriptor → inode (0: no socket)."""
    held: dict[int, tuple[int, ...]] = {}
    several: dict[int, set[int]] = {}  # Of the few sockets with several descriptors.
    for descriptor, inode in fds.items():
        if not inode:
            continue
        if inode not in held:
            held[inode] = (descriptor,)
        else:
            several.setdefault(inode, set(held[inode])).add(descriptor)
    for descriptor, inode in thread_fds:
        several.setdefault(inode, set(held.get(inode, ()))).add(descriptor)
    held.update((inode, tuple(sorted(fds))) for inode, fds in several.items())
    return held


class Owner(NamedTuple):
    """A user id and its name, None if the system has no name for it."""

    uid: int
    user: str | None


# A holding lists the lowest descriptors, this many: the history keeps thousands of holdings, and a
# process may have a million descriptors on one socket.
MAX_LISTED_FDS = 64


class Holding(NamedTuple):
    """One process and one socket that it holds through ``fds`` (ascending, at most MAX_LISTED_FDS).

    If the holder is unknown, ``process`` is None, ``fds`` is empty and ``cgroup`` is that of the
    socket, if known. ``peer_pid`` is a holder of a unix socket's peer. ``omitted_fds`` counts the
    descriptors that ``fds`` does not list. ``attribution`` is one of ATTRIBUTIONS, of a TCP
    connection that no poll saw, or UDP_ATTRIBUTION; None if its process is unknown.
    """

    socket: Socket
    process: Process | None
    fds: tuple[int, ...]
    owner: Owner | None
    peer_pid: int | None = None
    cgroup: CgroupInfo | None = None
    omitted_fds: int = 0
    attribution: str | None = None


# How the process of a connection that no poll saw was found: it connected; it held the connection
# last; it is the only holder of the listening socket, which is a guess.
ATTRIBUTIONS = ("connect", "close", "listener")
# Of a UDP socket: it sent from the port of the socket, which is a guess.
UDP_ATTRIBUTION = "route"
# (pid, inode); the pid is None for a socket without a known holder.
HoldingKey = tuple[int | None, int]


class HostHolding(NamedTuple):
    """A holding of a host. ``since`` is when it opened, in seconds since the Unix epoch; None if it
    was open before the records began."""

    host: str
    holding: Holding
    since: float | None


# Why trace events are not read where nothing else is known.
EVENTS_OFF = "switched off (--events off)"


class Coverage(NamedTuple):
    """What one poll could read.

    ``processes`` and ``netns`` count processes and network namespaces, ``unreadable`` the processes
    whose descriptors may not be read. ``missing`` has one short sentence for each gap.
    ``events_off`` is why the kernel's trace events are not read, as a sentence; None if they are.
    """

    processes: int
    unreadable: int
    netns: int
    missing: tuple[str, ...] = ()
    events_off: str | None = EVENTS_OFF

    @property
    def complete(self) -> bool:
        """Return whether the poll read everything."""
        return not self.missing and not self.unreadable


class TcpFigures(NamedTuple):
    """What a TCP connection transferred, from tcp_info (``include/uapi/linux/tcp.h``).

    ``retransmits`` counts segments; ``rtt_ms`` is the smoothed round-trip time, None if it was
    never measured.
    """

    bytes_sent: int
    bytes_received: int
    segments_out: int
    segments_in: int
    retransmits: int
    rtt_ms: float | None


class SocketEnd(NamedTuple):
    """What the kernel reported of the end of a socket. ``time`` is in seconds since the Unix epoch.
    None: not reported."""

    time: float | None = None
    figures: TcpFigures | None = None


class ShortLived(NamedTuple):
    """A holding that began and ended between two snapshots.

    ``opened`` is in seconds since the Unix epoch, None if no event showed it. ``reason`` is closed
    or exited, None if that is to be found out from the processes of the snapshot.
    """

    holding: Holding
    opened: float | None = None
    end: SocketEnd = SocketEnd()
    reason: str | None = None


class Snapshot(NamedTuple):
    """The result of one poll, or of events after it. ``time`` is in seconds since the Unix epoch.

    ``processes`` maps all pids to their start ticks. ``changed`` are the keys of holdings that
    differ from the previous snapshot, None if unknown. ``short_lived`` began and ended since then.
    ``event_times`` maps inodes of sockets that were opened or changed since then to the times at
    which events showed it, ``ended`` inodes of sockets that ended to what was reported of the end.
    """

    time: float
    holdings: Mapping[HoldingKey, Holding]
    processes: Mapping[int, int]
    coverage: Coverage
    changed: frozenset[HoldingKey] | None = None
    short_lived: tuple[ShortLived, ...] = ()
    event_times: Mapping[int, float] = {}
    ended: Mapping[int, SocketEnd] = {}


class Opened(NamedTuple):
    """A process holds a socket that it did not hold before. ``time`` is when, in seconds since the
    Unix epoch; None if only the poll that found it is known."""

    holding: Holding
    time: float | None = None


class Updated(NamedTuple):
    """A holding changed; ``before`` is the holding as it was.

    ``seconds`` is how long it has been open, None if it was open before the first poll. ``time`` is
    as in ``Opened``.
    """

    holding: Holding
    before: Holding
    seconds: float | None = None
    time: float | None = None


class Closed(NamedTuple):
    """A process no longer holds a socket.

    ``reason`` is closed, exited or attributed. ``seconds`` is how long it was open, None if it was
    open before the first poll. ``time`` is as in ``Opened``. ``figures`` are None if the kernel did
    not report them.
    """

    holding: Holding
    reason: str
    seconds: float | None
    time: float | None = None
    figures: TcpFigures | None = None


Delta = Opened | Updated | Closed | Coverage
