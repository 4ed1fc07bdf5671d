"""Destroy notices of the kernel for TCP and UDP sockets, recorded by a separate process.

``python -m bench.servers.notices FILE`` appends each notice with the time of its receipt to FILE
until its standard input closes, and prints ``ready`` once it listens. It shares no code with the
agent.
"""

from __future__ import annotations

import selectors
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..agents import ROOT
from .frames import frame, frames, raise_priority
from .truth import Key, key_of

# linux/netlink.h and linux/sock_diag.h: SKNLGRP_INET_TCP_DESTROY and the three that follow it.
_NETLINK_SOCK_DIAG = 4
_GROUPS = 0b1111
_SO_RCVBUFFORCE = 33
# Several seconds of notices at 20,000 per second.
_BUFFER_BYTES = 64 * 1024 * 1024
_ATTRIBUTES = 88
_INET_DIAG_PROTOCOL = 10
_PROTOCOLS = {6: "tcp", 17: "udp"}
_SECONDS_TO_START = 10.0


class Notice(NamedTuple):
    """The end of a socket: ``time`` is that of the receipt."""

    time: float
    cookie: bytes
    proto: str
    local_port: int
    remote_port: int

    @property
    def key(self) -> Key:
        """The key that reports and ends of this socket have as well."""
        return key_of(self.proto, self.local_port, self.remote_port)


class Notices(NamedTuple):
    """The recorded notices; ``overruns`` counts how often the kernel dropped some."""

    notices: list[Notice]
    overruns: int


@contextmanager
def recording(file: Path) -> Iterator[None]:
    """Record notices to ``file`` for as long as the context lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.servers.notices", str(file)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("cannot receive destroy notices")
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(_SECONDS_TO_START)


def read(file: Path) -> Notices:
    """Return the notices of bound sockets in ``file``, each cookie once."""
    found: dict[bytes, Notice] = {}
    overruns = 0
    for when, data, _next in frames(file.read_bytes()):
        overruns += not data
        notice = _parse(when, data)
        if notice is not None:
            found.setdefault(notice.cookie, notice)
    return Notices(list(found.values()), overruns)


def _parse(when: float, data: bytes) -> Notice | None:
    if len(data) < _ATTRIBUTES:
        return None
    local, remote = struct.unpack_from("!HH", data, 20)
    proto = _protocol(data)
    if proto is None or not local:  # No table has a socket that was never bound.
        return None
    return Notice(when, data[60:68], proto, local, remote)


def _protocol(data: bytes) -> str | None:
    at = _ATTRIBUTES
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if kind == _INET_DIAG_PROTOCOL:
            return _PROTOCOLS.get(data[at + 4])
        at += max(4, (length + 3) & ~3)
    return None


def main() -> None:
    """Record until standard input closes."""
    with open(sys.argv[1], "wb", buffering=1 << 20) as file, _open_netlink() as listening:
        raise_priority()
        with selectors.DefaultSelector() as selector:
            selector.register(listening, selectors.EVENT_READ)
            selector.register(0, selectors.EVENT_READ)
            print("ready", flush=True)
            while not any(key.fd == 0 for key, _mask in selector.select()):
                _drain(listening, file.write)
            _drain(listening, file.write)


def _open_netlink() -> socket.socket:
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    listening.setblocking(False)
    listening.bind((0, _GROUPS))
    return listening


def _drain(listening: socket.socket, write: object) -> None:
    assert callable(write)
    while True:
        try:
            data = listening.recv(4096)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: the kernel dropped some.
            data = b""
        write(frame(data))


if __name__ == "__main__":
    main()
