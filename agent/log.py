"""What is said to a person, on stderr; stdout carries records and nothing else.

A write to a stderr that nobody reads blocks: it is made by a daemon thread, which nothing waits
for. What waits to be said is bounded.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_STDERR = 2
# How long an end waits for a reader that is there to take what is under way.
GRACE_SECONDS = 0.5
# Seconds between two lines on troubles that go on.
TROUBLE_SECONDS = 10.0
# Lines of one kind that are written in so many seconds: those that anyone can cause.
LIMIT_LINES, LIMIT_SECONDS = 20, 10.0
# Lines that wait for a reader; what is said while there are so many is lost.
MOST_WAITING = 100


class StderrWriter:
    """Says what is to be said on a descriptor, in order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()  # Not written yet, or being written.
        self._changed = threading.Condition()
        self._speaks = False

    def log(self, message: str) -> None:
        """One line; see ``tell``."""
        self.tell(f"sockagent: {printable(message)}\n")

    def tell(self, text: str) -> None:
        """Write whole lines, as soon as they are taken; never block. Where no thread is to be had,
        a line that would block is lost."""
        with self._changed:
            if len(self._lines) >= MOST_WAITING:
                return
            self._lines.append(text.encode(errors="backslashreplace"))
            if self._speaks:
                self._changed.notify_all()
                return
            try:
                threading.Thread(target=self._run, name="stderr", daemon=True).start()
                self._speaks = True
            except RuntimeError:
                line = self._lines.pop()
                # A pipe takes as much at once when it takes anything: see pipe(7).
                if len(line) <= select.PIPE_BUF and self._takes_more():
                    self._write(line)

    def finish(self, seconds: float) -> None:
        """Wait until all is said, for so long at the most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, seconds)

    def _takes_more(self) -> bool:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLOUT)
        return bool(waiting.poll(0))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            self._write(line)
            with self._changed:
                self._lines.popleft()
                self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        with suppress(OSError):  # Closed, or full: there is nobody to tell.
            while left:
                left = left[os.write(self._descriptor, left) :]


def printable(message: str) -> str:
    """A message in which nothing moves a terminal's cursor: names in it are anybody's choice."""
    if message.isprintable():
        return message
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in message
    )


_stderr = StderrWriter(_STDERR)


def log(message: str) -> None:
    """One line on stderr, if there is one. Never blocks."""
    if sys.stderr is not None:  # Closed from the start: what is number 2 now is something else.
        _stderr.log(message)


def tell(text: str) -> None:
    """Whole lines on stderr, the same way."""
    if sys.stderr is not None:
        _stderr.tell(text)


def finish(seconds: float = GRACE_SECONDS) -> None:
    """Wait until all is said, for so long at the most."""
    _stderr.finish(seconds)


class LineLimit:
    """Writes at most LIMIT_LINES lines in LIMIT_SECONDS; the others are counted and reported."""

    def __init__(self, what: str) -> None:
        """``what`` ends the sentence "and 5 more lines ..."."""
        self._what = what
        self._began = -LIMIT_SECONDS
        self._lines = 0

    def log(self, message: str, now: float) -> None:
        """Write a line, at ``now`` in seconds of any clock."""
        if now - self._began >= LIMIT_SECONDS:
            if self._lines > LIMIT_LINES:
                log(f"and {self._lines - LIMIT_LINES} more lines {self._what}")
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= LIMIT_LINES:
            log(message)


class LoopErrorReporter:
    """Says what goes wrong in the event loop with nobody to tell, now and then: for asyncio, which
    would print a traceback each time. Mostly there are no descriptors left to accept with."""

    def __init__(self) -> None:
        self._said = -TROUBLE_SECONDS
        self._more = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Asyncio's exception handler."""
        self._more += 1
        if loop.time() - self._said < TROUBLE_SECONDS:
            return
        error = context.get("exception")
        what = str(context.get("message", "")).strip() or "an error"
        reason = getattr(error, "strerror", None) or repr(error)
        log(f"{what}: {reason} ({self._more} times since this was said)")
        self._said, self._more = loop.time(), 0
