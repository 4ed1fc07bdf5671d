"""The values that the live screen shows: rows, the header, alarms, and lines of styled text."""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from enum import StrEnum
from typing import NamedTuple

from ...model import Holding
from ..terminal.eventlog import LogValue
from ..terminal.peers import Holder


class Grouping(StrEnum):
    """What a row of the screen stands for, in the order in which a key goes through them."""

    PROCESS = "process"
    UNIT = "unit"
    CONTAINER = "container"
    USER = "user"
    SERVICE = "service"
    REMOTE = "remote"
    NAMESPACE = "namespace"
    HOST = "host"


class GroupKey(NamedTuple):
    """The identity of a group on one host.

    Process: ``number`` is the pid, None if the holder is unknown; ``start`` are its start ticks.
    Service: ``name`` is the protocol, ``number`` the port, None without one. Namespace: ``number``
    is its inode. Host: neither. The others have a ``name``, None for the sockets without one.
    """

    grouping: Grouping
    host: str
    name: str | None = None
    number: int | None = None
    start: int = 0


class SocketKey(NamedTuple):
    """The identity of a holding; ``inode`` is negative for sockets without one."""

    host: str
    pid: int | None
    inode: int


class Queue(NamedTuple):
    """An accept queue; ``endpoint`` is the local end of the listener, as people write it."""

    recv_q: int
    backlog: int
    endpoint: str

    @property
    def is_full(self) -> bool:
        """Whether it takes no more connections: the kernel lets one more than the backlog in."""
        return self.recv_q > self.backlog

    @property
    def text(self) -> str:
        """The connections that wait and the backlog, with a mark if it is full."""
        return f"{self.recv_q}/{self.backlog}{'!' if self.is_full else ''}"


class Traffic(NamedTuple):
    """What the TCP connections transferred that closed in the last minute, as far as the kernel
    reported it. ``rtt_ms`` is the round-trip time of the newest of them, None if unknown."""

    sent: int
    received: int
    retransmits: int
    rtt_ms: float | None


class GroupRow(NamedTuple):
    """A group of sockets. Sockets that several processes of a group hold count once.

    ``title`` is what the group is called, None if unknown, and not yet safe. ``pid``, ``user`` and
    ``unit`` are of groups by process. Rates are over 10 s. ``short_share`` is the share of the
    connections closed in the last minute that lived less than a second or were over before a
    poll; None if none closed. ``close_wait`` counts sockets in CLOSE_WAIT; the oldest has been so
    for ``close_wait_age`` seconds, longer if ``close_wait_since_before``. ``queue`` is the fullest
    accept queue. ``ended_ago``: seconds since the last socket was gone, None while there is one.
    ``has_exited``: it is a process, and known to have ended; else it may only have no socket.
    """

    key: GroupKey
    title: str | None
    pid: int | None
    user: str | None
    listen: int
    inbound: int
    outbound: int
    sockets: int
    opens_per_s: float
    closes_per_s: float
    short_share: float | None
    close_wait: int
    close_wait_age: float | None
    close_wait_since_before: bool
    queue: Queue | None
    unit: str | None
    traffic: Traffic | None
    ended_ago: float | None
    has_exited: bool = False


class SocketRow(NamedTuple):
    """A socket with its oldest holder; ``others`` counts further holders of the group.

    ``age`` is how long it has been open, None if it was open before the watch. ``peer`` holds the
    other end on this machine. ``recv_q`` and ``backlog`` are newer than those of the holding where
    queues were read. ``close_wait_age`` is as in ``GroupRow``, None in other states. ``ended_ago``
    is as in ``GroupRow``, and ``ending`` says how it ended.
    """

    key: SocketKey
    holding: Holding
    others: int
    age: float | None
    peer: Holder | None
    recv_q: int | None
    backlog: int | None
    close_wait_age: float | None
    close_wait_since_before: bool
    ended_ago: float | None
    ending: str


class PeerRow(NamedTuple):
    """Connections of a group, open or closed in the last minute, with one other end.

    ``direction`` is ``in``, ``out`` or ``-``; ``service`` the port that is called; ``peer`` the
    process at the other end, None if it is not of this machine; ``address`` the remote address,
    None of unix sockets.
    """

    direction: str
    service: str
    peer: Holder | None
    address: str | None
    connections: int


class Event(NamedTuple):
    """A line of the event log: see ``agent.publish.terminal.eventlog.log_line``. ``number`` is its
    identity."""

    host: str
    time: float
    value: LogValue
    number: int = 0


class Header(NamedTuple):
    """The first line. ``host`` is the name of the host, or how many there are; ``time`` that of
    the newest record. ``open_spark`` and ``close_spark`` count the opens and closes of each of the
    last 60 seconds, the oldest first. ``state`` is ``live``, or why it is not."""

    host: str
    time: float | None
    opens_per_s: float
    closes_per_s: float
    open_spark: tuple[int, ...]
    close_spark: tuple[int, ...]
    sockets: int
    inbound: int
    outbound: int
    listening: int
    state: str


class AlarmKind(StrEnum):
    """What an alarm is about, the most important first."""

    CLOSE_WAIT = "close-wait"
    QUEUE = "queue"
    CHURN = "churn"
    LOST = "lost"
    SILENT = "silent"
    COVERAGE = "coverage"


class Severity(StrEnum):
    """How bad it is; the value is the mark before the text."""

    ALARM = "!"
    NOTE = "?"


class Alarm(NamedTuple):
    """One sentence, which is safe. ``group`` is the process that it is about, if one is."""

    kind: AlarmKind
    text: str
    severity: Severity
    group: GroupKey | None = None


class Style(StrEnum):
    """Names of styles; they only repeat what words say."""

    PLAIN = "plain"
    BOLD = "bold"
    DIM = "dim"
    GOOD = "good"
    WARNING = "warning"
    ALARM = "alarm"
    ENDED = "ended"
    TITLE = "title"


class Segment(NamedTuple):
    """Safe text in one style."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Segment, ...]
