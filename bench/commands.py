"""The commands that are compared, and the measurement of one as a whole process."""

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
    """A command line. ``limit`` is the highest accepted ratio of sockagent's wall time to it."""

    name: str
    argv: tuple[str, ...]
    limit: float | None = None
    statuses: tuple[int, ...] = (0,)


class Sample(NamedTuple):
    """One run: seconds of wall-clock time, of CPU time with that of its children, and the peak
    resident size of its largest process in KiB."""

    wall: float
    cpu: float
    peak: int


def commands() -> tuple[list[Command], list[str]]:
    """Return the commands to compare, sockagent first, and the names of those not installed."""
    psutil = 'import psutil; psutil.net_connections("all")'
    known = [
        Command(OURS, installed().argv),
        Command("ss -anp", ("ss", "-anp"), limit=1.0),
        Command("netstat -apeen", ("netstat", "-apeen")),
        # lsof exits with 1 if one of the requested kinds of files does not exist.
        Command("lsof -nP -i -U", ("lsof", "-nP", "-i", "-U"), limit=0.6, statuses=(0, 1)),
        Command("psutil net_connections", (sys.executable, "-c", psutil), limit=0.6),
    ]
    found, missing = [], []
    for command in known:
        there = shutil.which(command.argv[0]) is not None
        if command.argv[1:] == ("-c", psutil):
            there = measure(Command("psutil", (sys.executable, "-c", "import psutil"))) is not None
        if there:
            found.append(command)
        else:
            missing.append(command.name)
    return found, missing


def measure(command: Command, *, pipe: bool = False) -> Sample | None:
    """Run the command once; return None if it failed. Its output goes to /dev/null, or through a
    pipe that is drained here.

    Forks instead of using posix_spawn(3): the peak size counts the memory before exec, which a
    spawned child shares with this process.
    """
    reading, writing = os.pipe() if pipe else (-1, os.open(os.devnull, os.O_WRONLY))
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _exec(command.argv, writing)
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


def _exec(argv: tuple[str, ...], output: int) -> None:
    """Execute the command in the child process."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(null, 2)
        # Installed modules are compiled, and those of a checkout after the first run, unless this
        # variable is set: then Python compiles all of them at each start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.execvp(argv[0], argv)
    finally:
        os._exit(127)
