"""Columns of cells to lines that fit a terminal.

Columns are laid out as wholes: cell by cell takes three times as long (bench.micro: grid_columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .colors import BOLD, paint
from .options import Options
from .safe import pad, shorten, width

GAP = "  "


class GridColumn(NamedTuple):
    """One column: safe cells, and how it yields where the terminal is too narrow.

    ``floor`` is the width down to which cells may be shortened, None for never; cells that are
    ``whole`` are never shortened. Columns are hidden in the order of ``hide``; None: never.
    ``codes`` are colours of cells, "" for none. ``shorten`` gets a cell, the width
    and the ellipsis. The ``first`` column gets room before the others.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    floor: int | None = None
    whole: Sequence[bool] | None = None
    hide: int | None = None
    codes: Sequence[str] | None = None
    shorten: Callable[[str, int, str], str] = shorten
    first: bool = False


class _Sized(NamedTuple):
    column: GridColumn
    ascii: bool
    natural: int
    least: int


class Grid:
    """Columns that are laid out for one terminal. ``hidden`` are the titles of hidden columns."""

    def __init__(self, columns: Sequence[GridColumn], options: Options) -> None:
        self._options = options
        sized = [_size(column, header=options.header) for column in columns]
        self.hidden: tuple[str, ...] = ()
        if options.width is not None:
            sized = self._hide(sized, options.width)
        self._columns = sized

    def _hide(self, sized: list[_Sized], limit: int) -> list[_Sized]:
        """Return the columns that remain, at most as wide as the terminal where possible."""
        order = sorted(
            (one for one in sized if one.column.hide is not None),
            key=lambda one: one.column.hide or 0,
        )
        for one in order:
            if _total([each.least for each in sized]) <= limit:
                break
            sized = [each for each in sized if each is not one]
            self.hidden = (*self.hidden, one.column.title)
        return _share(sized, limit)

    def lines(self) -> Iterator[str]:
        """Yield the header and the rows."""
        ellipsis = self._options.ellipsis
        columns = self._columns
        if self._options.header:
            titles = [pad(one.column.title, one.natural, right=one.column.right) for one in columns]
            line = GAP.join(titles).rstrip()
            yield paint(line, BOLD) if self._options.color else line
        formats, cells = [], []
        for index, one in enumerate(columns):
            column = one.column
            is_last = index == len(columns) - 1
            texts = _fitted(one, ellipsis)
            if self._options.color and column.codes is not None and any(column.codes):
                texts = _painted(texts, column.codes, one.natural, right=column.right)
                formats.append("%s")
            elif not one.ascii:
                texts = [pad(text, one.natural, right=column.right) for text in texts]
                formats.append("%s")
            elif is_last and not column.right:
                formats.append("%s")
            else:
                formats.append(f"%{'' if column.right else '-'}{one.natural}s")
            cells.append(texts)
        template = GAP.join(formats)
        for row in zip(*cells, strict=True):
            yield (template % row).rstrip()


def _size(column: GridColumn, *, header: bool) -> _Sized:
    cells = column.cells
    is_ascii = "".join(cells).isascii()
    natural = max(map(len if is_ascii else width, cells), default=0)
    if header:
        natural = max(natural, len(column.title))
    return _Sized(
        column, is_ascii, natural, natural if column.floor is None else _least(column, natural)
    )


def _least(column: GridColumn, natural: int) -> int:
    """Return the width down to which a column can be shortened."""
    whole = column.whole
    kept = 0
    if whole is not None:
        kept = max(
            (width(cell) for cell, is_whole in zip(column.cells, whole, strict=True) if is_whole),
            default=0,
        )
    return min(natural, max(column.floor or 0, kept, len(column.title)))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _share(sized: list[_Sized], limit: int) -> list[_Sized]:
    """Return the columns with the room that is left given to those that can be shortened; those
    that lack least come first, so that one long name does not shorten all others."""

    def order(each: tuple[int, _Sized]) -> tuple[bool, int]:
        one = each[1]
        return not one.column.first, one.natural - one.least

    room = max(0, limit - _total([one.least for one in sized]))
    widths = {}
    for index, one in sorted(enumerate(sized), key=order):
        extra = min(room, one.natural - one.least)
        room -= extra
        widths[index] = one.least + extra
    return [one._replace(natural=widths[index]) for index, one in enumerate(sized)]


def _fitted(one: _Sized, ellipsis: str) -> Sequence[str]:
    """Return the cells of a column, shortened to its width where they may be."""
    column, columns = one.column, one.natural
    if column.floor is None:
        return column.cells
    return [
        cell if len(cell) <= columns and one.ascii else column.shorten(cell, columns, ellipsis)
        for cell in column.cells
    ]


def _painted(
    cells: Sequence[str], codes: Sequence[str], columns: int, *, right: bool
) -> Sequence[str]:
    return [
        paint(cell, code) + " " * (columns - width(cell)) if code and not right
        else " " * (columns - width(cell)) + paint(cell, code) if code
        else pad(cell, columns, right=right)
        for cell, code in zip(cells, codes, strict=True)
    ]  # fmt: skip
