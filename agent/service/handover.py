"""State that a run of the service leaves for the next one, so that the stream continues over a
restart: the last snapshot and the history.

systemd keeps it in its descriptor store as a memfd. The format is JSON of nested lists: reading it
creates only values of the model and runs no code. A value that occurs more than once, such as a
process with many sockets, is written once and referred to by its index.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import orjson

from .. import __version__, model
from ..model import (
    ATTRIBUTIONS,
    UDP_ATTRIBUTION,
    CgroupInfo,
    Closed,
    Coverage,
    Delta,
    Holding,
    HoldingKey,
    Opened,
    Owner,
    Process,
    ShortLived,
    Snapshot,
    Socket,
    SocketEnd,
    TcpFigures,
    Updated,
)
from ..stream import history
from ..stream.history import Batch

FD_NAME = "state"  # Of the descriptor in the store.
# More take too long to write while systemd waits: 2 µs each (bench.micro: saved_state).
MAX_HOLDINGS = 100_000
# 100,000 holdings and 10,000 changes take 100 MiB at most; a larger file is not a state.
MAX_BYTES = 1 << 30


class SavedState(NamedTuple):
    """The state of the stream. ``opened_at`` are the times of the opens that were observed."""

    epoch: str
    seq: int
    snapshot: Snapshot
    opened_at: dict[HoldingKey, float]
    batches: list[tuple[float, tuple[Delta, ...], int]]  # Time, deltas, number of the first delta.

    def history(self) -> list[Batch]:
        """Return the batches of the history."""
        return [Batch(time, deltas, first) for time, deltas, first in self.batches]


def save(state: SavedState, machine: tuple[str, str | None]) -> int:
    """Return the descriptor of a new memfd with the state. Raises OSError. ``machine`` is the host
    name and the boot id."""
    descriptor = os.memfd_create("sockagent", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(_header(machine))
        file.write(_encode(state))
    return descriptor


def load(descriptor: int, machine: tuple[str, str | None]) -> SavedState | None:
    """Read the state; None if another build, host or boot wrote it, or if it is malformed."""
    try:
        if os.fstat(descriptor).st_size > MAX_BYTES:
            return None
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            # The types of another build may differ: its state is not decoded.
            if file.read(len(header := _header(machine))) != header:
                return None
            return _decode(file.read())
    # ValueError: not JSON, or a wrong number of values; LookupError: an index out of range.
    except (OSError, ValueError, TypeError, LookupError, MemoryError, RecursionError):
        return None


def _header(machine: tuple[str, str | None]) -> bytes:
    """Return the first line of the file: the build with its types, and the machine."""
    types = hashlib.blake2b()
    for source in (model.__file__, history.__file__, __file__):
        if source is not None:
            with open(source, "rb") as file:
                types.update(file.read())
    header = f"sockagent {__version__} {types.hexdigest()} {machine!r}\n"
    return header.encode(errors="backslashreplace")


class _Table:
    """Values that are written once each, and their indexes."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, ...]] = []
        # By identity: equal values are mostly identical, and a hash of a value costs three times
        # as much (bench.micro: identity_index). The state keeps the values alive meanwhile.
        self._indexes: dict[int, int] = {}

    def index(self, value: tuple[object, ...] | None) -> int | None:
        """Return the index of a value, after adding a new one; None of None."""
        if value is None:
            return None
        index = self._indexes.get(id(value))
        if index is None:
            index = self._indexes[id(value)] = len(self.rows)
            self.rows.append(tuple(value))
        return index


def _encode(state: SavedState) -> bytes:
    processes, owners, cgroups, sockets = _Table(), _Table(), _Table(), _Table()
    holdings: list[tuple[object, ...]] = []
    indexes: dict[int, int] = {}

    def index_of(holding: Holding) -> int:
        index = indexes.get(id(holding))
        if index is None:
            index = indexes[id(holding)] = len(holdings)
            socket, process, fds, owner, peer_pid, cgroup, omitted_fds, attribution = holding
            holdings.append(
                (
                    sockets.index(socket), processes.index(process), fds, owners.index(owner),
                    peer_pid, cgroups.index(cgroup), omitted_fds, attribution,
                )
            )  # fmt: skip
        return index

    def row_of(delta: Delta) -> tuple[object, ...]:
        match delta:
            case Opened(holding, at):
                return ("open", index_of(holding), at)
            case Updated(holding, before, seconds, at):
                return ("update", index_of(holding), index_of(before), seconds, at)
            case Closed(holding, reason, seconds, at, figures):
                return ("close", index_of(holding), reason, seconds, at, _figures_row(figures))
            case Coverage():
                return ("coverage", tuple(delta))

    def short_lived_row(one: ShortLived) -> tuple[object, ...]:
        closed, figures = one.end
        return (index_of(one.holding), one.opened, closed, _figures_row(figures), one.reason)

    snapshot = state.snapshot
    values = [
        snapshot.time,
        [(*key, index_of(holding)) for key, holding in snapshot.holdings.items()],
        list(snapshot.processes.items()),
        tuple(snapshot.coverage),
        None if snapshot.changed is None else list(snapshot.changed),
        list(map(short_lived_row, snapshot.short_lived)),
        [(*key, time) for key, time in state.opened_at.items()],
    ]
    batches = [
        (time, [row_of(delta) for delta in deltas], first) for time, deltas, first in state.batches
    ]
    tables = [processes.rows, owners.rows, cgroups.rows, sockets.rows, holdings]
    return orjson.dumps([state.epoch, state.seq, tables, values, batches])


def _figures_row(figures: TcpFigures | None) -> tuple[object, ...] | None:
    return None if figures is None else tuple(figures)


# The JSON types of each field, in the order of the model's fields.

_TEXT, _NUMBER, _TIME = frozenset({str}), frozenset({int}), frozenset({float, int})
_LIST, _NONE = frozenset({list}), frozenset({type(None)})
_TEXT_OR_NONE, _NUMBER_OR_NONE = _TEXT | _NONE, _NUMBER | _NONE

_PROCESS = (
    _NUMBER, _NUMBER, _TEXT, _NUMBER, _TIME, _NUMBER_OR_NONE, *[_TEXT_OR_NONE] * 4, _LIST | _NONE
)  # fmt: skip
_OWNER = (_NUMBER, _TEXT_OR_NONE)
_CGROUP = (_TEXT_OR_NONE,) * 3
_SOCKET = (
    _NUMBER, *[_TEXT_OR_NONE] * 5, _NUMBER_OR_NONE, _TEXT_OR_NONE, _NUMBER_OR_NONE,
    *[_TEXT_OR_NONE] * 2, *[_NUMBER_OR_NONE] * 4, _TEXT, *[_NUMBER_OR_NONE] * 2, _TEXT_OR_NONE,
    *[_NUMBER_OR_NONE] * 2,
)  # fmt: skip
_HOLDING = (_NUMBER, _NUMBER_OR_NONE, _LIST, *[_NUMBER_OR_NONE] * 3, _NUMBER, _TEXT_OR_NONE)
_COVERAGE = (_NUMBER, _NUMBER, _NUMBER, _LIST, _TEXT_OR_NONE)
_FIGURES = (*[_NUMBER] * 5, _TIME | _NONE)
_SHORT_LIVED = (_NUMBER, _TIME | _NONE, _TIME | _NONE, _LIST | _NONE, _TEXT_OR_NONE)
_KEY = (_NUMBER_OR_NONE, _NUMBER)
_REASONS = frozenset({"closed", "exited", "attributed"})
# One text for all holdings.
_ATTRIBUTIONS = {None: None} | {name: name for name in (*ATTRIBUTIONS, UDP_ATTRIBUTION)}
# Of the year 9999: a later time cannot be written as a date.
_MAX_SECONDS = 253_402_300_799.0

# The functions below raise ValueError, TypeError or LookupError of malformed input.


def _decode(content: bytes) -> SavedState:
    epoch, seq, tables, values, batch_rows = orjson.loads(content)
    holdings = _holdings(*tables)
    if type(epoch) is not str or type(seq) is not int:
        raise TypeError
    time, held, processes, coverage, changed, short_lived, opened_at = values
    snapshot = Snapshot(
        _time(time),
        {(pid, inode): holdings[index] for pid, inode, index in _rows(held, (*_KEY, _NUMBER))},
        dict(_rows(processes, (_NUMBER, _NUMBER))),
        _coverage(coverage),
        None if changed is None else frozenset(map(_key, _rows(changed, _KEY))),
        tuple(_short_lived(row, holdings) for row in _rows(short_lived, _SHORT_LIVED)),
    )
    opened = {(pid, inode): seconds for pid, inode, seconds in _rows(opened_at, (*_KEY, _TIME))}
    if opened:
        _time(min(opened.values()))
        _time(max(opened.values()))
    following, batches = 0, list[tuple[float, tuple[Delta, ...], int]]()
    for batch_time, deltas, first in _rows(batch_rows, (_TIME, _LIST, _NUMBER)):
        if not deltas or (batches and first != following):
            raise ValueError
        following = first + len(deltas)  # The number of the next delta.
        batches.append((_time(batch_time), tuple(_delta(row, holdings) for row in deltas), first))
    if batches and following != seq + 1:
        raise ValueError
    return SavedState(epoch, seq, snapshot, opened, batches)


def _holdings(
    process_rows: object, owner_rows: object, cgroup_rows: object, socket_rows: object, rows: object
) -> list[Holding]:
    processes = [
        Process._make([*row, None if cmdline is None else _values(cmdline, _TEXT)])
        for *row, cmdline in _rows(process_rows, _PROCESS)
    ]
    for process in processes:
        _time(process.start_time)
    owners = list(map(Owner._make, _rows(owner_rows, _OWNER)))
    cgroups = list(map(CgroupInfo._make, _rows(cgroup_rows, _CGROUP)))
    sockets = list(map(Socket._make, _rows(socket_rows, _SOCKET)))
    holding_rows = _rows(rows, _HOLDING)
    _values(list(chain.from_iterable(row[2] for row in holding_rows)), _NUMBER)
    return [
        Holding(
            sockets[socket],
            None if process is None else processes[process],
            tuple(fds),
            None if owner is None else owners[owner],
            peer_pid,
            None if cgroup is None else cgroups[cgroup],
            omitted_fds,
            _ATTRIBUTIONS[attribution],
        )
        for socket, process, fds, owner, peer_pid, cgroup, omitted_fds, attribution in holding_rows
    ]


def _delta(row: list[Any], holdings: list[Holding]) -> Delta:
    match row:
        case ["open", int(index), at]:
            return Opened(holdings[index], _time_or_none(at))
        case ["update", int(index), int(before), seconds, at]:
            updated, was = holdings[index], holdings[before]
            return Updated(updated, was, _duration(seconds), _time_or_none(at))
        case ["close", int(index), str(reason), seconds, at, row] if reason in _REASONS:
            time, figures = _time_or_none(at), _figures(row)
            return Closed(holdings[index], reason, _duration(seconds), time, figures)
        case ["coverage", coverage]:
            return _coverage(coverage)
    raise ValueError


def _coverage(row: object) -> Coverage:
    ((processes, unreadable, netns, missing, events_off),) = _rows([row], _COVERAGE)
    return Coverage(processes, unreadable, netns, _values(missing, _TEXT), events_off)


def _short_lived(row: list[Any], holdings: list[Holding]) -> ShortLived:
    index, opened, closed, figures, reason = row
    if reason is not None and reason not in _REASONS:
        raise ValueError
    end = SocketEnd(_time_or_none(closed), _figures(figures))
    return ShortLived(holdings[index], _time_or_none(opened), end, reason)


def _figures(row: object) -> TcpFigures | None:
    return None if row is None else TcpFigures._make(*_rows([row], _FIGURES))


def _key(row: list[Any]) -> HoldingKey:
    pid, inode = row
    return pid, inode


def _time(value: float) -> float:
    if type(value) not in _TIME or not 0 <= value <= _MAX_SECONDS:
        raise ValueError
    return value


def _time_or_none(value: float | None) -> float | None:
    return None if value is None else _time(value)


def _duration(value: float | None) -> float | None:
    if value is not None and (type(value) not in _TIME or abs(value) > _MAX_SECONDS):
        raise ValueError
    return value


def _rows(rows: object, types: Sequence[frozenset[type]]) -> list[list[Any]]:
    """Return rows whose fields have these types. Whole columns are checked, as rows are many."""
    checked: list[Any] = list(_values(rows, _LIST))
    if set(map(len, checked)) - {len(types)}:
        raise TypeError
    for column, allowed in zip(zip(*checked, strict=True), types, strict=False):
        if not set(map(type, column)) <= allowed:
            raise TypeError
    return checked


def _values(values: object, allowed: frozenset[type]) -> tuple[Any, ...]:
    """Return a list of values of these types as a tuple."""
    if not isinstance(values, list) or not set(map(type, values)) <= allowed:
        raise TypeError
    return tuple(values)
