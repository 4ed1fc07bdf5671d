"""A process that runs code which it reads from stdin: a line of JSON for each request and reply.

It needs the standard library only, so that any interpreter and any user can run it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from typing import Any

PR_SET_PDEATHSIG = 1
CLONE_FILES = 0x400
CLONE_NEWNET = 0x4000_0000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h

# An address that no other process uses: elsewhere the kernel may reuse ports.
OWN = "127.99.{}.{}".format(*divmod(os.getpid() % 62_500, 250))
libc = ctypes.CDLL(None, use_errno=True)


def inode(held: socket.socket | int) -> int:
    """Return the inode of a socket or descriptor."""
    return os.fstat(held if isinstance(held, int) else held.fileno()).st_ino


def unshare(what: int) -> None:
    """Call unshare(2)."""
    if libc.unshare(what):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_network() -> None:
    """Enter a new network namespace, with its loopback up."""
    unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH", b"lo", IFF_UP))


def fork() -> int:
    """Fork a child that sleeps until its parent ends; return its pid."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    while os.getppid() == parent:
        signal.pause()
    os._exit(0)


def tcp_listener(address: str = "127.0.0.1", backlog: int = 8) -> socket.socket:
    """Return a listener on a port chosen by the kernel."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.bind((address, 0))
    listener.listen(backlog)
    return listener


def tcp_pair(
    listener: socket.socket,
) -> tuple[socket.socket, socket.socket]:
    """Connect to a listener; return (client, server)."""
    client = socket.create_connection(listener.getsockname()[:2])
    return client, listener.accept()[0]


def thread_with_own_descriptors() -> int:
    """Start a thread that opens a socket in a descriptor table of its own; return its inode."""
    opened: list[int] = []
    ready = threading.Event()

    def run() -> None:
        unshare(CLONE_FILES)
        own = tcp_listener()
        opened.append(inode(own))
        ready.set()
        threading.Event().wait()

    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    return opened[0]


def main() -> None:
    """Run requests until stdin ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    names: dict[str, Any] = globals()
    for line in sys.stdin:
        code = json.loads(line)
        answer: dict[str, Any]
        try:
            try:
                compiled = compile(code, "<request>", "eval")
            except SyntaxError:
                exec(code, names)
                answer = {"value": None}
            else:
                answer = {"value": eval(compiled, names)}
        except Exception:  # noqa: BLE001 (reported to the caller)
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=lambda _value: None), flush=True)


if __name__ == "__main__":
    main()
