"""Run a function in a new network namespace whose loopback interface is up."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from fcntl import ioctl
from typing import TypeVar

import pytest

T = TypeVar("T")
_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def need_root() -> None:
    """Skip a test that needs CAP_SYS_ADMIN; fail it in CI."""
    if os.geteuid() != 0:
        reason = "only root may create network namespaces"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def new_netns() -> None:
    """Move the calling thread to a new network namespace. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH", b"lo", _IFF_UP))


def in_new_netns(do: Callable[[], T]) -> T:
    """Call ``do`` in a thread in a new network namespace and return its result; root only."""
    need_root()
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            new_netns()
            outcome.append(do())
        except BaseException as error:  # noqa: BLE001 (raised again below)
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    found = outcome[0]
    if isinstance(found, BaseException):
        raise found
    return found
