"""Processes that open and close sockets at a constant rate.

Each holds some TCP sockets that listen on loopback, and repeatedly opens one and closes the oldest.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_WINDOW = 10  # Sockets that a process holds.


def churn(index: int, rate: float) -> None:
    """Open and close ``rate`` sockets per second until the parent process ends."""
    held: deque[socket.socket] = deque()
    address = f"127.100.{index // 250}.{1 + index % 250}"
    due = time.monotonic()
    while os.getppid() != 1:
        held.append(socket.create_server((address, 0)))
        if len(held) > _WINDOW:
            held.popleft().close()
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def running(processes: int, per_second: float) -> Iterator[None]:
    """Run this many processes, which together open and close ``per_second`` sockets per second."""
    rate = per_second / processes
    children = [
        subprocess.Popen([sys.executable, "-m", "bench.churn", str(index), str(rate)])
        for index in range(processes)
    ]
    try:
        time.sleep(2 * _WINDOW / rate)  # Until each holds its window, and closes as well.
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=int)
    parser.add_argument("rate", type=float)
    options = parser.parse_args()
    churn(options.index, options.rate)
