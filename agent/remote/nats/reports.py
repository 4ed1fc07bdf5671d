"""What the client library reports of a connection to a broker, between the calls."""

from __future__ import annotations

import asyncio
from collections import deque

from ...broker_answers import NOT_UNDERSTOOD
from ...broker_login import Entry, is_denial

# Errors of a connection that are remembered.
_MAX_ERRORS = 16


class SessionError(Exception):
    """A connection that failed; the message is a clause that says why. ``is_final``: another
    attempt would fail in the same way. ``code`` is that of an error of JetStream."""

    def __init__(self, reason: str, *, is_final: bool = False, code: int | None = None) -> None:
        super().__init__(reason)
        self.is_final = is_final
        self.code = code


class Reports:
    """Reports of one connection, which is made by ``entry``."""

    def __init__(self, entry: Entry) -> None:
        self.closed = asyncio.Event()
        self.errors: deque[Exception] = deque(maxlen=_MAX_ERRORS)
        self._entry = entry
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Note that the connection has ended."""
        self.closed.set()

    async def note(self, error: Exception) -> None:
        """Note an error."""
        self.errors.append(error)
        self._changed.set()

    def explained(self, error: Exception) -> SessionError:
        """Return what an error means."""
        newest = self.errors[-1] if self.errors else None
        reason = self._entry.explain(error, newest)
        return SessionError(reason.text, is_final=reason.is_lasting)

    def lost(self) -> SessionError:
        """Return why the connection has ended."""
        newest = self.errors[-1] if self.errors else None
        odd = newest is not None and str(newest) == NOT_UNDERSTOOD
        return SessionError(NOT_UNDERSTOOD if odd else "connection lost")

    def denial(self, subject: str) -> SessionError | None:
        """Return why nothing can be sent to a subject, or no answer received; None: it can."""
        for error in filter(is_denial, self.errors):
            text = str(error).lower()
            if f'"{subject.lower()}"' in text or "for subscription" in text:
                return self.explained(error)
        return None

    async def denied(self, subject: str) -> SessionError:
        """Wait until something is not permitted; return that."""
        while (denial := self.denial(subject)) is None:
            self._changed.clear()
            await self._changed.wait()
        return denial
