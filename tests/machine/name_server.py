"""A DNS server in a network namespace of its own, and processes that use no other one."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

from ..unshared import new_netns

_CLONE_NEWNS = 0x2_0000  # linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x4_0000  # linux/mount.h
_PTR, _IN = 12, 1  # RFC 1035
_HEADER = struct.Struct("!6H")
_RESPONSE, _NO_NAME = 0x8180, 0x8183
_TTL = 60


def answer(query: bytes, names: Mapping[str, str]) -> bytes:
    """Return the answer to a query for the name of an IPv4 address."""
    number = _HEADER.unpack_from(query)[0]
    labels, at = [], _HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    question = query[_HEADER.size : at + 5]
    name = names.get(".".join(reversed(labels[:4])))
    if name is None:
        return _HEADER.pack(number, _NO_NAME, 1, 0, 0, 0) + question
    encoded = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    data = encoded + b"\0"
    record = b"\xc0\x0c" + struct.pack("!HHIH", _PTR, _IN, _TTL, len(data)) + data
    return _HEADER.pack(number, _RESPONSE, 1, 1, 0, 0) + question + record


class NameServer:
    """Answers with ``names``, and never where they are None. ``asked``: a query came."""

    def __init__(self, names: Mapping[str, str] | None) -> None:
        self.asked = threading.Event()
        self._names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            self.asked.set()
            if self._names is not None:
                self._socket.sendto(answer(query, self._names), sender)

    def close(self) -> None:
        """Stop: an empty datagram wakes the thread."""
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


def use_only_name_server(folder: Path) -> None:
    """Move the calling thread, and processes that it starts, to namespaces in which only a DNS
    server at 127.0.0.1 is asked for names, and is waited for longer than a test may take."""
    new_netns()
    libc = ctypes.CDLL(None, use_errno=True)

    def check(status: int) -> None:
        if status:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    check(libc.unshare(_CLONE_NEWNS))
    check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    files = {
        "resolv.conf": "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n",
        "nsswitch.conf": "hosts: dns\n",
    }
    for name, text in files.items():
        path = folder / name
        path.write_text(text, encoding="ascii")
        check(libc.mount(bytes(path), f"/etc/{name}".encode(), None, _MS_BIND, None))
