"""Messages on stderr, from the agent and from libraries; stdout carries records only.

A write to a stderr that nobody reads blocks. It is therefore made in a daemon thread, which nothing
waits for, and the queue of lines is bounded.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from sys import UnraisableHookArgs

_STDERR = 2
# How long the process waits at its end until the reader has taken the last lines.
GRACE_SECONDS = 0.5
# Time between two lines about errors in the event loop.
LOOP_ERROR_SECONDS = 10.0
# At most so many lines of one kind are written in so many seconds, where anyone can cause them.
LIMIT_LINES, LIMIT_SECONDS = 20, 10.0
# Lines that wait for the reader; further ones are dropped.
MAX_QUEUED_LINES = 100
# A library's line is cut to so many characters: it may quote what a client sent.
_MAX_LIBRARY_CHARS = 500

# For the websockets library: at DEBUG it logs headers, and with them tokens.
silent_logger = logging.getLogger("sockagent.websockets")
silent_logger.addHandler(logging.NullHandler())
silent_logger.setLevel(logging.CRITICAL)
silent_logger.propagate = False


class StderrWriter:
    """Writes lines to a descriptor, in order, from a thread that starts with the first line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()  # The first one may be in the middle of its write.
        self._changed = threading.Condition()
        self._started = False

    def write(self, text: str) -> None:
        """Queue whole lines; never block. If no thread can be started, a line is written at once,
        or dropped if that would block."""
        with self._changed:
            if len(self._lines) >= MAX_QUEUED_LINES:
                return
            self._lines.append(text.encode(errors="backslashreplace"))
            if self._started:
                self._changed.notify_all()
                return
            try:
                threading.Thread(target=self._run, name="stderr", daemon=True).start()
                self._started = True
            except RuntimeError:
                line = self._lines.pop()
                # A pipe that takes anything takes PIPE_BUF bytes at once: see pipe(7).
                if len(line) <= select.PIPE_BUF and self._is_writable():
                    self._write(line)

    def finish(self, seconds: float) -> None:
        """Wait until every line is written, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, seconds)

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))

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
        rest = memoryview(line)
        with suppress(OSError):  # Closed, or on a full disk: there is nowhere to report it.
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


_stderr = StderrWriter(_STDERR)
# What shows messages instead of stderr: at most one.
_shown: list[Callable[[str], None]] = []


@contextmanager
def shown_by(show: Callable[[str], None]) -> Iterator[None]:
    """Pass messages to ``show`` instead of stderr, which may be the terminal of a screen. It is
    called in any thread, and must not block."""
    _shown.append(show)
    try:
        yield
    finally:
        _shown.remove(show)


def log(message: str) -> None:
    """Write a message to stderr, on one line, if it is open. Never blocks."""
    if _shown:
        _shown[-1](printable(message))
    elif sys.stderr is not None:  # If closed at the start, descriptor 2 is another file by now.
        _stderr.write(f"sockagent: {printable(message)}\n")


def finish(seconds: float = GRACE_SECONDS) -> None:
    """Wait until every message is written, at most so many seconds."""
    _stderr.finish(seconds)


def printable(message: str) -> str:
    """Escape what a terminal would interpret: names of processes and files may hold anything."""
    if message.isprintable():
        return message
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in message
    )


class LineLimit:
    """Logs at most LIMIT_LINES lines in LIMIT_SECONDS, then the number of those left out."""

    def __init__(self, subject: str) -> None:
        """``subject`` ends the line "5 more lines ..."."""
        self._subject = subject
        self._began = -LIMIT_SECONDS
        self._lines = 0

    def log(self, message: str, now: float) -> None:
        """Log a message, at ``now`` in seconds of any clock."""
        if now - self._began >= LIMIT_SECONDS:
            if self._lines > LIMIT_LINES:
                log(f"and {self._lines - LIMIT_LINES} more lines {self._subject}")
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= LIMIT_LINES:
            log(message)


# What asyncio warns of whenever the peer ends a connection whose TLS began after its first bytes.
_HARMLESS = "returning true from eof_received() has no effect when using ssl"


class LibraryHandler(logging.Handler):
    """Logs records of libraries without tracebacks, and limits their number."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LineLimit("of libraries")

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, LookupError):  # Arguments that do not fit the format.
            message = str(record.msg)
        if message == _HARMLESS:
            return
        if record.exc_info is not None and record.exc_info[1] is not None:
            message += f": {record.exc_info[1]!r}"
        self._log(f"{record.name}: {message}")

    def log_unraisable(self, raised: UnraisableHookArgs) -> None:
        """Log an exception that nothing can catch: ``sys.unraisablehook``."""
        self._log(f"{raised.err_msg or 'ignored'}: {raised.exc_value!r} in {raised.object!r}")

    def _log(self, message: str) -> None:
        self._limit.log(message[:_MAX_LIBRARY_CHARS], time.monotonic())


def capture_libraries() -> None:
    """Route log records, warnings and unraisable exceptions of libraries to stderr by ``log``. By
    default logging and the interpreter write to stderr themselves, and block if nobody reads it."""
    handler = LibraryHandler()
    logging.getLogger().addHandler(handler)
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.unraisablehook = handler.log_unraisable


class LoopErrorReporter:
    """Exception handler of an event loop: one line now and then, where asyncio would print a
    traceback each time. The usual cause is that accept(2) finds no free descriptor."""

    def __init__(self) -> None:
        self._logged_at = -LOOP_ERROR_SECONDS
        self._count = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log the error, unless another one was logged a short time ago."""
        self._count += 1
        if loop.time() - self._logged_at < LOOP_ERROR_SECONDS:
            return
        error = context.get("exception")
        what = str(context.get("message", "")).strip() or "error in the event loop"
        reason = getattr(error, "strerror", None) or repr(error)
        log(f"{what}: {reason} (errors since the last such line: {self._count})")
        self._logged_at, self._count = loop.time(), 0
