"""Listening sockets for ``HOST:PORT``, ``[V6]:PORT`` and ``unix:PATH``."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from contextlib import suppress
from typing import NamedTuple

from ...address import ListenAddress
from ...errors import ConfigFailure, RuntimeFailure

# Connections that may wait to be accepted: all clients of a fleet may reconnect at once.
BACKLOG = 4096
# What the kernel buffers for a client that does not read; the kernel doubles this value.
SEND_BUFFER_BYTES = 64 * 1024
# A connection whose peer acknowledges nothing for this long is ended by the kernel.
USER_TIMEOUT_MS = 30_000


class Listener(NamedTuple):
    """A listening socket for the configured address ``listen``, with TLS if there is a context.

    ``file`` identifies the file of a unix socket: device, inode, and modification time, since inode
    numbers are reused.
    """

    listen: ListenAddress
    socket: socket.socket
    tls: ssl.SSLContext | None = None
    file: tuple[int, int, int] | None = None

    @property
    def address(self) -> ListenAddress:
        """The address that clients connect to."""
        if self.socket.family == socket.AF_UNIX:
            return ListenAddress("", 0, self.socket.getsockname())
        host, port = self.socket.getsockname()[:2]
        return ListenAddress(host, port)

    def close(self) -> None:
        """Close the socket, and remove its file unless another socket has replaced it."""
        self.socket.close()
        self.remove()

    def remove(self) -> None:
        """Remove the file of a unix socket unless another socket has replaced it."""
        if self.listen.path is not None and self.file is not None:
            with suppress(OSError):
                if _identity(self.listen.path) == self.file:
                    os.unlink(self.listen.path)


def open_listeners(
    listen: ListenAddress, mode: int, tls: ssl.SSLContext | None = None
) -> list[Listener]:
    """Return the listening sockets of an address: several where a host name has several addresses.

    ``mode`` is that of a unix socket's file; ``tls`` is used for TCP. Raises RuntimeFailure, and
    ConfigFailure where the address family is not available.
    """
    try:
        if listen.path is not None:
            return [Listener(listen, _open_unix(listen.path, mode), None, _identity(listen.path))]
        return [Listener(listen, opened, tls) for opened in _open_tcp(listen)]
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EAFNOSUPPORT:  # The service's sandbox allows unix sockets only.
            raise ConfigFailure(
                f"cannot listen on {listen}: {reason}; for the service, set ListenStream= in "
                "sockagent.socket"
            ) from error
        raise RuntimeFailure(f"cannot listen on {listen}: {reason}") from error


def _identity(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _open_tcp(listen: ListenAddress) -> list[socket.socket]:
    opened: list[socket.socket] = []
    addresses = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    try:
        for family, kind, proto, _name, address in dict.fromkeys(addresses):
            listening = socket.socket(family, kind, proto)
            opened.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            _set_limits(listening)
            listening.listen(BACKLOG)
    except OSError:
        for listening in opened:
            listening.close()
        raise
    return opened


def _set_limits(listening: socket.socket) -> None:
    """Limit what the kernel does for a client that does not read; accepted sockets inherit it."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if listening.family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def _open_unix(path: str, mode: int) -> socket.socket:
    """Return a unix socket bound to a path, replacing a stale socket there."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        # Bound with the narrowest mode: between bind() and chmod() any user could connect.
        umask = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(umask)
        os.chmod(path, mode)
        _set_limits(listening)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove the file of a unix socket on which no process listens. Raises OSError for other files.
    A socket on which a process listens is left: bind() then fails with EADDRINUSE."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "the file exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except BlockingIOError:  # The backlog is full: a process listens.
            pass
