"""The order of rows on the screen, which is held still. Pure.

It changes at most every HOLD_SECONDS, and not within HOLD_SECONDS of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any, Protocol, TypeVar

HOLD_SECONDS = 2.0


class Keyed(Protocol):
    """A row with an identity."""

    @property
    def key(self) -> Hashable:
        """The identity."""


Row = TypeVar("Row", bound=Keyed)


class Order:
    """The order of one list of rows, of which each has another key."""

    def __init__(self) -> None:
        self._positions: dict[Hashable, int] = {}
        self._sorted = self._touched = float("-inf")

    def touch(self, now: float) -> None:
        """Note that a key was pressed."""
        self._touched = now

    def renew(self) -> None:
        """Sort with the next rows, held or not: another column or other rows were asked for."""
        self._sorted = self._touched = float("-inf")

    def held(self, now: float) -> float:
        """Return the seconds for which the order is held still; 0 if it may change."""
        since = max(self._sorted, self._touched)
        # A time to come means that the clock was set.
        return HOLD_SECONDS - (now - since) if 0 <= now - since < HOLD_SECONDS else 0.0

    def arrange(
        self,
        rows: Sequence[Row],
        value: Callable[[Row], Any],
        now: float,
        *,
        descending: bool = False,
    ) -> list[Row]:
        """Return rows in their order. ``value`` is what they are sorted by; rows for which it is
        None come last. While the order is held, new rows are at the end."""
        standing: list[Row | None] = [None] * len(self._positions)
        arranged: list[Row] = []
        for row in rows:
            at = self._positions.get(row.key)
            if at is None:
                arranged.append(row)
            else:
                standing[at] = row
        is_same = not arranged and len(rows) == len(standing)
        arranged[:0] = [row for row in standing if row is not None]
        if not self.held(now):
            is_same = False
            self._sorted = now
            arranged = _sorted(arranged, value, descending=descending)
        if not is_same:
            self._positions = {row.key: index for index, row in enumerate(arranged)}
        return arranged


def _sorted(rows: Sequence[Row], value: Callable[[Row], Any], *, descending: bool) -> list[Row]:
    """Return rows sorted by a value, those without one at the end; equal ones keep their places."""
    known: list[tuple[Any, Row]] = []
    unknown: list[Row] = []
    for row in rows:
        sorted_by = value(row)
        if sorted_by is None:
            unknown.append(row)
        else:
            known.append((sorted_by, row))
    known.sort(key=itemgetter(0), reverse=descending)
    return [row for _, row in known] + unknown
