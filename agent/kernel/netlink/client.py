"""Socket tables of every network namespace over netlink(7). Blocking: for executors.

A netlink socket belongs to the network namespace in which it was opened. For another namespace a
thread enters it, opens the socket there and ends, which takes CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .destroy import GROUPS
from .inet_diag import inet_dump
from .messages import (
    KERNEL,
    Dump,
    DumpError,
    is_last,
    number_request,
    read_answer,
    read_sequence,
    receive,
    split_rows,
)
from .other_diag import netlink_dump, packet_dump
from .unix_diag import unix_dump

# After this long without a datagram a dump is given up, and the text tables are read instead.
_TIMEOUT_SECONDS = 5.0
_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1  # linux/socket.h, linux/netlink.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
# Receive buffers for destroy notices, which count 1 KiB each. The agent's own namespace, where
# servers end 20,000 sockets a second, has room for some seconds of them; the others, which any user
# may create, have less.
_OWN_NOTICE_BUFFER_BYTES = 64 << 20
_NOTICE_BUFFER_BYTES = 4 << 20
_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
# The errors of a dump that a namespace does not support.
_UNSUPPORTED = frozenset(
    {errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT}
)
# Seconds until a dump that a namespace does not support is requested there again: each request
# makes the kernel search for a module, which starts a process.
UNSUPPORTED_SECONDS = 600.0
_INET_PROTOS = ("tcp", "udp", "udplite")
# The tables that each dump replaces.
DUMPED_TABLES: tuple[tuple[str, ...], ...] = (
    *((proto, f"{proto}6") for proto in _INET_PROTOS), ("unix",), ("netlink",), ("packet",)
)  # fmt: skip
_MAX_SEQUENCE = 0xFFFF_FFFF  # Of 32 bits.
# Default of the namespaces in which sockets are opened, two in each.
MAX_NAMESPACES = 300


class _Link:
    """The sockets of one namespace: one for dumps, and one for destroy notices if subscribed. One
    dump at a time can be under way."""

    def __init__(self, dumps: socket.socket, notices: socket.socket | None) -> None:
        dumps.settimeout(_TIMEOUT_SECONDS)
        self.dumps = dumps
        self.notices = notices
        self._lock = threading.Lock()
        self._ignored = 0
        self._sequence = 0  # Of the last request.
        self._unsupported: dict[tuple[str, ...], float] = {}  # Until when, by the dump's tables.

    def request(self, dump: Dump) -> list[bytes]:
        """Return the answer to a dump as a list of buffers. Raises OSError."""
        buffers: list[bytes] = []
        with self._lock:
            for request in dump.requests:
                self._sequence = self._sequence % _MAX_SEQUENCE + 1
                self.dumps.send(number_request(request, self._sequence))
                while True:
                    buffer = self._receive()
                    if read_sequence(buffer) != self._sequence:
                        continue  # It answers an older request.
                    buffers.append(buffer)
                    if is_last(buffer):
                        break
        return buffers

    def look_up(self, request: bytes) -> bytes | None:
        """Return the row of the socket that is requested; None if there is none. Raises OSError."""
        with self._lock:
            self._sequence = self._sequence % _MAX_SEQUENCE + 1
            self.dumps.send(number_request(request, self._sequence))
            while True:
                buffer = self._receive()
                if read_sequence(buffer) == self._sequence:
                    return read_answer(buffer)

    def _receive(self) -> bytes:
        """Return the next datagram of the kernel. Raises OSError."""
        while True:
            datagram = receive(self.dumps)
            if not datagram.from_kernel:
                self._ignored += 1
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

    def take_ignored(self) -> int:
        """Return how many datagrams of other processes were ignored since the last call."""
        ignored, self._ignored = self._ignored, 0
        return ignored

    def close(self) -> None:
        """Close the sockets."""
        self.dumps.close()
        if self.notices is not None:
            self.notices.close()


class NetlinkClient:
    """The sock_diag tables of the namespaces in which a netlink socket can be opened.

    ``own`` is the network namespace of the agent. ``include_unowned`` adds the rows without an
    inode, ``include_cgroups`` the cgroup of each socket. ``subscribe_destroy`` opens a socket for
    destroy notices in each namespace. ``required``: report the namespaces that may not be entered.
    ``max_namespaces`` limits the namespaces in which sockets are opened, as descriptors are needed
    elsewhere too.
    """

    def __init__(
        self,
        own: int,
        *,
        include_unowned: bool = False,
        include_cgroups: bool = False,
        subscribe_destroy: bool = False,
        required: bool = False,
        max_namespaces: int = MAX_NAMESPACES,
    ) -> None:
        self._own = own
        self.is_subscribed = subscribe_destroy
        self._required = required
        self._max_namespaces = max_namespaces
        inet_dumps = (
            inet_dump(proto, include_unowned=include_unowned, include_cgroups=include_cgroups)
            for proto in _INET_PROTOS
        )
        self._dumps = (*inet_dumps, unix_dump(), netlink_dump(), packet_dump())
        self._links: dict[int, _Link | None] = {}  # None: the namespace may not be entered.
        self._dropped: list[_Link] = []
        self._links_lock = threading.Lock()

    def is_available(self) -> bool:
        """Return whether sock_diag answers in the agent's own namespace."""
        return any(True for _dump in self.read_dumps(self._own, "", ("tcp", "unix")))

    def read_dumps(
        self, netns: int, path: str, names: Collection[str]
    ) -> Iterator[tuple[Dump, list[bytes]]]:
        """Yield each dump that replaces one of the named tables of a namespace, with its rows.
        Dumps that fail or are not supported there are left out. ``path`` leads to the namespace
        (``/proc/PID/ns/net``)."""
        for dump in self._dumps:
            if set(names).isdisjoint(dump.tables):
                continue
            link = self._link(netns, path)
            if link is None:
                return
            if not link.supports(dump):
                continue
            try:
                yield dump, split_rows(link.request(dump))
            except DumpError as error:
                if error.errno in _UNSUPPORTED:
                    link.mark_unsupported(dump)
            except OSError:  # Timed out or overrun; the rest of the answer must not be read.
                with self._links_lock:
                    self._drop(netns)

    def look_up(self, netns: int, requests: Sequence[bytes]) -> list[bytes | None]:
        """Return the rows of sockets of a namespace whose tables were read; None for each one that
        does not exist or cannot be looked up."""
        link = self._links.get(netns)
        if link is None:
            return [None] * len(requests)
        try:
            return [link.look_up(request) for request in requests]
        except OSError:
            with self._links_lock:
                self._drop(netns)
            return [None] * len(requests)

    def destroy_socket(self, netns: int) -> socket.socket | None:
        """Return the socket for the destroy notices of a namespace; None before its tables were
        read, or if not subscribed."""
        link = self._links.get(netns)
        return None if link is None else link.notices

    def close_except(self, namespaces: Collection[int]) -> None:
        """Close the sockets in all other namespaces, which they would keep alive. Their destroy
        sockets must not be read any longer."""
        with self._links_lock:
            for netns in self._links.keys() - set(namespaces):
                self._drop(netns)
            dropped, self._dropped = self._dropped, []
        for link in dropped:
            link.close()

    def refused_namespaces(self) -> list[int]:
        """Return the namespaces that may not be entered, if netlink is required."""
        return [at for at, link in self._links.items() if link is None] if self._required else []

    def take_ignored(self) -> Counter[int]:
        """Return how many datagrams of other processes were ignored since the last call, by
        namespace."""
        links = list(self._links.items())
        return +Counter({netns: link.take_ignored() for netns, link in links if link is not None})

    def _link(self, netns: int, path: str) -> _Link | None:
        with self._links_lock:
            if netns not in self._links:
                if len(self._links) >= self._max_namespaces and netns != self._own:
                    return None
                try:
                    self._links[netns] = self._open(netns, path)
                except PermissionError:  # The text tables are read, for as long as it exists.
                    self._links[netns] = None
                except OSError:  # The process of the path has ended; another may lead there too.
                    return None
            return self._links[netns]

    def _open(self, netns: int, path: str) -> _Link:
        is_own = netns == self._own

        def open_sockets() -> _Link:
            dumps = _open_dump_socket()
            if not self.is_subscribed:
                return _Link(dumps, None)
            size = _OWN_NOTICE_BUFFER_BYTES if is_own else _NOTICE_BUFFER_BYTES
            return _Link(dumps, _open_destroy_socket(size))

        return open_sockets() if is_own else _run_in_namespace(netns, path, open_sockets)

    def _drop(self, netns: int) -> None:
        link = self._links.pop(netns, None)
        if link is not None:
            # Closed by ``close_except``: its destroy notices may still be read.
            self._dropped.append(link)


def _open_dump_socket() -> socket.socket:
    """Return a socket to which, multicast apart, only the kernel can send. Raises OSError."""
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )
    try:
        opened.connect(KERNEL)  # The kernel then refuses what other processes send to it.
    except OSError:
        opened.close()
        raise
    return opened


def _open_destroy_socket(buffer_bytes: int = _NOTICE_BUFFER_BYTES) -> socket.socket:
    """Return a socket subscribed to the destroy notices of TCP and UDP. Raises OSError."""
    opened = _open_dump_socket()
    try:
        opened.setblocking(False)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except OSError:  # Without CAP_NET_ADMIN net.core.rmem_max is the limit.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        for group in GROUPS:
            opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        opened.close()
        raise
    return opened


T = TypeVar("T")


def _run_in_namespace(netns: int, path: str, function: Callable[[], T]) -> T:
    """Return what the function returns in another network namespace. Raises OSError."""

    def run() -> T:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The pid of the path may belong to another process by now.
            if os.fstat(namespace).st_ino != netns:
                raise FileNotFoundError(errno.ENOENT, "the namespace is gone", path)
            _setns(namespace)
        finally:
            os.close(namespace)
        return function()

    # Only this thread enters the namespace, and it ends here.
    with ThreadPoolExecutor(1, "setns") as executor:
        try:
            result = executor.submit(run)
        except RuntimeError as error:  # No thread can be started.
            raise OSError(errno.EAGAIN, str(error)) from error
        return result.result()


def _setns(namespace: int) -> None:
    """Call setns(2), which Python has only since 3.12. Raises OSError."""
    import ctypes  # Only here: loading it takes a millisecond.

    call = ctypes.CDLL(None, use_errno=True).setns
    if call(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNET)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
