"""The command on a terminal: a pty of a given width."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from .helpers import COMMAND, DEADLINE

ROWS = 40
# What changes the views; a test sets what it needs.
VARIABLES = ("LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "TERM", "COLUMNS", "SOCKAGENT_OUTPUT")


def environment(**variables: str) -> dict[str, str]:
    """Return this environment without the variables of terminals, but with those given."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm", **variables}


class Terminal:
    """What the command writes to a terminal; its stderr is another file."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.text = ""
        self.process = process
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def lines(self) -> list[str]:
        # Not splitlines(): it takes controls for line ends. CSV has a CR of its own.
        return re.split("\r+\n", self.text)[:-1]

    def wait(self, text: str) -> None:
        """Read until the text arrives."""
        end = time.monotonic() + DEADLINE
        while text not in self.text:
            assert time.monotonic() < end, self.text
            assert self.read(), self.text

    def read(self) -> bool:
        """Read what is there; return whether there may be more."""
        if not select.select([self._descriptor], [], [], 0.1)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:  # EIO: all have closed the other end.
            return False
        self.text += self._decoder.decode(data)
        return bool(data)


@contextmanager
def terminal(
    *arguments: str,
    columns: int = 80,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = COMMAND,
) -> Iterator[Terminal]:
    """Run the command on a terminal; end it."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        process = subprocess.Popen(
            (*command, *arguments), stdin=subprocess.DEVNULL, stdout=theirs,
            stderr=subprocess.DEVNULL, env=environment(**(variables or {})),
        )  # fmt: skip
    finally:
        os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(DEADLINE)
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def screen(*arguments: str, columns: int = 80, **variables: str) -> Terminal:
    """Run the command on a terminal until it ends."""
    with terminal(*arguments, columns=columns, variables=variables) as shown:
        while shown.read():
            pass
        shown.process.wait(DEADLINE)
        return shown
