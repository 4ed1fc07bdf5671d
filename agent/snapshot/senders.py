"""Guess which process a UDP socket was of that no poll saw, from who sent from its port. Pure.

The notice of the end of a socket has its ports and addresses; a look-up of a route has the process
and these ports. It is a guess: certain is only that the process sent from this port. It is made
only if one process alone sent from the port before the end, and no other socket has the port.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from socket import AF_INET
from typing import NamedTuple, Protocol

from ..kernel.trace.routes import ProcessId, Sender
from ..kernel.trace.tasks import Task
from ..model import Socket
from .addresses import format_address
from .reading import EndedSocket

PROTO = "udp"
# How long the end of a socket waits for the look-up, which may have been written in the last moment
# before a reading: seconds.
WAIT_SECONDS = 0.01
_MAPPED = "::ffff:"
_ANY = frozenset({None, "0.0.0.0", "::"})  # noqa: S104 (nothing is bound)
_time_of = attrgetter("time")


class NoticedEnd(NamedTuple):
    """A socket that ended, its network namespace, and when the notice of its end was received, in
    nanoseconds of the trace clock; 0 without a notice."""

    ended: EndedSocket
    netns: int | None
    received: int = 0


class SenderSource(Protocol):
    """What trace events showed of processes that sent datagrams over UDP."""

    @property
    def has_senders(self) -> bool:
        """Return whether such events are read."""

    def senders_of(self, port: int) -> Sequence[Sender]:
        """Return the processes that sent from a port, and are remembered."""

    def forget_senders(self, port: int, processes: Collection[ProcessId]) -> None:
        """Forget what some of them sent."""


class Surroundings(NamedTuple):
    """What is known besides a socket: ``netns_of`` returns the network namespace of a process, None
    if it is not known; ``ports`` the ports of the UDP sockets that a table shows in a namespace."""

    netns_of: Callable[[Task], int | None]
    ports: Callable[[int], frozenset[int]]


class SenderFinder:
    """Finds the senders of sockets that ended, and lets sockets wait for them for a moment.

    Each end, also of a socket that a poll saw, uses up the look-ups that may be of the socket: a
    later socket with its port must not get them.
    """

    def __init__(self, source: SenderSource | None) -> None:
        self._source = source
        self._waiting: list[tuple[NoticedEnd, float]] = []  # With the time since when.

    @property
    def is_waiting(self) -> bool:
        """Return whether a socket waits for the look-ups of its port."""
        return bool(self._waiting)

    def forget(self, end: NoticedEnd, known: Surroundings) -> None:
        """Forget the senders of a socket that a poll saw, whose holder procfs shows."""
        if self._source is not None and end.ended.socket.proto == PROTO:
            _take(self._source, end, known)

    def find(
        self,
        ends: Iterable[NoticedEnd],
        known: Surroundings,
        now: float,
        *,
        are_late: bool,
    ) -> list[EndedSocket]:
        """Return sockets that ended, and those that have waited long enough, with their senders.

        ``now`` is in seconds of any clock. ``are_late``: earlier events than those that were read
        are still to come.
        """
        source = self._source
        if source is None or not source.has_senders:
            source = None
        pending = [*self._waiting, *((end, now) for end in ends)]
        self._waiting = []
        # Of several sockets that had a port one after the other it is not known which one sent.
        users = Counter(
            (end.netns, end.ended.socket.local_port)
            for end, _since in pending
            if end.ended.socket.proto == PROTO
        )
        found: list[EndedSocket] = []
        for end, since in pending:
            one, netns, _received = end
            if source is None or netns is None or one.socket.proto != PROTO:
                found.append(one)
                continue
            port = one.socket.local_port
            senders = _take(source, end, known)
            if not senders and (are_late or now - since < WAIT_SECONDS):
                self._waiting.append((end, since))
                continue
            is_shared = not one.socket.remote_port and (
                users[netns, port] > 1 or port in known.ports(netns)
            )
            is_clear = len({sender.process for sender in senders}) == 1 and not is_shared
            found.append(one._replace(sender=max(senders, key=_time_of)) if is_clear else one)
        return found


def _take(source: SenderSource, end: NoticedEnd, known: Surroundings) -> list[Sender]:
    """Return the senders that may have used a socket. Forget them, and what else their processes
    sent from its port: to other destinations, before the socket was connected."""
    (socket, *_others), netns, received = end
    port = socket.local_port or 0
    senders = [
        sender
        for sender in source.senders_of(port)
        if sender.time <= received
        and _fits(sender, socket)
        and known.netns_of(sender.task) in (None, netns)
    ]
    if senders:
        source.forget_senders(port, {sender.process for sender in senders})
    return senders


def _fits(sender: Sender, socket: Socket) -> bool:
    """Return whether a process may have sent from a socket: from its address, and to its peer, if
    it has one. An address is zero as long as none is chosen; an IPv6 socket can send IPv4."""
    if socket.family == "inet" and sender.family != AF_INET:
        return False
    sent, bound = format_address(sender.family, sender.local), _plain(socket.local_addr)
    if sent not in _ANY and bound not in _ANY and sent != bound:
        return False
    if not socket.remote_port:
        return True
    remote = format_address(sender.family, sender.remote)
    return (remote, sender.remote_port) == (_plain(socket.remote_addr), socket.remote_port)


def _plain(address: str | None) -> str | None:
    """Return an address; one of IPv4 within IPv6 as IPv4."""
    return None if address is None else address.removeprefix(_MAPPED)
