"""The sockets of one group and what is counted of them. Pure."""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import NamedTuple

from ...model import Closed, Holding, HostHolding, Opened, Owner, Process
from ..terminal.cells import place_of, user_name
from ..terminal.endpoints import listens, local_end
from ..terminal.options import Options
from .keys import title_of
from .model import Grouping, GroupKey, GroupRow, Queue, SocketKey
from .rates import Rates

# CLOSE_WAIT sockets whose ages are looked at.
OLDEST = 3

_OPTIONS = Options()
_LISTEN, _IN, _OUT, _OTHER, _CLOSE_WAIT = "listen", "in", "out", "other", "close_wait"
_KINDS = {"inbound": _IN, "outbound": _OUT}

Queues = Mapping[tuple[str, int], tuple[int, int]]


class Since(NamedTuple):
    """Since when a socket is in CLOSE_WAIT; ``before``: it was so before that already."""

    time: float
    before: bool


def kind_of(holding: Holding) -> str:
    """Return in which column a socket counts."""
    socket = holding.socket
    return _LISTEN if listens(socket) else _KINDS.get(socket.direction or "", _OTHER)


class Group:
    """The sockets of one group, and its rates."""

    __slots__ = (
        "_counts", "_ended", "_has_exited", "_holders", "_owner", "_process", "_title", "_unit",
        "_user", "close_wait", "key", "listeners", "members", "rates",
    )  # fmt: skip

    def __init__(self, key: GroupKey, holding: Holding) -> None:
        """``holding`` is one of the group."""
        self.key = key
        self.members: dict[SocketKey, HostHolding] = {}
        self.rates = Rates()
        self._ended: float | None = None  # Since when there is no socket.
        self._has_exited = False  # What the newest change says.
        # Listeners with a queue, and since when sockets are in CLOSE_WAIT, by inode.
        self.listeners: dict[int, Holding] = {}
        self.close_wait: dict[int, Since] = {}
        # How many holders a socket has of one kind, and how many sockets there are of it.
        self._holders: dict[tuple[str, int], int] = {}
        self._counts = dict.fromkeys((_LISTEN, _IN, _OUT, _OTHER, _CLOSE_WAIT), 0)
        self._title = title_of(key, holding)
        self._process: Process | None = None
        self._owner: Owner | None = None
        self._user: str | None = None
        self._unit: str | None = None

    def describe(self, holding: Holding) -> None:
        """Take the names from a holding; only those of a process change. The user is that of
        connections: a listener may be of root, and its process no longer."""
        if self.key.grouping is not Grouping.PROCESS:
            return
        if holding.process is not self._process:
            self._process = holding.process
            self._title = title_of(self.key, holding)
            self._unit = place_of(holding, "unit")
        if holding.owner is not self._owner and (
            self._owner is None or not listens(holding.socket)
        ):
            self._owner = holding.owner
            self._user = user_name(holding)

    def add(self, key: SocketKey, one: HostHolding, since: Since | None) -> None:
        """Add a holding; ``since`` is of one in CLOSE_WAIT."""
        self.members[key] = one
        self._ended = None
        holding, inode = one.holding, key.inode
        self._count(kind_of(holding), inode)
        if holding.socket.state == "LISTEN" and holding.socket.backlog is not None:
            self.listeners[inode] = holding
        if since is not None:
            self._count(_CLOSE_WAIT, inode)
            known = self.close_wait.get(inode)
            self.close_wait[inode] = since if known is None else min(since, known)

    def remove(self, key: SocketKey, since: Since | None) -> None:
        """Remove a holding; ``since`` is what it was added with."""
        holding, inode = self.members.pop(key).holding, key.inode
        if self._discount(kind_of(holding), inode):
            self.listeners.pop(inode, None)
        if since is not None and self._discount(_CLOSE_WAIT, inode):
            del self.close_wait[inode]

    def holds(self, inode: int) -> bool:
        """Return whether a process of the group holds a socket."""
        return any((kind, inode) in self._holders for kind in (_IN, _OUT, _OTHER, _LISTEN))

    def _count(self, kind: str, inode: int) -> None:
        key = (kind, inode)
        holders = self._holders.get(key, 0)
        self._holders[key] = holders + 1
        if not holders:
            self._counts[kind] += 1

    def _discount(self, kind: str, inode: int) -> bool:
        """Remove a holder; return whether it was the last one."""
        holders = self._holders[kind, inode] - 1
        if holders:
            self._holders[kind, inode] = holders
            return False
        del self._holders[kind, inode]
        self._counts[kind] -= 1
        return True

    def note_change(self, value: Opened | Closed) -> None:
        """Note whether the newest change of a process says that it has ended."""
        self._has_exited = isinstance(value, Closed) and value.reason == "exited"

    def end(self, time: float) -> None:
        """Note the time of the newest change while there is no socket."""
        self._ended = time

    def is_lingering(self, now: float, seconds: float) -> bool:
        """Return whether the group ended less than so many seconds ago; a time to come means that
        the clock was set."""
        return self._ended is not None and abs(now - self._ended) < seconds

    def oldest(self) -> list[Since]:
        """Return when the oldest sockets in CLOSE_WAIT came to be so."""
        return nsmallest(OLDEST, self.close_wait.values())

    def full_queues(self, queues: Queues) -> list[Queue]:
        """Return the accept queues that take no more connections."""
        return [queue for queue in self._queues(queues) if queue.is_full]

    def _queues(self, queues: Queues) -> Iterable[Queue]:
        for inode, holding in self.listeners.items():
            recv_q, backlog = queue_of(self.key.host, inode, holding, queues)
            if recv_q is not None and backlog is not None:
                yield Queue(recv_q, backlog, local_end(holding.socket, _OPTIONS))

    def row(self, now: float, since: float, queues: Queues) -> GroupRow:
        """Return the row; ``now`` is the time of the host, ``since`` when counting began."""
        counts, key = self._counts, self.key
        opens, closes = self.rates.per_second(now, since)
        oldest = min(self.close_wait.values(), default=None)
        fullest = max(
            self._queues(queues), key=lambda one: one.recv_q / (one.backlog + 1), default=None
        )
        return GroupRow(
            key,
            self._title,
            key.number if key.grouping is Grouping.PROCESS else None,
            self._user,
            counts[_LISTEN],
            counts[_IN],
            counts[_OUT],
            counts[_LISTEN] + counts[_IN] + counts[_OUT] + counts[_OTHER],
            opens,
            closes,
            self.rates.short_share(now),
            counts[_CLOSE_WAIT],
            None if oldest is None else max(0.0, now - oldest.time),
            oldest is not None and oldest.before,
            fullest,
            self._unit,
            self.rates.traffic(),
            None if self._ended is None else max(0.0, now - self._ended),
            self._has_exited and key.grouping is Grouping.PROCESS,
        )


def queue_of(
    host: str, inode: int, holding: Holding, queues: Queues
) -> tuple[int | None, int | None]:
    """Return the newest queue and backlog of a socket: as read, else as recorded."""
    socket = holding.socket
    return queues.get((host, inode), (socket.recv_q, socket.backlog))
