"""The order of rows on the screen, which is held still, and the cursor. Pure.

The order changes at most every HOLD_SECONDS, and not within HOLD_SECONDS of a key. The cursor is on
the identity of a row, not on a line.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

HOLD_SECONDS = 2.0


class Keyed(Protocol):
    """A row with an identity."""

    @property
    def key(self) -> Hashable:
        """The identity."""


Row = TypeVar("Row", bound=Keyed)


class Order:
    """The order and the cursor of one list of rows. ``cursor`` is the key of its row, None without
    rows."""

    def __init__(self) -> None:
        self.cursor: Hashable | None = None
        self._index = 0  # Of the row with the cursor.
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
        last = len(self._positions)
        positions = self._positions
        arranged = sorted(rows, key=lambda row: positions.get(row.key, last))
        if not self.held(now):
            known = [row for row in arranged if value(row) is not None]
            unknown = [row for row in arranged if value(row) is None]
            # Equal rows keep their places.
            known.sort(key=value, reverse=descending)
            arranged = known + unknown
            self._sorted = now
        self._positions = {row.key: index for index, row in enumerate(arranged)}
        self._follow(arranged)
        return arranged

    def _follow(self, rows: Sequence[Row]) -> None:
        """Keep the cursor on its row; where that is gone, on the one that takes its place."""
        index = None if self.cursor is None else self._positions.get(self.cursor)
        self._index = min(self._index, max(0, len(rows) - 1)) if index is None else index
        self.cursor = rows[self._index].key if rows else None

    @property
    def index(self) -> int:
        """The line of the cursor, from 0 on."""
        return self._index

    def move(self, rows: Sequence[Row], by: int) -> None:
        """Move the cursor by lines in rows that were arranged."""
        self.select(rows, self._index + by)

    def select(self, rows: Sequence[Row], index: int) -> None:
        """Put the cursor on a line, or on the nearest one that there is."""
        self._index = max(0, min(index, len(rows) - 1))
        self.cursor = rows[self._index].key if rows else None
