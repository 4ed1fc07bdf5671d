"""What is compared, and one command measured as a whole process."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import NamedTuple

from .agents import installed

OURS = "sockagent"
_READ_BYTES = 1 << 20


class Command(NamedTuple):
    """One command line. ``bar`` is what sockagent's wall time may be of its wall time at most."""

    name: str
    argv: tuple[str, ...]
    bar: float | None = None
    statuses: tuple[int, ...] = (0,)


class Sample(NamedTuple):
    """One run: seconds of wall clock and of processor time (its own and its children's), and the
    peak resident size of the largest of its processes in KiB."""

    wall: float
    cpu: float
    peak: int


def commands() -> tuple[list[Command], list[str]]:
    """The commands to compare, sockagent first, and the names of the missing ones."""
    psutil = 'import psutil; psutil.net_connections("all")'
    wanted = [
        Command(OURS, installed().argv),
        Command("ss -anp", ("ss", "-anp"), bar=1.0),
        Command("netstat -apeen", ("netstat", "-apeen")),
        # lsof exits 1 when anything that it was asked for is not there.
        Command("lsof -nP -i -U", ("lsof", "-nP", "-i", "-U"), bar=0.6, statuses=(0, 1)),
        Command("psutil net_connections", (sys.executable, "-c", psutil), bar=0.6),
    ]
    found, missing = [], []
    for command in wanted:
        there = shutil.which(command.argv[0]) is not None
        if command.argv[1:] == ("-c", psutil):
            there = measure(Command("psutil", (sys.executable, "-c", "import psutil"))) is not None
        if there:
            found.append(command)
        else:
            missing.append(command.name)
    return found, missing


def measure(command: Command, *, pipe: bool = False) -> Sample | None:
    """Run the command once; None when it failed. Its output goes to /dev/null, or to a pipe that
    is drained here.

    It is forked, not spawned: the kernel counts what a process was before its exec in its peak,
    and a fork begins small.
    """
    reading, writing = os.pipe() if pipe else (-1, os.open(os.devnull, os.O_WRONLY))
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _become(command.argv, writing)
    os.close(writing)
    if pipe:
        while os.read(reading, _READ_BYTES):
            pass
        os.close(reading)
    _pid, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) not in command.statuses:
        return None
    return Sample(wall, used.ru_utime + used.ru_stime, used.ru_maxrss)


def _become(argv: tuple[str, ...], output: int) -> None:
    """In the child: be the command."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(null, 2)
        # What pip installs is compiled, and so is this checkout once it ran: unless Python is told
        # not to keep what it compiled, and compiles all of it at each start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.execvp(argv[0], argv)
    finally:
        os._exit(127)
