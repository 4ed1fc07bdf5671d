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
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from .destroy import GROUPS
from .inet_diag import (
    Dump,
    DumpError,
    inet,
    is_last,
    numbered,
    rows_of,
    sequence_of,
)
from .messages import KERNEL, receive
from .other_diag import netlink, packet, unix

# A dump that stands still for so many seconds is given up for the text tables.
_TIMEOUT_SECONDS = 5.0
_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1  # linux/socket.h, linux/netlink.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
# Room for notices that wait to be read; one counts for 1 KiB. In our own namespace, where servers
# end 20,000 sockets a second, for some seconds of them; in others, which any user may make, less.
_OWN_HEARING_BYTES = 64 << 20
_HEARING_BYTES = 4 << 20
_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
# The kernel has no such dump in a namespace.
_UNSUPPORTED = frozenset(
    {errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT}
)
# Seconds until a dump that a namespace does not support is requested there again: each request
# makes the kernel search for a module, which starts a process.
UNSUPPORTED_SECONDS = 600.0
# The tables that each dump stands for.
DUMPED = (
    ("tcp", "tcp6"),
    ("udp", "udp6"),
    ("udplite", "udplite6"),
    ("unix",),
    ("netlink",),
    ("packet",),
)
_MAX_SEQUENCE = 0xFFFF_FFFF  # Of 32 bits.


class _Link:
    """A netlink socket in one namespace, and one that hears of the ends of sockets there.

    One dump at a time can be under way on it.
    """

    def __init__(self, asking: socket.socket, hearing: socket.socket | None) -> None:
        asking.settimeout(_TIMEOUT_SECONDS)
        self.socket = asking
        self.hearing = hearing
        self.lock = threading.Lock()
        self.ignored = 0  # Messages of other processes to the asking socket.
        self._sequence = 0  # Of the last request.
        self._unsupported: dict[tuple[str, ...], float] = {}  # Until when, by the dump's tables.

    def ask(self, dump: Dump) -> list[bytes]:
        """The answer to a dump, as it came. Raises OSError."""
        buffers: list[bytes] = []
        with self.lock:
            for request in dump.requests:
                self._sequence = self._sequence % _MAX_SEQUENCE + 1
                self.socket.send(numbered(request, self._sequence))
                while True:
                    buffer = self._receive()
                    if sequence_of(buffer) != self._sequence:
                        continue  # It answers an older request.
                    buffers.append(buffer)
                    if is_last(buffer):
                        break
        return buffers

    def _receive(self) -> bytes:
        """Return the next datagram of the kernel. Raises OSError."""
        while True:
            datagram = receive(self.socket)
            if not datagram.from_kernel:
                self.ignored += 1
            elif datagram.truncated:
                raise OSError(errno.EMSGSIZE, "a netlink message is larger than the buffer")
            else:
                return datagram.data

    def supports(self, dump: Dump) -> bool:
        """Return whether to request this dump here."""
        return time.monotonic() >= self._unsupported.get(dump.tables, 0.0)

    def mark_unsupported(self, dump: Dump) -> None:
        """Do not request this dump here for UNSUPPORTED_SECONDS."""
        self._unsupported[dump.tables] = time.monotonic() + UNSUPPORTED_SECONDS

    def close(self) -> None:
        """Close both."""
        self.socket.close()
        if self.hearing is not None:
            self.hearing.close()


# Namespaces in which sockets are opened, two in each, where nobody says how many.
MOST_NAMESPACES = 300


class NetlinkClient:
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
        unowned: bool = False,
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
            *(inet(name, unowned=unowned, cgroups=cgroups) for name in ("tcp", "udp", "udplite")),
            unix(),
            netlink(),
            packet(),
        )
        self._links: dict[int, _Link | None] = {}  # None: it may not be entered.
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
            if set(names).isdisjoint(dump.tables):
                continue
            link = self._link(netns, path)
            if link is None:
                return
            if not link.supports(dump):
                continue
            try:
                yield dump, rows_of(link.ask(dump))
            except DumpError as error:
                if error.errno in _UNSUPPORTED:
                    link.mark_unsupported(dump)
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

    def _sockets(self, size: int) -> tuple[socket.socket, socket.socket | None]:
        """Open sockets where we are; ``size`` is the bytes of notices that may wait."""
        return _asking(), _hearing(size) if self.hears else None

    def refused(self) -> list[int]:
        """The namespaces that may not be entered, if that is worth telling."""
        return [at for at, link in self._links.items() if link is None] if self._required else []

    def take_ignored(self) -> Counter[int]:
        """Return how many messages of other processes each namespace's asking socket ignored since
        this was last called."""
        ignored: Counter[int] = Counter()
        for netns, link in list(self._links.items()):
            if link is not None and link.ignored:
                ignored[netns], link.ignored = link.ignored, 0
        return ignored

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
        if netns == self._own:
            return _Link(*self._sockets(_OWN_HEARING_BYTES))
        return _Link(*_in(netns, path, lambda: self._sockets(_HEARING_BYTES)))

    def _drop(self, netns: int) -> None:
        with self._opening:
            self._drop_link(netns)

    def _drop_link(self, netns: int) -> None:
        link = self._links.pop(netns, None)
        if link is not None:
            self._dropped.append(link)  # Closed by ``keep``: somebody may listen to it still.


def _asking() -> socket.socket:
    """Return a socket to which only the kernel can send, but for multicast. Raises OSError."""
    asking = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )
    try:
        asking.connect(KERNEL)  # The kernel then refuses what other processes send to it.
    except OSError:
        asking.close()
        raise
    return asking


def _hearing(size: int = _HEARING_BYTES) -> socket.socket:
    """A socket that hears of the end of every TCP and UDP socket. Raises OSError."""
    hearing = _asking()
    try:
        hearing.setblocking(False)
        try:
            hearing.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except OSError:  # Without CAP_NET_ADMIN as much as anybody may have.
            hearing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
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
