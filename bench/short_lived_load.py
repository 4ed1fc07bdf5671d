"""The server and the clients of short_lived.py.

Started as a script without site-packages: a small process forks several times faster, which counts
in an emulated machine. Each line that they write is a socket: local port, remote port, pid, comm.

    short_lived_load.py serve CONNECTIONS       prints its port, writes its sockets at the end
    short_lived_load.py spawn NAME PORT PROCESSES CONNECTIONS SECONDS
"""

import gc
import os
import socket
import sys
import time

_LOOPBACK = ("127.0.0.1", 0)
_BACKLOG = 1024


def _comm(name: str = "") -> str:
    """Return the name of this process, after setting it if one is given."""
    with open("/proc/self/comm", "r+", encoding="ascii") as file:
        if name:
            file.write(name)
            return name
        return file.read().strip()


def _write(lines: list[str]) -> None:
    """Write lines whole: pipes keep only short writes together."""
    text = "".join(lines).encode()
    while text:
        text = text[os.write(1, text) :]


def serve(connections: int) -> None:
    """Accept connections, each closed after its client did."""
    lines = []
    with socket.socket() as listener:
        listener.bind(_LOOPBACK)
        listener.listen(_BACKLOG)
        port = listener.getsockname()[1]
        _write([f"{port}\n"])
        comm = _comm()
        for _ in range(connections):
            one, peer = listener.accept()
            with one:
                one.recv(1)
            lines.append(f"{port} {peer[1]} {os.getpid()} {comm}\n")
    _write(lines)


def connect(port: int, connections: int, comm: str) -> None:
    """Connect one after the other from this process, under a name of its own."""
    _comm(comm)
    lines = []
    for _ in range(connections):
        with socket.socket() as one:
            one.connect((_LOOPBACK[0], port))
            lines.append(f"{one.getsockname()[1]} {port} {os.getpid()} {comm}\n")
    _write(lines)


def spawn(name: str, port: int, processes: int, connections: int, seconds: float) -> None:
    """Start one client after the other, the next one no sooner than ``seconds`` after the last;
    raise SystemExit if one fails."""
    gc.freeze()
    begins = time.monotonic()
    for index in range(processes):
        time.sleep(max(0.0, begins - time.monotonic()))
        begins = time.monotonic() + seconds
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                connect(port, connections, f"{name}-{index}")
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a client failed")


if __name__ == "__main__":
    _action, *_rest = sys.argv[1:]
    if _action == "serve":
        serve(int(_rest[0]))
    else:
        _name, _port, _processes, _connections, _seconds = _rest
        spawn(_name, int(_port), int(_processes), int(_connections), float(_seconds))
