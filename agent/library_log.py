"""Where libraries log to: stderr, by our own writer, which does not block, and only a few lines.

The websockets library logs nowhere: at DEBUG it logs headers, tokens among them.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from .log import LineLimit

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# A line is cut to so many characters: it may quote what a client sent.
_MAX_CHARS = 500

quiet = logging.getLogger("sockagent.websockets")
quiet.addHandler(logging.NullHandler())
quiet.setLevel(logging.CRITICAL)
quiet.propagate = False


class LibraryLog(logging.Handler):
    """Writes what libraries log, without tracebacks; what is too much is counted."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LineLimit("of libraries")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, LookupError):  # Its arguments do not fit.
            message = str(record.msg)
        if record.exc_info is not None and record.exc_info[1] is not None:
            message += f": {record.exc_info[1]!r}"
        self.write(f"{record.name}: {message}")

    def unraisable(self, raised: UnraisableHookArgs) -> None:
        """Write what was raised where nobody can catch it: ``sys.unraisablehook``."""
        self.write(f"{raised.err_msg or 'ignored'}: {raised.exc_value!r} in {raised.object!r}")

    def write(self, message: str) -> None:
        """Write a line."""
        self._limit.log(message[:_MAX_CHARS], time.monotonic())


def route() -> None:
    """Let all that libraries log, warn of and cannot raise come by ``LibraryLog``. Without it,
    logging and the interpreter write to stderr themselves, and block where nobody reads it."""
    handler = LibraryLog()
    logging.getLogger().addHandler(handler)
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.unraisablehook = handler.unraisable
