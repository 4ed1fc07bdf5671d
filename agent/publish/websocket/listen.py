"""Where to listen: ``HOST:PORT``, ``[V6]:PORT`` or ``unix:PATH``, and the sockets for it.

It knows nothing of who connects and what for.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import NamedTuple

from ...address import ListenAddress
from ...errors import ConfigFailure, RuntimeFailure

# Connections that may wait to be accepted: a whole fleet that comes back at once.
BACKLOG = 4096
# What the kernel keeps for a client that reads nothing; it doubles that.
SEND_BUFFER_BYTES = 64 * 1024
# A connection whose peer acknowledges nothing for so long is dead.
USER_TIMEOUT_MS = 30_000


class Listener(NamedTuple):
    """A listening socket; ``file`` is the identity of a unix socket's file: device, inode,
    and when it was made, as inodes are used again."""

    listen: ListenAddress
    socket: socket.socket
    file: tuple[int, int, int] | None = None

    @property
    def address(self) -> ListenAddress:
        """Where a client finds it."""
        if self.socket.family == socket.AF_UNIX:
            return ListenAddress("", 0, self.socket.getsockname())
        host, port = self.socket.getsockname()[:2]
        return ListenAddress(host, port)

    def remove(self) -> None:
        """Remove the file of a unix socket, unless another has taken its place."""
        if self.listen.path is not None and self.file is not None:
            with suppress(OSError):
                if _identity(self.listen.path) == self.file:
                    os.unlink(self.listen.path)


def opened(listen: ListenAddress, mode: int) -> list[Listener]:
    """The listening sockets of an address; ``mode`` is that of a unix socket's file.

    Raises RuntimeFailure; ConfigFailure where there are no such sockets.
    """
    try:
        if listen.path is not None:
            made = _unix(listen.path, mode)
            return [Listener(listen, made, _identity(listen.path))]
        return [Listener(listen, made) for made in _tcp(listen)]
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EAFNOSUPPORT:  # So it is in the service's sandbox.
            raise ConfigFailure(
                f"cannot listen on {listen}: {reason}; as a service, change sockagent.socket"
            ) from error
        raise RuntimeFailure(f"cannot listen on {listen}: {reason}") from error


def _identity(path: str) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _tcp(listen: ListenAddress) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    found = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    try:
        for family, kind, proto, _name, address in dict.fromkeys(found):
            made = socket.socket(family, kind, proto)
            sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            _bounded(made)
            made.listen(BACKLOG)
    except OSError:
        for made in sockets:
            made.close()
        raise
    return sockets


def _bounded(made: socket.socket) -> None:
    """Bound what the kernel does for a client that does not read; accepted sockets inherit it."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def _unix(path: str, mode: int) -> socket.socket:
    """A unix socket under its name, taking the place of one that nobody listens on any more."""
    made = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        # Bound with the narrowest mode: between bind() and chmod() anyone might connect.
        umask = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(umask)
        os.chmod(path, mode)
        _bounded(made)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _remove_stale(path: str) -> None:
    """Remove a socket's file that nobody listens on. Raises OSError when somebody does."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "it is there, and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except BlockingIOError:  # Its backlog is full: it is listened on.
            pass
