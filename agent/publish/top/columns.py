"""The columns of the screen, and which a width has room for. Pure.

Widths do not depend on the rows, so that columns hold still. Counts, pids and addresses are never
shortened: where one is wider than its column, the spaces after it give way.
"""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ..terminal.cells import age_text
from ..terminal.options import Options
from .model import Style

NONE, UNKNOWN = "-", "?"
# Columns for the mark of the cursor before each row.
MARGIN = 2
# From this width on there are two spaces between columns, else one.
WIDE = 100

Row = TypeVar("Row")


def _plain(_row: object) -> Style:
    return Style.PLAIN


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column. ``value`` is what it is sorted by, None at the end; ``text`` is not yet safe.

    ``floor`` is the width down to which cells are shortened, None for never, nor are those of rows
    that are ``whole``; ``most`` is the width that it takes where there is room. Columns are hidden
    in the order of ``hide``, None: never. ``descending`` is how a sort by it begins.
    """

    title: str
    value: Callable[[Row], Any]
    text: Callable[[Row, Options], str]
    width: int
    right: bool = False
    floor: int | None = None
    most: int = 0
    hide: int | None = None
    whole: Callable[[Row], bool] | None = None
    style: Callable[[Row], Style] = _plain
    descending: bool = False


class Placed(NamedTuple):
    """A column in the width that it has."""

    name: str
    column: Column[Any]
    width: int


class Layout(NamedTuple):
    """The columns that fit."""

    columns: tuple[Placed, ...]
    gap: int


def lay_out(columns: Mapping[str, Column[Row]], width: int) -> Layout:
    """Return the columns that a width has room for."""
    gap = 2 if width >= WIDE else 1
    shown = dict(columns)
    least = {name: one.floor or one.width for name, one in shown.items()}

    def total() -> int:
        return MARGIN + sum(least[name] for name in shown) + gap * (len(shown) - 1)

    order = sorted((one.hide, name) for name, one in columns.items() if one.hide is not None)
    for _, name in order:
        if total() <= width:
            break
        del shown[name]
    room = max(0, width - total())
    for limit in ("width", "most"):
        for name, one in shown.items():
            extra = min(room, max(0, getattr(one, limit) - least[name]))
            least[name] += extra
            room -= extra
    placed = tuple(Placed(name, one, least[name]) for name, one in shown.items())
    return Layout(placed, gap)


def waited(age: float | None, *, before: bool) -> str:
    """Return how long a socket has been in CLOSE_WAIT: ``4m``, ``≥4m`` if longer."""
    return NONE if age is None else f"{'≥' if before else ''}{age_text(age)}"
