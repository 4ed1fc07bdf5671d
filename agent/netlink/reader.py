"""Asks the kernel for its socket tables over netlink(7), namespace by namespace.

It knows sock_diag's dumps, and nothing of processes, deltas and output. Everything here blocks: it
is for executors.

A netlink socket belongs to the network namespace in which it was opened. For another one a thread
enters that namespace, opens the socket there and ends; that takes CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from .destroyed import GROUPS
from .diag import Dump, DumpError, inet, is_last, rows_of
from .others import netlink, packet, unix

# The kernel fills 32 KiB at a time; twice that leaves room.
_BUFFER_BYTES = 64 * 1024
# A dump that stands still for so many seconds is given up for the text tables.
_TIMEOUT_SECONDS = 5.0
_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1  # linux/socket.h, linux/netlink.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
# Room for about 4,000 notices that wait to be read; a notice counts for 1 KiB in there.
_HEARING_BYTES = 4 << 20
_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
# That the kernel has no such dump, and will not have it while it runs as it is.
_UNSUPPORTED = frozenset(
    {errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT}
)


class _Link:
    """A netlink socket in one namespace, and one that hears of the ends of sockets there.

    One dump at a time can be under way on it.
    """

    def __init__(self, asking: socket.socket, hearing: socket.socket | None) -> None:
        asking.settimeout(_TIMEOUT_SECONDS)
        self.socket = asking
        self.hearing = hearing
        self.lock = threading.Lock()

    def ask(self, dump: Dump) -> list[bytes]:
        """The answer to a dump, as it came. Raises OSError."""
        buffers: list[bytes] = []
        with self.lock:
            for request in dump.requests:
                self.socket.send(request)
                while True:
                    buffers.append(self.socket.recv(_BUFFER_BYTES))
                    if is_last(buffers[-1]):
                        break
        return buffers

    def close(self) -> None:
        """Close both."""
        self.socket.close()
        if self.hearing is not None:
            self.hearing.close()


# Namespaces in which sockets are opened, two in each, where nobody says how many.
MOST_NAMESPACES = 300


class NetlinkReader:
    """The sock_diag tables of the namespaces in which a netlink socket could be opened.

    ``own`` is the network namespace that we are in. ``unheld``: with rows that have no inode;
    ``cgroups``: with the cgroup of each socket. ``hear``: to be told of the ends of sockets.
    ``required``: where it may not be opened, that is worth telling. ``most`` are the namespaces in
    which it opens sockets: descriptors are needed elsewhere too.
    """

    def __init__(
        self,
        own: int,
        *,
        unheld: bool = False,
        cgroups: bool = False,
        hear: bool = False,
        required: bool = False,
        most: int = MOST_NAMESPACES,
    ) -> None:
        self._most = most
        self._own = own
        self.hears = hear
        self._required = required
        self._dumps = (
            *(inet(name, unheld=unheld, cgroups=cgroups) for name in ("tcp", "udp", "udplite")),
            unix(),
            netlink(),
            packet(),
        )
        self._links: dict[int, _Link | None] = {}  # None: it may not be entered.
        self._unsupported: set[tuple[str, ...]] = set()
        self._dropped: list[_Link] = []
        self._opening = threading.Lock()

    def dumps(
        self, netns: int, path: str, names: Collection[str]
    ) -> Iterator[tuple[Dump, list[bytes]]]:
        """The dumps that stand for the named tables of a namespace, as far as they can be had
        here, each with its rows.

        ``path`` leads to the namespace (``/proc/PID/ns/net``).
        """
        for dump in self._dumps:
            if dump.tables in self._unsupported or set(names).isdisjoint(dump.tables):
                continue
            link = self._link(netns, path)
            if link is None:
                return
            try:
                yield dump, rows_of(link.ask(dump))
            except DumpError as error:
                if error.errno in _UNSUPPORTED:
                    self._unsupported.add(dump.tables)
            except OSError:  # Timed out or overrun; what is left of its answer must not be read.
                self._drop(netns)

    def keep(self, namespaces: Collection[int]) -> None:
        """Leave all other namespaces: an open socket would keep them alive.

        Nobody may be listening to their hearing sockets any more.
        """
        with self._opening:
            for netns in self._links.keys() - set(namespaces):
                self._drop_link(netns)
            dropped, self._dropped = self._dropped, []
        for link in dropped:
            link.close()

    def hearing(self, netns: int) -> socket.socket | None:
        """The socket that hears of ends in a namespace, once its tables were asked for."""
        link = self._links.get(netns)
        return None if link is None else link.hearing

    def _sockets(self) -> Callable[[], tuple[socket.socket, socket.socket | None]]:
        return (lambda: (_asking(), _hearing())) if self.hears else (lambda: (_asking(), None))

    def refused(self) -> list[int]:
        """The namespaces that may not be entered, if that is worth telling."""
        return [at for at, link in self._links.items() if link is None] if self._required else []

    def works(self) -> bool:
        """Whether sock_diag answers in our own namespace."""
        return any(True for _dump in self.dumps(self._own, "", ("tcp", "unix")))

    def _link(self, netns: int, path: str) -> _Link | None:
        with self._opening:
            if netns not in self._links:
                if len(self._links) >= self._most and netns != self._own:
                    return None
                try:
                    self._links[netns] = self._open(netns, path)
                except PermissionError:  # The text tables tell, for as long as it is there.
                    self._links[netns] = None
                except OSError:  # The process that led there is gone; another may lead there too.
                    return None
            return self._links[netns]

    def _open(self, netns: int, path: str) -> _Link:
        sockets = self._sockets()
        return _Link(*(sockets() if netns == self._own else _in(netns, path, sockets)))

    def _drop(self, netns: int) -> None:
        with self._opening:
            self._drop_link(netns)

    def _drop_link(self, netns: int) -> None:
        link = self._links.pop(netns, None)
        if link is not None:
            self._dropped.append(link)  # Closed by ``keep``: somebody may listen to it still.


def _asking() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )


def _hearing() -> socket.socket:
    """A socket that hears of the end of every TCP and UDP socket. Raises OSError."""
    hearing = _asking()
    try:
        hearing.setblocking(False)
        try:
            hearing.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _HEARING_BYTES)
        except OSError:  # Without CAP_NET_ADMIN as much as anybody may have.
            hearing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HEARING_BYTES)
        # Without a port id of its own it would be taken for the sender, who hears nothing.
        hearing.bind((0, 0))
        for group in GROUPS:
            hearing.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        hearing.close()
        raise
    return hearing


T = TypeVar("T")


def _in(netns: int, path: str, make: Callable[[], T]) -> T:
    """What ``make`` makes in another network namespace. Raises OSError."""
    outcome: list[T | OSError] = []

    def enter() -> None:
        try:
            namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # The process may be another's by now, in another namespace.
                if os.fstat(namespace).st_ino != netns:
                    raise FileNotFoundError(errno.ENOENT, "the namespace is gone", path)
                _setns(namespace)
            finally:
                os.close(namespace)
            outcome.append(make())
        except OSError as error:
            outcome.append(error)

    # The namespace is this thread's alone, and ends with it.
    thread = threading.Thread(target=enter, name="setns")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    thread.join()
    made = outcome[0]
    if isinstance(made, OSError):
        raise made
    return made


def _setns(namespace: int) -> None:
    """setns(2), which Python has only since 3.12."""
    import ctypes  # Only here: it costs a millisecond to load.

    call = ctypes.CDLL(None, use_errno=True).setns
    if call(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNET)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
