"""A child process that sleeps until it is given a line of Python to run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRAM = """
import ctypes, os, signal, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: killed when its parent exits.

def sharing():
    # clone(2) with CLONE_FILES: a child that shares this descriptor table and waits for signals.
    number = {"x86_64": 56, "aarch64": 220, "riscv64": 220}[os.uname().machine]
    child = libc.syscall(number, 0x400 | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        libc.prctl(1, signal.SIGKILL)
        while True:
            signal.pause()
    return child

for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Child:
    """The child process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def __call__(self, line: str) -> str:
        """Run a line of Python in the child; return what it printed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        printed = []
        while (answer := self._process.stdout.readline()) not in ("\n", ""):
            printed.append(answer)
        return "".join(printed).strip()


@contextmanager
def child_process() -> Iterator[Child]:
    """Yield a running child that waits for its first line; kill it in the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            started = Child(process)
            started("pass")
            yield started
        finally:
            process.kill()
