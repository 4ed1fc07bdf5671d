"""The table: one row for each socket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...model import Process
from .columns import COLUMNS, TABLE, WIDE, sort_rows
from .grid import Grid, GridColumn
from .options import Options
from .rows import Row

# The rows of which all columns are made before those of others: they remain in the processor's
# cache.
_CHUNK_ROWS = 256
_RANKS = {"listen": 0, "inbound": 1, "outbound": 2}


def table(rows: Sequence[Row], options: Options) -> Iterator[str]:
    """Yield the lines of a table of rows, from ``make_rows``.

    The names of columns must have been checked, see ``check_columns``. Columns that the user chose
    are never hidden. In a wide table nothing is hidden or shortened.
    """
    if options.wide:
        options = replace(options, width=None)
    ordered = in_order(rows) if options.sort is None else sort_rows(list(rows), options.sort)
    names = [name.lower() for name in options.columns] or list(WIDE if options.wide else TABLE)
    if not options.columns and options.now is None and "age" in names:
        names.remove("age")
    if not options.columns and len({row.host for row in rows}) > 1:
        names.insert(0, "host")
    may_hide = not options.columns
    grid = Grid(_columns(names, ordered, options, may_hide=may_hide), options)
    yield from grid.lines()
    if grid.hidden:
        yield f"hidden: {', '.join(grid.hidden)}; -o wide"


def _columns(
    names: Sequence[str], rows: Sequence[Row], options: Options, *, may_hide: bool
) -> list[GridColumn]:
    columns = [COLUMNS[name] for name in names]
    cells: list[list[str]] = [[] for _ in columns]
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        for texts, column in zip(cells, columns, strict=True):
            texts.extend(column.cells(chunk, options))
    is_narrow = options.width is not None
    return [
        GridColumn(
            column.title,
            texts,
            right=column.right,
            floor=column.floor if is_narrow else None,
            whole=[column.whole(row) for row in rows] if is_narrow and column.whole else None,
            hide=column.hide if may_hide else None,
            codes=column.codes(rows) if options.color and column.codes else None,
        )
        for texts, column in zip(cells, columns, strict=True)
    ]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Return rows by host and process; of each process those that listen, inbound, outbound."""
    by_process: dict[tuple[str, str, int], list[Row]] = {}
    last: Process | None = None
    members: list[Row] | None = None
    host = ""
    for row in rows:
        process = row.process
        if members is None or process is not last or row.host != host:
            host, last = row.host, process
            key = (host, "", 0) if process is None else (host, process.comm, process.pid)
            members = by_process.setdefault(key, [])
        members.append(row)
    ordered: list[Row] = []
    for key in sorted(by_process, key=lambda key: (key[0], not key[2], key[1], key[2])):
        ordered += sorted(by_process[key], key=_order)
    return ordered


def _order(row: Row) -> tuple[int, str, int, int, int]:
    socket = row.socket
    return (
        _RANKS.get(socket.direction or "", 3),
        socket.proto or "",
        socket.local_port or 0,
        socket.remote_port or 0,
        socket.inode,
    )
