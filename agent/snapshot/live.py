"""Connections that began and have not ended: which of them to look up before the next poll. Pure.

Most connections end soon. One that still exists after MIN_AGE_SECONDS is looked up, at most
LOOKUPS_PER_SECOND of them; the next poll reads the tables and finds the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kernel.trace.connections import Endpoints, Started

MIN_AGE_SECONDS = 0.01
LOOKUPS_PER_SECOND = 200
# Connections that wait; beyond that they are left to the next poll.
MAX_WAITING = 1000
# A server accepts a connection some time after it is established: it is looked up so often.
MAX_ATTEMPTS = 3


class LiveConnections:
    """Connections that wait to be looked up."""

    def __init__(self) -> None:
        self._waiting: dict[Endpoints, tuple[Started, float, int]] = {}  # Since when; attempts.
        self._budget = float(LOOKUPS_PER_SECOND)
        self._counted_at = 0.0

    @property
    def is_waiting(self) -> bool:
        """Return whether connections wait and may be looked up."""
        return bool(self._waiting) and self._budget >= 1

    def add(self, started: Iterable[Started], now: float) -> None:
        """Add connections; ``now`` is in seconds of the monotonic clock."""
        for one in started:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[one.ends] = (one, now, 0)

    def drop(self, ends: Iterable[Endpoints]) -> None:
        """Drop connections that have ended."""
        for one in ends:
            self._waiting.pop(one, None)

    def due(self, now: float) -> list[Started]:
        """Return the connections to look up now."""
        passed, self._counted_at = now - self._counted_at, now
        self._budget = min(
            float(LOOKUPS_PER_SECOND), self._budget + max(0.0, passed) * LOOKUPS_PER_SECOND
        )
        due: list[Started] = []
        for ends, (one, since, attempts) in list(self._waiting.items()):
            if now - since < MIN_AGE_SECONDS * (1 + attempts) or self._budget < 1:
                continue
            self._budget -= 1
            due.append(one)
            if attempts + 1 < MAX_ATTEMPTS:
                self._waiting[ends] = (one, since, attempts + 1)
            else:
                del self._waiting[ends]
        return due

    def clear(self) -> None:
        """Leave all connections to the poll that begins."""
        self._waiting.clear()
