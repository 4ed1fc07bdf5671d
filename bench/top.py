"""Measure ``sockagent top`` under a load: how soon it is painted, and its CPU against ``--follow``
while sockets open and close."""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from . import churn, load
from .agents import installed

_ROUNDS = 5
_COLUMNS, _ROWS = 80, 24
_SECONDS = 20.0  # For which CPU is measured.
_WARM_UP_SECONDS = 8.0
_LONGEST_SECONDS = 30.0
# Processes that open and close sockets, each one 10 times a second; both are changes.
_CHURN_PROCESSES, _CHURN_PER_SECOND = 10, 100
MAX_PAINT_SECONDS, MAX_CPU_RATIO = 1.0, 1.5
_TICKS = os.sysconf("SC_CLK_TCK")
_SOCKETS = re.compile(rb"([0-9,]+) sockets")


class Paint(NamedTuple):
    """Seconds from the start until the first frame, and until it has the sockets."""

    frame: float
    sockets: float


class Screen:
    """The command on a terminal whose output is read."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.text = b""
        self._terminal = terminal

    def read(self, seconds: float) -> None:
        """Read what comes within a time."""
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            if not select.select([self._terminal], [], [], remaining)[0]:
                return
            try:
                self.text += os.read(self._terminal, 1 << 16)
            except OSError:  # The command has ended.
                return


@contextmanager
def shown(*command: str) -> Iterator[Screen]:
    """Run a command on a terminal, and end it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        screen = Screen(process, ours)
        try:
            yield screen
        finally:
            process.terminate()
            screen.read(1.0)
            process.kill()
            process.wait()
            os.close(ours)


def paint(at_least: int, *command: str) -> Paint:
    """Return how soon the screen is painted with at least so many sockets."""
    begun = time.monotonic()
    frame: float | None = None
    with shown(*command) as screen:
        while time.monotonic() < begun + _LONGEST_SECONDS:
            screen.read(0.01)
            if frame is None and _SOCKETS.search(screen.text):
                frame = time.monotonic() - begun
            counts = [int(one.replace(b",", b"")) for one in _SOCKETS.findall(screen.text)]
            if frame is not None and max(counts, default=0) >= at_least:
                return Paint(frame, time.monotonic() - begun)
    raise TimeoutError("the sockets were never painted")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu(*ours: str) -> tuple[float, float]:
    """Return the share of a core that ``top``, and that ``--follow`` takes, side by side."""
    with (
        churn.running(_CHURN_PROCESSES, _CHURN_PER_SECOND),
        subprocess.Popen((*ours, "--follow"), stdout=subprocess.DEVNULL) as follow,
        shown(*ours, "top") as screen,
    ):
        try:
            screen.read(_WARM_UP_SECONDS)
            pids = (screen.process.pid, follow.pid)
            before = [cpu_seconds(pid) for pid in pids]
            end = time.monotonic() + _SECONDS
            while time.monotonic() < end:
                screen.read(0.1)
            top, other = (
                (cpu_seconds(pid) - was) / _SECONDS for pid, was in zip(pids, before, strict=True)
            )
        finally:
            follow.terminate()
    return top, other


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench top", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help="starts (5)")
    load.add_shape(parser)
    options = parser.parse_args()
    ours, shape = installed().argv, load.shape_of(options)
    with load.running(shape):
        paints = [paint(shape.tcp, *ours, "top") for _ in range(options.rounds)]
        frame, sockets = (median(one[index] for one in paints) for index in (0, 1))
        top, follow = cpu(*ours)
    result = "pass" if sockets <= MAX_PAINT_SECONDS else "miss"
    print(f"{shape.tcp} TCP and {shape.unix} unix sockets, medians of {options.rounds} starts:")
    print(f"first frame after {frame:.2f} s, sockets after {sockets:.2f} s "
          f"(at most {MAX_PAINT_SECONDS:g}: {result})")  # fmt: skip
    result = "pass" if top <= MAX_CPU_RATIO * follow else "miss"
    changes = 2 * _CHURN_PER_SECOND
    print(f"{changes} changes/s: top {top:.3f}, --follow > /dev/null {follow:.3f} of a core; "
          f"ratio {top / follow:.2f} (at most {MAX_CPU_RATIO:g}: {result})")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
