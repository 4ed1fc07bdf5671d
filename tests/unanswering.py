"""A FUSE file system, fuse(4), with one file, that can stop answering requests.

Only root may mount it; every user may access it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

# linux/fuse.h
LOOKUP, GETATTR, OPEN, READ, GETXATTR, FLUSH, INIT = 1, 3, 14, 15, 22, 25, 26
OPENDIR = 27
FOPEN_DIRECT_IO = 1
_IN_HEADER = struct.Struct("=IIQQIIII")
_OUT_HEADER = struct.Struct("=IiQ")
_UNANSWERED = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET: they have no answer.
_ROOT, _FILE = 1, 2
_SIZE = 1 << 20
_MNT_FORCE, _MNT_DETACH = 1, 2
NAME = "file"

libc = ctypes.CDLL(None, use_errno=True)


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o666
    return struct.pack("=6Q10I", node, _SIZE, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, flags: int) -> bytes | int:
    """Return the body of an answer, or an errno."""
    if opcode == INIT:
        return struct.pack("=4I2H2I2H8I", 7, 31, 65536, 0, 16, 12, 65536, 1, *[0] * 10)
    if opcode == LOOKUP:
        return struct.pack("=4Q2I", _FILE, 0, 3600, 0, 0, 0) + _attributes(_FILE)
    if opcode == GETATTR:
        return struct.pack("=Q2I", 0, 0, 0) + _attributes(node)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("=Q2I", 0, flags, 0)
    return errno.ENOSYS


class Unanswering:
    """The file system, mounted. ``silent`` are the requests that it does not answer."""

    def __init__(self, path: Path, silent: set[int]) -> None:
        self._path = path
        self.file = path / NAME
        self.silent = silent
        self._opened = 0
        self.waiting: list[tuple[int, int]] = []  # (thread, request) without an answer.

    def __enter__(self) -> Self:
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if libc.mount(b"fuse", bytes(self._path), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount FUSE")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Unmount it: requests that wait fail."""
        if self._device < 0:
            return
        libc.umount2(bytes(self._path), _MNT_FORCE)
        libc.umount2(bytes(self._path), _MNT_DETACH)  # Also while it is in use.
        self._thread.join()
        os.close(self._device)
        self._device = -1

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 17)
            except OSError:  # Unmounted.
                return
            _length, opcode, unique, node, _uid, _gid, thread, _ = _IN_HEADER.unpack_from(request)
            if opcode in _UNANSWERED:
                continue
            if opcode in self.silent:
                self.waiting.append((thread, opcode))
                continue
            if opcode == OPEN:
                self._opened += 1
            # The second open bypasses the page cache: a mapping then waits for pages being read.
            body = _answer(opcode, node, FOPEN_DIRECT_IO if self._opened > 1 else 0)
            code, body = (-body, b"") if isinstance(body, int) else (0, body)
            header = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), code, unique)
            try:
                os.write(self._device, header + body)
            except OSError:  # The thread that waited was killed.
                continue


def mount(path: Path) -> Unanswering:
    """Return a file system that answers all requests; skip the test without FUSE or root."""
    if not Path("/dev/fuse").exists():
        pytest.skip("the kernel has no FUSE")
    if os.geteuid():
        pytest.skip("only root may mount FUSE for others")
    return Unanswering(path, set())
